"""Small models for the tests of ONNX Runtime's surface."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, 9

info = helper.make_tensor_value_info


def encoded(nodes, inputs, outputs, initializers=(), ir: int = 10) -> bytes:
    graph = helper.make_graph(
        nodes, "the graph", inputs, outputs, list(initializers), doc_string="about the graph"
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir, producer_name="tests")
    model.domain, model.model_version, model.doc_string = "some.where", 7, "about the model"
    helper.set_model_props(model, {"classes": "a,b"})
    return model.SerializeToString()


def sums() -> bytes:
    """y = a + b, z = a * b; a [N, 3], b [?, 3]; the shapes of y and z are not written down."""
    nodes = [helper.make_node("Add", ["a", "b"], ["y"]), helper.make_node("Mul", "ab", ["z"])]
    inputs = [info("a", FLOAT, ["N", 3]), info("b", FLOAT, [None, 3])]
    return encoded(nodes, inputs, [info("y", FLOAT, None), info("z", FLOAT, None)])


def with_default(ir: int = 10) -> bytes:
    """y = a + b, where b [3] is an input with the value 2."""
    default = numpy_helper.from_array(np.full(3, 2, np.float32), "b")
    inputs = [info("a", FLOAT, ["N", 3]), info("b", FLOAT, [3])]
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    return encoded(nodes, inputs, [info("y", FLOAT, ["N", 3])], [default], ir)


def texts() -> bytes:
    """y = x, texts of any number in two dimensions."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return encoded(nodes, [info("x", STRING, ["", "M"])], [info("y", STRING, None)])


def sequences() -> bytes:
    """q = [a, a]; z = s[i], for a sequence s."""
    nodes = [
        helper.make_node("SequenceConstruct", ["a", "a"], ["q"]),
        helper.make_node("SequenceAt", ["s", "i"], ["z"]),
    ]
    sequence = helper.make_tensor_sequence_value_info
    inputs = [info("a", FLOAT, ["N"]), sequence("s", FLOAT, ["N"]), info("i", INT64, [])]
    return encoded(nodes, inputs, [sequence("q", FLOAT, None), info("z", FLOAT, ["N"])])


def optional() -> bytes:
    """z: whether the optional input has an element."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["N"]))
    nodes = [helper.make_node("OptionalHasElement", ["maybe"], ["z"])]
    return encoded(nodes, [helper.make_value_info("maybe", kind)], [info("z", BOOL, [])])


def dictionaries() -> bytes:
    """y: for each row of p [N, 2] its probabilities by label."""
    node = helper.make_node(
        "ZipMap", ["p"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[10, 20]
    )
    kind = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
    output = helper.make_value_info("y", helper.make_sequence_type_proto(kind))
    return encoded([node], [info("p", FLOAT, ["N", 2])], [output])


def unknown_operator() -> bytes:
    nodes = [helper.make_node("NoSuchOperator", ["a"], ["y"])]
    return encoded(nodes, [info("a", FLOAT, [3])], [info("y", FLOAT, [3])])
