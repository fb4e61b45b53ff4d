"""The resize family against onnx's reference: modes, coordinates, layouts, epilogues, dtypes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from harness import TARGETS, numpy_dtype, run_kernel, view_of
from onnx.reference import ReferenceEvaluator

from clinfer_kernels import resize
from clinfer_kernels.dims import sym
from clinfer_kernels.expr import Builder, identity
from clinfer_kernels.resize_problem import as_fraction
from clinfer_kernels.spec import Target, Tensor, dense
from clinfer_kernels.specs import ResizeSpec
from clinfer_kernels.terms import Term

Array = np.ndarray[Any, Any]
BOTH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
rng = np.random.default_rng(9)


@dataclass(frozen=True)
class How:
    """A resize of `shape`: to `sizes`, or by `scales`."""

    shape: tuple[int, ...]
    sizes: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    mode: str = "linear"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False

    @property
    def out(self) -> tuple[int, ...]:
        if self.sizes:
            return self.sizes
        return tuple(int(n * s) for n, s in zip(self.shape, self.scales, strict=True))

    def reference(self, x: Array) -> Array:
        """onnx's reference evaluator; it computes in float64."""
        node = onnx.helper.make_node(
            "Resize",
            ["x", "", "scales"] if self.scales else ["x", "", "", "sizes"],
            ["y"],
            mode=self.mode,
            coordinate_transformation_mode=self.coordinates,
            nearest_mode=self.rounding,
            cubic_coeff_a=self.cubic_a,
            exclude_outside=int(self.exclude_outside),
        )
        feeds: dict[str, Array] = {"x": x}
        if self.scales:
            feeds["scales"] = np.array(self.scales, np.float32)
        else:
            feeds["sizes"] = np.array(self.sizes, np.int64)
        graph = onnx.helper.make_graph(
            [node],
            "resize",
            [
                onnx.helper.make_tensor_value_info(
                    k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape
                )
                for k, v in feeds.items()
            ],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
        made: Array = ReferenceEvaluator(model).run(None, feeds)[0]
        return made

    def spec(self, x: Tensor, out: Tensor, **other: Any) -> ResizeSpec:
        pairs = zip(self.shape, self.out, strict=True)
        axes = tuple(d for d, (n, m) in enumerate(pairs) if n != m)
        return ResizeSpec(
            mode=self.mode,
            coordinates=self.coordinates,
            rounding=self.rounding,
            axes=axes,
            scales=tuple(self.scales[d] if self.scales else None for d in axes),
            cubic_a=self.cubic_a,
            exclude_outside=self.exclude_outside,
            extrapolation=0.0,
            epilogue=other.get("epilogue", identity(x.dtype)),
            ins=(x, *other.get("operands", ())),
            outs=(out,),
        )


def check(how: How, target: Target, tolerance: float = 1e-5) -> None:
    x = rng.standard_normal(how.shape).astype(np.float32)
    spec = how.spec(dense("float32", how.shape), dense("float32", how.out))
    expected = how.reference(x)
    for tile in resize.candidates(spec, target):
        kernel = resize.emit(spec, tile, target)
        made = run_kernel(kernel, [x], [(how.out, "float32")])[0]
        np.testing.assert_allclose(made, expected, tolerance, tolerance)


HOWS = {
    "2x nearest, channels last": How((1, 4, 5, 11), (1, 8, 10, 11), mode="nearest"),
    "2x linear, channels last": How((2, 4, 5, 19), scales=(1, 2, 2, 1)),
    "several lines of a task": How((1, 6, 10, 5), (1, 13, 31, 5)),
    "2x linear, channels first": How((1, 3, 4, 5), (1, 3, 8, 10)),
    "down": How((1, 9, 7, 4), (1, 5, 3, 4)),
    "scale that does not divide": How((1, 2, 5, 7), scales=(1, 1, 1.7, 0.6)),
    "1d": How((2, 3, 9), (2, 3, 20)),
    "3d": How((1, 2, 3, 4, 5), (1, 2, 5, 7, 6)),
    "every axis": How((2, 3), (5, 4)),
    "cubic": How((1, 5, 6, 9), (1, 11, 8, 9), mode="cubic"),
    "cubic, channels first": How((1, 2, 5, 6), (1, 2, 8, 13), mode="cubic", cubic_a=-0.5),
    "cubic inside": How((1, 4, 4, 3), scales=(1, 2, 0.8, 1), mode="cubic", exclude_outside=True),
}


@BOTH
@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_modes(how: How, target: Target) -> None:
    check(how, target)


@BOTH
@pytest.mark.parametrize(
    "coordinates",
    ["half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"],
)
@pytest.mark.parametrize("sizes", [(2, 9, 1, 3), (2, 3, 11, 3)])
def test_coordinates(coordinates: str, sizes: tuple[int, ...], target: Target) -> None:
    check(How((2, 4, 5, 3), sizes, coordinates=coordinates), target)


@BOTH
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners"])
def test_rounding_to_the_nearest(rounding: str, coordinates: str, target: Target) -> None:
    how = How((1, 6, 4, 5), (1, 15, 2, 5), (), "nearest", coordinates, rounding)
    check(how, target)


@BOTH
@pytest.mark.parametrize("channels", [3, 9])
def test_views_and_epilogue(channels: int, target: Target) -> None:
    """A transposed input; the result is scaled by channel and added to a residual."""
    how = How((1, 3, 4, channels), (1, 7, 8, channels))
    base = rng.standard_normal((1, channels, 3, 4)).astype(np.float32)
    x = np.moveaxis(base, 1, -1)
    scale = rng.standard_normal(channels).astype(np.float32)
    residual = rng.standard_normal(how.out).astype(np.float32)
    b = Builder(["float32"] * 3)
    epilogue = b.build(b.op("add", b.op("mul", 0, 1), 2))
    operands = (Tensor("float32", how.out, (0, 0, 0, 1)), dense("float32", how.out))
    spec = how.spec(
        view_of(x, base), dense("float32", how.out), epilogue=epilogue, operands=operands
    )
    kernel = resize.emit(spec, resize.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [base, scale, residual], [(how.out, "float32")])[0]
    expected = how.reference(np.ascontiguousarray(x)) * scale + residual
    np.testing.assert_allclose(made, expected, 1e-5, 1e-5)


@BOTH
@pytest.mark.parametrize("channels", [3, 10])
def test_dynamic_sizes(channels: int, target: Target) -> None:
    """One kernel for two input sizes; the output is twice as large."""
    h, w = sym("h"), sym("w")
    x = dense("float32", (1, h, w, channels))
    out = dense("float32", (1, h * 2, w * 2, channels))
    spec = ResizeSpec(
        "linear",
        "half_pixel",
        "round_prefer_floor",
        (1, 2),
        (2.0, None),
        -0.75,
        False,
        0.0,
        identity("float32"),
        (x,),
        (out,),
    )
    kernel = resize.emit(spec, resize.candidates(spec, target)[0], target)
    for size in ((3, 4), (5, 2)):
        how = How((1, *size, channels), (1, size[0] * 2, size[1] * 2, channels))
        data = rng.standard_normal(how.shape).astype(np.float32)
        values = {"h": size[0], "w": size[1]}
        made = run_kernel(kernel, [data], [(how.out, "float32")], values)[0]
        np.testing.assert_allclose(made, how.reference(data), 1e-5, 1e-5)


@BOTH
@pytest.mark.parametrize(("dtype", "mode"), [("uint8", "nearest"), ("float16", "linear")])
def test_dtypes(dtype: str, mode: str, target: Target) -> None:
    how = How((1, 4, 5, 11), (1, 8, 7, 11), mode=mode)
    x = (rng.standard_normal(how.shape) * 10).astype(numpy_dtype(dtype))
    spec = how.spec(dense(dtype, how.shape), dense(dtype, how.out))
    kernel = resize.emit(spec, resize.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [x], [(how.out, dtype)])[0]
    expected = how.reference(x.astype(np.float32)).astype(dtype)
    np.testing.assert_allclose(made.astype(np.float32), expected.astype(np.float32), 2e-3, 2e-3)


@BOTH
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_what_becomes_whole_is_to_the_bit(dtype: str, last: bool, target: Target) -> None:
    """As ONNX Runtime adds four elements by the products of their weights."""
    x = rng.integers(0, 256, (2, 3, 5, 6)).astype(np.float32) * np.float32(0.02387)
    y = _doubled(x)
    if last:
        x, y = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, y))
    how = How(x.shape, scales=(1, 2, 2, 1) if last else (1, 1, 2, 2))
    b = Builder(["float32"])
    whole = (Term(b, 0) * float(2**20)).op("round")
    ends = b.build((whole if dtype == "float32" else whole.cast(dtype)).number)
    spec = how.spec(dense("float32", x.shape), dense(dtype, y.shape), epilogue=ends)
    kernel = resize.emit(spec, resize.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [x], [(y.shape, dtype)])[0]
    np.testing.assert_array_equal(made, np.rint(y * np.float32(2**20)))


