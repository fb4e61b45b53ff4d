"""Norms inside products, from the model to the results of a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser
from onnxruntime import InferenceSession

import clinfer

_TEXT = """<ir_version: 8, opset_import: ["": 18]>
main (float[N, S, 48] x, float[N, S, 64] r) => (float[N, S, 128] y) {
    p = MatMul(x, a) u = Add(p, r) v = LayerNormalization<axis = -1>(u, gain, shift)
    w = MatMul(v, b) g = Relu(w) q = MatMul(g, c) k = Add(q, bias) z = Add(k, v)
    v1 = LayerNormalization<axis = -1>(z, gain, shift) y = MatMul(v1, b)
}"""
_SHAPES = {
    "a": (48, 64),
    "b": (64, 128),
    "c": (128, 64),
    "gain": (64,),
    "shift": (64,),
    "bias": (64,),
}


def model(rows: tuple[int, int]) -> bytes:
    """Of known sizes: each product then has one schedule, which is all that is compiled."""
    rng = np.random.default_rng(3)
    made = parser.parse_model(_TEXT.replace("[N, S,", f"[{rows[0]}, {rows[1]},"))
    for name, shape in _SHAPES.items():
        content = (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        made.graph.initializer.append(numpy_helper.from_array(content, name))
    return made.SerializeToString()


@pytest.mark.parametrize("rows", [(1, 1), (2, 37)])
def test_a_gpu_gives_what_onnx_runtime_gives(gpu, rows):
    """Few rows, and more of them, whose means and deviations a later sum reads."""
    rng = np.random.default_rng(4)
    feed = {
        n: rng.standard_normal((*rows, d)).astype(np.float32) for n, d in (("x", 48), ("r", 64))
    }
    proto = model(rows)
    (wanted,) = InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, feed)
    compiled = clinfer.Core().compile_model(proto, gpu)
    np.testing.assert_allclose(compiled(feed)[0], wanted, rtol=1e-4, atol=1e-4)
