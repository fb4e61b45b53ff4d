"""Nodes that need not run: nothing reads them, their result is known, or another computes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.late import late_sizes, mentioned
from clinfer.passes.rewrite import Log

# Constants up to this many elements are compared by content.
_COMPARED = 4096
# What may give another result each time it runs.
_RANDOM = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
        "Seed",
    }
)


def remove_dead(graph: Graph) -> int:
    """Removes nodes whose outputs nothing reads; returns how many.

    A node that only its run gives a size stays where that size is needed.
    """
    wanted = {id(v) for v in graph.outputs}
    givers = late_sizes(graph)
    needed = set(mentioned(graph.outputs)) if givers else set()
    kept: list[Node] = []
    removed = 0
    for node in reversed(graph.nodes):
        is_read = any(v is not None and (v.users or id(v) in wanted) for v in node.outputs)
        if is_read or not needed.isdisjoint(givers.get(id(node), ())):
            kept.append(node)
            if givers:
                needed |= mentioned([*node.inputs, *node.outputs], node.attrs)
            continue
        removed += 1
        _unhook(node)
    graph.nodes = kept[::-1]
    return removed


def detach_known(graph: Graph) -> int:
    """Frees values whose content is constant or computed from sizes from their producers.

    Returns how many nodes need not run any more. Such a value has no producer afterwards; the plan
    writes its content when the sizes are known.
    """
    kept: list[Node] = []
    for node in graph.nodes:
        if all(v is None or _is_known(v) for v in node.outputs):
            _unhook(node)
        else:
            kept.append(node)
    removed = len(graph.nodes) - len(kept)
    graph.nodes = kept
    return removed + remove_dead(graph)


def _is_known(value: Value) -> bool:
    return value.const is not None or value.symbolic is not None


def share_common(graph: Graph, log: Log) -> int:
    """Common subexpressions: of equal nodes on equal inputs, the first serves all readers."""
    known: dict[Any, _Alike] = {}
    constants: dict[Any, int] = {}
    identity: dict[int, Any] = {}
    removed: set[int] = set()
    for node in graph.nodes:
        if node.op in _RANDOM or node.proto is not None or _is_function(graph, node):
            continue
        if any(v is not None and v.shape is None for v in node.outputs):
            continue
        inputs = tuple(_value_key(v, constants, identity) for v in node.inputs)
        # Sizes of canonical nodes are their outputs' shapes.
        types = tuple(None if v is None else (v.dtype, v.shape) for v in node.outputs)
        key = (node.kind, node.version, inputs, types)
        first = known.setdefault(key, _Alike(node)).equal_to(node)
        if first is node:
            continue
        for old, new in zip(node.outputs, first.outputs, strict=True):
            if old is not None and new is not None:
                graph.replace(old, new)
        _unhook(node)
        removed.add(id(node))
        log.fired["dead", "share-common"] += 1
    graph.nodes = [n for n in graph.nodes if id(n) not in removed]
    return len(removed)


def _is_function(graph: Graph, node: Node) -> bool:
    """Whether a function of the program's computes it, which may count its calls."""
    custom = graph.custom.get(node.kind)
    return custom is not None and bool(custom.reason)


class _Alike:
    """Nodes that differ in attributes only, which are read where there is more than one node."""

    def __init__(self, node: Node) -> None:
        self._first = node
        self._by_attrs: dict[Any, Node] = {}

    def equal_to(self, node: Node) -> Node:
        """The first node with the same attributes, which may be `node` itself."""
        if node is self._first:
            return node
        if not self._by_attrs:
            self._by_attrs[_attrs_key(self._first.attrs)] = self._first
        return self._by_attrs.setdefault(_attrs_key(node.attrs), node)


def _unhook(node: Node) -> None:
    for value in node.inputs:
        if value is not None:
            value.users.remove(node)
    for value in node.outputs:
        if value is not None:
            value.producer = None


def _value_key(value: Value | None, constants: dict[Any, int], known: dict[int, Any]) -> Any:
    """Equal for values of equal content, as far as that is cheap to tell."""
    if value is None:
        return None
    if value.const is None or value.const.size > _COMPARED or value.const.dtype.kind == "O":
        return id(value)
    if id(value) not in known:
        content = np.ascontiguousarray(value.const)
        key = (value.dtype, content.shape, content.tobytes())
        known[id(value)] = ("const", constants.setdefault(key, len(constants)))
    return known[id(value)]


def _attrs_key(attrs: dict[str, Any]) -> Any:
    return tuple(sorted((k, _attr_key(v)) for k, v in attrs.items())) if attrs else ()


def _attr_key(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.name, value.shape, value.tobytes())
    if isinstance(value, (list, tuple)):
        return ("list", tuple(map(_attr_key, value)))
    return (type(value).__name__, value)
