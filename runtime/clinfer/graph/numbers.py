"""Arithmetic on tensor elements that are computed from sizes.

An element of an integer tensor is a `Dim`, of a boolean one a `bool`, of a float one a `Rational`.
An operation whose result is not exact for every input size raises `UnknownShape`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Any

import numpy as np

from clinfer.graph.bounds import interval, lower_bound
from clinfer.graph.ir import Array, Value
from clinfer.graph.shape_call import CONTENT_LIMIT, UnknownShape
from clinfer_kernels.dims import Dim, common_factor, divide_exactly, floordiv
from clinfer_kernels.dims import ceildiv as dim_ceildiv
from clinfer_kernels.dims import maximum as dim_maximum
from clinfer_kernels.dims import minimum as dim_minimum

_FINEST = 1 << 10  # float constants count as exact where they are multiples of 1 / _FINEST ...
_LARGEST = 1 << 14  # ... and below this, so that products with sizes stay exact in float32


@dataclass(frozen=True)
class Rational:
    """numerator / denominator, the denominator positive and in lowest terms."""

    numerator: Dim
    denominator: int = 1

    @property
    def is_dyadic(self) -> bool:
        """Whether floating point holds it exactly, so that more arithmetic on it stays exact."""
        return self.denominator & (self.denominator - 1) == 0


Number = Dim | Rational


def rational(numerator: Dim, denominator: int) -> Rational:
    """The quotient in lowest terms."""
    shared = gcd(common_factor([numerator]), denominator) or 1
    reduced = divide_exactly(numerator, shared)
    assert reduced is not None
    return Rational(reduced, denominator // shared)


def from_float(value: float) -> Rational:
    """A float constant, where it is a small dyadic fraction."""
    if value != value or abs(value) > _LARGEST:
        raise UnknownShape
    exact = Fraction(value)
    if exact.denominator > _FINEST:
        raise UnknownShape
    return Rational(exact.numerator, exact.denominator)


def content(value: Value) -> Array | None:
    """The content of a small tensor as exact numbers, where sizes or a constant tell it."""
    known, const = value.symbolic if value.rational is None else value.rational, value.const
    if known is not None or const is None or const.size > CONTENT_LIMIT:
        return known
    if const.dtype.kind in "iub":
        return const.astype(object)
    if const.dtype.kind != "f":
        return None
    found: Array = np.empty(const.shape, object)
    try:
        found.ravel()[:] = [from_float(float(x)) for x in const.ravel()]
    except UnknownShape:
        return None
    return found


def _exact(value: Number) -> Rational:
    wide = value if isinstance(value, Rational) else Rational(value)
    if not wide.is_dyadic:
        raise UnknownShape
    return wide


def add(a: Number, b: Number) -> Number:
    if not isinstance(a, Rational) and not isinstance(b, Rational):
        return a + b
    x, y = _exact(a), _exact(b)
    top = x.numerator * y.denominator + y.numerator * x.denominator
    return rational(top, x.denominator * y.denominator)


def negate(a: Number) -> Number:
    if isinstance(a, Rational):
        return Rational(a.numerator * -1, a.denominator)
    return a * -1


def subtract(a: Number, b: Number) -> Number:
    return add(a, negate(b))


def multiply(a: Number, b: Number) -> Number:
    if not isinstance(a, Rational) and not isinstance(b, Rational):
        return a * b
    x, y = _exact(a), _exact(b)
    return rational(x.numerator * y.numerator, x.denominator * y.denominator)


def divide(a: Number, b: Number) -> Number:
    """Division: of integers, towards zero as in ONNX; of floats, by a constant."""
    if isinstance(a, Rational) or isinstance(b, Rational):
        x, y = _exact(a), _exact(b)
        if not isinstance(y.numerator, int) or y.numerator == 0:
            raise UnknownShape
        sign = 1 if y.numerator > 0 else -1
        return rational(x.numerator * (y.denominator * sign), x.denominator * y.numerator * sign)
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise UnknownShape
        return a // b if (a < 0) == (b < 0) or a % b == 0 else -(-a // b)
    exact = divide_exactly(a, b)
    return _quotient(a, b) if exact is None else exact


def _quotient(a: Dim, b: Dim) -> Dim:
    """a / b towards zero; a negative a below a positive b has (a + b - 1) // b."""
    if isinstance(b, int) and b < 0:
        return _quotient(a * -1, -b)
    least = lower_bound(a)
    if least is not None and least >= 0 and _natural(b):
        return floordiv(a, b)
    if not isinstance(b, int) or b == 0:
        raise UnknownShape
    if least is not None and least > -b:
        return dim_maximum(floordiv(a, b), 0)
    is_negative = dim_minimum(dim_maximum(a * -1, 0), 1)
    return floordiv(a + is_negative * (b - 1), b)


