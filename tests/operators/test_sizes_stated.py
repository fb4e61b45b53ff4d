"""Sizes that a file states and none can have: in tensors, inputs, and what operators are told."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import SparseTensorProto, TensorProto, numpy_helper
from operator_helpers import model

from clinfer.errors import ModelError, ShapeError
from clinfer.graph.reader import read

ABSURD = ([-1], [4, -1], [-1, -4], [2**62], [2**40, 2**40], [0, 2**63 - 1], [2**63 - 1])
X = np.ones(4, np.float32)


def with_tensor(dims: list[int]) -> onnx.ModelProto:
    """x + w, where w is stated to be of that shape and has four elements."""
    proto = model("Add", {"x": X, "w": X}, constants=("w",))
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    return proto


@pytest.mark.parametrize("dims", ABSURD, ids=str)
def test_a_tensor_of_such_a_shape_is_refused(dims):
    with pytest.raises(ModelError, match="tensor 'w'"):
        read(with_tensor(dims))


@pytest.mark.parametrize("dims", ABSURD[3:], ids=str)
def test_an_input_of_such_a_shape_is_refused(dims):
    with pytest.raises(ModelError, match="input 'x'"):
        read(model("Relu", {"x": (TensorProto.FLOAT, dims)}))


@pytest.mark.parametrize(
    ("indices", "count", "dims"),
    [
        ([9], 1, [4]),
        ([-1], 1, [4]),
        ([0], 1, [2**40]),
        ([0], 1, [-4]),
        ([0], 2, [4]),
        ([[0, 0]], 1, [4]),
        ([[9, 0]], 1, [4, 4]),
    ],
)
def test_sparse_tensors_have_their_elements_inside(indices, count, dims):
    proto = model("Add", {"x": X, "w": X}, constants=("w",))
    del proto.graph.initializer[:]
    values = numpy_helper.from_array(np.ones(count, np.float32), "w")
    places = numpy_helper.from_array(np.array(indices, np.int64), "i")
    proto.graph.sparse_initializer.append(
        SparseTensorProto(values=values, indices=places, dims=dims)
    )
    with pytest.raises(ModelError, match="tensor 'w'"):
        read(proto)


@pytest.mark.parametrize(
    ("op", "target"),
    [
        ("ConstantOfShape", [2**31, 2**31]),
        ("ConstantOfShape", [-1, 2]),
        ("Expand", [2**62, 2**62]),
        ("Expand", [-3]),
        ("Tile", [2**62]),
        ("Tile", [-1]),
        ("Reshape", [0, 2**62]),
        ("Reshape", [-2, -2]),
        ("Pad", [2**62, 2**62]),
        ("Pad", [-3, -3]),
    ],
)
def test_operators_make_no_such_shape(op, target):
    given = {} if op == "ConstantOfShape" else {"x": np.ones(0 if op == "Reshape" else 4, "f4")}
    proto = model(op, {**given, "s": np.array(target, np.int64)}, constants=("s",))
    with pytest.raises((ModelError, ShapeError), match=f'{op} "node"'):
        read(proto)
