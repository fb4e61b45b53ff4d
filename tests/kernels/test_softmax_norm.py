"""Softmax and normalisation against float64 NumPy: views, prologues, epilogues, element types."""

from __future__ import annotations

import re

import numpy as np
import pytest
from harness import TARGETS, Array, dtype_name, numpy_dtype, run_kernel, view_of

from clinfer_kernels import hints
from clinfer_kernels.dims import sym
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.families import candidates, emit_best, family_of
from clinfer_kernels.spec import Tensor, dense
from clinfer_kernels.specs import NormSpec, PointwiseSpec, SoftmaxSpec

rng = np.random.default_rng(2)
F32 = identity("float32")


def softmax(x: Array, count: int, log: bool = False) -> Array:
    wide = x.astype(np.float64)
    axes = tuple(range(x.ndim - count, x.ndim))
    shifted = wide - wide.max(axis=axes, keepdims=True)
    total = np.exp(shifted).sum(axis=axes, keepdims=True)
    return np.asarray(shifted - np.log(total) if log else np.exp(shifted) / total)


def norm(x: Array, count: int, eps: float, rms: bool = False) -> Array:
    wide = x.astype(np.float64)
    axes = tuple(range(x.ndim - count, x.ndim))
    centred = wide if rms else wide - wide.mean(axis=axes, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps))


def chain(*ops: str) -> Expr:
    """((a op b) op c) ..."""
    builder = Builder(["float32"] * (len(ops) + 1))
    value = 0
    for number, op in enumerate(ops):
        value = builder.op(op, value, number + 1)
    return builder.build(value)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "shape, count", [((3, 5, 50), 1), ((2, 7, 9), 2), ((6, 1), 1), ((4, 300), 1)]
)
def test_softmax(cls: str, log: bool, shape: tuple[int, ...], count: int) -> None:
    x = rng.normal(0, 5, shape).astype(np.float32)
    out = dense("float32", shape)
    spec = SoftmaxSpec(log, count, F32, F32, (view_of(x, x),), (out,))
    (value,) = run_kernel(emit_best(spec, TARGETS[cls]), [x], [(shape, "float32")])
    np.testing.assert_allclose(value, softmax(x, count, log), rtol=3e-6, atol=2e-6 if log else 0)


@pytest.mark.parametrize("cls", TARGETS)
def test_softmax_with_scale_mask_and_epilogue(cls: str) -> None:
    """softmax(x * scale + mask) * weight, the scale a scalar, the mask broadcast over heads."""
    shape = (2, 3, 4, 21)
    x = rng.normal(0, 1, shape).astype(np.float32)
    scale = np.array(0.3, np.float32)
    mask = np.where(rng.random((2, 1, 1, 21)) > 0.3, 0, -np.inf).astype(np.float32)
    mask[..., 0] = 0
    weight = rng.random(shape[-1:], np.float32)
    buffers = [x, scale, mask, weight]
    ins = tuple(view_of(np.broadcast_to(b, shape), b) for b in buffers)
    out = dense("float32", shape)
    spec = SoftmaxSpec(False, 1, chain("mul", "add"), chain("mul"), ins, (out,))
    (value,) = run_kernel(emit_best(spec, TARGETS[cls]), buffers, [(shape, "float32")])
    np.testing.assert_allclose(value, softmax(x * scale + mask, 1) * weight, rtol=5e-6)


@pytest.mark.parametrize("cls", TARGETS)
def test_softmax_of_a_middle_axis(cls: str) -> None:
    """A transposed view in, a transposed view out."""
    x = rng.normal(0, 2, (3, 11, 6)).astype(np.float32)
    view = x.transpose(0, 2, 1)
    out = Tensor("float32", view.shape, (66, 1, 6))
    spec = SoftmaxSpec(False, 1, F32, F32, (view_of(view, x),), (out,))
    (value,) = run_kernel(emit_best(spec, TARGETS[cls]), [x], [(x.shape, "float32")])
    np.testing.assert_allclose(value.transpose(0, 2, 1), softmax(view, 1), rtol=3e-6)


@pytest.mark.parametrize("cls", TARGETS)
def test_softmax_of_infinities(cls: str) -> None:
    x = np.zeros((3, 20), np.float32)
    x[0, :19] = -np.inf
    x[1] = -np.inf
    x[2, 4] = np.nan
    out = dense("float32", x.shape)
    spec = SoftmaxSpec(False, 1, F32, F32, (view_of(x, x),), (out,))
    (value,) = run_kernel(emit_best(spec, TARGETS[cls]), [x], [(x.shape, "float32")])
    np.testing.assert_array_equal(value[0], np.eye(20)[19])
    assert np.isnan(value[1:]).all()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 33, 63, 64, 65, 100, 600, 2100])
