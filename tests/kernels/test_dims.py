"""Sizes as symbolic expressions: equal sizes have equal forms, and values are right."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinfer_kernels.dim_json import from_json, to_json
from clinfer_kernels.dims import (
    ceildiv,
    divide_exactly,
    evaluate,
    maximum,
    minimum,
    substitute,
    sym,
    symbols,
)

BATCH = sym("batch")
SEQ = sym("seq")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3):
    """An expression with a Python function that computes the same from (batch, seq)."""
    if depth == 0:
        leaf = draw(st.sampled_from(["batch", "seq", "number"]))
        if leaf == "number":
            number = draw(st.integers(-5, 9))
            return number, lambda b, s: number
        return (BATCH, lambda b, s: b) if leaf == "batch" else (SEQ, lambda b, s: s)
    left, f = draw(expressions(depth=depth - 1))
    right, g = draw(expressions(depth=depth - 1))
    op = draw(st.sampled_from(["+", "-", "*", "//", "%", "min", "max"]))
    if op == "+":
        return left + right, lambda b, s: f(b, s) + g(b, s)
    if op == "-":
        return left - right, lambda b, s: f(b, s) - g(b, s)
    if op == "*":
        return left * right, lambda b, s: f(b, s) * g(b, s)
    if op == "min":
        return minimum(left, right), lambda b, s: min(f(b, s), g(b, s))
    if op == "max":
        return maximum(left, right), lambda b, s: max(f(b, s), g(b, s))
    by = draw(st.integers(1, 7))
    if op == "//":
        return left // by, lambda b, s: f(b, s) // by
    return left % by, lambda b, s: f(b, s) % by


@given(expressions(), st.integers(1, 50), st.integers(1, 50))
def test_value_is_that_of_integer_arithmetic(pair, batch, seq):
    dim, function = pair
    assert evaluate(dim, {"batch": batch, "seq": seq}) == function(batch, seq)


@given(expressions(), st.integers(1, 50), st.integers(1, 50))
def test_json_gives_the_same_size_back(pair, batch, seq):
    dim, _ = pair
    back = from_json(json.loads(json.dumps(to_json(dim))))
    values = {"batch": batch, "seq": seq}
    assert evaluate(back, values) == evaluate(dim, values)


@given(expressions(), st.integers(1, 50), st.integers(1, 50))
def test_substituting_numbers_gives_the_value(pair, batch, seq):
    dim, function = pair
    assert substitute(dim, {"batch": batch, "seq": seq}) == function(batch, seq)


def test_equal_sizes_are_equal_expressions():
    assert BATCH * SEQ * 768 // (BATCH * 64) == SEQ * 12
    assert SEQ + 1 - SEQ == 1
    assert hash(SEQ * 2 + BATCH) == hash(BATCH + SEQ + SEQ)
    assert (SEQ * 4) % 4 == 0
    assert divide_exactly(SEQ + 1, 2) is None
    assert ceildiv(SEQ * 8, 8) == SEQ
    assert symbols(ceildiv(SEQ, 16) * BATCH) == {"batch", "seq"}


@pytest.mark.parametrize("bad", [None, True, 1.5, ["pow", 1, 2], ["sum"], {"a": 1}])
def test_json_of_another_form_is_refused(bad):
    with pytest.raises((ValueError, TypeError)):
        from_json(bad)
