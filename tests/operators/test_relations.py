"""What does not fit is refused where ONNX Runtime refuses it, when read or when sizes are bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from operator_helpers import model

from bound import bind_symbols
from clinfer.errors import ModelError, ShapeError
from clinfer.graph.reader import read
from clinfer_kernels.dims import RELATIONS, evaluate, symbols


def floats(*shape: int) -> Any:
    return np.linspace(0.1, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def row(op: str, inputs: Any, *constants: str, id: str = "", **more: Any) -> Any:
    """A case: its operator, inputs by position, and what `operator_helpers.model` takes."""
    names = "abcdefghi"
    given = dict(zip(names, inputs, strict=False))
    named = tuple(names[int(c)] for c in constants)
    return pytest.param(op, given, {"constants": named, **more}, id=id or op)


Q = {"opset": 23}
LSTM = [floats(3, 2, 5), floats(1, 16, 5), floats(1, 16, 4)]
STATE = floats(1, 2, 4)
BYTES = np.ones((4, 3), np.uint8)
LENGTHS = np.array([1, 2], np.int32)
ZERO = np.ones(1, np.uint8)
QLINEAR = [np.ones((2, 3), np.uint8), floats(1), ZERO, BYTES.T[:, :2].copy(), floats(1), ZERO]
QLINEAR = [*QLINEAR, floats(1), ZERO]

REFUSED = [
    row("BatchNormalization", [floats(1, 8, 4), *[floats(2)] * 4]),
    row("BatchNormalization", [floats(1, 2, 4), floats(2, 1), *[floats(2)] * 3], id="BN rank"),
    row("LayerNormalization", [floats(2, 5), floats(3)]),
    row("LayerNormalization", [floats(2, 5), floats(1, 1, 5)], id="LN rank"),
    row("LayerNormalization", [floats(2, 5), floats(5), floats(2)], id="LN bias"),
    row("RMSNormalization", [floats(2, 5), floats(3)], **Q),
    row("InstanceNormalization", [floats(1, 4, 4), floats(3), floats(3)]),
    row("GroupNormalization", [floats(1, 4, 4), floats(3), floats(3)], num_groups=2, opset=21),
    row("Conv", [floats(1, 1, 4, 4), floats(8, 1, 2, 2), floats(2)], "1"),
    row("Conv", [floats(1, 2, 4, 4), floats(3, 1, 2, 2)], "1", group=2, id="Conv groups"),
    row("Conv", [floats(1, 1, 4, 4), floats(3, 1, 2, 2)], kernel_shape=[3, 3], id="Conv kernel"),
    row("Conv", [floats(1, 1, 4, 4), floats(3, 1, 2, 2)], strides=[1], id="Conv strides"),
    row("Conv", [floats(1, 1, 4, 4), floats(3, 1, 2, 2)], strides=[0, 1], id="Conv stride 0"),
    row("Conv", [floats(1, 1, 4, 4), floats(3, 1, 2, 2)], dilations=[0, 1], id="Conv dilation"),
    row("Conv", [floats(1, 1, 4, 4), floats(3, 1, 2, 2)], pads=[-1, 0, 0, 0], id="Conv pads"),
    row("Conv", [floats(1, 1, 4, 4), floats(3, 1, 2, 2)], group=0, id="Conv group 0"),
    row("Conv", [floats(1, 1, 2, 2), floats(3, 1, 3, 3)], "1", id="Conv larger than its image"),
    row("MaxPool", [floats(1, 1, 2, 2)], kernel_shape=[5, 5]),
    row("MaxPool", [floats(1, 1, 4, 4)], kernel_shape=[2, 2, 2], id="MaxPool rank"),
    row("AveragePool", [floats(1, 1, 4, 4)], kernel_shape=[2, 2], pads=[2, 2, 2, 2]),
    row("ConvTranspose", [floats(1, 1, 4, 4), floats(1, 8, 2, 2), floats(2)], "1"),
    row("Gemm", [floats(2, 3), floats(3, 4), floats(9)]),
    row("Gemm", [floats(2, 3), floats(3, 4), floats(1, 2, 4)], id="Gemm rank"),
    row("DequantizeLinear", [BYTES, floats(2)], axis=1),
    row("DequantizeLinear", [BYTES, floats(3), np.zeros(1, np.uint8)], axis=1, id="DQ zero"),
    row("QuantizeLinear", [floats(2, 4), floats(3), np.zeros(3, np.uint8)], axis=1),
    row("MatMulInteger", [BYTES, BYTES.T, np.array(0, np.uint8), np.ones(3, np.uint8)]),
    row("ScatterElements", [floats(4, 3), np.zeros((2, 3), np.int64), floats(1, 1)]),
    row("ScatterElements", [floats(2, 3), np.zeros((2, 6), np.int64), floats(2, 6)], id="wide"),
    row("ScatterND", [floats(4, 3), ints(1, 2).reshape(2, 1), floats(1, 1)]),
    row("ScatterND", [floats(4), ints(1, 2).reshape(1, 2), floats(1)], id="ScatterND depth"),
    row("GatherElements", [floats(2, 3), np.zeros((2, 9), np.int64)]),
    row("GatherND", [floats(2, 3), ints(0, 0, 0).reshape(1, 3)]),
    row("Gather", [np.float32(1), ints(0)]),
    row("LSTM", [*LSTM, None, None, floats(1, 1, 1), STATE], "1", "2", hidden_size=4),
    row("LSTM", [*LSTM, None, LENGTHS[:1]], "1", "2", hidden_size=4, id="LSTM lengths"),
    row("LSTM", LSTM, "1", "2", hidden_size=4096, id="LSTM hidden_size"),
    row("LSTM", LSTM, hidden_size=4, activations=["Sigmoid", "Tanh"], id="LSTM activations"),
    row("GRU", [floats(3, 2, 5), floats(1, 9, 5), floats(1, 12, 4)], hidden_size=4),
    row("NegativeLogLikelihoodLoss", [floats(3, 5), ints(4, 1, 2), floats(2)]),
    row("NegativeLogLikelihoodLoss", [floats(7, 5), ints(4, 1, 2)], id="NLL target"),
    row("ReverseSequence", [floats(4, 6), ints(2, 3)], batch_axis=1, time_axis=0),
    row("ReverseSequence", [floats(4, 2), ints(2, 3)], batch_axis=1, time_axis=1, id="RS axes"),
    row("MaxUnpool", [floats(1, 1, 4, 4), ints(0, 1).reshape(1, 1, 1, 2)], kernel_shape=[2, 2]),
    row("GridSample", [floats(8, 1, 4, 4), floats(1, 3, 3, 2)], opset=20),
    row("GridSample", [floats(1, 1, 4, 4), floats(1, 3, 3, 3)], opset=20, id="GridSample places"),
    row("Attention", [*[floats(1, 2, 4, 8)] * 3, floats(4, 3)], **Q),
    row("Attention", [floats(1, 2, 4, 8), *[floats(1, 2, 4, 6)] * 2], **Q, id="Attention heads"),
    row("RotaryEmbedding", [floats(1, 2, 3, 8), *[floats(9, 2)] * 2, ints(0, 1, 2)[None]], **Q),
    row("TopK", [floats(5), ints(9)], "1", outputs=2),
    row("Tile", [floats(5), ints(2, 2)], "1"),
    row("Tile", [floats(5), ints(-2)], "1", id="Tile negative"),
    row("ConstantOfShape", [ints(-1)], "0"),
    row("Expand", [floats(3), ints(5)], "1"),
    row("Reshape", [floats(4), ints(-2, -2)], "1"),
    row("Reshape", [floats(0, 4), ints(0, -1)], "1", allowzero=1, id="Reshape allowzero"),
    row("Unsqueeze", [floats(3), ints(1, 1)], "1"),
    row("Slice", [floats(9, 9), ints(1, 2), ints(5, 6), ints(0, 0)], "1", "2", "3"),
    row("Slice", [floats(9), ints(0), ints(5), ints(0), ints(0)], "1", "2", "3", "4", id="step"),
    row("Pad", [floats(3, 2), ints(1, 1, 1, 1), np.float32(0), ints(0, 0)], "1", "3"),
    row("Pad", [floats(3, 3), ints(1, 1)], "1", id="Pad count"),
    row("Transpose", [floats(4, 2)], perm=[0, 0]),
    row("Softmax", [floats(4, 2)], axis=5),
    row("LogSoftmax", [floats(4, 2)], axis=-3),
    row("Flatten", [floats(4, 2)], axis=-3),
    row("Concat", [floats(4, 2), floats(4, 2)], axis=5),
    row("Split", [floats(6)], num_outputs=3, outputs=2),
    row("Split", [floats(6), ints(8, -2)], "1", outputs=2, id="Split negative"),
    row("DepthToSpace", [floats(1, 6, 2, 2)], blocksize=2),
    row("SpaceToDepth", [floats(1, 1, 3, 3)], blocksize=2),
    row("DepthToSpace", [floats(1, 4, 2, 2)], blocksize=0, id="DepthToSpace 0"),
    row("LRN", [floats(1, 3, 2, 2)], size=0),
    row("EyeLike", [floats(1, 3, 2)]),
    row("Trilu", [floats(3)]),
    row("Clip", [floats(3), floats(2)]),
    row("OneHot", [ints(0, 1), ints(3), floats(3)]),
    row("Einsum", [floats(3, 4), floats(4, 2)], equation="ij,jk->iz"),
    row("Einsum", [floats(3, 4)], equation="ij,jk->ik", id="Einsum terms"),
    row("CumSum", [floats(3, 5), np.array(5)], "1"),
    row("Mod", [floats(3), np.ones(3, np.int32)], fmod=1),
    row("Add", [floats(3), np.ones(3, np.int64)]),
    row("Not", [np.ones(3, np.int32)]),
    row("Where", [np.ones(3, bool), floats(3), np.ones(3, np.float64)]),
    row("RNN", [floats(1, 1, 3), floats(1, 2, 3), floats(1, 2, 2)], hidden_size=2, clip=0),
    row("Conv", [floats(1, 1, 4, 4), floats(3, 1, 2, 2)], bias=1, id="Conv unknown attribute"),
    row("Pad", [floats(3), ints(1, 1)], "1", mode="maxnan", id="Pad mode"),
    row("AffineGrid", [floats(2, 2, 4), ints(2, 1, 4, 4)], "1", opset=20),
    row("AffineGrid", [floats(3, 2, 3), ints(2, 1, 4, 4)], "1", opset=20, id="AffineGrid batch"),
    row("GlobalMaxPool", [floats(1, 1, 0, 3)]),
    row("QLinearMatMul", [*QLINEAR[:2], np.ones(2, np.uint8), *QLINEAR[3:]]),
    row("QLinearMatMul", [*QLINEAR[:6], floats(2), QLINEAR[7]], id="QLinearMatMul result"),
]

ACCEPTED = [
    row("LayerNormalization", [floats(2, 3, 4), floats(2, 1, 4)]),
    row("LayerNormalization", [floats(2, 3, 4), floats(1), floats()], id="LN one"),
    row("RMSNormalization", [floats(2, 5), floats(1)], **Q),
    row("Gemm", [floats(2, 3), floats(3, 4), floats(1)]),
    row("Gemm", [floats(2, 3), floats(3, 4), floats(2, 1)], id="Gemm column"),
    row("Gemm", [floats(3, 2), floats(4, 3), floats(1, 4)], transA=1, transB=1, id="Gemm row"),
    row("DequantizeLinear", [BYTES, floats(1)], axis=0),
    row("DequantizeLinear", [BYTES, floats()], axis=7, id="DQ scalar"),
    row("QuantizeLinear", [floats(3, 4), floats(1), np.array(1, np.uint8)], axis=0),
    row("MatMulInteger", [BYTES, BYTES.T, np.array(1, np.uint8), np.ones(4, np.uint8)]),
    row("MatMulInteger", [BYTES, BYTES.T, None, np.ones(1, np.uint8)], id="MatMulInteger one"),
    row("BatchNormalization", [floats(3), *[floats(1)] * 4]),
    row("Clip", [floats(4), floats(1), floats(1)]),
    row("Squeeze", [floats(3, 1), ints(1, -1)], "1"),
    row("ReduceSum", [floats(3, 2), ints(1, -1)], "1"),
    row("Range", [floats(1), floats(1) + 5, floats(1)], id="Range of vectors"),
    row("Conv", [floats(1, 1, 4, 4), floats(3, 1, 2, 2)], auto_pad=""),
    row("MaxPool", [floats(1, 1, 2, 2)], kernel_shape=[3, 3]),
    row("Einsum", [floats(3, 4)], equation=" I j -> jI "),
    row("ScatterElements", [floats(9, 3), np.zeros((2, 3), np.int64), floats(2, 3)]),
    row("LSTM", [*LSTM, None, LENGTHS, STATE, STATE], "1", "2", hidden_size=4),
    row("LSTM", LSTM, hidden_size=4, activations=["sigmoid", "tanh", "tanh"], id="LSTM words"),
    row("Pow", [floats(3), np.ones(3, np.int64)]),
    row("Pad", [floats(3, 2), ints(1, 1), None, ints(0)], "1", "3"),
]


def runs(proto: onnx.ModelProto, feeds: dict[str, Any]) -> bool:
    """Whether ONNX Runtime runs the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feeds)
    except Exception:
        return False
    return True


