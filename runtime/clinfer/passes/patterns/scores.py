"""The scores of attention: scale * (q @ k^T) + mask, however the scale and the mask are written."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Value
from clinfer.passes.query import broadcast, scalar
from clinfer.passes.rewrite import Refusal, Rewriter

# A masked score at or below this counts as minus infinity: it outweighs every real score.
MASKED = -1e30
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True)
class Scores:
    """scale * (q @ keys) + mask, where `keys` is k transposed.

    `added` is the mask as the model adds it; `mask` may be the condition it is made of.
    """

    q: Value
    keys: Value
    scale: float = 1.0
    mask: Value | None = None
    added: Value | None = None


def find_scores(rw: Rewriter, value: Value) -> Scores | Refusal:
    """The scores that `value` is: masks and factors are peeled off, down to the product."""
    node = value.producer
    if node is None:
        return Refusal("its scores are no matrix product")
    if node.kind == "MatMul":
        return _product(rw, node)
    if node.kind in ("Mul", "Div"):
        return _scaled(rw, node)
    if node.kind == "Add":
        for index in (1, 0):
            inner = find_scores(rw, node.required(1 - index))
            if isinstance(inner, Scores):
                return _masked(rw, inner, node.required(index))
    if node.kind == "Where":
        return _where(rw, node)
    if node.kind == "Cast" and {value.dtype, node.required(0).dtype} <= _FLOATS:
        return find_scores(rw, node.required(0))
    return Refusal(f"its scores come from {node.kind}")


def _product(rw: Rewriter, node: Node) -> Scores:
    """q @ keys, with the numbers that multiply either of them."""
    first, q = _factor(rw, node.required(0))
    second, keys = _factor(rw, node.required(1))
    return Scores(q, keys, first * second)


def _factor(rw: Rewriter, value: Value) -> tuple[float, Value]:
    """(c, x) where `value` is c * x, also behind views; else (1, value)."""
    node = value.producer
    if node is None or len(value.users) > 1 or rw.graph.is_output(value):
        return 1.0, value
    if node.kind == "Transpose" or (node.kind == "Reshape" and len(node.inputs) == 1):
        number, inner = _factor(rw, node.required(0))
        if inner is node.required(0):
            return 1.0, value
        if node.kind == "Transpose":
            return number, rw.transpose(inner, node.attrs["perm"])
        return number, rw.reshape(inner, value.known_shape)
    if node.kind not in ("Mul", "Div"):
        return 1.0, value
    for index in (1, 0) if node.kind == "Mul" else (1,):
        constant = scalar(node.input(index))
        if not constant or node.required(1 - index).shape != value.shape:
            continue
        number, inner = _factor(rw, node.required(1 - index))
        return (number * constant if node.kind == "Mul" else number / constant), inner
    return 1.0, value


def _scaled(rw: Rewriter, node: Node) -> Scores | Refusal:
    factor, rest = _factor(rw, node.output)
    if rest is node.output or rest.producer is None:
        return Refusal("its scores are multiplied by something computed")
    inner = find_scores(rw, rest)
    if isinstance(inner, Scores) and inner.mask is not None:
        return Refusal("its scores are masked before they are scaled")
    if isinstance(inner, Refusal):
        return inner
    return replace(inner, scale=inner.scale * factor)


def _masked(rw: Rewriter, inner: Scores, mask: Value) -> Scores | Refusal:
    """Adds a mask to the scores; a second one is added to the first."""
    if mask.const is not None and not mask.const.any():
        return inner
    if inner.mask is None:
        return replace(inner, mask=_as_bool(unexpanded(mask)), added=mask)
    shape = broadcast([mask.known_shape, inner.mask.known_shape])
    if shape is None or inner.mask.dtype != mask.dtype:
        return Refusal("it has two masks that do not fit each other")
    both = rw.emit("Add", [inner.mask, mask], mask.dtype, shape)
    return replace(inner, mask=both, added=None)


def _as_bool(mask: Value) -> Value:
    """The condition c where the mask is Where(c, 0, -inf): True keeps a score."""
    node = mask.producer
    if node is None or node.kind != "Where":
        return mask
    yes, no = scalar(node.input(1)), scalar(node.input(2))
    return unexpanded(node.required(0)) if yes == 0 and no == -math.inf else mask


def unexpanded(mask: Value) -> Value:
    """What is repeated to make the mask: the operator repeats it by itself."""
    node = mask.producer
    if node is not None and node.kind == "Expand" and len(node.inputs) == 1:
        return unexpanded(node.required(0))
    return mask


def _where(rw: Rewriter, node: Node) -> Scores | Refusal:
    """Where(c, scores, fill): the mask is Where(c, 0, fill), or c alone where fill is -inf."""
    fill = scalar(node.input(2))
    inner = find_scores(rw, node.required(1))
    if isinstance(inner, Refusal):
        return inner
    if fill is None or fill > MASKED or inner.mask is not None:
        return Refusal("its scores are replaced by a number that is not very negative")
    condition = unexpanded(node.required(0))
    if fill == -math.inf:
        return replace(inner, mask=condition)
    zero = rw.constant(np.zeros((), to_numpy(str(node.output.dtype))))
    operands = [condition, zero, node.required(2)]
    mask = rw.emit("Where", operands, node.output.dtype, condition.shape)
    return replace(inner, mask=mask)
