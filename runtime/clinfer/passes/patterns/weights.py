"""The weights of attention: a softmax of the scores, with or without a guard.

A guard gives rows that see no key the weights 0 where the softmax gives NaN:

    Where(IsNaN(p), 0, p)                                    as torch exports it
    Where(Equal(ReduceMax(mask), -inf), 0, p)                as ONNX defines Attention

In such rows of the product with v all elements are NaN, or 0 with the guard, as the operator makes
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.passes.patterns.match import Any, Apply, Number, find
from clinfer.passes.query import scalar
from clinfer.passes.rewrite import Refusal, Rewriter

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_NAN_GUARD = Apply("Where", Apply("IsNaN", Any("p"), bind="test"), Number(value=0.0), Any("p"))
_ROW_GUARD = Apply("Where", Any("empty"), Number(value=0.0), Any("p"))
_EMPTY_ROWS = Apply("Equal", Apply("ReduceMax", Any("mask"), bind="top"), Number("low"))


@dataclass(frozen=True)
class Weights:
    """`nodes` lie between the softmax and its reader; `empty` says which rows a guard replaces."""

    softmax: Node
    nodes: tuple[Node, ...] = ()
    nan_guard: bool = False
    empty: Value | None = None

    def is_read_elsewhere(self, rw: Rewriter, root: Node) -> bool:
        """Whether something beside `root` reads the softmax or what guards it."""
        own = {id(root), *map(id, self.nodes)}
        made = [node.output for node in (self.softmax, *self.nodes)]
        if any(rw.graph.is_output(value) for value in made):
            return True
        return any(id(user) not in own for value in made for user in value.users)

    def is_guarded(self, mask: Value | None) -> bool | Refusal:
        """Whether rows without keys give 0; `mask` is what is added to the scores."""
        if self.nan_guard or self.empty is None:
            return self.nan_guard
        if self.empty.const is not None and not self.empty.const.any():
            return False
        if mask is None or not _says_empty(self.empty, mask):
            return Refusal("its guard replaces other rows than those that see no key")
        return True


def find_weights(value: Value) -> Weights | None:
    """The weights that `value` is; None where it comes from no softmax over one dimension."""
    node = value.producer
    if node is None:
        return None
    if node.kind == "clinfer.Softmax":
        return Weights(node) if node.attrs["axes"] == 1 and not node.attrs["log"] else None
    if node.kind == "Cast" and {value.dtype, node.required(0).dtype} <= _FLOATS:
        inner = find_weights(node.required(0))
        return None if inner is None else _behind(inner, node)
    guard = find(_NAN_GUARD, value)
    if guard is not None:
        inner = find_weights(guard.value("p"))
        return None if inner is None else _behind(inner, node, guard.node("test"), nan_guard=True)
    guard = find(_ROW_GUARD, value)
    if guard is not None:
        inner = find_weights(guard.value("p"))
        return None if inner is None else _behind(inner, node, empty=guard.value("empty"))
    return None


def _behind(
    inner: Weights, *nodes: Node, nan_guard: bool = False, empty: Value | None = None
) -> Weights | None:
    """The weights once more, behind further nodes; None for a second guard."""
    if (nan_guard or empty is not None) and (inner.nan_guard or inner.empty is not None):
        return None
    return Weights(
        inner.softmax,
        (*inner.nodes, *nodes),
        inner.nan_guard or nan_guard,
        inner.empty if empty is None else empty,
    )


def _says_empty(empty: Value, mask: Value) -> bool:
    """Whether a condition holds for the rows of an additive mask that are all minus infinity."""
    if empty.const is not None:
        if mask.const is None:
            return False
        wanted = mask.const.max(axis=-1, keepdims=True) == -np.inf
        return wanted.shape == empty.const.shape and bool(np.array_equal(wanted, empty.const))
    match = find(_EMPTY_ROWS, empty)
    if match is None or match.value("mask") is not mask:
        return False
    top = match.node("top")
    last = len(mask.known_shape) - 1
    over_keys = top.attrs.get("axes") == [last] and top.attrs.get("keepdims", 1) == 1
    return over_keys and scalar(match.value("low")) == -np.inf
