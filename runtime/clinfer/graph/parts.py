"""Parts of a graph as graphs of their own, for devices that compute it together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.sequences import Users
from clinfer.graph.shapes import infer
from clinfer_kernels.dims import Dim, sym


class Piece(NamedTuple):
    """Nodes for one place, and the values of the whole graph that it reads and gives to others."""

    place: str
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def split(graph: Graph, places: Sequence[str], default: str) -> list[Piece]:
    """The pieces of a graph by the places of its nodes, in an order in which they can run.

    A node's stage is the greatest of the nodes that it reads from, and one more where those are
    elsewhere. A piece is what one place has of a stage: no way leads out of it and back, because
    on every way the stage grows where the place changes. A graph without nodes is the `default`'s.
    """
    stages: dict[Node, int] = {}
    found: dict[tuple[int, str], list[Node]] = {}
    place_of = dict(zip(graph.nodes, places, strict=True))
    for node, place in place_of.items():
        before = [v.producer for v in node.inputs if _is_made(v) and v is not None]
        stages[node] = max(
            (stages[p] + (place_of[p] != place) for p in before if p is not None), default=0
        )
        found.setdefault((stages[node], place), []).append(node)
    ordered = [(place, found[stage, place]) for stage, place in sorted(found, key=lambda k: k[0])]
    pieces = [_piece(graph, place, nodes) for place, nodes in ordered or [(default, [])]]
    loose = [v for v in graph.outputs if not _is_made(v)]  # what no node makes, the last one gives
    last = pieces[-1]
    given = [v for v in loose if v.const is None]
    pieces[-1] = last._replace(
        inputs=_once([*last.inputs, *given]), outputs=_once([*last.outputs, *loose])
    )
    return pieces


def _piece(graph: Graph, place: str, nodes: list[Node]) -> Piece:
    inside = set(nodes)
    read = (v for node in nodes for v in node.inputs if v is not None and v.const is None)
    made = (v for node in nodes for v in node.outputs if v is not None)
    return Piece(
        place,
        tuple(nodes),
        _once(v for v in read if v.producer not in inside),
        _once(
            v
            for v in made
            if _is_made(v) and (graph.is_output(v) or any(u not in inside for u in v.users))
        ),
    )


def graph_of(whole: Graph, piece: Piece) -> Graph:
    """A piece as a graph of its own; contents of constants are shared.

    A size that is computed from others is a symbol of its own where it comes in: the piece does not
    know those others.
    """
    values: dict[Value, Value] = {}
    sizes: dict[Dim, Dim] = {}

    def mapped(value: Value | None) -> Value | None:
        if value is None:
            return None
        if value not in values:
            values[value] = replace(value, producer=None, users=Users())
        return values[value]

    graph = Graph(whole.name, opsets=whole.opsets, custom=whole.custom)
    graph.metadata, graph.declared = dict(whole.metadata), dict(whole.declared)
    graph.typed = whole.typed
    for value in piece.inputs:
        made = values[value] = replace(
            value, producer=None, users=Users(), symbolic=None, rational=None
        )
        if value.shape is not None:
            made.shape = tuple(_incoming(size, sizes) for size in value.shape)
        graph.inputs.append(made)
    for node in piece.nodes:
        inputs = [mapped(v) for v in node.inputs]
        outputs = [mapped(v) for v in node.outputs]
        graph.insert(replace(node, inputs=inputs, outputs=outputs, attrs=dict(node.attrs)))
    graph.outputs = [values.setdefault(v, replace(v, producer=None)) for v in piece.outputs]
    graph.output_names = [v.name for v in piece.outputs]
    infer(graph)
    return graph


def _incoming(size: Dim, sizes: dict[Dim, Dim]) -> Dim:
    if isinstance(size, int) or size == sym(str(size)):
        return size
    return sizes.setdefault(size, sym(f"size~{len(sizes)}"))


def _is_made(value: Value | None) -> bool:
    """Whether a run has to compute it."""
    return value is not None and value.producer is not None and value.const is None


def _once(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(values))
