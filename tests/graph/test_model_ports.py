"""`Model`: ports, dynamic dimensions, reshape."""

from __future__ import annotations

import pytest
from graph_helpers import model
from onnx import TensorProto, helper

from bound import bind_symbols
from clinfer.errors import InputError, ShapeError
from clinfer.graph.reader import read
from clinfer.sizes import dimension_name

TWO = "m (float[N, S] x, float[N, 4] y) => (float[N, Q] z) { z = Concat<axis = 1>(x, y) }"


def unnamed() -> object:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "m", [x], [y])
    )


def test_ports_show_names_of_dynamic_dimensions() -> None:
    made = model(TWO)
    assert [(p.name, p.shape, p.dtype) for p in (*made.inputs, *made.outputs)] == [
        ("x", ("N", "S"), "float32"),
        ("y", ("N", 4), "float32"),
        ("z", ("N", "Q"), "float32"),
    ]


def test_dimensions_without_a_name() -> None:
    made = read(unnamed())  # type: ignore[arg-type]
    assert made.inputs[0].shape == (None, 3)
    assert made.outputs[0].shape == (None, 3)
    assert str(made.graph().inputs[0].shape) == "(x.0, 3)"


def test_reshape_fixes_a_shared_dimension_everywhere() -> None:
    made = model(TWO)
    made.reshape({"x": [2, 5]})
    assert [p.shape for p in made.inputs] == [(2, 5), (2, 4)]
    assert made.outputs[0].shape == (2, 9)
    assert made.shape_changes


def test_reshape_by_index_name_and_unknown_size() -> None:
    made = model(TWO)
    made.reshape({0: ["B", None], "y": ["B", 7]})
    assert [p.shape for p in made.inputs] == [("B", None), ("B", 7)]
    single = read(unnamed())  # type: ignore[arg-type]
    single.reshape([8, -1])
    assert single.inputs[0].shape == (8, None)


@pytest.mark.parametrize(
    ("shapes", "error", "expected"),
    [
        ({"q": [1]}, InputError, "no input 'q'; it has 'x', 'y'"),
        ({5: [1]}, InputError, "no input 5"),
        ({"x": [1]}, ShapeError, "expected 2 dimensions"),
        ({"x": [1, -3]}, ShapeError, "-3 is not a size"),
        ({"x": [1, 2], "y": [3, 4]}, ShapeError, "dimension 'N' is 1"),
        ([1, 2], InputError, "one shape given for 2 inputs"),
    ],
)
def test_reshape_refuses(shapes: object, error: type[Exception], expected: str) -> None:
    made = model(TWO)
    with pytest.raises(error, match=expected):
        made.reshape(shapes)  # type: ignore[arg-type]
    assert made.inputs[0].shape == ("N", "S")


def test_a_reshape_the_graph_cannot_take_changes_nothing() -> None:
    made = model("m (float[N, 4] x, float[4, 2] w) => (float[N, 2] y) { y = MatMul(x, w) }")
    with pytest.raises(ShapeError, match="inner sizes"):
        made.reshape({"x": [1, 5]})
    assert made.inputs[0].shape == ("N", 4)


def test_graphs_are_the_callers_own() -> None:
    made = model(TWO)
    made.graph().nodes.clear()
    assert len(made.graph().nodes) == 1


@pytest.mark.parametrize("text", ["?", "", "-1", "*", "None", "unknown"])
def test_texts_that_name_no_dimension_are_independent_sizes(text: str) -> None:
    dims = [-1, 3, text, text]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)
    made = read(
        helper.make_model(
            helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "m", [x], [y])
        )
    )
    assert made.inputs[0].shape == made.outputs[0].shape == (None, 3, None, None)
    bound = bind_symbols(made.graph().inputs, [(2, 3, 48, 192)])
    assert sorted(bound.values()) == [2, 48, 192]
    made.reshape([1, 3, "?", "?"])
    assert made.inputs[0].shape == (1, 3, None, None)


def test_names_of_dimensions_stay_names() -> None:
    for name in ("unk__123", "batch size", "N", "p2o.DynamicDimension.0"):
        assert dimension_name(name) == name