def test_rows_of_every_kind_of_length(length: int) -> None:
    """Parts of vectors, last vectors that take elements once more, some rows in work at a time."""
    x = rng.normal(3, 2, (7, length)).astype(np.float32)
    view, out = view_of(x, x), dense("float32", x.shape)
    cases: list[tuple[SoftmaxSpec | NormSpec, Array]] = [
        (SoftmaxSpec(False, 1, F32, F32, (view,), (out,)), softmax(x, 1)),
        (NormSpec(False, 1, 1e-3, F32, F32, (view,), (out,)), norm(x, 1, 1e-3)),
    ]
    for spec, wanted in cases:
        (value,) = run_kernel(emit_best(spec, TARGETS["cpu"]), [x], [(x.shape, "float32")])
        np.testing.assert_allclose(value, wanted, rtol=2e-5, atol=3e-6)


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("length", [48, 64, 77])
def test_large_results_go_past_the_caches(
    length: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits, whether all rows, some or none begin at a multiple of a vector.

    Where rows are written piece by piece (`turned`), only vectors that fill a line of 64 bytes.
    """
    target = TARGETS["cpu"]._replace(vector_width=lanes)
    x = rng.normal(0, 2, (80, length)).astype(np.float32)
    view, out = view_of(x, x), dense("float32", x.shape)
    turned = Tensor("float32", x.shape, (1, x.shape[0]))
    specs = (
        SoftmaxSpec(False, 1, F32, F32, (view,), (out,)),
        NormSpec(True, 1, 1e-3, F32, F32, (view,), (out,)),
        PointwiseSpec(chain("add"), (view, view), (out,)),
        PointwiseSpec(F32, (view,), (turned,)),
    )
    for spec in specs:
        ins = [x] * len(spec.ins)
        (wanted,) = run_kernel(emit_best(spec, target), ins, [(x.shape, "float32")])
        with monkeypatch.context() as patch:
            patch.setattr(hints, "LARGE", x.nbytes)
            kernel = emit_best(spec, target)
        if hints.has_hints(target) and (spec.outs != (turned,) or lanes == 64 // 4):
            assert re.search(r"stream_\w+32x", kernel.launches[0].source)
        (value,) = run_kernel(kernel, ins, [(x.shape, "float32")])
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["softmax", "norm"])
def test_element_types(dtype: str, kind: str) -> None:
    x = rng.normal(0, 2, (5, 37)).astype(numpy_dtype(dtype))
    same, view, out = identity(dtype), view_of(x, x), dense(dtype, x.shape)
    spec: SoftmaxSpec | NormSpec = SoftmaxSpec(False, 1, same, same, (view,), (out,))
    wanted = softmax(x, 1)
    if kind == "norm":
        spec = NormSpec(False, 1, 1e-5, same, same, (view,), (out,))
        wanted = norm(x, 1, 1e-5)
    (value,) = run_kernel(emit_best(spec, TARGETS["cpu"]), [x], [(x.shape, dtype)])
    assert dtype_name(value) == dtype
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(value.astype(np.float64), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("shape, count", [((3, 5, 50), 1), ((2, 7, 9), 2), ((4, 768), 1)])
def test_norm(cls: str, rms: bool, shape: tuple[int, ...], count: int) -> None:
    """With scale and bias in the epilogue; a large mean must not cancel."""
    x = rng.normal(100, 2, shape).astype(np.float32)
    scale, bias = rng.random((2, *shape[len(shape) - count :])).astype(np.float32)
    scale, bias = scale.copy(), bias.copy()
    buffers = [x, scale, bias]
    ins = tuple(view_of(np.broadcast_to(b, shape), b) for b in buffers)
    spec = NormSpec(rms, count, 1e-6, F32, chain("mul", "add"), ins, (dense("float32", shape),))
    (value,) = run_kernel(emit_best(spec, TARGETS[cls]), buffers, [(shape, "float32")])
    np.testing.assert_allclose(
        value, norm(x, count, 1e-6, rms) * scale + bias, rtol=1e-4, atol=3e-5
    )


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("rms", [False, True])
def test_residual_sum(cls: str, rms: bool) -> None:
    a, b = rng.normal(0, 1, (2, 6, 45)).astype(np.float32)
    a, b = a.copy(), b.copy()
    ins = (view_of(a, a), view_of(b, b))
    spec = NormSpec(rms, 1, 1e-5, chain("add"), F32, ins, (dense("float32", a.shape),))
    (value,) = run_kernel(emit_best(spec, TARGETS[cls]), [a, b], [(a.shape, "float32")])
    np.testing.assert_allclose(value, norm(a + b, 1, 1e-5, rms), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", TARGETS)
def test_one_text_serves_all_sizes(cls: str) -> None:
    rows, length = sym("rows"), sym("length")
    x = dense("float32", (rows, length))
    specs = (
        SoftmaxSpec(False, 1, F32, F32, (x,), (x,)),
        NormSpec(False, 1, 1e-5, F32, F32, (x,), (x,)),
    )
    for spec in specs:
        kernel = emit_best(spec, TARGETS[cls])
        for shape in ((4, 9), (0, 5), (1, 1000)):
            values = dict(zip(("rows", "length"), shape, strict=True))
            data = rng.normal(0, 1, shape).astype(np.float32)
            (value,) = run_kernel(kernel, [data], [(shape, "float32")], values)
            wanted = softmax(data, 1) if isinstance(spec, SoftmaxSpec) and data.size else value
            wanted = norm(data, 1, 1e-5) if isinstance(spec, NormSpec) else wanted
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)


def test_limits_are_checked_before_a_launch() -> None:
    from clinfer_kernels.families import NoKernelError
    from clinfer_kernels.spec import Target

    x = dense("float64", (4, 9))
    spec = SoftmaxSpec(False, 1, identity("float64"), identity("float64"), (x,), (x,))
    with pytest.raises(NoKernelError, match="float64"):
        emit_best(spec, Target(fp64=False))
    small = Target(cls="gpu", max_work_group=64)
    spec = SoftmaxSpec(False, 1, F32, F32, *[(dense("float32", (4, 4096)),)] * 2)
    for tile in candidates(spec, small):
        kernel = family_of(spec).emit(spec, tile, small)
        assert all(launch.local_size[0] <= 64 for launch in kernel.launches)
