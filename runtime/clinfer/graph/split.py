"""An If whose branches differ in the shapes of their results takes what comes after it into them.

    y = If(c) {Squeeze(x)} {x}          [z] = If(c) {y = Squeeze(x); z = f(y)} {z = f(x)}
    z = f(y)

Nothing after the If knows even the rank of what it reads; in a branch all of it is known. Exporters
write torch's `squeeze` like this, and often only one of the branches fits what comes after it.
"""

from __future__ import annotations

from dataclasses import replace

from clinfer.errors import ShapeError
from clinfer.graph.bodies import Bodies, Body, captured_in
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.late import bound_by_inputs, mentioned
from clinfer.graph.sequences import Users
from clinfer.graph.shapes import infer_node
from clinfer.graph.subgraphs import bodies_of

_MOST_DEEP = 4  # Ifs inside one another that take what comes after them
MOST_COPIED = 4096
"""Nodes that are taken into branches; what comes after more of them is left where it is."""


def split(graph: Graph, node: Node) -> Node | None:
    """The If that takes the place of `node` and of all that reads its results.

    None where the branches agree, their own results have sizes that only a run gives, or nothing
    comes after.
    """
    bodies = bodies_of(graph, node)
    rest = _readers(graph, node)
    condition = node.required(0)
    if not rest or condition.shape is None or graph.depth >= _MOST_DEEP:
        return None
    if len(rest) << graph.depth > MOST_COPIED:
        return None
    if not _differ(graph, node, bodies):
        return None
    inside = {id(v) for n in (node, *rest) for v in n.outputs if v is not None}
    returned = [v for v in dict.fromkeys(graph.outputs) if id(v) in inside]
    outer = _outer(rest, inside)
    inputs = [*node.inputs, *outer]
    made = [_extended(graph, node, body, rest, outer, returned) for body in bodies.all]
    if not any(body.graph for body in made):
        if graph.depth or node.proto is None:  # no sizes at all fit this body
            raise ShapeError(made[0].error)
        node.bodies = None  # made again without what was added
        return None
    outputs = [Value(v.name, v.dtype) for v in returned]
    whole = Node(
        "If", inputs, list(outputs), dict(node.attrs), node.name, node.domain, node.version
    )
    whole.captures = len(inputs) - 1
    whole.bodies = Bodies(None, tuple(made))
    graph.insert(whole)
    for old, new in zip(returned, outputs, strict=True):
        graph.replace(old, new)
    for reader in reversed(rest):
        graph.remove(reader)
    graph.remove(node)
    return whole


def is_sure(graph: Graph, node: Node, count: int) -> bool:
    """Whether so many Ifs (1 at least) in the place of `node`, each of which reads the one before,
    can be split. They must differ in known shapes, of sizes that the graph's inputs give.
    """
    after = len(_readers(graph, node)) + count
    depth = graph.depth + count
    return depth <= _MOST_DEEP and after << (depth - 1) <= MOST_COPIED


def _readers(graph: Graph, node: Node) -> list[Node]:
    """The nodes that read what `node` gives, or what those give, in order."""
    reached = {id(v) for v in node.outputs}
    found: list[Node] = []
    for other in graph.nodes:
        if any(v is not None and id(v) in reached for v in other.inputs):
            found.append(other)
            reached.update(id(v) for v in other.outputs if v is not None)
    return found


def _differ(graph: Graph, node: Node, bodies: Bodies) -> bool:
    """Whether the branches' results have known shapes that are not the same."""
    graphs = [body.graph for body in bodies.all if body.graph is not None]
    known = bound_by_inputs(graph) | mentioned(node.inputs)
    columns = list(zip(*(g.outputs for g in graphs), strict=True))
    values = [v for column in columns for v in column]
    if any(v.shape is None for v in values) or not mentioned(values) <= known:
        return False
    if any(len({v.dtype for v in column}) > 1 for column in columns):
        return False
    return any(len({v.shape for v in column}) > 1 for column in columns)


def _outer(rest: list[Node], inside: set[int]) -> list[Value]:
    """What the nodes read besides one another's results and the If's."""
    values = (v for node in rest for v in node.inputs)
    return list({id(v): v for v in values if v is not None and id(v) not in inside}.values())


def _extended(
    graph: Graph,
    node: Node,
    body: Body,
    rest: list[Node],
    outer: list[Value],
    returned: list[Value],
) -> Body:
    """The body with copies of the nodes behind it, for the inputs of `node` and then `outer`."""
    inner = body.graph
    if inner is None:
        return body
    first = len(node.inputs)
    inner.declared.update({n: d for n, d in graph.declared.items() if n not in inner.declared})
    inner.given = inner.given | bound_by_inputs(graph) | mentioned(outer)
    values = {id(v): r for v, r in zip(node.outputs, inner.outputs, strict=True) if v is not None}
    captured = list(body.captured)
    for number, value in enumerate(outer):
        values[id(value)] = made = captured_in(value.name, value)
        if made.const is None:
            inner.inputs.append(made)
            captured.append(first + number)
    try:
        for reader in rest:
            copy = _copy(reader, values)
            inner.insert(copy)
            infer_node(inner, copy)
    except ShapeError as error:  # what comes after does not fit this branch
        return Body(body.name, None, error=str(error))
    inner.outputs = [values[id(v)] for v in returned]
    return Body(body.name, inner, tuple(captured))


def _copy(node: Node, values: dict[int, Value]) -> Node:
    for value in node.outputs:
        if value is not None:
            values[id(value)] = replace(value, producer=None, users=Users(), shape=None)
    return replace(
        node,
        inputs=[None if v is None else values[id(v)] for v in node.inputs],
        outputs=[None if v is None else values[id(v)] for v in node.outputs],
        attrs=dict(node.attrs),
        bodies=None,
    )
