"""GELU in its two forms, whatever the order of the factors.

    x * 0.5 * (1 + erf(x / sqrt(2)))
    x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))

Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
"""

from __future__ import annotations

import math

from clinfer.graph.ir import Node, Value
from clinfer.passes.patterns.match import Any, Apply, Number, factors, find, is_near
from clinfer.passes.rewrite import Outcome, Rewriter, Rule

_ONE_PLUS = {
    "none": Apply("Add", Apply("Erf", Any("arg")), Number(value=1.0)),
    "tanh": Apply("Add", Apply("Tanh", Any("arg")), Number(value=1.0)),
}
_PLUS_CUBE = Apply("Add", Any("x"), Any("cube"))
_PLUS_SQUARE = Apply("Add", Any("square"), Number(value=1.0))


def gelu(rw: Rewriter, node: Node) -> Outcome:
    """The product of x, 0.5 and 1 + erf or 1 + tanh."""
    others, number = factors(node.output)
    if len(others) != 2 or not is_near(number, 0.5):
        return None
    for x, sum_ in (others, others[::-1]):
        for form, pattern in _ONE_PLUS.items():
            match = find(pattern, sum_)
            if match is None:
                continue
            check = _is_erf_argument if form == "none" else _is_tanh_argument
            if check(match.value("arg"), x):
                attrs = {"approximate": form}
                return rw.emit("Gelu", [x], x.dtype, x.shape, attrs=attrs, version=20)
    return None


def _is_erf_argument(value: Value, x: Value) -> bool:
    others, number = factors(value)
    return others == [x] and is_near(number, math.sqrt(0.5))


def _is_tanh_argument(value: Value, x: Value) -> bool:
    """sqrt(2 / pi) * (x + 0.044715 * x^3), or x * sqrt(2 / pi) * (1 + 0.044715 * x^2)."""
    others, number = factors(value)
    if not is_near(number, math.sqrt(2.0 / math.pi)):
        return False
    if len(others) == 1:
        match = find(_PLUS_CUBE, others[0])
        if match is None:
            return False
        pair = (match.value("x"), match.value("cube"))
        return any(a is x and _is_power(b, x, 3) for a, b in (pair, pair[::-1]))
    if len(others) == 2 and x in others:
        rest = others[1] if others[0] is x else others[0]
        match = find(_PLUS_SQUARE, rest)
        return match is not None and _is_power(match.value("square"), x, 2)
    return False


def _is_power(value: Value, x: Value, power: int) -> bool:
    """Whether `value` is 0.044715 * x^power."""
    others, number = factors(value)
    return others == [x] * power and is_near(number, 0.044715)


RULES = (Rule("gelu", ("Mul", "Div"), gelu),)
