"""A Loop or a Scan of a known number of steps, written into the graph step by step.

The steps are then like any other nodes: sizes are known in each, states stay on the device, what
does not depend on the step is computed once. Weights of the body are there once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clinfer.graph.bodies import define_constants
from clinfer.graph.build import NodeBuilder
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.node_protos import encoded
from clinfer.graph.protos import captured_names, subgraphs
from clinfer.graph.upgrade import typed

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

MOST_NODES = 4096
"""Nodes that all loops of a graph are written out to."""
_OLDEST_SCAN = 9  # before it a Scan had a batch axis


@dataclass(frozen=True)
class _Steps:
    """How often a body runs, and what it reads and gives besides its states.

    `scanned` are (value, axis, whether from the end); `stacked` (axis, whether from the end).
    """

    count: int
    states: list[Value | None]
    scanned: list[tuple[Value, int, bool]]
    stacked: list[tuple[int, bool]]


def unroll(graph: Graph, node: Node) -> list[Node] | None:
    """The nodes of all steps, typed; None where their number is not known, or they are too many.

    The node goes; readers of its outputs read what the last step, or all steps, have given.
    """
    if node.kind not in ("Loop", "Scan") or node.proto is None:
        return None
    proto = encoded(node.proto)
    body = next((a.g for a in proto.attribute if a.name == "body"), None)
    steps = None if body is None else _steps(node, body)
    if body is None or steps is None or steps.count == 0:
        return None
    cost = steps.count * (1 + _count(body) + len(steps.scanned) + len(steps.stacked))
    if graph.unrolled + cost > MOST_NODES:
        return None
    graph.unrolled += cost
    made, results = _written(graph, node, proto, body, steps)
    nodes = typed(graph, made)
    for old, new in zip(node.outputs, results, strict=True):
        if old is not None:
            graph.replace(old, new)
    graph.remove(node)
    return nodes


def _steps(node: Node, body: GraphProto) -> _Steps | None:
    own = node.inputs[: len(node.inputs) - node.captures]
    found = _of_loop(node, own, body) if node.kind == "Loop" else _of_scan(node, own, body)
    if found is None or any(state is None for state in found.states):
        return None
    first = len(body.output) - len(found.stacked)
    given = first - len(found.states) == (1 if node.kind == "Loop" else 0)
    read = len(body.input) - len(found.states) - len(found.scanned)
    fits = given and read == (2 if node.kind == "Loop" else 0)
    return found if fits and len(node.outputs) == len(found.states) + len(found.stacked) else None


def _of_loop(node: Node, own: Sequence[Value | None], body: GraphProto) -> _Steps | None:
    """A Loop of a constant number of steps whose condition is true and stays so."""
    limit = own[0] if own else None
    going = own[1] if len(own) > 1 else None
    if limit is None or limit.const is None or limit.const.size != 1:
        return None
    if going is not None and (going.const is None or not going.const.item()):
        return None
    states = list(own[2:])
    if len(body.input) < 2 or not body.output or not _stays_true(body):
        return None
    stacked = [(0, False)] * (len(body.output) - 1 - len(states))
    return _Steps(max(int(limit.const.item()), 0), states, [], stacked)


def _stays_true(body: GraphProto) -> bool:
    """Whether a Loop's body gives on the condition that it was given, or true."""
    makers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type in ("Identity", "Cast"):
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    from onnx import numpy_helper

    tensors = [t for t in body.initializer if t.name == name]
    if name in makers and makers[name].op_type == "Constant":
        tensors = [a.t for a in makers[name].attribute if a.name == "value"]
    return len(tensors) == 1 and bool(numpy_helper.to_array(tensors[0]).all())


def _of_scan(node: Node, own: Sequence[Value | None], body: GraphProto) -> _Steps | None:
    """A Scan along an axis of known size."""
    count = int(node.attrs.get("num_scan_inputs", 0))
    if not 0 < node.version >= _OLDEST_SCAN or not 0 < count <= len(own):
        return None
    first = len(own) - count
    backwards = node.attrs.get("scan_input_directions") or [0] * count
    axes = node.attrs.get("scan_input_axes") or [0] * count
    scanned: list[tuple[Value, int, bool]] = []
    sizes: set[object] = set()
    for value, axis, back in zip(own[first:], axes, backwards, strict=True):
        if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
            return None
        sizes.add(value.shape[axis])
        scanned.append((value, int(axis), bool(back)))
    outputs = len(body.output) - first
    places = node.attrs.get("scan_output_axes") or [0] * outputs
    flips = node.attrs.get("scan_output_directions") or [0] * outputs
    (size, *more) = sizes
    if more or not isinstance(size, int) or not len(places) == len(flips) == outputs:
        return None
    stacked = [(int(axis), bool(flip)) for axis, flip in zip(places, flips, strict=True)]
    return _Steps(size, list(own[:first]), scanned, stacked)


