"""Squeeze without axes over sizes that a run gives: an If for each size that may be 1.

    y = Squeeze(x)        s = If(n == 1) {Squeeze(x, [axes of size n])} {x}
                          y = Squeeze(s), of the other sizes

`graph.split` takes what comes after into the branches, the Squeeze of the other sizes first; in
the innermost of them all ranks are known. Which branch holds is decided when sizes are bound.
"""

from __future__ import annotations

import numpy as np

from clinfer.graph.bodies import Bodies, Body, body_of, captured_in
from clinfer.graph.bounds import lower_bound
from clinfer.graph.conditions import is_one
from clinfer.graph.ir import OWN_DOMAIN, Graph, Node, Value
from clinfer.graph.late import bound_by_inputs, mentioned
from clinfer.graph.shapes import infer_node
from clinfer.graph.split import is_sure
from clinfer_kernels.dims import Dim, TooComplex

_MOST_FREE = 3  # sizes that may be 1: each doubles what comes after
_REST = f"{OWN_DOMAIN}.Squeeze"
"""The Squeeze behind an If: `open` are the sizes that may still be 1; no other but constants is."""


def choose_axes(graph: Graph, node: Node) -> Node | None:
    """What has taken the place of the node: an If, or a Squeeze of known axes.

    None where its axes are given or follow from known sizes, where a size is not bound by the
    model's inputs, or where what comes after is too much to copy.
    """
    x = node.required(0) if node.kind in ("Squeeze", _REST) else None
    if x is None or x.shape is None or len(node.inputs) > 1:
        return None
    if node.kind == _REST:
        left = list(node.attrs["open"])
    else:
        left = _open_sizes(graph, node, x)
        if not left:
            return None
    try:
        made = _asked(graph, x, left, node) if left else _settled(graph, node, x)
    except TooComplex:
        return None
    graph.remove(node)
    return made


def _open_sizes(graph: Graph, node: Node, x: Value) -> list[Dim]:
    """The sizes that may be 1; none where the node stays what it is."""
    free = [size for size in x.known_shape if not isinstance(size, int)]
    if graph.depth or not mentioned([x]) <= bound_by_inputs(graph):
        return []
    found: list[Dim] = list(dict.fromkeys(n for n in free if (lower_bound(n) or 0) < 2))
    if not 0 < len(found) <= _MOST_FREE or not is_sure(graph, node, len(found)):
        return []
    return found


def _asked(graph: Graph, x: Value, left: list[Dim], node: Node) -> Node:
    """The If on whether the first of the sizes is 1, and behind it the Squeeze of the others."""
    size, *others = left
    holds = is_one(size)
    content = np.full((), holds, object)
    condition = Value(graph.fresh("is_one"), "bool", (), symbolic=content)
    axes = [axis for axis, other in enumerate(x.known_shape) if other == size]
    bodies = (_branch(graph, "then_branch", x, axes), _branch(graph, "else_branch", x, []))
    asked = Value(graph.fresh(node.output.name), x.dtype)
    made = Node("If", [condition, x], [asked], {"holds": holds}, node.name)
    made.captures = 1
    made.bodies = Bodies(None, bodies)
    graph.insert(made, node)
    result = Value(node.output.name, x.dtype)
    after = Node("Squeeze", [asked], [result], {"open": others}, node.name, OWN_DOMAIN)
    graph.insert(after, node)
    graph.replace(node.output, result)
    return made


def _settled(graph: Graph, node: Node, x: Value) -> Node:
    """The Squeeze of the axes that are known to be of size 1, the others being larger."""
    axes = [axis for axis, size in enumerate(x.known_shape) if size == 1]
    made = _dropped(graph, x, axes, node.name, node.output.name)
    graph.insert(made, node)
    graph.replace(node.output, made.output)
    infer_node(graph, made)
    return made


def _dropped(graph: Graph, x: Value, axes: list[int], name: str, result: str) -> Node:
    output = Value(result, x.dtype)
    if not axes:
        return Node("Identity", [x], [output], name=name, version=13)
    dropped = graph.constant(np.array(axes, np.int64))
    return Node("Squeeze", [x, dropped], [output], name=name, version=13)


def _branch(graph: Graph, label: str, x: Value, axes: list[int]) -> Body:
    body = body_of(graph, label, [x])
    inner = captured_in(x.name, x)
    body.inputs.append(inner)
    node = _dropped(body, inner, axes, label, body.fresh("squeezed"))
    body.insert(node)
    infer_node(body, node)
    body.outputs = [node.output]
    return Body(label, body, (1,))
