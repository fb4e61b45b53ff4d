"""The matmul family against NumPy: every schedule, odd sizes, views, batches, epilogues, dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from harness import TARGETS, dtype_name, numpy_dtype, run_kernel, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer_kernels import matmul
from clinfer_kernels.dims import evaluate, floordiv, sym
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.matmul_cpu import CpuTile, partition
from clinfer_kernels.packing import Panels
from clinfer_kernels.spec import Target, Tensor, dense
from clinfer_kernels.specs import MatmulSpec

Array = np.ndarray[Any, Any]
CPU = TARGETS["cpu"]
BOTH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
rng = np.random.default_rng(7)


@dataclass(frozen=True)
class Case:
    """A spec with the buffers behind it."""

    spec: MatmulSpec
    buffers: tuple[Array, ...]
    shape: tuple[int, ...]

    def run(self, tile: matmul.Tile, target: Target) -> Array:
        kernel = matmul.emit(self.spec, tile, target)
        out = (self.shape, self.spec.outs[0].dtype)
        return run_kernel(kernel, self.buffers, [out])[0]


def case(
    a: tuple[Array, Array],
    b: tuple[Array, Array],
    epilogue: Expr | None = None,
    operands: Sequence[tuple[Array, Array]] = (),
    constant_b: bool = False,
    dtype: str = "",
) -> Case:
    """Inputs come as (view, the buffer behind it); the output is dense."""
    shape = (*np.broadcast_shapes(a[0].shape[:-2], b[0].shape[:-2]), a[0].shape[-2], b[0].shape[-1])
    views = [np.broadcast_to(x, (*shape[:-2], *x.shape[-2:])) for x, _ in (a, b)]
    views += [np.broadcast_to(x, shape) for x, _ in operands]
    bases = [base for _, base in (a, b, *operands)]
    ins = tuple(view_of(v, base) for v, base in zip(views, bases, strict=True))
    expr = epilogue or identity(dtype or dtype_name(a[0]))
    outs = (dense(expr.output_dtypes[0], shape),)
    buffers = list(bases)
    if constant_b:
        buffers[1] = b[0]  # what a Pack gets
    return Case(MatmulSpec(constant_b, expr, ins, outs), tuple(buffers), shape)


def random(*shape: int, dtype: str = "float32") -> tuple[Array, Array]:
    """A dense array, twice: as a view and as its buffer."""
    kind = np.dtype(dtype).kind if dtype != "bfloat16" else "f"
    if kind == "f":
        made = rng.standard_normal(shape).astype(numpy_dtype(dtype))
    else:
        made = rng.integers(0 if kind == "u" else -20, 20, shape).astype(dtype)
    return made, made


def transposed(*shape: int) -> tuple[Array, Array]:
    """A view whose last two dimensions are stored the other way round."""
    base = rng.standard_normal((*shape[:-2], shape[-1], shape[-2])).astype(np.float32)
    return base.swapaxes(-1, -2), base


def product(a: tuple[Array, Array], b: tuple[Array, Array]) -> Array:
    """A @ B in float64."""
    return np.matmul(a[0].astype(np.float64), b[0].astype(np.float64))


def assert_close(got: Array, expected: Array, tolerance: float = 2e-6) -> None:
    """The error is measured against the largest expected value."""
    assert got.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    worst = float(np.abs(got.astype(np.float64) - expected).max(initial=0.0))
    assert worst <= tolerance * scale * 8, f"error {worst} of {scale}"


def schedules(made: Case, target: Target) -> list[matmul.Tile]:
    """One candidate of each schedule: they differ in more than how work is cut."""
    found: dict[object, matmul.Tile] = {}
    for tile in matmul.candidates(made.spec, target):
        kind = (tile.rows > 1, tile.b) if isinstance(tile, CpuTile) else type(tile)
        found.setdefault(kind, tile)
    return list(found.values())


@BOTH
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "dynamic"])
def test_odd_sizes_through_every_candidate(target: Target, constant: bool) -> None:
    a = random(19, 35)
    b = random(35, 45)
    made = case(a, b, constant_b=constant)
    for tile in matmul.candidates(made.spec, target):
        assert_close(made.run(tile, target), product(a, b))


@pytest.mark.parametrize("b", ["packed", "scratch", "strided"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (6, 16, 8), (7, 17, 3), (100, 130, 64)])
def test_sizes_around_the_register_tile(b: str, m: int, n: int, k: int) -> None:
    left = random(m, k)
    right = random(k, n)
    made = case(left, right, constant_b=b == "packed")
    for groups, panels in ((8, 4), (1, 1)):
        tile = CpuTile(b=b, row_groups=groups, panels=panels)
        assert_close(made.run(tile, CPU), product(left, right))


@BOTH
def test_batches_broadcast_and_merge(target: Target) -> None:
    """B of one batch dimension, A of the other, and both over a third."""
    a = random(3, 1, 2, 7, 12)
    b = random(3, 4, 1, 12, 9)
    made = case(a, b)
    for tile in schedules(made, target):
        assert_close(made.run(tile, target), product(a, b))


def test_batch_of_a_becomes_rows_where_b_is_shared() -> None:
    made = case(random(4, 5, 3), random(3, 2), constant_b=True)
    problem = matmul.simplify(made.spec)
    assert (problem.batch, problem.m) == ((), 20)
    gap = np.zeros((4, 6, 3), np.float32)
    gapped = case((gap[:, :5], gap), random(3, 2), constant_b=True)
    assert matmul.simplify(gapped.spec).batch == (4,)


@BOTH
def test_transposed_and_sliced_views(target: Target) -> None:
    a = transposed(2, 10, 33)
    wide = rng.standard_normal((2, 40, 60)).astype(np.float32)
    for b in ((wide[:, 3:36, 5:47:2], wide), transposed(2, 33, 21)):
        made = case(a, b)
        for tile in schedules(made, target):
            assert_close(made.run(tile, target), product(a, b))


@BOTH
def test_output_of_any_strides(target: Target) -> None:
    """The result goes into a transposed view: [batch, m, n] stored as [n, batch, m]."""
    a = random(2, 9, 10)
    b = random(2, 10, 18)
    made = case(a, b)
    out = Tensor("float32", (2, 9, 18), (9, 1, 18))
    spec = MatmulSpec(False, made.spec.epilogue, made.spec.ins, (out,))
    for tile in schedules(made, target):
        kernel = matmul.emit(spec, tile, target)
        (got,) = run_kernel(kernel, made.buffers, [((18, 2, 9), "float32")])
        assert_close(got.transpose(1, 2, 0), product(a, b))


@BOTH
def test_epilogue_operands_of_every_stride(target: Target) -> None:
    """max(x * column + row, 0) + residual + transposed * scalar."""
    make = Builder(["float32"] * 6)
    scaled = make.op("add", make.op("mul", 0, 1), 2)
    positive = make.op("max", scaled, make.const(0.0, "float32"))
    summed = make.op("add", positive, 3)
    expr = make.build(make.op("add", summed, make.op("mul", 4, 5)))
    a = random(3, 11, 20)
    b = random(20, 37)
    operands = [
        random(3, 11, 1),
        random(37),
        random(3, 11, 37),
        transposed(3, 11, 37),
        random(1),
    ]
    column, row, residual, other, scalar = (view.astype(np.float64) for view, _ in operands)
    expected = np.maximum(product(a, b) * column + row, 0) + residual + other * scalar
    made = case(a, b, expr, operands, constant_b=True)
    for tile in schedules(made, target):
        assert_close(made.run(tile, target), expected)


@BOTH
def test_epilogue_to_another_dtype(target: Target) -> None:
    """sum > threshold, as bool; and where(mask, sum, 0) as float16."""
    a = random(8, 9)
    b = random(9, 20)
    compare = Builder(["float32", "float32"])
    above = compare.build(compare.op("gt", 0, 1, dtype="bool"))
    made = case(a, b, above, [random(20)])
    threshold = made.buffers[2]
    mask = rng.integers(0, 2, (8, 20)).astype(bool)
    choose = Builder(["float32", "bool"])
    zero = choose.const(0.0, "float32")
    kept = choose.op("cast", choose.op("where", 1, 0, zero, dtype="float32"), dtype="float16")
    masked = case(a, b, choose.build(kept), [(mask, mask)])
    for tile in schedules(made, target)[:1]:
        np.testing.assert_array_equal(made.run(tile, target), (a[0] @ b[0]) > threshold)
        got = masked.run(tile, target)
        assert got.dtype == np.float16
        assert_close(got, np.where(mask, product(a, b), 0), 1e-4)


@BOTH
def test_symbolic_sizes_share_one_text(target: Target) -> None:
    batch, rows = sym("batch"), sym("rows")
    a_view = dense("float32", (batch, rows, 16))
    b_view = Tensor("float32", (batch, 16, 24), (0, 24, 1))
    out = dense("float32", (batch, rows, 24))
    spec = MatmulSpec(True, identity("float32"), (a_view, b_view), (out,))
    b = random(16, 24)
    for tile in matmul.candidates(spec, target)[:2]:
        kernel = matmul.emit(spec, tile, target)
        for sizes in ({"batch": 2, "rows": 7}, {"batch": 1, "rows": 1}, {"batch": 0, "rows": 3}):
            shape = (sizes["batch"], sizes["rows"])
            a = random(*shape, 16)
            (got,) = run_kernel(kernel, [a[0], b[0]], [((*shape, 24), "float32")], sizes)
            assert_close(got, product(a, b))


@BOTH
@pytest.mark.parametrize("shape", [(0, 5, 4), (3, 0, 4), (3, 5, 0)], ids=["m", "n", "k"])
def test_empty_dimensions(target: Target, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a = random(m, k)
    b = random(k, n)
    made = case(a, b)
    for tile in schedules(made, target)[:1]:
        np.testing.assert_array_equal(made.run(tile, target), np.zeros((m, n), np.float32))


@BOTH
@pytest.mark.parametrize("dtype", ["float64", "int32", "uint32", "int64", "float16", "bfloat16"])
def test_other_dtypes(target: Target, dtype: str) -> None:
    a = random(10, 21, dtype=dtype)
    b = random(21, 18, dtype=dtype)
    made = case(a, b, constant_b=dtype == "float16")
    tile = matmul.candidates(made.spec, target)[0]
    got = made.run(tile, target)
    assert got.dtype == numpy_dtype(dtype)
    assert_close(got, product(a, b), {"float16": 1e-4, "bfloat16": 1e-3}.get(dtype, 2e-7))


@BOTH
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "dynamic"])
def test_narrow_integers_are_summed_in_the_epilogues_dtype(target: Target, constant: bool) -> None:
    a = random(10, 40, dtype="uint8")
    b = random(40, 18, dtype="int8")
    made = case(a, b, constant_b=constant, dtype="int32")
    tile = matmul.candidates(made.spec, target)[0]
    expected = a[0].astype(np.int32) @ b[0].astype(np.int32)
    np.testing.assert_array_equal(made.run(tile, target), expected)


def test_panels_hold_every_column_once_then_zeros() -> None:
    array = rng.standard_normal((5, 21)).astype(np.float16)
    packed = Panels("float32", 8).pack(array)
    assert packed.shape == (3, 5, 8)
    assert packed.dtype == np.float32
    unpacked = packed.swapaxes(0, 1).reshape(5, 24)
    np.testing.assert_array_equal(unpacked[:, :21], array)
    np.testing.assert_array_equal(unpacked[:, 21:], 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 40), st.integers(1, 64))
def test_tasks_cover_the_result_once(m: int, n: int, batch: int, units: int) -> None:
    """Tasks tile the result without an empty one, and the arithmetic holds for symbols too."""
    sizes = {"b": batch, "m": m, "n": n}
    rows, cols, outer = sym("m"), sym("n"), sym("b")
    shapes = ((outer, rows, 4), (outer, 4, cols), (outer, rows, cols))
    a, b, out = (dense("float32", shape) for shape in shapes)
    problem = matmul.simplify(MatmulSpec(False, identity("float32"), (a, b), (out,)))
    cut = partition(problem, CpuTile(), Target(compute_units=units))
    row_block, col_block, row_tasks, col_tasks, tasks = (
        evaluate(dim, sizes)
        for dim in (cut.row_block, cut.col_block, cut.row_tasks, cut.col_tasks, cut.tasks)
    )
    assert (row_tasks - 1) * row_block < m <= row_tasks * row_block
    assert (col_tasks - 1) * col_block < n <= col_tasks * col_block
    assert tasks == row_tasks * col_tasks * batch


def test_gpu_tiles_keep_the_devices_limits() -> None:
    small = Target(cls="gpu", max_work_group=64, local_mem=4096)
    made = case(random(70, 9), random(9, 80))
    tiles = matmul.candidates(made.spec, small)
    assert all(t.work_group <= 64 for t in tiles if not isinstance(t, CpuTile))
    assert all(t.local_bytes(4) <= 4096 for t in tiles if not isinstance(t, CpuTile))
    assert_close(made.run(tiles[0], small), product((made.buffers[0],) * 2, (made.buffers[1],) * 2))


@BOTH
def test_texts_do_not_depend_on_sizes(target: Target) -> None:
    """One program serves every size of a structure; on GPUs whole vectors are one."""
    tile = matmul.candidates(case(random(300, 64), random(64, 300)).spec, target)[0]
    texts = set()
    for m, n, k in ((100, 200, 304), (333, 76, 1008)):
        spec = case(random(m, k), random(k, n)).spec
        kernel = matmul.emit(spec, tile, target)
        texts.add("".join(launch.source for launch in kernel.launches))
    assert len(texts) == 1


def test_a_number_of_rows_may_divide_by_what_one_pixel_makes_zero() -> None:
    """As many as there are pixels to a window of 4, of which an image of one pixel has none."""
    rows = floordiv(sym("pixels"), floordiv(sym("pixels"), 4))
    ins = (dense("float32", (rows, 19)), dense("float32", (19, 40)))
    out = dense("float32", (rows, 40))
    spec = MatmulSpec(True, identity("float32"), ins, (out,))
    kernel = matmul.emit(spec, matmul.candidates(spec, CPU)[0], CPU)
    a, b = random(5, 19), random(19, 40)
    (got,) = run_kernel(kernel, [a[0], b[0]], [((5, 40), "float32")], {"pixels": 11})
    assert_close(got, product(a, b), 2e-6)


@pytest.mark.parametrize("cols", [3, 24, 40, 100, 129])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_runs_of_few_rows_have_a_launch_of_their_own(cols: int, dtype: str) -> None:
    rows = sym("rows")
    bias = Tensor("float32", (rows, cols), (0, 1))
    ins = (dense(dtype, (rows, 19)), dense(dtype, (19, cols)), bias)
    chain = Builder(["float32", "float32"])
    out = dense("float32", (rows, cols))
    spec = MatmulSpec(True, chain.build(chain.op("add", 0, 1)), ins, (out,))
    b, c = random(19, cols, dtype=dtype), random(cols)
    kernel = matmul.emit(spec, matmul.candidates(spec, CPU)[0], CPU)
    for count in (0, 1, 2, 3, 4, 5, 11):
        taken = [launch for launch in kernel.launches if evaluate(launch.when, {"rows": count})]
        assert sum(launch.entry.startswith("matmul") for launch in taken) == 1
        a = random(count, 19, dtype=dtype)
        shape = ((count, cols), "float32")
        (got,) = run_kernel(kernel, [a[0], b[0], c[0]], [shape], {"rows": count})
        assert_close(got, product(a, b) + c[0], 1e-3 if dtype == "float16" else 2e-6)
