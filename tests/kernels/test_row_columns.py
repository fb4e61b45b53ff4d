"""Softmax and norms along rows that lie side by side in memory, against NumPy."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from harness import LANES, TARGETS, numpy_dtype, run_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from row_references import ALONG_ROWS, norm

from clinfer_kernels.dims import sym
from clinfer_kernels.expr import Builder, identity
from clinfer_kernels.families import candidates, emit_best
from clinfer_kernels.row_columns import ColumnTile
from clinfer_kernels.spec import Kernel, Tensor, dense
from clinfer_kernels.specs import NormSpec, SoftmaxSpec

rng = np.random.default_rng(6)
F32 = identity("float32")
TARGET = TARGETS["cpu"]
LENGTH, COLUMNS = sym("length"), sym("columns")


def spec_of(kind: str, view: Tensor, out: Tensor) -> SoftmaxSpec | NormSpec:
    same = identity(view.dtype)
    if kind in ("softmax", "log"):
        return SoftmaxSpec(kind == "log", 1, same, same, (view,), (out,))
    return NormSpec(kind == "rms", 1, 1e-5, same, same, (view,), (out,))


@functools.lru_cache
def kernel_of(kind: str) -> Kernel:
    """Of any number of columns and any length."""
    view = Tensor("float32", (COLUMNS, LENGTH), (1, COLUMNS))
    spec = spec_of(kind, view, view)
    assert isinstance(candidates(spec, TARGET)[0], ColumnTile)
    return emit_best(spec, TARGET)


@pytest.mark.parametrize("kind", ALONG_ROWS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    length=st.sampled_from((1, 2, 33, 400)),
    columns=st.sampled_from((0, 1, LANES, 4 * LANES, 4 * LANES + 1, 9 * LANES - 1)),
)
def test_any_size(kind: str, length: int, columns: int) -> None:
    x = rng.normal(3, 2, (length, columns)).astype(np.float32)
    sizes = {"length": length, "columns": columns}
    (value,) = run_kernel(kernel_of(kind), [x], [(x.shape, "float32")], sizes)
    wanted = ALONG_ROWS[kind](x.T)
    np.testing.assert_allclose(value.T, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["softmax", "norm"])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_result_in_rows_of_other_dimensions(kind: str, dtype: str) -> None:
    """Pictures normalised over both dimensions, channels last in, channels first out."""
    x = rng.normal(0, 1, (2, 5, 7, 3 * LANES + 3)).astype(numpy_dtype(dtype))
    view = np.moveaxis(x, -1, 1)
    tensor = Tensor(dtype, view.shape, tuple(s // x.itemsize for s in view.strides))
    out, same = dense(dtype, view.shape), identity(dtype)
    spec: SoftmaxSpec | NormSpec = SoftmaxSpec(False, 2, same, same, (tensor,), (out,))
    if kind == "norm":
        spec = NormSpec(False, 2, 1e-5, same, same, (tensor,), (out,))
    assert isinstance(candidates(spec, TARGET)[0], ColumnTile)
    (value,) = run_kernel(emit_best(spec, TARGET), [x], [(view.shape, dtype)])
    flat = view.reshape(2, 3 * LANES + 3, 35)
    wanted = ALONG_ROWS[kind](flat).reshape(view.shape)
    tolerance = {"float16": 2e-3, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(value.astype(np.float64), wanted, rtol=tolerance, atol=tolerance)


def test_prologue_and_epilogue() -> None:
    """norm(a + b) * scale: the scale is one a row."""
    builder = Builder(("float32", "float32"))
    add = builder.build(builder.op("add", 0, 1))
    builder = Builder(("float32", "float32"))
    mul = builder.build(builder.op("mul", 0, 1))
    length, columns = 50, 3 * LANES + 3
    a, b = (rng.normal(5, 1, (length, columns)).astype(np.float32) for _ in range(2))
    scale = rng.random(columns, np.float32)
    shape = (columns, length)
    view = Tensor("float32", shape, (1, columns))
    ins = (view, view, Tensor("float32", shape, (1, 0)))
    spec = NormSpec(False, 1, 1e-5, add, mul, ins, (view,))
    assert isinstance(candidates(spec, TARGET)[0], ColumnTile)
    outs = [((length, columns), "float32")]
    (value,) = run_kernel(emit_best(spec, TARGET), [a, b, scale], outs)
    np.testing.assert_allclose(value.T, norm((a + b).T) * scale[:, None], rtol=1e-4, atol=2e-5)


def test_long_rows_with_a_large_mean_keep_their_digits() -> None:
    x = rng.normal(100, 1, (100_000, LANES)).astype(np.float32)
    sizes = {"length": len(x), "columns": LANES}
    (value,) = run_kernel(kernel_of("norm"), [x], [(x.shape, "float32")], sizes)
    np.testing.assert_allclose(value.T, norm(x.T), rtol=0, atol=2e-4)


def test_infinities_and_nan() -> None:
    x = np.zeros((20, LANES), np.float32)
    x[:19, 0] = -np.inf
    x[:, 1] = -np.inf
    x[4, 2] = np.nan
    sizes = {"length": 20, "columns": LANES}
    (value,) = run_kernel(kernel_of("softmax"), [x], [(x.shape, "float32")], sizes)
    np.testing.assert_array_equal(value[:, 0], np.eye(20)[19])
    assert np.isnan(value[:, 1:3]).all()


@pytest.mark.parametrize("columns, length", [(128, 1024), (LANES + 8, 50)])
def test_other_rows_are_cut_otherwise(columns: int, length: int) -> None:
    """Results that share a place in the cache; few columns that no vectors fit."""
    view = Tensor("float32", (columns, length), (1, columns))
    spec = spec_of("norm", view, dense("float32", view.shape))
    assert not isinstance(candidates(spec, TARGET)[0], ColumnTile)
