"""Reductions against NumPy: every operation, axes, memory order, parts and element type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Array, dtype_name, run_kernel, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer_kernels.dims import sym
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.reduce import candidates, emit
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import ReduceSpec


def log_sum_exp(x: Array, **how: Any) -> Array:
    top = np.where(np.isinf(x.max(**how)), 0, x.max(**how))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(x - top).sum(**how)) + top)


REFERENCES: dict[str, Any] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "sum_square": lambda x, **how: (x * x).sum(**how),
    "l1": lambda x, **how: np.abs(x).sum(**how),
    "l2": lambda x, **how: np.sqrt((x.astype(np.float64) ** 2).sum(**how)),
    "log_sum": lambda x, **how: np.log(x.sum(**how)),
    "log_sum_exp": log_sum_exp,
}


def reduced(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if d in axes else n for d, n in enumerate(shape))


def compute(
    op: str,
    view: Array,
    base: Array,
    axes: tuple[int, ...],
    cls: str,
    tile: int = 0,
    select_last: bool = False,
) -> Array:
    """A reduction of a view of `base`, with dims of size 1 where it reduced."""
    source = view_of(view, base)
    dtype = "int64" if op.startswith("arg") else source.dtype
    shape = reduced(view.shape, axes)
    before, after = identity(source.dtype), identity(dtype)
    out = dense(dtype, shape)
    spec = ReduceSpec(op, axes, before, after, (source,), (out,), select_last)
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[tile], target)
    (value,) = run_kernel(kernel, [base], [(shape, dtype)])
    return value


def floats(*shape: int) -> Array:
    return np.random.default_rng(3).uniform(0.2, 1.5, shape).astype(np.float32)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("op", REFERENCES)
def test_every_operation(cls: str, op: str) -> None:
    x = floats(5, 43)
    for axes in ((1,), (0,)):
        wanted = REFERENCES[op](x, axis=axes, keepdims=True)
        np.testing.assert_allclose(compute(op, x, x, axes, cls), wanted, rtol=2e-6)


@pytest.mark.parametrize("cls", TARGETS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_axes_of_views(cls: str, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    rank = len(shape)
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, rank - 1), min_size=1))))
    base = floats(*shape)
    view = base.transpose(data.draw(st.permutations(range(rank))))
    value = compute("sum", view, base, axes, cls)
    np.testing.assert_allclose(value, view.sum(axis=axes, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize("last", [False, True])
def test_positions(cls: str, op: str, last: bool) -> None:
    """With ties, and rows of one value (-inf for argmax)."""
    x = np.random.default_rng(0).integers(0, 5, (6, 53)).astype(np.float32)
    x[0] = -np.inf if op == "argmax" else np.inf
    find = np.argmax if op == "argmax" else np.argmin
    for axis in (0, 1):
        flipped = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis, keepdims=True)
        wanted = flipped if last else find(x, axis=axis, keepdims=True)
        value = compute(op, x, x, (axis,), cls, select_last=last)
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("op", ["sum", "mean", "argmax", "log_sum_exp"])
@pytest.mark.parametrize("axis", [0, 1])
def test_long_rows_in_parts(cls: str, op: str, axis: int) -> None:
    x = floats(2, 40001) if axis else floats(40001, 9)
    if op == "argmax":
        wanted = x.argmax(axis=axis, keepdims=True)
    else:
        wanted = REFERENCES[op](x.astype(np.float64), axis=axis, keepdims=True)
    np.testing.assert_allclose(compute(op, x, x, (axis,), cls), wanted, rtol=3e-6)


@pytest.mark.parametrize("op", ["sum", "max", "l2"])
def test_columns_of_a_large_matrix(op: str) -> None:
    """Wide blocks, parts, and a width that no block fits."""
    x = floats(1900, 561)
    wanted = REFERENCES[op](x, axis=0, keepdims=True)
    got = compute(op, x, x, (0,), "cpu")
    np.testing.assert_allclose(got, wanted, rtol=2e-5)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float16", "bool", "float64"])
def test_element_types(dtype: str) -> None:
    x = np.random.default_rng(1).integers(0, 7, (4, 37)).astype(dtype)
    for op in ("max", "min") if dtype in ("bool", "uint8") else ("max", "min", "sum"):
        value = compute(op, x, x, (1,), "cpu")
        assert dtype_name(value) == dtype
        np.testing.assert_array_equal(value, REFERENCES[op](x, axis=1, keepdims=True))


@pytest.mark.parametrize("cls", TARGETS)
def test_bools(cls: str) -> None:
    x = np.random.default_rng(1).random((9, 21)) > 0.9
    x[3] = True
    np.testing.assert_array_equal(compute("any", x, x, (1,), cls), x.any(1, keepdims=True))
    np.testing.assert_array_equal(compute("all", x, x, (1,), cls), x.all(1, keepdims=True))


@pytest.mark.parametrize("cls", TARGETS)
def test_prologue_and_epilogue(cls: str) -> None:
    """mean((a - b)^2) * scale > 0.1, with a broadcast operand on each side."""
    a, b, scale = floats(3, 5, 30), floats(30) / 2, floats(5)
    before = Builder(["float32"] * 2)
    difference = before.op("sub", 0, 1)
    prologue = before.build(before.op("mul", difference, difference))
    after = Builder(["float32"] * 2)
    above = after.op("gt", after.op("mul", 0, 1), after.const(0.1, "float32"), dtype="bool")
    epilogue: Expr = after.build(above)
    kept = np.broadcast_to(scale[:, None], (3, 5, 1))
    ins = (view_of(a, a), view_of(np.broadcast_to(b, a.shape), b), view_of(kept, scale))
    outs = (dense("bool", (3, 5, 1)),)
    spec = ReduceSpec("mean", (2,), prologue, epilogue, ins, outs)
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[0], target)
    (value,) = run_kernel(kernel, [a, b, scale], [((3, 5, 1), "bool")])
    wanted = ((a - b) ** 2).mean(axis=2, keepdims=True) * scale[:, None] > 0.1
    np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("cls", TARGETS)
def test_nothing_to_reduce(cls: str) -> None:
    """Rows without elements give the identity; no rows give nothing."""
    n = sym("n")
    spec = ReduceSpec(
        "max",
        (1,),
        identity("float32"),
        identity("float32"),
        (dense("float32", (3, n)),),
        (dense("float32", (3, 1)),),
    )
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[0], target)
    for size in (0, 1, 100):
        x = floats(3, size)
        (value,) = run_kernel(kernel, [x], [((3, 1), "float32")], {"n": size})
        wanted = x.max(axis=1, keepdims=True, initial=-np.inf)
        np.testing.assert_array_equal(value, wanted)
    empty = np.zeros((0, 4), np.float32)
    assert compute("sum", empty, empty, (1,), cls).shape == (0, 1)


@pytest.mark.parametrize("cls", TARGETS)
def test_not_a_number_and_infinities(cls: str) -> None:
    x = floats(4, 40)
    x[0, 3] = np.nan
    x[1, 39] = np.nan
    x[2] = -np.inf
    x[3, 5] = np.inf
    for op in ("max", "min", "sum", "log_sum_exp"):
        with np.errstate(all="ignore"):
            wanted = REFERENCES[op](x, axis=1, keepdims=True)
        np.testing.assert_allclose(compute(op, x, x, (1,), cls), wanted, rtol=1e-5)
