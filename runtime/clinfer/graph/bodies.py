"""The subgraphs of If, Loop and Scan as graphs of their own, which passes and lowering work on.

A body's inputs stand for values of the outer graph: those that it captures and that are no
constants. What is known of them is known inside too, so that a body folds like any graph. Before
them a loop's body has those that each step gives anew (`graph.loops`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer.graph.build import NodeBuilder
from clinfer.graph.ir import Declared, Graph, Node, Value
from clinfer.graph.late import bound_by_inputs, mentioned
from clinfer.graph.namesakes import read_together
from clinfer.graph.protos import (
    ExternalData,
    free_names,
    sparse_array,
    tensor_array,
    value_type,
)

if TYPE_CHECKING:
    from onnx import GraphProto

LOOPS = frozenset({"Loop", "Scan"})


@dataclass(eq=False)
class Body:
    """One subgraph; input `own` + n of `graph` is input `captured[n]` of the node.

    Where it can run for no inputs `graph` is None and `error` says why. `sizes` are those of a
    loop's states that may be others in each step: the symbol, the state's number, and the axis.
    `reranked` are the numbers of states whose first values have another rank than later ones; those
    of them that no step reads are `unread`, the others have one element.
    """

    name: str
    graph: Graph | None
    captured: tuple[int, ...] = ()
    error: str = ""
    own: int = 0
    sizes: tuple[tuple[str, int, int], ...] = ()
    reranked: tuple[int, ...] = ()
    unread: tuple[int, ...] = ()


@dataclass(eq=False)
class Bodies:
    """A node's bodies, an If's then and else, made for inputs of the types `seen`.

    `reason` says why there are none. `seen` is None where they are not made from the model's file.
    """

    seen: Any
    all: tuple[Body, ...] = ()
    reason: str = ""


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


def new_body(graph: Graph, node: Node, name: str, proto: GraphProto) -> Graph:
    """An empty graph for a subgraph of a node."""
    body = body_of(graph, proto.name or name, node.inputs)
    body.opsets[""] = node.version or graph.opsets.get("", 1)
    return body


def body_of(graph: Graph, name: str, inputs: Iterable[Value | None]) -> Graph:
    """An empty graph for a body of a node with these inputs."""
    body = Graph(name, opsets=dict(graph.opsets), custom=graph.custom)
    body.depth, body.unrolled = graph.depth + 1, graph.unrolled
    body.prefix = graph.fresh("").lstrip("~") + "."
    body.joins = dict(graph.joins)
    body.given = bound_by_inputs(graph) | mentioned(inputs)
    body.typed = graph.typed
    return body


def fill_body(
    graph: Graph,
    node: Node,
    body: Graph,
    proto: GraphProto,
    places: dict[str, int],
    scope: dict[str, Value],
    names: dict[str, str] | None = None,
) -> tuple[int, ...]:
    """Puts a subgraph's nodes into its graph; gives the inputs of the node that it captures.

    `scope` has what the subgraph's own inputs are; `names` what values of it are called.
    """
    captured: list[int] = []
    for free in dict.fromkeys(free_names(proto)):
        outer = node.inputs[places[free]]
        assert outer is not None
        scope[free] = inner = captured_in(free, outer)
        if inner.const is None:
            body.inputs.append(inner)
            captured.append(places[free])
    if captured:
        read_together(graph, body, body.inputs[-len(captured) :])
    define_constants(body, proto, scope)
    called = names or {}
    infos = (*proto.value_info, *proto.output)
    body.declared = {
        called.get(info.name, info.name): Declared(*value_type(info.type)) for info in infos
    }
    results = {name: Value(other) for name, other in called.items()}
    builder = NodeBuilder(body, scope, results=results)
    for inner_node in proto.node:
        builder.add(inner_node, body.opsets)
    body.outputs = [scope[info.name] for info in proto.output]
    assert graph.typed is not None, "the node was read from a file"
    graph.typed(body, list(body.nodes))
    return tuple(captured)


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
