"""Rows by work-groups against NumPy in float64: vectors where they are aligned, rows of a few
elements, rows that stay in registers, rows beside each other."""

from __future__ import annotations

import numpy as np
import pytest
from harness import TARGETS, Array, numpy_dtype, run_kernel, view_of
from hypothesis import given, settings
from hypothesis import strategies as st
from row_references import norm, softmax

from clinfer_kernels import pointwise
from clinfer_kernels.dims import sym
from clinfer_kernels.expr import Builder, identity
from clinfer_kernels.families import candidates, family_of
from clinfer_kernels.row_group import GroupTile, group_tile
from clinfer_kernels.rows import row_problem
from clinfer_kernels.spec import Tensor, dense
from clinfer_kernels.specs import NormSpec, PointwiseSpec, ReduceSpec, SoftmaxSpec

GPU = TARGETS["gpu"]
F32 = identity("float32")
rng = np.random.default_rng(17)
REFERENCES = {
    "softmax": softmax,
    "norm": norm,
    "sum": lambda x: x.astype(np.float64).sum(-1, keepdims=True),
    "argmax": lambda x: x.argmax(-1)[..., None],
}


def spec_of(kind: str, view: Tensor, dtype: str = "float32") -> SoftmaxSpec | NormSpec | ReduceSpec:
    same, out = identity(dtype), dense(dtype, view.shape)
    if kind == "softmax":
        return SoftmaxSpec(False, 1, same, same, (view,), (out,))
    if kind == "norm":
        return NormSpec(False, 1, 1e-5, same, same, (view,), (out,))
    made = "int64" if kind == "argmax" else dtype
    short = dense(made, (*view.shape[:-1], 1))
    return ReduceSpec(kind, (view.rank - 1,), same, identity(made), (view,), (short,))  # type: ignore[arg-type]


def check(kind: str, x: Array, base: Array, dtype: str = "float32") -> None:
    """Every candidate, with `x` a view of `base`."""
    spec = spec_of(kind, view_of(x, base), dtype)
    out = spec.outs[0]
    tolerance = {"float32": 2e-5, "float16": 4e-3, "float64": 1e-11}[dtype]
    for tile in candidates(spec, GPU):
        kernel = family_of(spec).emit(spec, tile, GPU)
        (got,) = run_kernel(kernel, [base], [(out.shape, out.dtype)])
        wanted = REFERENCES[kind](x)
        scale = max(1.0, float(np.abs(wanted).max(initial=0)))
        np.testing.assert_allclose(got.astype(np.float64) / scale, wanted / scale, atol=tolerance)


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("length", [2, 3, 8, 16, 36, 768])
def test_lengths(kind: str, length: int) -> None:
    x = rng.normal(0, 2, (3, 23, length)).astype(np.float32)
    check(kind, x, x)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_rows(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float32", "float16", "float64"]))
    shape = (data.draw(st.integers(1, 40)), data.draw(st.integers(1, 700)))
    first = data.draw(st.sampled_from([0, 1, 4]))
    base = rng.normal(0, 1, (shape[0], shape[1] + 8)).astype(numpy_dtype(dtype))
    x = base[:, first : first + shape[1]]
    if data.draw(st.booleans()):
        base = rng.normal(0, 1, shape[::-1]).astype(numpy_dtype(dtype))
        x = base.T
    check(data.draw(st.sampled_from(sorted(REFERENCES))), x, base, dtype)


def tile_of(view: Tensor) -> GroupTile:
    return group_tile(row_problem((view,), (), (dense(view.dtype, view.shape),), (1,)), GPU)


def test_vectors_where_every_row_begins_at_a_multiple_of_them() -> None:
    rows = sym("rows")
    assert tile_of(dense("float32", (rows, 768))).width == 4
    assert tile_of(dense("float16", (rows, 768))).width == 4
    assert tile_of(dense("float64", (rows, 768))).width == 2
    assert tile_of(dense("float32", (rows, 4 * sym("n")))).width == 4
    assert tile_of(dense("float32", (rows, sym("n")))).width == 1
    assert tile_of(dense("float32", (rows, 770))).width == 2
    assert tile_of(Tensor("float32", (rows, 768), (768, 1), 1)).width == 1
    assert tile_of(Tensor("float32", (rows, 768), (769, 1))).width == 1
    assert tile_of(Tensor("float32", (rows, 768), (1, rows))).width == 1


def test_rows_of_a_few_elements_have_a_work_item_each() -> None:
    for length in range(2, 17):
        tile = tile_of(dense("float32", (100, length)))
        assert (tile.deep, tile.across) == (1, 64)
        assert tile.held * tile.width == length


def test_pointwise_vectors_where_all_operands_have_them() -> None:
    builder = Builder(("float32", "float32"))
    add = builder.build(builder.op("add", 0, 1))
    shape = (5, 12, 8)
    x, bias = (
        rng.standard_normal(shape).astype(np.float32),
        rng.standard_normal(8).astype(np.float32),
    )
    view, row = dense("float32", shape), Tensor("float32", shape, (0, 0, 1))
    spec = PointwiseSpec(add, (view, row), (view,))
    first, plain = pointwise.candidates(spec, GPU)
    assert (first.schedule, plain.schedule) == ("vectors", "grid")
    for tile in (first, plain):
        (got,) = run_kernel(pointwise.emit(spec, tile, GPU), [x, bias], [(shape, "float32")])
        np.testing.assert_array_equal(got, x + bias)
    shifted = PointwiseSpec(add, (view, row._replace(offset=1)), (view,))
    assert [tile.schedule for tile in pointwise.candidates(shifted, GPU)] == ["grid"]
