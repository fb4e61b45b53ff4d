"""Operators that pick, place or count elements by index or by value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from clinfer.operators import Operator, plain
from clinfer.operators.relations import (
    axes,
    axis,
    dim,
    elements,
    like,
    not_below,
    one,
    rank,
    same,
    shaped,
    within,
)
from clinfer.operators.values import NATURAL, SWITCH, among, words

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call

_REDUCTION = {"reduction": words("none", "add", "mul", "max", "min")}


def _axis_only(call: Call) -> Iterable[int]:
    return [call.axis("axis", 0, call.rank(0))]


def _gather_nd(call: Call) -> None:
    """indices[..., k] name the first k axes behind the batch's, which are equal in both."""
    data, indices = call.shape(0), call.shape(1)
    batch = int(call.attr("batch_dims", 0))
    if batch >= min(len(data), len(indices)):
        raise call.error(f"'batch_dims' below the ranks of both inputs expected, found {batch}")
    for number in range(batch):
        call.equal(data[number], indices[number], f"axis {number} of data and of indices")
    call.at_most(indices[-1], len(data) - batch, "the length of an index and the axes it may name")


def _scatter_nd(call: Call) -> None:
    """updates have the shape of the indices, but for their last axis, and of what each names."""
    data, indices = call.shape(0), call.shape(1)
    call.at_most(indices[-1], len(data), "the length of an index and the axes of data")
    depth = indices[-1]
    if not isinstance(depth, int):  # the rank of the updates tells it
        length, depth = depth, len(indices) - 1 + len(data) - call.rank(2)
        call.equal(length, depth, "the length of an index, and what the rank of the updates needs,")
    if 0 <= depth <= len(data):
        same(call, 2, (*indices[:-1], *data[depth:]), "the slices that the indices name")


def _top_k(call: Call) -> None:
    """k elements of an axis that has as many."""
    count = call.content(1)
    shape = call.shape(0)
    place = call.axis("axis", -1, len(shape))
    if count is not None:
        call.at_most(count.ravel()[0], shape[place], f"k and the size of axis {place}")


def _has_elements(call: Call) -> None:
    """An axis with a greatest element."""
    place = call.axis("axis", 0, call.rank(0))
    call.at_most(1, call.shape(0)[place], f"one element and the size of axis {place}")


def _reverse_sequence(call: Call) -> None:
    batch, time = (int(call.attr(n, d)) for n, d in (("batch_axis", 1), ("time_axis", 0)))
    if batch == time:
        raise call.error(f"'batch_axis' other than 'time_axis' expected, found {batch} for both")
    call.equal(call.shape(1)[0], call.shape(0)[batch], f"the sequence_lens and axis {batch}")


def _tensor_scatter(call: Call) -> None:
    if call.axis("axis", -2, call.rank(0)) == 0:
        raise call.error("an axis other than 0, which is the batch, expected")
    for number, (old, new) in enumerate(zip(call.shape(0), call.shape(1), strict=True)):
        if number != call.axis("axis", -2, call.rank(0)):
            call.equal(new, old, f"axis {number} of update and of past_cache")


def _one_hot(call: Call) -> None:
    call.axis("axis", -1, call.rank(0) + 1)


OPERATORS = (
    *plain("NonZero"),
    *(
        Operator(f"Arg{name}", relations=(rank(0, least=1), axis(), _has_elements))
        for name in ("Max", "Min")
    ),
    Operator("Compress", relations=(axis(), rank(1, 1))),
    Operator("Gather", relations=(rank(0, least=1), axis())),
    Operator("GatherElements", relations=(rank(0, least=1), axis(), within(1, 0, _axis_only))),
    Operator(
        "GatherND",
        {"batch_dims": NATURAL},
        (rank(0, least=1), rank(1, least=1), _gather_nd),
    ),
    Operator("Hardmax", relations=(axis(),)),
    Operator(
        "NonMaxSuppression",
        {"center_point_box": SWITCH},
        (
            shaped(0, None, None, 4),
            shaped(1, dim(0, 0), None, dim(0, 1)),
            one(2, 3, 4),
        ),
    ),
    Operator(
        "OneHot",
        relations=(one(1), not_below(1), elements(2, lambda c: 2, "off and on"), _one_hot),
    ),
    Operator(
        "ReverseSequence",
        {"batch_axis": among(0, 1), "time_axis": among(0, 1)},
        (rank(0, least=2), rank(1, 1), _reverse_sequence),
    ),
    Operator("Scatter", {}, (rank(0, least=1), axis())),
    Operator(
        "ScatterElements",
        _REDUCTION,
        (rank(0, least=1), axis(), within(1, 0, _axis_only), like(2, 1)),
    ),
    Operator("ScatterND", _REDUCTION, (rank(0, least=1), rank(1, least=1), _scatter_nd)),
    Operator(
        "TensorScatter",
        {"mode": words("linear", "circular")},
        (
            rank(0, least=2),
            within(1, 0, lambda call: ()),
            _tensor_scatter,
            shaped(2, dim(0, 0)),
        ),
    ),
    Operator("TopK", relations=(rank(0, least=1), axis(), one(1), not_below(1), _top_k)),
    Operator("Unique", relations=(axis(),)),
    *(
        Operator(f"Cum{name}", relations=(rank(0, least=1), one(1), axes(index=1)))
        for name in ("Sum", "Prod")
    ),
)