def free(inputs: dict[str, Any], constants: tuple[str, ...]) -> dict[str, Any]:
    """The inputs with a name of its own for every size, but for the length of an index."""
    found = {}
    for name, given in inputs.items():
        if given is None or name in constants:
            found[name] = given
            continue
        dtype = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(given).dtype)
        sizes: list[Any] = [f"{name}{axis}" for axis in range(np.ndim(given))]
        if np.asarray(given).dtype == np.int64 and len(sizes) > 1:
            sizes[-1] = np.shape(given)[-1]
        found[name] = (dtype, sizes)
    return found


def violated(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[str]:
    """Constraints that do not hold when these inputs bind the sizes."""
    graph = read(proto).graph()
    sizes = bind_symbols(graph.inputs, [np.shape(feeds[v.name]) for v in graph.inputs])
    return [
        c.message
        for c in graph.constraints
        if symbols(c.left) | symbols(c.right) <= sizes.keys()
        and not RELATIONS[c.relation](evaluate(c.left, sizes), evaluate(c.right, sizes))
    ]


def feeds_of(inputs: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in inputs.items() if v is not None and n not in more["constants"]}


@pytest.mark.parametrize(("op", "inputs", "more"), REFUSED)
def test_what_does_not_fit_is_refused_when_it_is_read(op, inputs, more):
    proto = model(op, inputs, **more)
    assert not runs(proto, feeds_of(inputs, more))
    with pytest.raises((ModelError, ShapeError), match=f'{op} "node"'):
        read(proto)


@pytest.mark.parametrize(("op", "inputs", "more"), REFUSED)
def test_what_does_not_fit_is_refused_when_sizes_are_bound(op, inputs, more):
    proto = model(op, free(inputs, more["constants"]), **more)
    try:
        found = violated(proto, feeds_of(inputs, more))
    except (ModelError, ShapeError):
        return
    assert found
    assert all(op in message for message in found)


@pytest.mark.parametrize(("op", "inputs", "more"), ACCEPTED)
def test_what_onnx_runtime_runs_is_read(op, inputs, more):
    proto = model(op, inputs, **more)
    assert runs(proto, feeds_of(inputs, more))
    read(proto)
    assert (
        violated(model(op, free(inputs, more["constants"]), **more), feeds_of(inputs, more)) == []
    )
