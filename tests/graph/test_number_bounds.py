"""Bounds and exact arithmetic of expressions over sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer.graph import numbers
from clinfer.graph.bounds import interval
from clinfer.graph.shape_call import UnknownShape
from clinfer_kernels.dims import Dim, evaluate, floordiv, maximum, minimum, sym

A, B = sym("a"), sym("b")
SIZES = st.fixed_dictionaries({"a": st.integers(0, 40), "b": st.integers(0, 40)})


def expressions() -> st.SearchStrategy[Dim]:
    leaves = st.one_of(st.integers(-9, 9), st.sampled_from([A, B]))

    def combined(inner: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
        pairs = st.tuples(inner, inner)
        return st.one_of(
            pairs.map(lambda p: p[0] + p[1]),
            pairs.map(lambda p: p[0] * p[1]),
            pairs.map(lambda p: minimum(*p)),
            pairs.map(lambda p: maximum(*p)),
            st.tuples(inner, st.integers(1, 7)).map(lambda p: floordiv(*p)),
            st.tuples(inner, st.integers(1, 7)).map(lambda p: p[0] % p[1]),
        )

    return st.recursive(leaves, combined, max_leaves=6)


@settings(max_examples=150, deadline=None)
@given(expressions(), SIZES)
def test_values_lie_within_their_bounds(dim: Dim, sizes: dict[str, int]) -> None:
    low, high = interval(dim)
    value = evaluate(dim, sizes)
    assert low is None or low <= value
    assert high is None or value <= high


def known(function: Callable[[Any, Any], Any], a: Dim, b: Dim) -> Any:
    """The function's value, None where it is not the same for every size."""
    try:
        return function(a, b)
    except UnknownShape:
        return None


@settings(max_examples=100, deadline=None)
@given(expressions(), expressions(), SIZES)
def test_comparisons_and_division_are_right_or_left_open(
    a: Dim, b: Dim, sizes: dict[str, int]
) -> None:
    x, y = evaluate(a, sizes), evaluate(b, sizes)
    checks = (
        (numbers.less, x < y),
        (numbers.less_or_equal, x <= y),
        (numbers.equal, x == y),
        (numbers.greater, x > y),
        (numbers.greater_or_equal, x >= y),
    )
    for function, expected in checks:
        assert known(function, a, b) in (None, expected)
    for function, expected_value in ((numbers.minimum, min(x, y)), (numbers.maximum, max(x, y))):
        found = function(a, b)
        assert not isinstance(found, numbers.Rational)
        assert evaluate(found, sizes) == expected_value
    quotient = known(numbers.divide, a, b)
    if y and quotient is not None:
        assert evaluate(quotient, sizes) == int(x / y)


def test_bounds_of_common_forms() -> None:
    assert interval(A) == (0, None)
    assert interval(A * 2 + 3) == (3, None)
    assert interval(A * -1) == (None, 0)
    assert interval(minimum(A, 512)) == (0, 512)
    assert interval(A % 7) == (0, 6)
    assert interval(floordiv(minimum(A, 512), 4)) == (0, 128)
