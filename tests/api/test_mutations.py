"""What `tools/fuzz.py models` has found: mutated models and inputs, in their smallest form."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import clinfer


def compiled(nodes, inputs, outputs, constants=None):
    graph = helper.make_graph(
        nodes,
        "m",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()],
        [
            helper.make_tensor(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape, a.ravel())
            for n, a in (constants or {}).items()
        ],
    )
    imports = [helper.make_opsetid("", 17)]
    return clinfer.Core().compile_model(
        helper.make_model(graph, opset_imports=imports, ir_version=8), "CPU"
    )


def test_a_constant_in_the_shape_of_an_input():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Reshape", ["c", "s"], ["y"]),
    ]
    constant = np.arange(12, dtype=np.float32).reshape(2, 6)
    model = compiled(nodes, {"x": ["n", "m"]}, {"y": TensorProto.FLOAT}, {"c": constant})
    given = np.zeros((4, 3), np.float32)
    np.testing.assert_array_equal(model(given)["y"], constant.reshape(4, 3))
    with pytest.raises(clinfer.ClinferError, match="Reshape"):
        model(np.zeros((5, 3), np.float32))


@pytest.mark.parametrize("dtype", ["O", "U3", "M8[s]", "complex64"])
def test_arrays_without_elements_of_types_that_are_no_numbers(dtype):
    model = compiled([helper.make_node("Relu", ["x"], ["y"])], {"x": [5]}, {"y": TensorProto.FLOAT})
    with pytest.raises(clinfer.InputError, match="'x'"):
        model(np.empty((5, 0), dtype))


def test_a_window_without_axes():
    node = helper.make_node("AveragePool", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("kernel_shape", [], attr_type=7))
    with pytest.raises(clinfer.ShapeError, match="kernel_shape"):
        compiled([node], {"x": [1, 2, 8]}, {"y": TensorProto.FLOAT})


def test_sizes_from_a_constant_scalar_that_was_computed():
    nodes = [
        helper.make_node("Cast", ["c"], ["i"], to=TensorProto.INT64),
        helper.make_node("Identity", ["i"], ["j"]),
        helper.make_node("Unsqueeze", ["j", "zero"], ["s"]),
        helper.make_node("Expand", ["x", "s"], ["y"]),
    ]
    constants = {"c": np.array(3.7, np.float32), "zero": np.array([0], np.int64)}
    model = compiled(nodes, {"x": [1]}, {"y": TensorProto.FLOAT}, constants)
    np.testing.assert_array_equal(model(np.ones(1, np.float32))["y"], np.ones(3))
