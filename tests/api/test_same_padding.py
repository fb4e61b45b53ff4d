"""auto_pad SAME with a stride over sizes that only a run knows."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

WINDOWS = {
    "MaxPool": 'y = MaxPool<kernel_shape = [2, 3], strides = [2, 3], auto_pad = "%s">(x)',
    "AveragePool": 'y = AveragePool<kernel_shape = [3, 3], strides = [2, 2], auto_pad = "%s">(x)',
    "Conv": 'y = Conv<strides = [2, 3], auto_pad = "%s">(x, w)',
}


@pytest.mark.parametrize("op", WINDOWS)
def test_the_padding_is_that_of_the_run(core, device, op):
    for way in ("SAME_UPPER", "SAME_LOWER"):
        text = f"""<ir_version: 8, opset_import: ["": 17]>
        m (float[N, 2, H, W] x, float[4, 2, 3, 3] w) => (y) {{ {WINDOWS[op] % way} }}"""
        content = onnx.parser.parse_model(text).SerializeToString()
        session = onnxruntime.InferenceSession(content)
        model = core.compile_model(content, device)
        assert not model.host_steps
        rng = np.random.default_rng(2)
        w = rng.normal(size=(4, 2, 3, 3)).astype(np.float32)
        for size in ((1, 2, 7, 8), (2, 2, 4, 3), (1, 2, 1, 1)):
            x = rng.normal(size=size).astype(np.float32) - 3
            (wanted,) = session.run(None, {"x": x, "w": w})
            np.testing.assert_allclose(model({"x": x, "w": w})[0], wanted, rtol=1e-4, atol=1e-5)