def modulo(a: Number, b: Number) -> Number:
    """The remainder with the divisor's sign."""
    if isinstance(a, Rational) or isinstance(b, Rational) or b == 0:
        raise UnknownShape
    if not (isinstance(a, int) and isinstance(b, int)) and not (_natural(a) and _natural(b)):
        raise UnknownShape
    return a % b


def ceildiv(a: Dim, b: Dim) -> Dim | None:
    """The least integer >= a / b for a constant b other than 0; None for another b."""
    if not isinstance(b, int) or b == 0:
        return None
    return dim_ceildiv(a, b) if b > 0 else dim_ceildiv(a * -1, -b)


def floor(a: Number) -> Number:
    if not isinstance(a, Rational):
        return a
    return Rational(floordiv(a.numerator, a.denominator))


def ceil(a: Number) -> Number:
    if not isinstance(a, Rational):
        return a
    return Rational(dim_ceildiv(a.numerator, a.denominator))


def truncate(a: Number) -> Dim:
    """The integer a float is cast to."""
    if not isinstance(a, Rational):
        return a
    if a.denominator == 1:
        return a.numerator
    return _quotient(a.numerator, a.denominator)


def widen(a: Number) -> Rational:
    """An integer as a float."""
    return a if isinstance(a, Rational) else Rational(int(a) if isinstance(a, bool) else a)


def minimum(a: Number, b: Number) -> Number:
    order = sign_of(subtract(a, b))
    if order is not None:
        return a if order <= 0 else b
    return dim_minimum(_integer(a), _integer(b))


def maximum(a: Number, b: Number) -> Number:
    order = sign_of(subtract(a, b))
    if order is not None:
        return a if order >= 0 else b
    return dim_maximum(_integer(a), _integer(b))


def _integer(a: Number) -> Dim:
    if isinstance(a, Rational):
        raise UnknownShape
    return a


def _natural(a: Dim) -> bool:
    least = lower_bound(a)
    return least is not None and least >= 0


def sign_of(a: Number) -> int | None:
    """-1 for never positive, 1 for never negative, 0 for zero; None where the sign varies."""
    low, high = interval(a.numerator if isinstance(a, Rational) else a)
    if low == 0 and high == 0:
        return 0
    if low is not None and low >= 0:
        return 1
    return -1 if high is not None and high <= 0 else None


def _compare(decide: Callable[[int | None, int | None], bool | None]) -> Callable[[Any, Any], bool]:
    """A comparison from the interval of the difference of its operands."""

    def compare(a: Number, b: Number) -> bool:
        gap = subtract(a, b)
        known = decide(*interval(gap.numerator if isinstance(gap, Rational) else gap))
        if known is None:
            raise UnknownShape
        return known

    return compare


def _is_less(low: int | None, high: int | None) -> bool | None:
    if high is not None and high < 0:
        return True
    return False if low is not None and low >= 0 else None


def _is_less_or_equal(low: int | None, high: int | None) -> bool | None:
    if high is not None and high <= 0:
        return True
    return False if low is not None and low > 0 else None


def _is_equal(low: int | None, high: int | None) -> bool | None:
    if low == 0 and high == 0:
        return True
    apart = (low is not None and low > 0) or (high is not None and high < 0)
    return False if apart else None


less = _compare(_is_less)
less_or_equal = _compare(_is_less_or_equal)
equal = _compare(_is_equal)


def greater(a: Number, b: Number) -> bool:
    return less(b, a)


def greater_or_equal(a: Number, b: Number) -> bool:
    return less_or_equal(b, a)
