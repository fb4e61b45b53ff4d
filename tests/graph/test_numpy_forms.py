"""Operators that NumPy computes on the host, in every form, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxruntime import InferenceSession, SessionOptions

from clinfer.errors import InputError
from clinfer.graph import numpy_ops

KINDS = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
}
RNG = np.random.default_rng(3)
NONE = np.zeros(0, np.float32)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def expected(
    op: str, attrs: Mapping[str, Any], inputs: list[np.ndarray | None], outputs: int, opset: int
) -> list[np.ndarray]:
    names = ["" if v is None else f"i{n}" for n, v in enumerate(inputs)]
    results = [f"o{n}" for n in range(outputs)]
    given = {n: v for n, v in zip(names, inputs, strict=True) if v is not None}
    graph = helper.make_graph(
        [helper.make_node(op, names, results, **attrs)],
        op,
        [helper.make_tensor_value_info(n, KINDS[v.dtype.name], v.shape) for n, v in given.items()],
        [helper.make_empty_tensor_value_info(n) for n in results],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    options = SessionOptions()
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    return InferenceSession(proto.SerializeToString(), options, providers).run(None, given)


def compare(
    op: str,
    inputs: list[np.ndarray | None],
    outputs: int = 1,
    opset: int = 20,
    tolerance: float = 2e-5,
    **attrs: Any,
) -> None:
    wanted = expected(op, attrs, inputs, outputs, opset)
    given = [None if v is not None and v.shape == (0,) else v for v in inputs]
    found = numpy_ops.TABLE[op](attrs, given)
    for have, want in zip(found, wanted, strict=True):
        assert have.dtype == want.dtype
        largest = max(1.0, float(np.max(np.abs(want), initial=0)))
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=tolerance * largest)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "coordinates",
    ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"],
)
@pytest.mark.parametrize("sizes", [(1, 1, 9, 5), (1, 1, 3, 14), (1, 1, 1, 1)])
def test_resize_to_sizes(mode, coordinates, sizes):
    inputs = [numbers(1, 1, 4, 7), None, None, np.array(sizes)]
    compare("Resize", inputs, mode=mode, coordinate_transformation_mode=coordinates)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("scale", [0.3, 0.7, 1.5, 2.0])
def test_resize_to_the_nearest_by_scales(rounding, scale):
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 1, 20)
    inputs = [x, None, np.array([1, 1, 1, scale], np.float32)]
    compare("Resize", inputs, mode="nearest", nearest_mode=rounding)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("end", [0.8, 1.6])
def test_resize_of_a_part_shows_a_value_beyond_the_ends(mode, end):
    roi = np.array([0, 0, 0.4, 0.6, 1, 1, 0.6, end], np.float32)
    compare(
        "Resize",
        [numbers(1, 1, 4, 4), roi, None, np.array([1, 1, 3, 5])],
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=10.0,
    )


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
@pytest.mark.parametrize("sizes", [(1, 1, 3, 4), (1, 1, 3, 13), (1, 1, 9, 11)])
def test_resize_with_antialiasing(mode, dtype, sizes):
    x = RNG.integers(0, 255, (1, 1, 8, 9)).astype(dtype)
    within = 2e-5 if dtype == "float32" else 1  # weights in fixed point, rounded one way or another
    inputs = [x, None, None, np.array(sizes)]
    compare("Resize", inputs, mode=mode, antialias=1, tolerance=within)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2]])
def test_resize_keeps_the_aspect_ratio(policy, axes):
    compare(
        "Resize",
        [numbers(1, 1, 4, 5), None, None, np.array([7, 8])],
        mode="linear",
        axes=axes,
        keep_aspect_ratio_policy=policy,
    )


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_resize_cuts_integers_toward_zero(dtype):
    x = RNG.integers(0, 255, (1, 1, 5, 6)).astype(dtype)
    compare("Resize", [x, None, None, np.array([1, 1, 8, 4])], mode="linear")


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize(
    "pads", [(1, 2, 0, 3), (-1, 0, 0, -2), (-1, 2, 2, -1), (0, 0, 0, 0), (-2, -1, 1, 1)]
)
def test_pad_cuts_before_it_pads(mode, pads):
    fill = np.array(7, np.float32) if mode == "constant" else None
    compare("Pad", [numbers(5, 6), np.array(pads), fill], opset=19, mode=mode)


def test_pad_of_some_axes():
    compare("Pad", [numbers(2, 3, 4), np.array([1, -1]), None, np.array([-1])], opset=19)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("k", [0, 1, 3, 6])
def test_top_k_takes_nan_for_the_largest(largest, k):
    x = np.array([[5, np.nan, 2, np.nan, 5, 8], [1, 1, 1, 0, 0, np.inf]], np.float32)
    compare("TopK", [x, np.array([k])], outputs=2, opset=18, largest=largest)
    compare("TopK", [x.T.copy(), np.array([k])], outputs=2, opset=18, largest=largest, axis=0)


@pytest.mark.parametrize(
    ("shape", "length", "attrs"),
    [
        ((2, 6, 1), None, {}),
        ((2, 6, 1), None, {"onesided": 1}),
        ((2, 6, 1), 4, {"onesided": 1}),
        ((2, 6, 2), 9, {}),
        ((2, 6, 2), None, {"inverse": 1}),
        ((2, 5, 2), None, {"inverse": 1, "onesided": 1}),
    ],
)
def test_fourier_transforms(shape, length, attrs):
    compare("DFT", [numbers(*shape), None if length is None else np.array(length)], **attrs)


@pytest.mark.parametrize("onesided", [0, 1])
def test_short_time_fourier_transforms(onesided):
    window = np.hanning(8).astype(np.float32)
    signal = numbers(2, 19, 1)
    compare("STFT", [signal, np.array(4), window], onesided=onesided)
    compare("STFT", [signal, np.array(3), None, np.array(7)], onesided=onesided)
    compare("STFT", [signal, np.array(3), window, np.array(8)], onesided=onesided)
    compare("STFT", [numbers(2, 19, 2), np.array(4), window], onesided=onesided)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_regions_are_pooled(scale):
    corners = [[0, 0, 0, 3, 3], [1, 1, 1, 2, 2], [0, -1, -1, 5, 5], [1, 3, 3, 1, 1]]
    rois = np.array([*corners, [0, 0.4, 0.5, 2.5, 2.6]], np.float32)
    x = numbers(2, 3, 5, 4)
    compare("MaxRoiPool", [x, rois], pooled_shape=[2, 3], spatial_scale=scale)


REDUCTIONS = "Sum Mean Max Min Prod SumSquare L1 L2 LogSum LogSumExp"


@pytest.mark.parametrize("name", REDUCTIONS.split())
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [1, -2], [0, 2], [-1, 2]])
def test_reductions_take_an_axis_named_twice_once(name, keepdims, axes):
    x = np.abs(numbers(2, 3, 4)) + 0.5
    compare(f"Reduce{name}", [x, np.array(axes)], keepdims=keepdims)


@pytest.mark.parametrize("name", ["Sum", "Mean", "Max", "Min", "Prod"])
def test_reductions_of_integers_stay_integers(name):
    x = RNG.integers(-5, 5, (3, 4)).astype(np.int32)
    compare(f"Reduce{name}", [x, np.array([1])])


@pytest.mark.parametrize(
    ("name", "of_nothing"),
    [("Sum", 0), ("Prod", 1), ("Max", -np.inf), ("Min", np.inf), ("L2", 0), ("LogSum", -np.inf)],
)
def test_reductions_of_nothing(name, of_nothing):
    found = numpy_ops.TABLE[f"Reduce{name}"]({}, [numbers(2, 0), np.array([1])])[0]
    np.testing.assert_array_equal(found, np.full((2, 1), of_nothing, np.float32))


def test_the_mean_of_nothing_is_no_number():
    found = numpy_ops.TABLE["ReduceMean"]({"keepdims": 0}, [numbers(0, 2), np.array([0])])[0]
    np.testing.assert_array_equal(found, [np.nan, np.nan])


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("condition", [[True], [False, True, True], [True] * 9, []])
def test_compress_takes_conditions_of_any_length(axis, condition):
    attrs = {} if axis is None else {"axis": axis}
    x, flags = numbers(2, 3), np.array(condition, bool)
    found = numpy_ops.TABLE["Compress"](attrs, [x, flags])[0]
    size = x.size if axis is None else x.shape[axis]
    np.testing.assert_array_equal(found, np.compress(flags[:size], x, axis))


@pytest.mark.parametrize(
    ("data", "weights", "attrs"),
    [
        ((1, 2, 3, 4), (2, 3, 3, 3), {}),
        ((2, 4, 5), (4, 2, 3), {"group": 2, "strides": [2], "pads": [1, 0]}),
        ((1, 1, 4), (1, 1, 2), {"strides": [3], "output_padding": [2], "dilations": [2]}),
        ((1, 1, 3, 3), (1, 2, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
        ((1, 1, 3, 3), (1, 2, 4, 3), {"strides": [3, 2], "output_shape": [9, 6]}),
        ((1, 1, 3, 3), (1, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((1, 1, 3, 3), (1, 2, 4, 4), {"strides": [3, 3], "auto_pad": "SAME_LOWER"}),
        ((0, 1, 3), (1, 2, 3), {}),
        ((1, 1, 0), (1, 2, 3), {}),
    ],
)
def test_transposed_convolutions(data, weights, attrs):
    bias = numbers(weights[1] * attrs.get("group", 1))
    compare("ConvTranspose", [numbers(*data), numbers(*weights), bias], **attrs)


FAR = 2**30


@pytest.mark.parametrize(
    ("data", "weights", "attrs"),
    [
        ((1, 2, 3, 4), (3, 2, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((2, 4, 5), (4, 2, 3), {"group": 2, "strides": [2], "pads": [1, 0]}),
        ((1, 1, 9), (1, 1, 3), {"strides": [3], "dilations": [3]}),
        ((1, 1, 7, 6), (1, 1, 3, 4), {"strides": [2, 3], "auto_pad": "SAME_UPPER"}),
        ((1, 1, 7, 6), (1, 1, 3, 4), {"strides": [2, 3], "auto_pad": "SAME_LOWER"}),
        ((1, 1, 7, 6), (1, 1, 3, 4), {"auto_pad": "VALID"}),
        ((0, 1, 3), (2, 1, 3), {}),
    ],
)
def test_convolutions(data, weights, attrs):
    compare("Conv", [numbers(*data), numbers(*weights), numbers(weights[0])], **attrs)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("Conv", {"dilations": [FAR], "pads": [FAR, FAR], "strides": [FAR]}),
        ("Conv", {"pads": [FAR, FAR], "strides": [FAR]}),
        ("ConvTranspose", {"strides": [FAR], "pads": [FAR // 2, FAR // 2 - 2]}),
        ("ConvTranspose", {"dilations": [FAR], "pads": [FAR, FAR]}),
    ],
)
def test_padding_strides_and_dilations_cost_nothing(op, attrs):
    compare(op, [numbers(1, 1, 2), numbers(1, 1, 3)], **attrs)


@pytest.mark.parametrize("zeros", [None, 3])
def test_integer_convolutions(zeros):
    x, w = (RNG.integers(0, 9, s).astype(np.uint8) for s in ((1, 1, 5), (2, 1, 3)))
    zero = [] if zeros is None else [np.array(4, np.uint8), np.array(zeros, np.uint8)]
    compare("ConvInteger", [x, w, *zero], opset=10, pads=[1, 1])


REGIONS = np.array([[0, 0, 3, 3], [-9, 2, 20, 5], [4, 4, 1, 1], [0.5, 1.25, 2.75, 6]], np.float32)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 1, 3])
@pytest.mark.parametrize("corners", ["half_pixel", "output_half_pixel"])
def test_regions_are_sampled(mode, ratio, corners):
    attrs = {"mode": mode, "sampling_ratio": ratio, "coordinate_transformation_mode": corners}
    inputs = [numbers(2, 3, 6, 5), REGIONS, np.array([0, 1, 1, 0])]
    compare(
        "RoiAlign", inputs, opset=16, output_height=2, output_width=3, spatial_scale=0.75, **attrs
    )


def test_regions_far_larger_than_the_image_cost_what_the_image_does():
    x, far = numbers(1, 1, 2, 2), np.array([[0, 0, 1e9, 1e9]], np.float32)
    regions = [numpy_ops.TABLE["RoiAlign"]({}, [x, far * s, np.array([0])])[0] for s in (1, 1e-5)]
    np.testing.assert_allclose(regions[0], 0, atol=1e-9)
    np.testing.assert_allclose(regions[1], 0, atol=1e-5)


def test_samples_without_number_are_refused():
    with pytest.raises(InputError, match="at most 1048576 samples"):
        attrs = {"sampling_ratio": FAR}
        numpy_ops.TABLE["RoiAlign"](attrs, [numbers(1, 1, 2, 2), REGIONS[:1], np.array([0])])


@pytest.mark.parametrize("bins", [0, 1, 13])
@pytest.mark.parametrize("length", [64, 513])
def test_mel_filters(bins, length):
    edges = [np.array(v, np.float32) for v in (20, 3000)]
    compare("MelWeightMatrix", [*(np.array(v) for v in (bins, length, 8000)), *edges])


def test_as_many_mel_filters_as_no_memory_has_are_refused_at_once():
    far, edges = np.array(FAR), [np.array(v, np.float32) for v in (0, 4000)]
    with pytest.raises((MemoryError, ValueError)):
        numpy_ops.TABLE["MelWeightMatrix"]({}, [far, far, np.array(8000), *edges])


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skip", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("least", [1, 2])
def test_n_grams_are_counted(mode, skip, least):
    """A skip longer than the row costs nothing. Weights are those of the n-grams, not of places."""
    attrs = {
        "mode": mode,
        "min_gram_length": least,
        "max_gram_length": 3,
        "max_skip_count": skip if skip < 9 else 9,
        "ngram_counts": [0, 2, 6],
        "ngram_indexes": [3, 1, 0, 2, 4],
        "pool_int64s": [2, 3, 5, 4, 2, 2, 1, 2, 3],
        "weights": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
    rows = np.array([[1, 2, 2, 3, 2, 5, 4], [5, 5, 4, 4, 1, 2, 3]])
    (wanted,) = expected("TfIdfVectorizer", attrs, [rows], 1, 20)
    (found,) = numpy_ops.TABLE["TfIdfVectorizer"]({**attrs, "max_skip_count": skip}, [rows])
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(
        numpy_ops.TABLE["TfIdfVectorizer"](attrs, [rows[0]])[0], wanted[0]
    )


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 0), (3, 2, 0)])
@pytest.mark.parametrize("data", [(3, 4), (0, 4)])
def test_indices_that_name_no_axis_take_all_of_the_data(shape, data):
    x, none = numbers(*data), np.zeros(shape, np.int64)
    compare_same("GatherND", [x, none], {})
    for reduction in ("none", "add", "max"):
        updates = numbers(*shape[:-1], *data)
        compare_same("ScatterND", [x, none, updates], {"reduction": reduction})


def compare_same(op, inputs, attrs):
    """As `compare`, of inputs without elements, too."""
    (wanted,) = expected(op, attrs, inputs, 1, 18)
    (found,) = numpy_ops.TABLE[op](attrs, inputs)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


WINDOWS = [
    {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 4], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 2, 1]},
    {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 1, 0, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "dilations": [2, 3], "strides": [1, 2]},
    {"kernel_shape": [5, 5], "auto_pad": "VALID"},
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_pools(op, window):
    x = numbers(2, 3, 7, 8)
    compare(op, [x], outputs=2 if op == "MaxPool" else 1, opset=19, **window)
    if op == "MaxPool":
        compare(op, [x], outputs=2, opset=19, storage_order=1, **window)
    if op == "AveragePool" and "ceil_mode" not in window:
        compare(op, [x], opset=19, count_include_pad=1, **window)


def test_a_mean_has_the_nan_of_its_window():
    x = numbers(1, 1, 5, 5)
    x[0, 0, 0, 0] = np.nan
    compare("AveragePool", [x], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_walk_no_tap_in_the_padding(op):
    pads = [FAR - 1, 0, FAR - 1, 0]
    window = {"kernel_shape": [FAR, 2], "strides": [FAR - 1, 1], "pads": pads}
    found = numpy_ops.TABLE[op](window, [x := numbers(1, 1, 4, 3)])[0]
    combine = np.max if op == "MaxPool" else np.mean
    wanted = [[combine(x[..., rows, i : i + 2]) for i in range(2)] for rows in ([0], [0, 1, 2, 3])]
    np.testing.assert_allclose(found[0, 0, :2], wanted, rtol=1e-6)
