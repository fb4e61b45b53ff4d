"""Sizes that only a run gives, such as how many elements NonZero finds.

Such a size is a symbol that no input binds. The first node that has it in the shape of an output
gives it: it must run before the size is used, even where nobody reads its outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from clinfer.graph.ir import Graph, Node, Value
from clinfer_kernels.dims import Expr, symbols


def bound_by_inputs(graph: Graph) -> frozenset[str]:
    """The symbols that the shapes of the graph's inputs give, and of a body those given outside."""
    return graph.given | in_shapes(graph.inputs)


def late_sizes(graph: Graph) -> dict[int, set[str]]:
    """`id` of a node -> the symbols that it gives, for nodes that give some."""
    known = set(bound_by_inputs(graph))
    givers: dict[int, set[str]] = {}
    for node in graph.nodes:
        new = in_shapes(node.outputs) - known
        if new:
            givers[id(node)] = new
            known |= new
    return givers


def may_give_sizes(node: Node, known: frozenset[str]) -> bool:
    """Whether an output has a size that neither `known` nor the node's inputs have.

    Never False for a node that gives a size; the whole graph tells for certain (`late_sizes`).
    """
    new = in_shapes(node.outputs) - known
    return bool(new) and not new <= mentioned(node.inputs)


def mentioned(values: Iterable[Value | None], attrs: Mapping[str, Any] | None = None) -> set[str]:
    """The symbols in values' shapes and contents, and in attributes."""
    present = [v for v in values if v is not None]
    found = in_shapes(present)
    for value in present:
        if value.symbolic is not None:
            found.update(name for dim in value.symbolic.ravel() for name in _names(dim))
    for attribute in (attrs or {}).values():
        items = attribute if isinstance(attribute, (list, tuple)) else [attribute]
        found.update(name for item in items for name in _names(item))
    return found


def in_shapes(values: Iterable[Value | None]) -> set[str]:
    """The symbols in values' shapes."""
    shapes = (v.shape for v in values if v is not None and v.shape is not None)
    return {name for shape in shapes for dim in shape for name in _names(dim)}


def _names(dim: Any) -> frozenset[str]:
    return symbols(dim) if isinstance(dim, Expr) else frozenset()
