"""Operators that were host steps: boxes, regions, transforms, matrices, narrow types."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_cast import cast_to

RNG = np.random.default_rng(5)


def model_of(text: str, opset: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}]> m {text}')


def on_device(core, device, proto):
    model = core.compile_model(proto, device)
    assert not model.host_steps, [(s.label, s.reason) for s in model.host_steps]
    return model


@pytest.mark.parametrize(
    ("centred", "limits"),
    [(0, (3, 0.4, 0.2)), (1, (50, 0.0, -1.0)), (0, (0, 0.5, 0.0)), (1, (2, 1.0, 0.99))],
)
def test_boxes_that_overlap_are_left_out_as_in_onnx_runtime(core, device, centred, limits):
    proto = model_of(f"""(float[B, N, 4] b, float[B, C, N] s, int64[1] m, float[1] o, float[1] l)
        => (int64[M, 3] y)
        {{ y = NonMaxSuppression<center_point_box = {centred}>(b, s, m, o, l) }}""")
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    model = on_device(core, device, proto)
    for batch, kinds, many in ((2, 3, 17), (1, 1, 1)):
        boxes = RNG.random((batch, many, 4)).astype(np.float32)
        scores = (RNG.integers(0, 9, (batch, kinds, many)) / 8).astype(np.float32)
        most, *rest = limits
        feeds = {"b": boxes, "s": scores, "m": np.array([most], np.int64)}
        feeds |= {n: np.array([v], np.float32) for n, v in zip("ol", rest, strict=True)}
        assert np.array_equal(model(feeds)["y"], session.run(None, feeds)[0])


@pytest.mark.parametrize(
    ("mode", "ratio", "form"),
    [
        ("avg", 0, "half_pixel"),
        ("avg", 2, "output_half_pixel"),
        ("max", 0, "output_half_pixel"),
        ("max", 2, "half_pixel"),
    ],
)
def test_regions_are_pooled_as_in_onnx_runtime(core, device, mode, ratio, form):
    proto = model_of(f"""(float[N, C, H, W] x, float[R, 4] r, int64[R] i)
        => (float[R, C, 3, 2] y) {{
        y = RoiAlign<mode = "{mode}", sampling_ratio = {ratio}, output_height = 3, output_width = 2,
        spatial_scale = 0.5, coordinate_transformation_mode = "{form}">(x, r, i) }}""")
    x = RNG.random((2, 35, 9, 7)).astype(np.float32)
    regions = np.array([[0, 0, 8, 8], [3, 1, 30, 12], [-9, -9, 2, 3], [5, 5, 5, 5]], np.float32)
    feeds = {"x": x, "r": regions, "i": np.array([0, 1, 1, 0])}
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    found = on_device(core, device, proto)(feeds)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def greatest_of_regions(x, rois, pooled, scale):
    """MaxRoiPool by its specification: corners rounded to pixels, halves away from 0, both ends
    included; a bin is from the floor of its first edge to the ceiling of its last, 0 if empty."""
    made = np.zeros((len(rois), x.shape[1], *pooled), x.dtype)
    for r, (image, *corners) in enumerate(rois):
        scaled = np.array(corners, np.float32) * np.float32(scale)
        x0, y0, x1, y1 = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(int)
        spans = []
        for first, last, count, size in zip((y0, x0), (y1, x1), pooled, x.shape[2:], strict=True):
            step = np.float32(max(last - first + 1, 1)) / np.float32(count)
            edges = [
                (np.floor(np.float32(n) * step), np.ceil(np.float32(n + 1) * step))
                for n in range(count)
            ]
            spans.append([[int(np.clip(first + e, 0, size)) for e in pair] for pair in edges])
        for i, (top, bottom) in enumerate(spans[0]):
            for j, (left, right) in enumerate(spans[1]):
                part = x[int(image), :, top:bottom, left:right]
                if part.size:
                    made[r, :, i, j] = part.max((1, 2))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_the_greatest_of_regions_are_those_of_the_specification(core, device, seed):
    rng = np.random.default_rng(seed)
    pooled, scale = [(2, 3), (7, 5), (1, 4)][seed], [1.0, 0.5, 0.0625][seed]
    proto = model_of(f"""(float[N, C, H, W] x, float[R, 5] r) => (float[R, C, P, Q] y)
        {{ y = MaxRoiPool<pooled_shape = {list(pooled)}, spatial_scale = {scale}>(x, r) }}""")
    model = on_device(core, device, proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for size in ((11, 8), (1, 3)):
        x = (rng.standard_normal((2, 3, *size)) - 3).astype(np.float32)
        corners = rng.integers(-8, 30, (24, 4)) / 2 / scale
        feeds = {"x": x, "r": np.c_[rng.integers(0, 2, 24), corners].astype(np.float32)}
        expected = greatest_of_regions(x, feeds["r"], pooled, scale)
        found = model(feeds)["y"]
        assert np.array_equal(found, expected)
        assert np.array_equal(found, session.run(None, feeds)[0])


@pytest.mark.parametrize("size, parts", [(12, 1), (7, 2)])
def test_transforms_are_those_of_numpy(core, device, size, parts):
    x = RNG.random((2, size, 3, parts)).astype(np.float32)
    complex_x = x[..., 0] + (1j * x[..., 1] if parts == 2 else 0)
    proto = model_of(
        f"""(float[2, N, 3, {parts}] x, int64 n) => (float[2, M, 3, 2] y)
        <int64 a = {{1}}> {{ y = DFT(x, n, a) }}""",
        20,
    )
    model = on_device(core, device, proto)
    for length in (size, size - 2, size + 3):
        found = model({"x": x, "n": np.array(length)})["y"]
        expected = np.fft.fft(complex_x, length, 1)
        np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected, atol=1e-4)


def test_half_a_spectrum_becomes_the_signal_it_is_of(core, device):
    proto = model_of(
        """(float[2, N, 1] x) => (float[2, M, 1] y) <int64 a = {1}> {
        h = DFT<onesided = 1>(x, , a) y = DFT<onesided = 1, inverse = 1>(h, , a) }""",
        20,
    )
    x = RNG.random((2, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(on_device(core, device, proto)([x])["y"], x, atol=1e-5)


def test_determinants_with_zero_pivots(core, device):
    x = RNG.standard_normal((5, 4, 4)).astype(np.float32)
    x[0, 0, 0] = 0
    x[1, :, 2] = 0
    proto = model_of("(float[B, 4, 4] x) => (float[B] y) { y = Det(x) }")
    found = on_device(core, device, proto)([x])["y"]
    np.testing.assert_allclose(found, np.linalg.det(x.astype(np.float64)), rtol=1e-4, atol=1e-5)


def test_shifted_samples_of_groups(core, device):
    proto = model_of(
        """(float[2, 4, 5, 6] x, float[6, 2, 3, 2] w, float[2, 24, 3, 5] o, float[6] b,
        float[2, 12, 3, 5] m) => (float[2, 6, 3, 5] y)
        { y = DeformConv<group = 2, offset_group = 2, pads = [0, 0, 0, 0]>(x, w, o, b, m) }""",
        19,
    )
    shapes = ((2, 4, 5, 6), (6, 2, 3, 2), (2, 24, 3, 5), (6,), (2, 12, 3, 5))
    feeds = {
        n: RNG.standard_normal(s).astype(np.float32) for n, s in zip("xwobm", shapes, strict=True)
    }
    (expected,) = ReferenceEvaluator(proto).run(None, feeds)
    found = on_device(core, device, proto)(feeds)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 448, 464, 465, 240, 248, 57344, 61440, 6, -5, 0.25]
SPECIAL += [2.0**-9, 2.0**-10, 1.5 * 2.0**-10, 2.0**-17, 3.4e38]
NARROW = ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"]


@pytest.mark.parametrize(
    ("name", "saturate"), [*((name, n % 2) for n, name in enumerate(NARROW)), (NARROW[0], 1)]
)
def test_floats_of_8_bits_are_rounded_as_onnx_says_and_back(core, device, name, saturate):
    kind = getattr(TensorProto, name)
    spread = RNG.standard_normal(4000) * 2.0 ** RNG.integers(-22, 22, 4000)
    x = np.array([*SPECIAL, *spread], np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=kind, saturate=saturate),
        helper.make_node("Cast", ["c"], ["y"], to=1),
    ]
    values = [
        helper.make_tensor_value_info(n, t, ["N"]) for n, t in (("x", 1), ("c", kind), ("y", 1))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=12)
    codes, back = on_device(core, device, proto)([x]).to_tuple()
    expected = cast_to(x, kind, bool(saturate)).astype(np.float32)
    np.testing.assert_array_equal(codes.astype(np.float32), expected)
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
def test_integers_of_few_bits_keep_their_low_bits(core, device, name):
    kind = getattr(TensorProto, name.upper())
    x = np.arange(-40, 40, dtype=np.int32)
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=kind),
        helper.make_node("Cast", ["c"], ["y"], to=6),
    ]
    values = [
        helper.make_tensor_value_info(n, t, ["N"]) for n, t in (("x", 6), ("c", kind), ("y", 6))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    codes, back = on_device(core, device, proto)([x]).to_tuple()
    expected = x.astype(getattr(ml_dtypes, name))
    assert codes.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(back, expected.astype(np.int32))
