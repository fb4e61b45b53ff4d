"""Sizes and places that are known only when a host step has run."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from clinfer.errors import ShapeError

X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def test_a_concatenation_whose_size_a_host_step_gives(core, device):
    text = """<ir_version: 8, opset_import: ["": 17]>
    m (float[3, 4] x, bool[3] chosen) => (float[N, 4] y) {
        a = Relu(x) b = Compress<axis = 0>(x, chosen) y = Concat<axis = 0>(a, b)
    }"""
    model = core.compile_model(onnx.parser.parse_model(text), device)
    for chosen in ([True, False, True], [False, False, False]):
        expected = np.concatenate([np.maximum(X, 0), X[np.array(chosen)]])
        assert np.array_equal(model([X, np.array(chosen)])["y"], expected)


def test_a_slice_of_known_size_at_a_place_from_data(core, device):
    text = """<ir_version: 8, opset_import: ["": 17]>
    m (float[3, 4] x, int64[1] first, int64[1] last) => (float[2, 4] y)
    <int64[1] axes = {0}, float[2, 4] part> {
        part = Slice(x, first, last, axes) y = Neg(part)
    }"""
    model = core.compile_model(onnx.parser.parse_model(text), device)
    for first in (0, 1):
        places = [np.array([first]), np.array([first + 2])]
        assert np.array_equal(model([X, *places])["y"], -X[first : first + 2])


@pytest.mark.parametrize("body", ["ConstantOfShape(s)", "Expand(one, s)"])
def test_a_tensor_without_elements_has_sizes_that_an_array_can_have(core, device, body):
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    m (int64[2] s) => (float[A, B] y) <float one = {{1}}> {{ y = {body} }}"""
    model = core.compile_model(onnx.parser.parse_model(text), device)
    assert model([np.array([0, 2**31])])["y"].shape == (0, 2**31)
    with pytest.raises(ShapeError, match=r"output 'y' .*4611686018427387904"):
        model([np.array([0, 2**62])])


# Nothing reads what NonZero, Compress, StringSplit find, but how much they find.
COUNTED = {
    "its shape": "n = NonZero(x) y = Shape(n)",
    "its size, in arithmetic": "n = NonZero(x) s = Size(n) c = Cast<to = 1>(s) y = Mul(x, c)",
    "as a shape": "n = NonZero(x) s = Shape(n) y = ConstantOfShape(s)",
    "to expand to": "n = NonZero(x) s = Shape(n) y = Expand(one, s)",
    "as a range": "n = NonZero(x) s = Size(n) y = Range(zero, s, step)",
    "as an end": "n = NonZero(x) s = Size(n) e = Reshape(s, flat) y = Slice(x, start, e)",
    "as repeats": "n = NonZero(x) s = Size(n) e = Reshape(s, flat) y = Tile(x, e)",
    "of chosen ones": "m = Greater(x, one) k = Compress<axis = 0>(x, m) y = Shape(k)",
    "beside what was found": "n = NonZero(x) s = Shape(n) t = Transpose(n) y = Gather(s, step)",
}


@pytest.mark.parametrize("name", COUNTED)
def test_only_the_size_of_a_result_is_read(core, device, name):
    text = f"""<ir_version: 8, opset_import: ["": 17]> m (float[N] x) => (y)
    <float one = {{1}}, int64 zero = {{0}}, int64 step = {{1}}, int64[1] flat = {{-1}},
     int64[1] start = {{0}}> {{ {COUNTED[name]} }}"""
    proto = onnx.parser.parse_model(text)
    typed = onnx.shape_inference.infer_shapes(proto)
    proto.graph.output[0].CopyFrom(typed.graph.output[0])
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    model = core.compile_model(proto, device)
    for content in ([1, 0, 2, 3, 0, 2], [0, 0, 5], [0, 0, 0], [1, 0, 2, 3, 0, 2]):
        x = np.array(content, np.float32)
        (expected,) = session.run(None, {"x": x})
        found = model([x])["y"]
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


def test_only_the_size_of_texts_is_read(core, device):
    text = """<ir_version: 9, opset_import: ["": 20]> m (string[N] x) => (int64[2] y) {
        t, n = StringSplit<delimiter = ",">(x) y = Shape(t)
    }"""
    model = core.compile_model(onnx.parser.parse_model(text), device)
    assert model([np.array(["a,b", "c"], object)])["y"].tolist() == [2, 2]
    assert model([np.array(["a,b,d"], object)])["y"].tolist() == [1, 3]


def test_the_rank_of_what_has_no_known_rank(core, device):
    text = """<ir_version: 8, opset_import: ["": 17]> m (float[N, M] x) => (int64 y) {
        q = Squeeze(x) s = Shape(q) y = Size(s)
    }"""
    model = core.compile_model(onnx.parser.parse_model(text), device)
    for shape in ((2, 3), (2, 1), (1, 1)):
        assert model([np.ones(shape, np.float32)])["y"] == np.ones(shape).squeeze().ndim


def test_an_exported_model_keeps_the_sizes_that_data_give(core):
    text = """<ir_version: 9, opset_import: ["": 20]> m (string[N] x) => (float[A, B] y) {
        t, n = StringSplit<delimiter = ",">(x) s = Shape(t) y = ConstantOfShape(s)
    }"""
    blob = core.compile_model(onnx.parser.parse_model(text), "CPU").export_model()
    model = core.import_model(blob, "CPU")
    assert model([np.array(["a,b", "c"], object)])["y"].shape == (2, 2)
