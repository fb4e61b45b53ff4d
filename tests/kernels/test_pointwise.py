"""Pointwise kernels on views: merged, transposed, sliced and broadcast, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from harness import TARGETS, Array, numpy_dtype, run_kernel, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer_kernels.dims import sym
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.nest import Axis, merge
from clinfer_kernels.pointwise import candidates, emit
from clinfer_kernels.spec import Target, Tensor, dense, row_major
from clinfer_kernels.specs import PointwiseSpec


def arange(shape: tuple[int, ...], dtype: str = "float32") -> Array:
    count = int(np.prod(shape))
    return (np.arange(count) % 251 % 127).astype(numpy_dtype(dtype)).reshape(shape)


def copy_of(view: Array, base: Array, cls: str, tile: int = 0) -> Array:
    """The view, copied by a kernel into a dense array."""
    source = view_of(view, base)
    spec = PointwiseSpec(identity(source.dtype), (source,), (dense(source.dtype, view.shape),))
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[tile], target)
    (value,) = run_kernel(kernel, [base], [(view.shape, source.dtype)])
    return value


def add3() -> Expr:
    builder = Builder(["float32"] * 3)
    return builder.build(builder.op("add", builder.op("mul", 0, 1), 2))


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool", "float16"])
def test_copies_every_element_type(cls: str, dtype: str) -> None:
    base = arange((3, 45), dtype)
    np.testing.assert_array_equal(copy_of(base, base, cls), base)


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool", "bfloat16"])
@pytest.mark.parametrize("shape", [(33, 70), (8, 8), (5, 9), (130, 3)])
@pytest.mark.parametrize("cls", TARGETS)
def test_square_transposes(cls: str, dtype: str, shape: tuple[int, int]) -> None:
    base = arange(shape, dtype)
    np.testing.assert_array_equal(copy_of(base.T, base, cls), base.T)


def test_transposes_within_the_limits_of_a_device() -> None:
    """Local memory and work-group size decide, before a launch."""
    base = arange((50, 70))
    view = dense("float32", (70, 50))
    spec = PointwiseSpec(identity("float32"), (view_of(base.T, base),), (view,))
    for target, schedules in (
        (Target(cls="gpu"), ["blocks", "grid"]),
        (Target(cls="gpu", max_work_group=64), ["blocks", "grid"]),
        (Target(cls="gpu", local_mem=1024), ["grid"]),
    ):
        tiles = candidates(spec, target)
        assert [tile.schedule for tile in tiles] == schedules
        kernel = emit(spec, tiles[0], target)
        assert kernel.launches[0].local_size[0] <= target.max_work_group
        (value,) = run_kernel(kernel, [base], [(view.shape, "float32")])
        np.testing.assert_array_equal(value, base.T)


@pytest.mark.parametrize("cls", TARGETS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_views(cls: str, data: st.DataObject) -> None:
    """A permuted, sliced view of up to four dimensions, by every schedule."""
    shape = tuple(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)))
    base = arange(shape)
    slices = []
    for size in shape:
        start = data.draw(st.integers(0, size - 1))
        slices.append(slice(start, None, data.draw(st.sampled_from([1, 1, 2]))))
    view = base[tuple(slices)]
    view = view.transpose(data.draw(st.permutations(range(len(shape)))))
    if data.draw(st.booleans()):
        view = view[..., ::-1]
    source = view_of(view, base)
    spec = PointwiseSpec(identity("float32"), (source,), (dense("float32", view.shape),))
    for tile in range(len(candidates(spec, TARGETS[cls]))):
        np.testing.assert_array_equal(copy_of(view, base, cls, tile), view)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize(
    "shapes",
    [
        ((4, 5, 35), (35,), (4, 1, 1)),
        ((4, 5, 35), (5, 1), (1, 1, 1)),
        ((2, 1, 19), (3, 1), (2, 3, 19)),
        ((), (), ()),
        ((17,), (1,), ()),
    ],
)
def test_broadcasting(cls: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    rng = np.random.default_rng(0)
    bases = [rng.random(s, np.float32) for s in shapes]
    out_shape = np.broadcast_shapes(*shapes)
    ins = tuple(view_of(np.broadcast_to(b, out_shape), b) for b in bases)
    spec = PointwiseSpec(add3(), ins, (dense("float32", out_shape),))
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[0], target)
    (value,) = run_kernel(kernel, bases, [(out_shape, "float32")])
    np.testing.assert_allclose(value, bases[0] * bases[1] + bases[2], rtol=1e-6)


@pytest.mark.parametrize("cls", TARGETS)
def test_mixed_operands_of_a_transpose(cls: str) -> None:
    """A transposed operand with a plain and a broadcast one, and two outputs of other dtypes."""
    rng = np.random.default_rng(0)
    a, b, c = rng.random((19, 41), np.float32), rng.random((41, 19), np.float32), rng.random(19)
    c = c.astype(np.float32)
    builder = Builder(["float32"] * 3)
    total = builder.op("add", builder.op("add", 0, 1), 2)
    expr = builder.build(total, builder.op("gt", total, 0, dtype="bool"))
    shape = (19, 41)
    ins = (view_of(a, a), view_of(b.T, b), view_of(np.broadcast_to(c[:, None], shape), c))
    spec = PointwiseSpec(expr, ins, (dense("float32", shape), dense("bool", shape)))
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[0], target)
    value, above = run_kernel(kernel, [a, b, c], [(shape, "float32"), (shape, "bool")])
    wanted = a + b.T + c[:, None]
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_array_equal(above, wanted > a)


@pytest.mark.parametrize("cls", TARGETS)
def test_writes_into_a_piece_of_a_buffer(cls: str) -> None:
    """A piece of a concatenation: what lies around it stays."""
    piece = arange((4, 7))
    whole = np.full((4, 20), -1.0, np.float32)
    out = Tensor("float32", (4, 7), (20, 1), 5)
    spec = PointwiseSpec(identity("float32"), (dense("float32", (4, 7)),), (out,))
    kernel = emit(spec, candidates(spec, TARGETS[cls])[0], TARGETS[cls])
    (value,) = run_kernel(kernel, [piece], [whole])
    whole[:, 5:12] = piece
    np.testing.assert_array_equal(value, whole)


@pytest.mark.parametrize("cls", TARGETS)
def test_one_text_serves_all_sizes(cls: str) -> None:
    rows, cols = sym("rows"), sym("cols")
    shape = (rows, cols)
    bias = Tensor("float32", shape, (0, 1))
    builder = Builder(["float32"] * 2)
    expr = builder.build(builder.op("add", 0, 1))
    spec = PointwiseSpec(expr, (dense("float32", shape), bias), (dense("float32", shape),))
    kernel = emit(spec, candidates(spec, TARGETS[cls])[0], TARGETS[cls])
    for sizes in ((3, 50), (40, 1), (0, 5), (1, 3000)):
        values = dict(zip(("rows", "cols"), sizes, strict=True))
        x, y = arange(sizes), arange(sizes[1:])
        (value,) = run_kernel(kernel, [x, y], [(sizes, "float32")], values)
        np.testing.assert_array_equal(value, x + y)


def test_symbolic_dimensions_merge_when_equal() -> None:
    n = sym("n")
    shape = (n, 4, n + 1)
    (axis,) = merge([Axis(s, (t,)) for s, t in zip(shape, row_major(shape), strict=True)])
    assert axis == Axis(n * 4 * (n + 1), (1,))
    assert len(merge([Axis(n, (7,)), Axis(5, (1,))])) == 2


def test_texts_do_not_depend_on_sizes() -> None:
    texts = set()
    for shape in ((4, 9), (100, 37)):
        ins = (dense("float32", shape), Tensor("float32", shape, (0, 1)), dense("float32", shape))
        spec = PointwiseSpec(add3(), ins, (dense("float32", shape),))
        texts.add(
            emit(spec, candidates(spec, TARGETS["cpu"])[0], TARGETS["cpu"]).launches[0].source
        )
    assert len(texts) == 1