def _doubled(x: Array) -> Array:
    """Twice as large, by ONNX Runtime."""
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")
    node = onnx.helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear")
    infos = [onnx.helper.make_tensor_value_info(n, 1, None) for n in "xy"]
    graph = onnx.helper.make_graph([node], "resize", infos[:1], infos[1:], [scales])
    imports = [onnx.helper.make_opsetid("", 19)]
    content = onnx.helper.make_model(graph, opset_imports=imports, ir_version=9)
    session = onnxruntime.InferenceSession(
        content.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    made: Array = session.run(None, {"x": x})[0]
    return made


@BOTH
def test_what_has_no_kernel(target: Target) -> None:
    crop = How((1, 4, 5, 2), (1, 8, 7, 2), coordinates="tf_crop_and_resize")
    whole = How((1, 4, 5, 2), (1, 8, 7, 2), mode="linear")
    for how, dtype in ((crop, "float32"), (whole, "int32")):
        spec = how.spec(dense(dtype, how.shape), dense(dtype, how.out))
        assert not resize.candidates(spec, target)


@BOTH
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
def test_halves_are_exact(rounding: str, coordinates: str, target: Target) -> None:
    """Positions on a half or a whole: by exact fractions, for sizes and for factors of float32."""
    n, m = sym("n"), sym("m")
    spec = How((1,), (2,), (), "nearest", coordinates, rounding).spec(
        dense("float32", (n,)), dense("float32", (m,))
    )
    kernel = resize.emit(spec, resize.candidates(spec, target)[0], target)
    for size, out in ((20, 6), (30, 9), (50, 15), (10, 6), (14, 4), (6, 20)):
        x = np.arange(size, dtype=np.float32)
        made = run_kernel(kernel, [x], [((out,), "float32")], {"n": size, "m": out})[0]
        assert made.tolist() == [_exact(o, size, out, coordinates, rounding) for o in range(out)]


def _exact(o: int, size: int, out: int, coordinates: str, rounding: str) -> int:
    place = Fraction(o * size, out)
    if coordinates == "half_pixel":
        place = Fraction((2 * o + 1) * size, 2 * out) - Fraction(1, 2)
    half = Fraction(1, 2)
    found = {
        "floor": math.floor(place),
        "ceil": math.ceil(place),
        "round_prefer_ceil": math.floor(place + half),
        "round_prefer_floor": math.ceil(place - half),
    }[rounding]
    return min(max(found, 0), size - 1)


def test_a_factor_of_float32_is_the_fraction_it_was_written_as() -> None:
    assert as_fraction(float(np.float32(0.3))) == Fraction(3, 10)
    assert as_fraction(float(np.float32(1 / 7))) == Fraction(1, 7)
    assert as_fraction(2.0) == 2
    assert abs(as_fraction(float(np.float32(0.123456789))) - Fraction("0.12345679")) < 1e-8
