"""Binding shapes: symbols get their values, and shapes that do not fit are named."""

from __future__ import annotations

import pytest

from clinfer.errors import InputError, ShapeError
from clinfer.lowering.binding import bind_inputs
from clinfer.lowering.plan import Buffer, Constraint, Plan, PlanPort
from clinfer_kernels.dims import sym

BATCH = sym("batch")
SEQ = sym("seq")


def _plan(constraints=()):
    ids = PlanPort("ids", "int64", (BATCH, SEQ), 0)
    mask = PlanPort("mask", "int64", (BATCH, SEQ + 1, 4), 1)
    buffers = (Buffer("input", "int64", BATCH * SEQ), Buffer("input", "int64", BATCH))
    return Plan((ids, mask), (), buffers, (), (), (), tuple(constraints))


def test_symbols_come_from_the_inputs():
    sizes = bind_inputs(_plan(), [(2, 7), (2, 8, 4)])
    assert sizes(BATCH * SEQ * 3) == 42


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(2, 7), (2, 8, 5)], ("'mask'", "5 where 4")),
        ([(2, 7), (3, 8, 4)], ("'mask'", "'batch' is 2")),
        ([(2, 7), (2, 7, 4)], ("'mask'", "is 8")),
        ([(2,), (2, 8, 4)], ("'ids'", "1 dimensions")),
    ],
)
def test_a_shape_that_does_not_fit_is_named(shapes, words):
    with pytest.raises(InputError) as caught:
        bind_inputs(_plan(), shapes)
    for word in words:
        assert word in str(caught.value)


def test_sizes_that_must_agree_are_checked():
    plan = _plan([Constraint(BATCH, SEQ, 'Add "sum"')])
    with pytest.raises(ShapeError, match=r'Add "sum".*they are 2 \(batch\) and 7 \(seq\)'):
        bind_inputs(plan, [(2, 7), (2, 8, 4)])
