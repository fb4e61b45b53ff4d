"""Types that a model's file declares and its nodes do not give: the nodes count."""

from __future__ import annotations

import logging

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper

X = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
AXES = np.array([1])
SUM = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)


def model(nodes, declared, between=()):
    inputs = [
        helper.make_tensor_value_info("x", T.FLOAT, X.shape),
        helper.make_tensor_value_info("axes", T.INT64, [1]),
    ]
    outputs = [helper.make_tensor_value_info("y", *declared)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, value_info=list(between))
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


@pytest.mark.parametrize("shape", [[3, 1, 5], [3, 5, 1, 1], [3, 4], [], None])
def test_an_output_of_another_shape_than_declared(core, shape):
    made = model([SUM], (T.FLOAT, shape))
    feeds = {"x": X, "axes": AXES}
    (expected,) = onnxruntime.InferenceSession(made).run(None, feeds)
    assert np.array_equal(core.compile_model(made, "CPU")(feeds)["y"], expected)


def test_an_output_whose_rank_only_the_run_knows(core):
    """Nothing but the declaration, which is wrong, says its rank before."""
    nodes = [helper.make_node("Squeeze", ["x"], ["y"])]
    x = helper.make_tensor_value_info("x", T.FLOAT, ["N", "M"])
    y = helper.make_tensor_value_info("y", T.FLOAT, [1, 1, 1])
    made = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)]
    )
    assert core.compile_model(made, "CPU")([np.ones((1, 4), np.float32)])["y"].shape == (4,)


def test_wrong_types_of_values_between_are_ignored_and_told(core, caplog):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("ReduceSum", ["a", "axes"], ["b"], keepdims=0),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    between = [
        helper.make_tensor_value_info("a", T.FLOAT, [7]),
        helper.make_tensor_value_info("b", T.FLOAT, [3, 1, 5]),
    ]
    with caplog.at_level(logging.WARNING, "clinfer"):
        compiled = core.compile_model(model(nodes, (T.FLOAT, [3, 5]), between), "CPU")
    assert np.array_equal(compiled({"x": X, "axes": AXES})["y"], -X.sum(1))
    (record,) = caplog.records
    assert "'a' is declared as float32[7], but is float32[3, 4, 5] (and 1 more)" in record.message


def test_another_element_type_is_told(core, caplog):
    with caplog.at_level(logging.WARNING, "clinfer"):
        compiled = core.compile_model(model([SUM], (T.DOUBLE, [3, 5])), "CPU")
    assert compiled({"x": X, "axes": AXES})["y"].dtype == np.float32
    assert "is declared as float64[3, 5], but is float32" in caplog.records[0].message
