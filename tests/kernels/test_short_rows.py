"""Reductions, softmax, norms and pointwise kernels on rows of 2 to 16 elements against NumPy."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from harness import LANES, TARGETS, Array, numpy_dtype, run_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from row_references import ALONG_ROWS, norm, softmax

from clinfer_kernels.dims import Dim, sym
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.families import candidates, emit_best
from clinfer_kernels.spec import Kernel, Tensor, dense
from clinfer_kernels.specs import NormSpec, PointwiseSpec, ReduceSpec, SoftmaxSpec

rng = np.random.default_rng(5)
F32 = identity("float32")
ROWS = sym("rows")
# Of a prime, a square, more factors; as many as lanes; none, one, a part, whole vectors and a part.
LENGTHS = (2, 7, 16)
COUNTS = (0, 1, LANES - 1, LANES, 3 * LANES + 5)


def chain(*ops: str) -> Expr:
    """((a op b) op c) ... in float32."""
    builder = Builder(["float32"] * (len(ops) + 1))
    value = 0
    for number, op in enumerate(ops):
        value = builder.op(op, value, number + 1)
    return builder.build(value)


@functools.lru_cache
def kernel_of(kind: str, length: int, cls: str = "cpu") -> Kernel:
    """The kernel for any number of rows."""
    x, y = dense("float32", (ROWS, length)), dense("float32", (ROWS, 1))
    if kind in ("softmax", "log"):
        spec: object = SoftmaxSpec(kind == "log", 1, F32, F32, (x,), (x,))
    elif kind in ("norm", "rms"):
        spec = NormSpec(kind == "rms", 1, 1e-5, F32, F32, (x,), (x,))
    elif kind == "argmax":
        found = dense("int64", (ROWS, 1))
        spec = ReduceSpec("argmax", (1,), F32, identity("int64"), (x,), (found,))
    else:
        spec = ReduceSpec(kind, (1,), F32, F32, (x,), (y,))  # type: ignore[arg-type]
    return emit_best(spec, TARGETS[cls])


REFERENCES = {
    **ALONG_ROWS,
    "max": lambda x: x.max(-1, keepdims=True),
    "mean": lambda x: x.astype(np.float64).mean(-1, keepdims=True),
    "argmax": lambda x: x.argmax(-1)[:, None],
    "log_sum_exp": lambda x: np.log(np.exp(x.astype(np.float64)).sum(-1, keepdims=True)),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_every_kind(kind: str) -> None:
    length = 6
    x = rng.normal(0, 2, (3 * LANES + 5, length)).astype(np.float32)
    x[::7] = x[0, 0]  # ties
    out = "int64" if kind == "argmax" else "float32"
    wanted = REFERENCES[kind](x)
    (value,) = run_kernel(kernel_of(kind, length), [x], [(wanted.shape, out)], {"rows": len(x)})
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_any_number_of_rows(length: int) -> None:
    for rows in COUNTS:
        x = rng.normal(0, 2, (rows, length)).astype(np.float32)
        sizes = {"rows": rows}
        (value,) = run_kernel(kernel_of("softmax", length), [x], [(x.shape, "float32")], sizes)
        np.testing.assert_allclose(value, softmax(x), rtol=3e-6)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_views(data: st.DataObject) -> None:
    """Slices of longer rows, with an offset, of rows apart; results into such; one text for all."""
    length, rows = 3, data.draw(st.integers(LANES, 3 * LANES))
    apart = data.draw(st.integers(0, 3))
    begin, pitch, step = apart, length * 2 + apart, data.draw(st.integers(1, 2))
    shape: tuple[Dim, ...] = (ROWS, length)
    view = Tensor("float32", shape, (sym("pitch"), sym("step")), sym("begin"))
    x = rng.normal(0, 2, rows * pitch + 8).astype(np.float32)
    sizes = {"rows": rows, "pitch": pitch, "step": step, "begin": begin}
    spec = SoftmaxSpec(False, 1, F32, F32, (view,), (view,))
    before = np.full_like(x, 7)
    (value,) = run_kernel(emit_best(spec, TARGETS["cpu"]), [x], [before], sizes)
    places = begin + np.arange(rows)[:, None] * pitch + np.arange(length) * step
    np.testing.assert_allclose(value[places], softmax(x[places]), rtol=3e-6)
    value[places] = 7
    np.testing.assert_array_equal(value, before)


@pytest.mark.parametrize("cls", TARGETS)
def test_outer_dimensions_and_operands(cls: str) -> None:
    """softmax(x * scale + mask) * weight: one scale, a mask a row, a weight a place; rows in two
    dimensions that no view joins."""
    shape = (3, LANES + 3, 4)
    x = rng.normal(0, 1, (3, LANES + 9, 4)).astype(np.float32)
    scale = np.array([0.3], np.float32)
    mask = rng.normal(0, 1, shape[:2]).astype(np.float32)
    weight = rng.random(4, np.float32)
    ins = (
        Tensor("float32", shape, ((LANES + 9) * 4, 4, 1), 8),
        Tensor("float32", shape, (0, 0, 0)),
        Tensor("float32", shape, (LANES + 3, 1, 0)),
        Tensor("float32", shape, (0, 0, 1)),
    )
    spec = SoftmaxSpec(False, 1, chain("mul", "add"), chain("mul"), ins, (dense("float32", shape),))
    buffers = [x, scale, mask, weight]
    (value,) = run_kernel(emit_best(spec, TARGETS[cls]), buffers, [(shape, "float32")])
    inner = x[:, 2 : LANES + 5] * scale + mask[..., None]
    np.testing.assert_allclose(value, softmax(inner) * weight, rtol=5e-6)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_pointwise_on_views(data: st.DataObject) -> None:
    """x * a + b into dense rows, columns or slices, from such, and from what repeats; any order."""
    length = data.draw(st.sampled_from((2, 3, 5, 12)))
    rows = data.draw(st.sampled_from((LANES, LANES + 1, 2 * LANES + 7)))
    kinds = {
        "dense": (length, 1, 0),
        "turned": (1, rows, 0),
        "slice": (2 * length, 1, length),
        "row": (0, 1, 1),
        "column": (1, 0, 2),
        "one": (0, 0, 3),
    }
    shape = (rows, length)
    names = [data.draw(st.sampled_from(sorted(kinds))) for _ in range(3)]
    made = data.draw(st.sampled_from(("dense", "turned", "slice")))
    buffers = [rng.normal(0, 1, 2 * rows * length).astype(np.float32) for _ in names]

    def view(name: str) -> Tensor:
        outer, inner, offset = kinds[name]
        return Tensor("float32", shape, (outer, inner), offset)

    def places(name: str) -> Array:
        outer, inner, offset = kinds[name]
        return offset + np.arange(rows)[:, None] * outer + np.arange(length) * inner

    spec = PointwiseSpec(chain("mul", "add"), tuple(map(view, names)), (view(made),))
    before = np.full(2 * rows * length, 7, np.float32)
    (value,) = run_kernel(emit_best(spec, TARGETS["cpu"]), buffers, [before])
    x, a, b = (
        buffer[places(name)].astype(np.float64) for buffer, name in zip(buffers, names, strict=True)
    )
    np.testing.assert_allclose(value[places(made)], x * a + b, rtol=1e-5, atol=1e-6)
    value[places(made)] = 7
    np.testing.assert_array_equal(value, before)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int64", "bool"])
@pytest.mark.parametrize("into", ["last", "first"])
def test_channels_move(dtype: str, into: str) -> None:
    """Pictures of three channels: channels last, and back; bits are moved as they are."""
    x = rng.integers(0, 2 if dtype == "bool" else 100, (2, 3, 5, 2 * LANES - 3)).astype(dtype)
    source = x if into == "last" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    view = source.transpose(0, 2, 3, 1) if into == "last" else source.transpose(0, 3, 1, 2)
    strides = tuple(s // view.itemsize for s in view.strides)
    tensor = Tensor(dtype, view.shape, strides)
    spec = PointwiseSpec(identity(dtype), (tensor,), (dense(dtype, view.shape),))
    (value,) = run_kernel(emit_best(spec, TARGETS["cpu"]), [source], [(view.shape, dtype)])
    np.testing.assert_array_equal(value, view)


def test_pointwise_in_place_and_of_any_number_of_rows() -> None:
    """`run_kernel` writes the result over the operand too where the kernel allows it."""
    view, repeated = dense("float32", (ROWS, 3)), Tensor("float32", (ROWS, 3), (0, 1))
    spec = PointwiseSpec(chain("add"), (view, repeated), (view,))
    kernel = emit_best(spec, TARGETS["cpu"])
    assert kernel.in_place == ((0, 0),)
    bias = rng.normal(0, 1, 3).astype(np.float32)
    for rows in COUNTS:
        x = rng.normal(0, 1, (rows, 3)).astype(np.float32)
        (value,) = run_kernel(kernel, [x, bias], [(x.shape, "float32")], {"rows": rows})
        np.testing.assert_array_equal(value, x + bias)


def test_residual_sum() -> None:
    shape = (2 * LANES + 1, 5)
    a, b = rng.normal(0, 1, (2, *shape)).astype(np.float32)
    view = dense("float32", shape)
    spec = NormSpec(False, 1, 1e-5, chain("add"), F32, (view, view), (view,))
    kernel = emit_best(spec, TARGETS["cpu"])
    (value,) = run_kernel(kernel, [a.copy(), b.copy()], [(shape, "float32")])
    np.testing.assert_allclose(value, norm(a + b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_float_types(dtype: str) -> None:
    x = rng.normal(0, 2, (LANES + 3, 4)).astype(numpy_dtype(dtype))
    view, same = dense(dtype, x.shape), identity(dtype)
    spec = SoftmaxSpec(False, 1, same, same, (view,), (view,))
    (value,) = run_kernel(emit_best(spec, TARGETS["cpu"]), [x], [(x.shape, dtype)])
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(value.astype(np.float64), softmax(x), rtol=tolerance)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "bool"])
def test_integer_types(dtype: str) -> None:
    x = rng.integers(0, 2 if dtype == "bool" else 100, (2 * LANES + 3, 3)).astype(dtype)
    view, out, same = dense(dtype, x.shape), dense(dtype, (len(x), 1)), identity(dtype)
    spec = ReduceSpec("max", (1,), same, same, (view,), (out,))
    (value,) = run_kernel(emit_best(spec, TARGETS["cpu"]), [x], [((len(x), 1), dtype)])
    np.testing.assert_array_equal(value, x.max(1, keepdims=True))


def test_infinities_and_nan() -> None:
    x = np.zeros((LANES + 2, 6), np.float32)
    x[0, :5] = -np.inf
    x[1] = -np.inf
    x[2, 1] = np.nan
    x[LANES, 1:] = -np.inf
    x[LANES + 1, 0] = np.inf
    sizes = {"rows": len(x)}
    (value,) = run_kernel(kernel_of("softmax", 6), [x], [(x.shape, "float32")], sizes)
    np.testing.assert_array_equal(value[0], np.eye(6)[5])
    np.testing.assert_array_equal(value[LANES], np.eye(6)[0])
    assert np.isnan(value[[1, 2]]).all()
    assert np.isnan(value[LANES + 1, 0])
    (top,) = run_kernel(kernel_of("max", 6), [x], [((len(x), 1), "float32")], sizes)
    np.testing.assert_array_equal(top, x.max(1, keepdims=True))


def test_a_row_gives_the_same_bits_wherever_it_is() -> None:
    x = rng.normal(0, 2, (3 * LANES + 5, 6)).astype(np.float32)
    (whole,) = run_kernel(kernel_of("softmax", 6), [x], [(x.shape, "float32")], {"rows": len(x)})
    for row in (0, len(x) - 1):
        one = x[row : row + 1]
        (value,) = run_kernel(kernel_of("softmax", 6), [one], [(one.shape, "float32")], {"rows": 1})
        np.testing.assert_array_equal(value[0], whole[row])


def test_other_rows_are_cut_otherwise() -> None:
    """Longer rows, lengths that are not known, few rows: the schedules along rows, unchanged."""
    for shape in ((64, 17), (LANES - 1, 4), (ROWS, sym("length"))):
        x = dense("float32", shape)
        spec = SoftmaxSpec(False, 1, F32, F32, (x,), (x,))
        assert len(candidates(spec, TARGETS["cpu"])) == 1
    filled = dense("float32", (64, LANES))
    bias = Tensor("float32", (64, LANES), (0, 1))
    added = PointwiseSpec(chain("add"), (filled, bias), (filled,))
    assert len(candidates(added, TARGETS["cpu"])) == 1
