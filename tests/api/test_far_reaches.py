"""Numbers in a model that say much and ask for little: strides, dilations, pads, steps of 2^30."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

import clinfer
from api.conftest import prepare

FAR = 2**30

TEXT = f"""<ir_version: 8, opset_import: ["": 17]>
m (float[1, 2, rows, columns] x, float[n, columns] s) => (
    float[a0, a1, a2, a3] dilated, float[b0, b1, b2, b3] spread, float[c0, c1] step,
    float[d0, d1] back, float[e0, e1, e2, e3] pooled
) {{
    dilated = Conv<dilations = [{FAR - 1}, 1], pads = [{FAR - 1}, 1, {FAR - 1}, 1]>(x, w)
    spread = ConvTranspose<strides = [{FAR}, 1], pads = [1, 0, {FAR - 2}, 0]>(x, t)
    step = Slice(s, from, to, axis, far)
    back = Slice(s, last, least, axis, far_back)
    pooled = MaxPool<kernel_shape = [{FAR}, 2], pads = [{FAR - 1}, 0, {FAR - 1}, 0],
                     strides = [{FAR - 1}, 1]>(x)
}}"""
RNG = np.random.default_rng(2)


@pytest.mark.parametrize("name", ["CPU", "GPU"])
def test_reaching_far_costs_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = onnx.parser.parse_model(TEXT)
    constants: dict[str, Any] = {
        "w": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32),
        "t": RNG.standard_normal((2, 2, 2, 2)).astype(np.float32),
        "from": [0],
        "to": [2**63 - 1],
        "axis": [0],
        "far": [2**62],
        "last": [2**63 - 1],
        "least": [-(2**63)],
        "far_back": [-(2**33)],
    }
    for key, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), key))
    feeds = {
        "x": RNG.standard_normal((1, 2, 2, 5)).astype(np.float32),
        "s": RNG.standard_normal((4, 5)).astype(np.float32),
    }
    wanted = ort.InferenceSession(proto.SerializeToString()).run(None, feeds)
    found = clinfer.compile_model(proto, prepare(name, monkeypatch))(feeds)
    for number, value in enumerate(wanted):
        np.testing.assert_allclose(found[number], value, 1e-5, 1e-6)
