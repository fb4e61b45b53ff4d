"""Models of 8-bit integers on GPUs with a unit for bytes, from the model to the results."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

import clinfer

_TEXT = """<ir_version: 8, opset_import: ["": 18]>
main (float[2, 3, 9, 9] x) => (float[2, 20, 5, 5] y) {
    xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)
    ad = DequantizeLinear<axis = 0>(a, as)
    p = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(xd, ad, bias) r = Relu(p)
    rq = QuantizeLinear(r, s, low) rd = DequantizeLinear(rq, s, low)
    bd = DequantizeLinear<axis = 0>(b, as)
    d = Conv<pads = [1, 1, 1, 1], group = 8>(rd, bd)
    dq = QuantizeLinear(d, s, z) dd = DequantizeLinear(dq, s, z) g = Sigmoid(dd)
    gq = QuantizeLinear(g, t, low) gd = DequantizeLinear(gq, t, low) m = Mul(dd, gd)
    mq = QuantizeLinear(m, s, z) md = DequantizeLinear(mq, s, z)
    cd = DequantizeLinear<axis = 0>(c, cs)
    q = Conv(md, cd) yq = QuantizeLinear(q, s, z) y = DequantizeLinear(yq, s, z)
}"""
_STEP = 0.02


@pytest.fixture
def model() -> bytes:
    """A convolution of a picture, one by channels, SiLU, and a projection, all in QDQ."""
    rng = np.random.default_rng(3)
    made = parser.parse_model(_TEXT)
    constants = {
        "s": np.float32(_STEP),
        "t": np.float32(1 / 256),
        "z": np.uint8(117),
        "low": np.uint8(0),
        "bias": rng.standard_normal(8).astype(np.float32),
    }
    for name, shape in (("a", (8, 3, 3, 3)), ("b", (8, 1, 3, 3)), ("c", (20, 8, 1, 1))):
        constants[name] = rng.integers(-127, 128, shape).astype(np.int8)
    for name, filters in (("as", 8), ("cs", 20)):
        constants[name] = rng.uniform(0.002, 0.004, filters).astype(np.float32)
    for name, content in constants.items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(content), name))
    return made.SerializeToString()


def test_convolutions_between_quantised_values_multiply_bytes(gpu, model, monkeypatch):
    """Off by no more than one step of the result, where a sum lies on the edge of two."""
    core = clinfer.Core()
    device = core._device(gpu)
    units = ("mma_s8 emulated", "mma_u8 emulated")
    monkeypatch.setattr(device, "target", device.target._replace(matrix_units=units))
    compiled = core.compile_model(model, gpu)
    made = [program.entry for program in compiled.plan.programs]
    assert sum(entry.startswith("conv_mma_u8_emulated") for entry in made) == 2
    assert sum(entry.startswith("conv_depthwise_") for entry in made) == 1
    x = np.random.default_rng(4).standard_normal((2, 3, 9, 9)).astype(np.float32)
    plain = SessionOptions()
    plain.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(model, plain, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    away = np.abs(compiled(x)[0] - wanted) / _STEP
    assert away.max() <= 1.01 and (away > 0.5).mean() <= 0.01
