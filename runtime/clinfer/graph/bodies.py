"""The subgraphs of an If as graphs of their own, which passes and lowering work on.

A body's inputs stand for values of the outer graph: those that it captures and that are no
constants. What is known of them is known inside too, so that a body folds like any graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer.errors import ClinferError, ModelError, ShapeError
from clinfer.graph.build import NodeBuilder
from clinfer.graph.ir import Declared, Graph, Node, Value
from clinfer.graph.late import bound_by_inputs, mentioned
from clinfer.graph.node_protos import encoded
from clinfer.graph.protos import (
    ExternalData,
    captured_names,
    free_names,
    sparse_array,
    tensor_array,
    value_type,
)

if TYPE_CHECKING:
    from onnx import GraphProto

BRANCHES = ("then_branch", "else_branch")
MOST_NESTED = 8
"""Bodies inside one another that are made; each is made again for what is in it."""


@dataclass(eq=False)
class Body:
    """One subgraph; input n of `graph` is input `captured[n]` of the node.

    Where it can run for no inputs `graph` is None and `error` says why.
    """

    name: str
    graph: Graph | None
    captured: tuple[int, ...] = ()
    error: str = ""


@dataclass(eq=False)
class Bodies:
    """A node's bodies, in the order of `BRANCHES`, made for inputs of the types `seen`.

    `reason` says why there are none. `seen` is None where they are not made from the model's file.
    """

    seen: Any
    all: tuple[Body, ...] = ()
    reason: str = ""


def bodies_of(graph: Graph, node: Node) -> Bodies:
    """An If's bodies for the types that its inputs have now; made anew where those have changed.

    Those of an If that a pass has made (`passes.split`) are what they are.
    """
    if node.bodies is not None and node.bodies.seen is None:
        return node.bodies
    seen = [_Seen(value) for value in node.inputs]
    if node.bodies is None or node.bodies.seen != seen:
        node.bodies = _made(graph, node, seen)
    return node.bodies


def define_constants(graph: Graph, proto: GraphProto, scope: dict[str, Value]) -> None:
    """The initialisers of a subgraph, as constants of `graph` under their names in `scope`."""
    external = ExternalData(None)
    for tensor in proto.initializer:
        scope[tensor.name] = graph.constant(tensor_array(tensor, external), tensor.name)
    for sparse in proto.sparse_initializer:
        name = sparse.values.name
        scope[name] = graph.constant(sparse_array(sparse, external), name)


def all_nodes(graph: Graph) -> Iterator[Node]:
    """A graph's nodes and those of its bodies."""
    for node in graph.nodes:
        yield node
        for body in () if node.bodies is None else node.bodies.all:
            if body.graph is not None:
                yield from all_nodes(body.graph)


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
    if node.proto is None or graph.depth >= MOST_NESTED:
        return Bodies(seen, reason=f"more than {MOST_NESTED} subgraphs are nested")
    try:
        return Bodies(seen, tuple(_branches(graph, node)))
    except ClinferError as error:
        return Bodies(seen, reason=f"a subgraph of it cannot be compiled: {error}")


def _branches(graph: Graph, node: Node) -> Iterator[Body]:
    assert node.proto is not None
    proto = encoded(node.proto)
    own = len(node.inputs) - node.captures
    places = {name: own + n for n, name in enumerate(captured_names(proto))}
    places.update((name, n) for n, name in enumerate(proto.input) if name and n < own)
    protos = {attribute.name: attribute.g for attribute in proto.attribute}
    for name in BRANCHES:
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
    opsets = {**graph.opsets, "": node.version or graph.opsets.get("", 1)}
    body = Graph(proto.name or name, opsets=opsets, custom=graph.custom)
    body.depth, body.unrolled = graph.depth + 1, graph.unrolled
    body.joins = dict(graph.joins)
    body.given = bound_by_inputs(graph) | mentioned(node.inputs)
    scope: dict[str, Value] = {}
    captured: list[int] = []
    for free in dict.fromkeys(free_names(proto)):
        outer = node.inputs[places[free]]
        assert outer is not None
        scope[free] = inner = captured_in(free, outer)
        if inner.const is None:
            body.inputs.append(inner)
            captured.append(places[free])
    define_constants(body, proto, scope)
    infos = (*proto.value_info, *proto.output)
    body.declared = {info.name: Declared(*value_type(info.type)) for info in infos}
    builder = NodeBuilder(body, scope)
    for inner_node in proto.node:
        builder.add(inner_node, opsets)
    body.outputs = [scope[info.name] for info in proto.output]
    assert graph.typed is not None, "the node was read from a file"
    graph.typed(body, list(body.nodes))
    return Body(name, body, tuple(captured))


def captured_in(name: str, outer: Value) -> Value:
    """What a body reads, under a name, in the place of a value of the outer graph."""
    return Value(
        name,
        outer.dtype,
        outer.shape,
        outer.const,
        outer.symbolic,
        rational=outer.rational,
        type_proto=outer.type_proto,
    )
