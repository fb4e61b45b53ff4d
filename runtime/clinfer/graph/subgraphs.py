"""A node's bodies, made from its subgraphs, and again where types of its inputs have changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clinfer.errors import ClinferError, ModelError, ShapeError
from clinfer.graph.bodies import LOOPS, Bodies, Body, fill_body, new_body
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.loops import loop_body
from clinfer.graph.node_protos import encoded, outer_places

if TYPE_CHECKING:
    from onnx import GraphProto

_BRANCHES = ("then_branch", "else_branch")
_MOST_NESTED = 8
"""Bodies inside one another that are made; each is made again for what is in it."""


def bodies_of(graph: Graph, node: Node) -> Bodies:
    """A node's bodies for the types that its inputs have now; made anew where those have changed.

    Those of an If that a pass has made (`graph.split`) are what they are.
    """
    if node.bodies is not None and node.bodies.seen is None:
        return node.bodies
    seen = [_Seen(value) for value in node.inputs]
    if node.bodies is None or node.bodies.seen != seen:
        node.bodies = _made(graph, node, seen)
    return node.bodies


class _Seen:
    """What a body knows of a value of the outer graph."""

    def __init__(self, value: Value | None) -> None:
        self._type = None if value is None else (value.dtype, value.shape, value.type_proto)
        self._const = None if value is None else value.const
        symbolic = None if value is None else value.symbolic
        self._sizes = None if symbolic is None else tuple(symbolic.ravel())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Seen)
            and self._const is other._const
            and (self._type, self._sizes) == (other._type, other._sizes)
        )

    __hash__ = None  # type: ignore[assignment]


def _made(graph: Graph, node: Node, seen: Any) -> Bodies:
    if node.proto is None or graph.depth >= _MOST_NESTED:
        return Bodies(seen, reason=f"more than {_MOST_NESTED} subgraphs are nested")
    try:
        if node.kind in LOOPS:
            return loop_body(graph, node, seen)
        return Bodies(seen, tuple(_branches(graph, node)))
    except ClinferError as error:
        return Bodies(seen, reason=f"a subgraph of it cannot be compiled: {error}")


def _branches(graph: Graph, node: Node) -> Iterator[Body]:
    assert node.proto is not None
    proto = encoded(node.proto)
    places = outer_places(node, proto)
    protos = {attribute.name: attribute.g for attribute in proto.attribute}
    for name in _BRANCHES:
        given = len(protos[name].output) if name in protos else 0
        if given != len(proto.output):
            raise ModelError(f"{name} gives {given} results, the node {len(proto.output)}")
        yield _fitting(graph, node, name, protos[name], places)


def _fitting(
    graph: Graph, node: Node, name: str, proto: GraphProto, places: dict[str, int]
) -> Body:
    try:
        return _body(graph, node, name, proto, places)
    except ShapeError as error:  # for these shapes it is the branch that is not taken
        return Body(name, None, error=str(error))


def _body(graph: Graph, node: Node, name: str, proto: GraphProto, places: dict[str, int]) -> Body:
    body, scope = new_body(graph, node, name, proto), dict[str, Value]()
    captured = fill_body(graph, node, body, proto, places, scope)
    return Body(name, body, captured)
