"""Sizes computed all at once are those computed one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinfer.lowering.tape import Tape
from clinfer_kernels.dims import OPERATIONS, Dim, evaluate, opaque, sym

NAMES = ("batch", "past", "rows")
LEAVES = st.one_of(st.sampled_from([sym(name) for name in NAMES]), st.integers(-3, 40))


def _extended(dims: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
    safe = sorted(set(OPERATIONS) - {"floordiv", "mod"})
    return st.one_of(
        st.tuples(dims, dims).map(lambda pair: pair[0] + pair[1]),
        st.tuples(dims, dims).map(lambda pair: pair[0] * pair[1]),
        st.tuples(st.sampled_from(safe), dims, dims).map(lambda made: opaque(*made)),
        st.tuples(dims, st.integers(1, 9)).map(lambda made: opaque("floordiv", *made)),
    )


DIMS = st.recursive(LEAVES, _extended, max_leaves=12)


@given(st.lists(DIMS, max_size=6), st.tuples(*[st.integers(0, 50)] * 3))
def test_a_tape_computes_what_each_expression_says(dims: list[Dim], sizes: tuple[int, ...]) -> None:
    values = dict(zip(NAMES, sizes, strict=True))
    found = Tape(dims, NAMES)(values)
    for dim in (dim for dim in dims if not isinstance(dim, int)):
        assert found[id(dim)] == evaluate(dim, values)


def test_expressions_of_other_symbols_are_left_out() -> None:
    known, late = sym("batch") * 2, sym("batch") + sym("found")
    found = Tape([known, late], ["batch"])({"batch": 3})
    assert found[id(known)] == 6
    assert id(late) not in found


def test_what_has_no_value_is_an_arithmetic_error() -> None:
    with pytest.raises(ArithmeticError):
        Tape([opaque("mod", sym("a"), sym("b"))], ["a", "b"])({"a": 1, "b": 0})
