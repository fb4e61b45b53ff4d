"""Softmax, layer and RMS normalisation written in pieces.

Ba, Kiros and Hinton, "Layer Normalization", 2016; Zhang and Sennrich, "Root Mean Square Layer
Normalization", 2019.
"""

from __future__ import annotations

from collections.abc import Callable

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.norms import emit_norm, emit_softmax
from clinfer.passes.patterns.match import Any, Apply, Either, Number, Pattern, find
from clinfer.passes.query import inverse
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule

_X = Any("x")
_MEAN = Apply("ReduceMean", _X, bind="mean")
_AWAY = Apply("Sub", _X, _MEAN)


def _spread(of: Pattern) -> Pattern:
    """sqrt(mean(of^2) + eps)."""
    square = Apply("ReduceMean", Apply("Mul", of, of), bind="variance")
    return Apply("Sqrt", Apply("Add", square, Number("eps")))


def _over(top: Pattern, bottom: Pattern) -> Pattern:
    """top / bottom, or top times its reciprocal."""
    return Either(
        Apply("Div", top, bottom),
        Apply("Mul", top, Apply("Reciprocal", bottom)),
        Apply("Mul", top, Apply("Div", Number(value=1.0), bottom)),
    )


_LAYER_NORM = _over(_AWAY, _spread(_AWAY))
_RMS_NORM = _over(_X, _spread(_X))
_EXPONENTIAL = Apply("Exp", Apply("Sub", _X, Apply("ReduceMax", _X, bind="top")))
_SOFTMAX = Apply("Div", _EXPONENTIAL, Apply("ReduceSum", _EXPONENTIAL, bind="sum"))


def layer_norm(rw: Rewriter, node: Node) -> Outcome:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)."""
    match = find(_LAYER_NORM, node.output)
    if match is None:
        return None
    axes = _shared_axes(match.node("mean"), match.node("variance"))
    if isinstance(axes, Refusal):
        return axes
    eps = match.number("eps")
    return _at_the_end(rw, match.value("x"), axes, lambda x, n: emit_norm(rw, x, n, eps))


def rms_norm(rw: Rewriter, node: Node) -> Outcome:
    """x / sqrt(mean(x^2) + eps)."""
    match = find(_RMS_NORM, node.output)
    if match is None:
        return None
    axes = _shared_axes(match.node("variance"))
    if isinstance(axes, Refusal):
        return axes
    eps = match.number("eps")
    return _at_the_end(rw, match.value("x"), axes, lambda x, n: emit_norm(rw, x, n, eps, rms=True))


def softmax(rw: Rewriter, node: Node) -> Outcome:
    """exp(x - max(x)) / sum(exp(x - max(x)))."""
    match = find(_SOFTMAX, node.output)
    if match is None:
        return None
    axes = _shared_axes(match.node("top"), match.node("sum"))
    if isinstance(axes, Refusal):
        return axes
    return _at_the_end(rw, match.value("x"), axes, lambda x, n: emit_softmax(rw, x, n))


def _shared_axes(*reductions: Node) -> list[int] | Refusal:
    """The axes that all reductions reduce and keep."""
    axes = reductions[0].attrs.get("axes")
    if not axes or any(r.attrs.get("axes") != axes for r in reductions):
        return Refusal("its parts reduce different axes")
    if not all(r.attrs.get("keepdims", 1) for r in reductions):
        return Refusal("its reductions drop their dimensions")
    return list(axes)


def _at_the_end(
    rw: Rewriter, x: Value, axes: list[int], make: Callable[[Value, int], Value]
) -> Value:
    """The operator over trailing dimensions, between transposes where `axes` are others."""
    rank = len(x.known_shape)
    perm = [a for a in range(rank) if a not in axes] + axes
    return rw.transpose(make(rw.transpose(x, perm), len(axes)), inverse(perm))


RULES = (
    Rule("layer-norm-pieces", ("Div", "Mul"), layer_norm),
    Rule("rms-norm-pieces", ("Div", "Mul"), rms_norm),
    Rule("softmax-pieces", ("Div",), softmax),
)
