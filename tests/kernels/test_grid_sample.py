"""The grid_sample family against ONNX Runtime: modes, paddings, axes, layouts, dtypes, any grid."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from harness import TARGETS, run_kernel, view_of
from onnx import helper

from clinfer_kernels import grid_sample
from clinfer_kernels.expr import Builder, identity
from clinfer_kernels.spec import Target, dense
from clinfer_kernels.specs import GridSampleSpec
from clinfer_kernels.terms import Term

Array = np.ndarray[Any, Any]
BOTH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
rng = np.random.default_rng(5)


def by_onnxruntime(x: Array, grid: Array, **attrs: Any) -> Array:
    """y [N, outs..., C] of x [N, sizes..., C]."""
    arrays = {"x": np.moveaxis(x, -1, 1).copy(), "grid": grid}
    infos = [helper.make_tensor_value_info(k, 1, v.shape) for k, v in arrays.items()]
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], **attrs)
    made = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([node], "g", infos, [made])
    imports = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    y: Array = session.run(None, arrays)[0]
    return np.moveaxis(y, 1, -1)


def numbers(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def check(
    x: Array,
    grid: Array,
    target: Target,
    mode: Any,
    padding: Any,
    aligned: int = 0,
    base: Array | None = None,
    tolerance: float = 1e-5,
) -> None:
    """`x` is channels last, a view of `base` where it is not dense."""
    base = x if base is None else base
    expected = by_onnxruntime(
        x.astype(np.float32), grid, mode=mode, padding_mode=padding, align_corners=aligned
    )
    dtype = x.dtype.name
    spec = GridSampleSpec(
        mode=mode,
        padding=padding,
        aligned=bool(aligned),
        epilogue=identity(dtype),
        ins=(view_of(x, base), dense("float32", grid.shape)),
        outs=(dense(dtype, expected.shape),),
    )
    for tile in grid_sample.candidates(spec, target):
        kernel = grid_sample.emit(spec, tile, target)
        made = run_kernel(kernel, [base, grid], [(expected.shape, dtype)])[0]
        np.testing.assert_allclose(made, expected, tolerance, tolerance)


@BOTH
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("padding", "aligned"), [("zeros", 0), ("border", 1), ("reflection", 0)])
def test_modes(mode: str, padding: str, aligned: int, target: Target) -> None:
    check(numbers(2, 5, 6, 19), 1.3 * numbers(2, 9, 8, 2), target, mode, padding, aligned)


@BOTH
@pytest.mark.parametrize(("mode", "padding"), [("linear", "zeros"), ("nearest", "reflection")])
def test_three_axes(mode: str, padding: str, target: Target) -> None:
    check(numbers(2, 3, 4, 5, 9), 1.3 * numbers(2, 2, 3, 4, 3), target, mode, padding, 1)


@BOTH
def test_channels_first(target: Target) -> None:
    base = numbers(2, 3, 5, 6)
    grid = 1.3 * numbers(2, 4, 7, 2)
    check(base.transpose(0, 2, 3, 1), grid, target, "linear", "border", base=base)


@BOTH
def test_float16(target: Target) -> None:
    x = numbers(1, 5, 6, 16).astype(np.float16)
    check(x, numbers(1, 4, 7, 2), target, "linear", "zeros", tolerance=2e-3)


@BOTH
def test_an_epilogue(target: Target) -> None:
    x, grid, bias = numbers(1, 5, 6, 11), numbers(1, 4, 7, 2), numbers(11)
    builder = Builder(["float32", "float32"])
    epilogue = builder.build((Term(builder, 0) + Term(builder, 1)).number)
    shape = (1, 4, 7, 11)
    spec = GridSampleSpec(
        mode="linear",
        padding="zeros",
        aligned=False,
        epilogue=epilogue,
        ins=(
            dense("float32", x.shape),
            dense("float32", grid.shape),
            dense("float32", bias.shape)._replace(shape=shape, strides=(0, 0, 0, 1)),
        ),
        outs=(dense("float32", shape),),
    )
    kernel = grid_sample.emit(spec, grid_sample.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [x, grid, bias], [(shape, "float32")])[0]
    np.testing.assert_allclose(made, by_onnxruntime(x, grid) + bias, 1e-5, 1e-5)


@BOTH
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_any_grid_stays_inside(padding: Any, target: Target) -> None:
    """Behind x is poison; where only its edge, or nothing of it, is seen, it is infinite."""
    odd = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 1.7], np.float32)
    pairs = np.stack(np.meshgrid(odd, odd), -1)[None]
    x = np.full((1, 3, 4, 9), np.inf if padding == "zeros" else 1, np.float32)
    shape = (1, *pairs.shape[1:-1], 9)
    for mode in ("nearest", "linear", "cubic"):
        spec = GridSampleSpec(
            mode=cast(Any, mode),
            padding=padding,
            aligned=True,
            epilogue=identity("float32"),
            ins=(dense("float32", x.shape), dense("float32", pairs.shape)),
            outs=(dense("float32", shape),),
        )
        kernel = grid_sample.emit(spec, grid_sample.candidates(spec, target)[0], target)
        made = run_kernel(kernel, [x, pairs], [(shape, "float32")])[0]
        if padding == "zeros":
            outside = ~(np.abs(pairs) < 3).all(-1)
            np.testing.assert_array_equal(made[outside], 0)
        elif mode != "nearest":
            assert np.isnan(made[np.isnan(pairs).any(-1)]).all()
        if padding != "zeros":
            kept = (
                np.isfinite(pairs).all(-1) if padding == "reflection" else ~np.isnan(pairs).any(-1)
            )
            np.testing.assert_allclose(made[kept], 1, 1e-5)
