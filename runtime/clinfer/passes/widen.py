"""Models of float16 that multiply matrices are computed in float32 throughout, for class "cpu".

Kernels compute float16 in float32 and round what they store. Where a processor has no float16
arithmetic of its own, every load of a weight in an inner loop then is a conversion, which costs
more than the memory it saves. So weights and intermediate results become float32; inputs and
outputs keep the types the model gives them. Nothing is rounded on the way, and what float16 could
not hold is not infinite. ONNX Runtime and OpenVINO do the same on CPUs.

A graph is left as it is where it has subgraphs or values that are no tensors, which state their
types themselves, an operator that the program has added, or an attribute that names float16 and is
not in the table here.
"""

from __future__ import annotations

import numpy as np

from clinfer.graph.ir import Graph, Node, Value
from clinfer.passes.rewrite import Log

_MULTIPLIED = frozenset(
    ["Attention", "Conv", "ConvTranspose", "Einsum", "Gemm", "GRU", "LSTM", "MatMul", "RNN"]
)
_HALF, _SINGLE = "float16", "float32"
_HALF_NUMBER, _SINGLE_NUMBER = 10, 1
# The attributes that state the type of a result, by operator.
_TYPE_ATTRIBUTES = {
    "Cast": "to",
    "DequantizeLinear": "output_dtype",
    "EyeLike": "dtype",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
}
_TYPE_NAMES = frozenset(["to", "dtype", "output_dtype", "output_datatype", "softmax_precision"])


def widen(graph: Graph, log: Log) -> None:
    """Makes float32 of float16, in place, where the module's text says so."""
    if not any(node.op in _MULTIPLIED and _is_half(node.input(0)) for node in graph.nodes):
        return
    if not all(node.kind not in graph.custom and _is_understood(node) for node in graph.nodes):
        return
    wanted = [value.dtype for value in graph.outputs]
    given = {id(value) for value in graph.inputs}
    for value in list(graph.values()):
        if _is_half(value) and id(value) not in given:
            value.dtype = _SINGLE
            if value.const is not None:
                value.const = value.const.astype(np.float32)
    for node in graph.nodes:
        _state_single(node)
    first = graph.nodes[0]
    for value in graph.inputs:
        if _is_half(value):
            _read_as_single(graph, value, first)
    for index, (value, dtype) in enumerate(zip(graph.outputs, wanted, strict=True)):
        if dtype == _HALF and id(value) not in given:
            cast = _cast(graph, value, _HALF, _HALF_NUMBER, None)
            graph.outputs[index] = cast.output
    for name, declared in graph.declared.items():
        if declared.dtype == _HALF:
            graph.declared[name] = declared._replace(dtype=_SINGLE)
    log.fired["widen", "float16 computed in float32"] += 1


def _is_half(value: Value | None) -> bool:
    return value is not None and value.dtype == _HALF


def _is_understood(node: Node) -> bool:
    if node.proto is not None or node.captures:
        return False
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    if any(v.type_proto is not None for v in values):
        return False
    known = _TYPE_ATTRIBUTES.get(node.op)
    named = {k for k, v in node.attrs.items() if k in _TYPE_NAMES and v == _HALF_NUMBER}
    return named <= {known}


def _state_single(node: Node) -> None:
    name = _TYPE_ATTRIBUTES.get(node.op)
    if name is not None and node.attrs.get(name) == _HALF_NUMBER:
        node.attrs[name] = _SINGLE_NUMBER
    for key, content in node.attrs.items():
        if isinstance(content, np.ndarray) and content.dtype == np.float16:
            node.attrs[key] = content.astype(np.float32)


def _read_as_single(graph: Graph, value: Value, first: Node) -> None:
    users = list(value.users.nodes())
    if not users:
        return
    wide = _cast(graph, value, _SINGLE, _SINGLE_NUMBER, first).output
    for node in users:
        for index, other in enumerate(node.inputs):
            if other is value:
                graph.set_input(node, index, wide)


def _cast(graph: Graph, value: Value, dtype: str, number: int, before: Node | None) -> Node:
    return graph.node(
        "Cast",
        [value],
        dtype=dtype,
        shape=value.shape,
        attrs={"to": number},
        name=value.name,
        before=before,
    )
