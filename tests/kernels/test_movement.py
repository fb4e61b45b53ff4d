"""Padding, cropping and ranges against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Array, dtype_name, numpy_dtype, run_kernel, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer_kernels import iota, pad
from clinfer_kernels.dims import sym
from clinfer_kernels.spec import Tensor, dense
from clinfer_kernels.specs import IotaSpec, PadSpec

Pads = list[tuple[int, int]]


def padded(view: Array, base: Array, mode: str, pads: Pads, cls: str, value: Any = None) -> Array:
    """A view with (before, behind) elements put around it, per axis."""
    dtype = dtype_name(base)
    shape = tuple(n + a + b for n, (a, b) in zip(view.shape, pads, strict=True))
    buffers = [base]
    ins = [view_of(view, base)]
    if value is not None:
        buffers.append(np.array(value, base.dtype))
        ins.append(dense(dtype, ()))
    spec = PadSpec(mode, tuple(a for a, _ in pads), tuple(ins), (dense(dtype, shape),))
    target = TARGETS[cls]
    kernel = pad.emit(spec, pad.candidates(spec, target)[0], target)
    (result,) = run_kernel(kernel, buffers, [(shape, dtype)])
    return result


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(data=st.data())
def test_modes(cls: str, mode: str, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(2, 9), min_size=1, max_size=4)))
    pads = [
        (data.draw(st.integers(0, n - 1)), data.draw(st.sampled_from([0, 0, n - 1]))) for n in shape
    ]
    base = np.random.default_rng(0).random(shape, np.float32)
    view = base.transpose(data.draw(st.permutations(range(len(shape)))))
    pads = pads if view.shape == shape else [(1, 1)] * len(shape)
    np.testing.assert_array_equal(
        padded(view, base, mode, pads, cls),
        np.pad(view, pads, mode=mode),  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_constants_of_every_size(cls: str, dtype: str) -> None:
    base = np.ones((3, 20), numpy_dtype(dtype))
    wanted = np.pad(base, [(1, 0), (2, 3)], constant_values=1)
    np.testing.assert_array_equal(padded(base, base, "constant", [(1, 0), (2, 3)], cls, 1), wanted)
    zeros = np.pad(base, [(1, 0), (2, 3)])
    np.testing.assert_array_equal(padded(base, base, "constant", [(1, 0), (2, 3)], cls), zeros)


@pytest.mark.parametrize("cls", TARGETS)
def test_negative_pads_crop(cls: str) -> None:
    base = np.random.default_rng(0).random((5, 30), np.float32)
    wanted = np.pad(base[1:, :-3], [(0, 2), (4, 0)])
    pads = [(-1, 2), (4, -3)]
    np.testing.assert_array_equal(padded(base, base, "constant", pads, cls), wanted)
    np.testing.assert_array_equal(
        padded(base, base, "constant", [(-2, -1), (-5, -5)], cls), base[2:-1, 5:-5]
    )


@pytest.mark.parametrize("cls", TARGETS)
def test_channels_last_padding_joins_axes(cls: str) -> None:
    """[N, H, W, C] padded along H and W: W and C are one axis for constants."""
    base = np.random.default_rng(0).random((2, 5, 6, 3), np.float32)
    pads = [(0, 0), (1, 1), (2, 1), (0, 0)]
    for mode in ("constant", "edge"):
        wanted = np.pad(base, pads, mode=mode)  # type: ignore[call-overload]
        np.testing.assert_array_equal(padded(base, base, mode, pads, cls), wanted)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "float16"])
def test_ranges(cls: str, dtype: str) -> None:
    length = sym("length")
    scalars = (dense(dtype, ()), dense(dtype, ()))
    target = TARGETS[cls]
    spec = IotaSpec(0, scalars, (dense(dtype, (length,)),))
    kernel = iota.emit(spec, iota.candidates(spec, target)[0], target)
    start, step = (np.array(v, numpy_dtype(dtype)) for v in (3, -2))
    for size in (5, 0, 700):
        (value,) = run_kernel(kernel, [start, step], [((size,), dtype)], {"length": size})
        np.testing.assert_array_equal(value, (3 - 2 * np.arange(size)).astype(numpy_dtype(dtype)))


def test_a_range_along_an_inner_axis() -> None:
    out = Tensor("int32", (2, 4, 3), (12, 3, 1))
    spec = IotaSpec(1, (dense("int32", ()), dense("int32", ())), (out,))
    target = TARGETS["cpu"]
    kernel = iota.emit(spec, iota.candidates(spec, target)[0], target)
    ins = [np.array(1, np.int32), np.array(5, np.int32)]
    (value,) = run_kernel(kernel, ins, [((2, 4, 3), "int32")])
    wanted = np.broadcast_to((1 + 5 * np.arange(4))[:, None], (2, 4, 3))
    np.testing.assert_array_equal(value, wanted)
