"""A convolution and a projection that are one product, against both by ONNX Runtime and NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from harness import TARGETS, run_kernel, view_of
from test_conv import Window, data, rng

from clinfer_kernels import conv
from clinfer_kernels.contraction.tiles import LocalTile
from clinfer_kernels.conv_gpu import GpuTile
from clinfer_kernels.dims import evaluate, sym
from clinfer_kernels.expr import Builder, identity
from clinfer_kernels.families import emit_best
from clinfer_kernels.spec import Tensor, dense
from clinfer_kernels.specs import ProjectedConvSpec
from clinfer_kernels.terms import Term

Array = np.ndarray[Any, Any]
GPU = TARGETS["gpu"]
EMULATED = " emulated"


@dataclass(frozen=True)
class Case:
    """A window and the channels of what is projected, whose pixels are read at a step."""

    window: Window
    channels: int
    step: int = 1


CASES = {
    "1x1": Case(Window(64, 40, (7, 6), (1, 1), n=2), 32, 2),
    "3x3": Case(Window(16, 21, (9, 7), (3, 3), pads=(1, 1, 1, 1), strides=(2, 1)), 48),
    "no vectors": Case(Window(5, 10, (9, 7), (3, 3), pads=(1, 1, 1, 1)), 7, 3),
    "steps of both": Case(Window(20, 33, (5, 7), (1, 1)), 12),
    "more than one tap": Case(Window(12, 8, (6, 6), (3, 1), pads=(1, 0, 1, 0), n=3), 4, 2),
    "1d": Case(Window(4, 10, (12,), (3,), pads=(1, 1)), 8, 2),
    "3d": Case(Window(4, 6, (3, 4, 5), (1, 2, 3), pads=(0, 1, 0, 0, 0, 2)), 4),
}


def flat(w: Array, v: Array) -> Array:
    """The weights as the spec has them."""
    last = np.moveaxis(w, 1, -1).reshape(len(w), -1)
    joined = np.concatenate([last, v], axis=1)
    return np.ascontiguousarray(joined.reshape(*joined.shape, *[1] * (w.ndim - 2)))


def spec_of(window: Window, x: Tensor, side: Tensor, out: Tensor, epilogue=None, operands=()):
    depth = int(np.prod(window.kernel)) * window.c + side.shape[-1]
    weights = dense(window.dtype, (window.m, depth, *[1] * len(window.size)))
    return ProjectedConvSpec(
        kernel=window.kernel,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        groups=1,
        constant_w=True,
        epilogue=epilogue or identity(window.dtype),
        ins=(x, weights, *operands, side),
        outs=(out,),
    )


def check(case: Case, target=GPU, cut=None, tolerance=3e-5, infinite=False) -> None:
    window = case.window.full
    x, w = data(window)
    sizes = window.out_size(window.size)
    whole = rng.standard_normal((window.n, *(n * case.step for n in sizes), case.channels))
    whole = whole.astype(x.dtype)
    if infinite:
        whole.reshape(-1)[0] = np.inf
    side = whole[(slice(None), *[slice(None, None, case.step)] * len(sizes))]
    v = (rng.standard_normal((window.m, case.channels)) / case.channels**0.5).astype(x.dtype)
    shape = (window.n, *sizes, window.m)
    expected = window.reference(x, w) + side.astype(np.float32) @ v.T.astype(np.float32)
    views = (dense(window.dtype, x.shape), view_of(side, whole), dense(window.dtype, shape))
    spec = spec_of(window, *views)
    tiles = conv.candidates(spec, target) if cut is None else (GpuTile(cut),)
    for tile in tiles:
        kernel = conv.emit(spec, tile, target)
        made = run_kernel(kernel, [x, flat(w, v), whole], [(shape, window.dtype)])[0]
        made = made.astype(np.float32)
        np.testing.assert_allclose(made, expected, tolerance, tolerance, err_msg=str(tile))


@pytest.mark.parametrize("name", CASES)
def test_every_cut_is_the_sum_of_both(name):
    check(CASES[name])


@pytest.mark.parametrize("name", ["1x1", "3x3", "no vectors"])
def test_parts_of_k_are_of_both(name):
    check(CASES[name], cut=LocalTile(4, 4, 4, 4, is_split=True))


@pytest.mark.parametrize("name", ["1x1", "3x3", "no vectors"])
@pytest.mark.parametrize("is_split", [False, True])
def test_a_last_step_behind_the_loop(name, is_split):
    """As where a compiler keeps long loops: one step, and a task for each work-group."""
    check(CASES[name], GPU._replace(dialect="intel"), LocalTile(4, 4, 4, 4, is_split=is_split))


@pytest.mark.parametrize("name", ["1x1", "3x3", "no vectors"])
def test_matrix_units_of_three_terms(name):
    """An infinite number of the side makes the results infinite or NaN that see it."""
    target = GPU._replace(precision="3xtf32", matrix_units=("mma_3xtf32" + EMULATED,))
    cut = LocalTile(8, 8, 4, 8, 32, unit="mma_3xtf32" + EMULATED)
    check(CASES[name], target, cut)
    check(CASES[name], target, cut, infinite=True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_matrix_units_of_16_bits(dtype):
    target = GPU._replace(precision="f16", matrix_units=("mma_f16" + EMULATED,))
    window = Window(64, 40, (7, 6), (1, 1), n=2, dtype=dtype)
    cut = LocalTile(8, 8, 4, 8, 32, unit="mma_f16" + EMULATED)
    check(Case(window, 32, 2), target, cut, tolerance=2e-2)


def test_free_sizes_and_an_epilogue():
    window = Window(8, 12, (6, 5), (1, 1), n=3).full
    n, h, w = sym("n"), sym("h"), sym("w")
    builder = Builder(["float32", "float32"])
    epilogue = builder.build(Term(builder, builder.op("add", 0, 1)).at_least(0.0).number)
    shape = (n, h, w, 12)
    bias = Tensor("float32", shape, (0, 0, 0, 1))
    side = Tensor("float32", (n, h, w, 20), (4 * h * w * 20, 4 * w * 20, 40, 1))
    x = dense("float32", (n, h, w, 8))
    spec = spec_of(window, x, side, dense("float32", shape), epilogue, (bias,))
    kernel = emit_best(spec, GPU)
    values = {"n": 3, "h": 6, "w": 5}
    pixels = rng.standard_normal((3, 6, 5, 8)).astype(np.float32)
    whole = rng.standard_normal((3, 12, 10, 20)).astype(np.float32)
    weights = rng.standard_normal((12, 28)).astype(np.float32)
    given = rng.standard_normal(12).astype(np.float32)
    joined = np.concatenate([pixels, whole[:, ::2, ::2]], axis=-1)
    expected = np.maximum(joined @ weights.T + given, 0)
    ins = [pixels, weights.reshape(12, 28, 1, 1), given, whole]
    assert evaluate(spec.outs[0].size, values) == expected.size
    made = run_kernel(kernel, ins, [(expected.shape, "float32")], values)[0]
    np.testing.assert_allclose(made, expected, 2e-5, 2e-5)


def test_a_cpu_has_none():
    window = Window(8, 12, (6, 5), (1, 1)).full
    tensors = (dense("float32", (1, 6, 5, channels)) for channels in (8, 4, 12))
    assert conv.candidates(spec_of(window, *tensors), TARGETS["cpu"]) == ()
