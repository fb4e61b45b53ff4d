"""What has no number in the result's type: NaN and infinities that are quantised."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

import clinfer
from api.conftest import prepare
from clinfer.graph import numpy_ops

TYPES = ("int8", "uint8", "int16", "uint16")
X = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e5, -1e5, 0.5, 1.5, -2.5, 0, -0.0], np.float32)
SCALES = (1.0, 0.25, 0.0, np.nan, np.inf)


@pytest.mark.parametrize("name", ["CPU", "GPU"])
def test_quantised_are_what_onnx_runtime_makes_of_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN becomes the least number: on each device, and on the host."""
    steps = [f"{t}{n} = QuantizeLinear(x, s{n}, {t})" for t in TYPES for n in range(len(SCALES))]
    outputs = ", ".join(f"{t}[N] {t}{n}" for t in TYPES for n in range(len(SCALES)))
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]>'
        f"m (float[N] x) => ({outputs}) {{ {' '.join(steps)} }}"
    )
    constants = {f"s{n}": np.float32(scale) for n, scale in enumerate(SCALES)}
    constants |= {t: np.array(7, t) for t in TYPES}
    for key, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), key))
    wanted = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": X})
    found = clinfer.compile_model(proto, prepare(name, monkeypatch))({"x": X})
    quantised = numpy_ops.TABLE["QuantizeLinear"]
    for number, value in enumerate(wanted):
        scale, zero = constants[f"s{number % len(SCALES)}"], constants[value.dtype.name]
        np.testing.assert_array_equal(found[number], value)
        np.testing.assert_array_equal(quantised({}, [X, scale, zero])[0], value)
