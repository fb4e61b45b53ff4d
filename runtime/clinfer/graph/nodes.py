"""A graph's nodes, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clinfer.ports import Node, Port

if TYPE_CHECKING:
    from clinfer.graph.ir import Graph, Value
    from clinfer.sizes import PortShape


def nodes_of(inputs: Sequence[Port], graph: Graph, outputs: Sequence[Port]) -> list[Node]:
    """A graph's nodes: parameters, operators in an order in which they can run, results."""
    operators = [
        Node(
            node.kind,
            node.label,
            _ports(node.inputs, "input", graph),
            _ports(node.outputs, "output", graph),
            node.attrs,
        )
        for node in graph.nodes
    ]
    return [*(port.node for port in inputs), *operators, *(port.node for port in outputs)]


def _ports(values: Sequence[Value | None], kind: str, owner: object) -> list[Port]:
    found = [value for value in values if value is not None]
    return [
        Port(value.name, _shape(value), value.dtype or "unknown", index, kind, owner=owner)
        for index, value in enumerate(found)
    ]


def _shape(value: Value) -> PortShape | None:
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)
