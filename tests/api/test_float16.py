"""Models of float16."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def test_nothing_is_rounded_on_the_way_on_a_cpu(core, cpu):
    """What float16 cannot hold on the way is finite; the result is rounded once."""
    half = TensorProto.FLOAT16
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Mul", ["a", "scale"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", half, ["n", 64])],
        [helper.make_tensor_value_info("y", half, ["n", 64])],
        [
            numpy_helper.from_array(np.full((64, 64), 40, np.float16), "w"),
            numpy_helper.from_array(np.float16(0.001), "scale"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = core.compile_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), cpu)
    for rows in (1, 3):
        found = model(np.full((rows, 64), 40, np.float16))[0]
        assert found.dtype == np.float16
        assert found.shape == (rows, 64)
        np.testing.assert_allclose(found, 102400 * float(np.float16(0.001)), rtol=1e-3)
