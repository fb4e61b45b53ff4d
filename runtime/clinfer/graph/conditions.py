"""Truth values that depend on sizes alone, as sizes: 1 where they hold, 0 where not.

They are known as soon as shapes are bound, so an If on one is decided then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clinfer.graph.ir import Value
from clinfer_kernels.dims import Dim, TooComplex, maximum, minimum

_MOST_NODES = 32  # of a chain that computes a condition
_SAME = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_INTEGERS = frozenset({"int64", "int32"})


def condition(value: Value) -> Dim | None:
    """The size that tells whether a tensor of one element holds; None where no size does."""
    try:
        return _truth(value, _MOST_NODES)
    except TooComplex:
        return None


def is_one(size: Dim) -> Dim:
    """1 where the size is 1, else 0. Raises `TooComplex` for one that is too large to write."""
    return _equal(size, 1)


def _truth(value: Value, left: int) -> Dim | None:
    number = _number(value)
    if number is not None:
        return 1 - _equal(number, 0)
    node = value.producer
    if node is None or not left:
        return None
    if node.kind in _SAME and value.dtype in ("bool", *_INTEGERS):
        return _truth(node.required(0), left - 1)
    if node.kind in _COMPARED:
        numbers = [_number(node.required(index)) for index in range(2)]
        a, b = numbers
        return None if a is None or b is None else _COMPARED[node.kind](a, b)
    if node.kind in _COMBINED:
        truths = [None if v is None else _truth(v, left // 2) for v in node.inputs]
        known = [truth for truth in truths if truth is not None]
        return _COMBINED[node.kind](*known) if len(known) == len(truths) else None
    return None


def _number(value: Value) -> Dim | None:
    """The content of an integer tensor of one element that is computed from sizes."""
    if value.const is not None and value.const.size == 1 and value.const.dtype.kind in "iub":
        return int(value.const.item())
    if value.symbolic is None or value.symbolic.size != 1 or value.dtype not in _INTEGERS:
        return None
    found: Dim = value.symbolic.item()
    return found


def _less(a: Dim, b: Dim) -> Dim:
    return maximum(0, minimum(1, b - a))


def _equal(a: Dim, b: Dim) -> Dim:
    return 1 - _less(a, b) - _less(b, a)


_COMPARED: Mapping[str, Callable[[Dim, Dim], Dim]] = {
    "Equal": _equal,
    "Less": _less,
    "Greater": lambda a, b: _less(b, a),
    "LessOrEqual": lambda a, b: 1 - _less(b, a),
    "GreaterOrEqual": lambda a, b: 1 - _less(a, b),
}
_COMBINED: Mapping[str, Callable[..., Dim]] = {
    "Not": lambda a: 1 - a,
    "And": minimum,
    "Or": maximum,
}