def _written(
    graph: Graph, node: Node, proto: NodeProto, body: GraphProto, steps: _Steps
) -> tuple[list[Node], list[Value]]:
    """The nodes of all steps, and the values that the node's outputs become."""
    own = len(node.inputs) - node.captures
    captured = zip(captured_names(proto), node.inputs[own:], strict=True)
    shared = {name: value for name, value in captured if value is not None}
    given = zip(proto.input, node.inputs, strict=False)
    shared.update((name, value) for name, value in given if name and value is not None)
    define_constants(graph, body, shared)
    opsets = {**graph.opsets, "": node.version or graph.opsets.get("", 1)}
    fixed = NodeBuilder(graph, shared, before=node)
    for constant in body.node:
        if constant.op_type == "Constant":
            fixed.add(constant, opsets)
    made: list[Node] = []
    states = [state for state in steps.states if state is not None]
    columns: list[list[Value]] = [[] for _ in steps.stacked]
    first = 1 if node.kind == "Loop" else 0
    for number in range(steps.count):
        scope = dict(shared)
        inputs = _read(graph, node, body, steps, number, made)
        scope.update(zip((i.name for i in body.input), _placed(node, inputs, states), strict=True))
        made += _step(graph, node, body, scope, opsets)
        results = [scope[info.name] for info in body.output][first:]
        states = results[: len(states)]
        for column, result in zip(columns, results[len(states) :], strict=True):
            column.append(result)
    for column, (axis, flip) in zip(columns, steps.stacked, strict=True):
        states.append(_stack(graph, node, column[::-1] if flip else column, axis, made))
    return made, states


def _placed(node: Node, inputs: list[Value], states: list[Value]) -> list[Value]:
    """A body's inputs in order: a Loop's states come last, a Scan's first."""
    return [*inputs, *states] if node.kind == "Loop" else [*states, *inputs]


def _read(
    graph: Graph, node: Node, body: GraphProto, steps: _Steps, number: int, made: list[Node]
) -> list[Value]:
    """What a step reads besides the states: its number and the condition, or parts of operands."""
    if node.kind == "Loop":
        return [
            graph.constant(content.reshape((1,) * _rank(body, index)))
            for index, content in enumerate((np.array(number, np.int64), np.array(True)))
        ]
    found: list[Value] = []
    for value, axis, back in steps.scanned:
        at = graph.constant(np.array(steps.count - 1 - number if back else number, np.int64))
        part = graph.node("Gather", [value, at], attrs={"axis": axis}, before=node, name=node.name)
        part.version = _NEWEST
        made.append(part)
        found.append(part.output)
    return found


def _rank(body: GraphProto, index: int) -> int:
    """The rank that a body declares for an input: exporters write [1] for scalars too."""
    declared = body.input[index].type.tensor_type
    return len(declared.shape.dim) if declared.HasField("shape") else 0


def _step(
    graph: Graph, node: Node, body: GraphProto, scope: dict[str, Value], opsets: Mapping[str, int]
) -> list[Node]:
    """The body's nodes once more, with values of their own names."""
    protos = [proto for proto in body.node if proto.op_type != "Constant"]
    names = {name for proto in protos for name in proto.output if name}
    results = {name: Value(graph.fresh(name)) for name in names}
    builder = NodeBuilder(graph, scope, results=results, before=node)
    built = [builder.add(proto, opsets) for proto in protos]
    return [made for made in built if made is not None]


def _stack(graph: Graph, node: Node, column: list[Value], axis: int, made: list[Node]) -> Value:
    """What an output has given in all steps, along a new axis."""
    axes = graph.constant(np.array([axis], np.int64))
    parts: list[Value] = []
    for value in column:
        part = graph.node("Unsqueeze", [value, axes], before=node, name=node.name)
        part.version = _NEWEST
        made.append(part)
        parts.append(part.output)
    whole = graph.node("Concat", parts, attrs={"axis": axis}, before=node, name=node.name)
    whole.version = _NEWEST
    made.append(whole)
    return whole.output


_NEWEST = 18  # the operator set of the nodes that are made here


def _count(body: GraphProto) -> int:
    """The nodes of a body and of those in it."""
    return sum(1 + sum(map(_count, subgraphs(node))) for node in body.node)
