"""Sizes and places that are known only when a host step has run."""

from __future__ import annotations

import numpy as np
import onnx

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
