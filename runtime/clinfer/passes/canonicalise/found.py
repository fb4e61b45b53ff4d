"""Operators whose results are as many as were found: NonZero, Compress, Unique, NonMaxSuppression.

What is found is flagged; the running count of flags numbers it, a scatter puts each place at its
number, and the total is a size that is read (`told.Told`).
"""

from __future__ import annotations

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import OWN_DOMAIN, Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM
from clinfer.passes.canonicalise.maker import Maker, cast, count, sizes_value
from clinfer.passes.canonicalise.told import Told, is_known, is_readable
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.query import normal_axis
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, maximum, minimum, product

_INT = "int64"


def non_zero(rw: Rewriter, node: Node) -> Outcome:
    """NonZero: [rank, found]; a scalar is one element of no dimension."""
    x = node.required(0)
    shape, made = x.known_shape, node.output.known_shape
    if not shape:
        return Refusal("its input is a scalar")
    make = Maker(rw)
    flags = make("Not", _is_zero(make, x))
    places = positions(rw, node, rw.reshape(flags, (product(shape),)), made[1])
    rest, rows = places, []
    for size in reversed(shape[1:]):
        rows.append(make("Mod", rest, make.size(size)))
        rest = make("Div", rest, make.size(size))
    rows.append(rest)
    lines: list[Value | None] = [rw.reshape(row, (1, made[1])) for row in reversed(rows)]
    if len(lines) == 1:
        return lines[0]
    return rw.emit("Concat", lines, _INT, made, attrs={"axis": 0})


def _is_zero(make: Maker, x: Value) -> Value:
    if x.dtype == "bool":
        return make("Not", x)
    return make("Equal", x, 0, dtype="bool")


def compress(rw: Rewriter, node: Node) -> Outcome:
    """Compress(x, condition): a gather of the places where it holds, of those that x has."""
    x, condition = node.required(0), node.required(1)
    axis = node.attrs.get("axis")
    made = node.output.known_shape
    if axis is None:
        x, axis = rw.reshape(x, (product(x.known_shape),)), 0
    axis = normal_axis(axis, len(x.known_shape))
    make = Maker(rw)
    (length,) = condition.known_shape
    if length != x.known_shape[axis]:
        place = count(rw, length, (length,))
        inside = make("Less", place, make.size(x.known_shape[axis]), dtype="bool")
        condition = make("And", condition, inside)
    places = positions(rw, node, condition, made[axis])
    attrs = {"axis": axis, "positions": "clamped"}
    return rw.emit("Gather", [x, places], x.dtype, made, attrs=attrs, version=13)


def positions(rw: Rewriter, node: Node, flags: Value, size: Dim) -> Value:
    """The places [size] of the flags that hold, of [n]; lets `size`, how many there are, be known.

    Those that do not hold all go behind the end.
    """
    make = Maker(rw)
    (length,) = flags.known_shape
    numbers = make.cast(flags, _INT)
    attrs = {"axes": [0], "keepdims": 1}
    total = rw.emit("ReduceSum", [numbers], _INT, (1,), attrs=attrs, version=ATTRIBUTE_FORM)
    told = Told(rw, node)
    (number,) = told.content(total)
    told.give(size, number)
    told.emit()
    axis = rw.constant(np.zeros((), np.int64))
    ends = rw.emit("CumSum", [numbers, axis], _INT, (length,), version=14)
    behind = make.size(length)
    slots = make("Where", flags, make("Sub", ends, 1), behind, dtype=_INT)
    return _scattered(rw, length, slots, count(rw, length, (length,)), size)


def _scattered(rw: Rewriter, length: Dim, slots: Value, values: Value, size: Dim) -> Value:
    """`values` [length] at their slots, of which the first `size` are kept."""
    zero = rw.constant(np.zeros((1,), to_numpy(str(values.dtype))))
    empty = rw.emit("Expand", [zero], values.dtype, (length + 1,))
    attrs = {"axis": 0, "positions": "clamped"}
    put = rw.emit(
        "ScatterElements",
        [empty, slots, values],
        values.dtype,
        (length + 1,),
        attrs=attrs,
        version=18,
    )
    return emit_slice(rw, put, {0: (0, 1)}, Value("", values.dtype, (size,)))


def unique(rw: Rewriter, node: Node) -> Outcome:
    """Unique of all elements: sorted, with the first of each group where equal ones begin."""
    x = node.required(0)
    axis = node.attrs.get("axis")
    shape = x.known_shape
    if axis is not None and len(shape) != 1:
        return Refusal("it compares rows")
    if x.dtype == "bool":
        return Refusal("its elements are booleans")
    length = product(shape)
    make = Maker(rw)
    flat = rw.reshape(x, (length,))
    values, order = _sorted(rw, flat, length)
    before = rw.emit(
        "Gather",
        [values, make("Max", make("Sub", count(rw, length, (length,)), 1), 0)],
        x.dtype,
        (length,),
        attrs={"axis": 0, "positions": "clamped"},
        version=13,
    )
    differs = make("Not", make("Equal", values, before, dtype="bool"))
    first = make("Equal", count(rw, length, (length,)), 0, dtype="bool")
    begins = make("Or", differs, first)
    outputs = [*node.outputs, *[None] * (4 - len(node.outputs))]
    size = next(v for i, v in enumerate(outputs) if v is not None and i != 2).known_shape[0]
    starts = positions(rw, node, begins, size)
    axis0 = rw.constant(np.zeros((), np.int64))
    groups = make(
        "Sub",
        rw.emit("CumSum", [make.cast(begins, _INT), axis0], _INT, (length,), version=14),
        1,
    )

    def gathered(data: Value, index: Value) -> Value:
        attrs = {"axis": 0, "positions": "clamped"}
        made = index.known_shape
        return rw.emit("Gather", [data, index], data.dtype, made, attrs=attrs, version=13)

    ends = gathered(
        starts, make("Min", make("Add", count(rw, size, (size,)), 1), make.size(size - 1))
    )
    is_last = make("Equal", count(rw, size, (size,)), make.size(size - 1), dtype="bool")
    ends = make("Where", is_last, make.size(length), ends, dtype=_INT)
    counts = make("Sub", ends, starts)
    found = gathered(order, starts)  # where each value is met first
    if not node.attrs.get("sorted", 1):
        _, by_meeting = _sorted(rw, found, size)
        rank = _scattered(rw, size, by_meeting, count(rw, size, (size,)), size)
        starts, counts, found = (gathered(v, by_meeting) for v in (starts, counts, found))
        groups = gathered(rank, groups)
    kept = gathered(values, starts)
    whole = _scattered(rw, length, order, groups, length)
    results = (kept, found, whole, counts)
    return [None if v is None else r for v, r in zip(outputs, results, strict=True)][
        : len(node.outputs)
    ]


def _sorted(rw: Rewriter, x: Value, length: Dim) -> tuple[Value, Value]:
    """Ascending, equal ones in their order, and where each was."""
    k = sizes_value(rw, [length])
    outs: list[Value | None] = [
        Value(rw.graph.fresh("sorted"), x.dtype, (length,)),
        Value(rw.graph.fresh("order"), _INT, (length,)),
    ]
    attrs = {"axis": 0, "largest": 0, "sorted": 1}
    rw.insert(Node("TopK", [x, k], outs, attrs, version=11))
    assert outs[0] is not None
    assert outs[1] is not None
    return outs[0], outs[1]


def non_max_suppression(rw: Rewriter, node: Node) -> Outcome:
    """Boxes [N, B, 4], scores [N, C, B]: a kernel walks each class's boxes, the best first.

    `clinfer.Suppress` gives [N, C, most] boxes, -1 behind the last one taken.
    """
    boxes, scores = node.required(0), node.required(1)
    limit, overlap, least = (node.input(index) for index in (2, 3, 4))
    if not is_readable(limit) or boxes.dtype not in ("float32", "float64"):
        return Refusal("its limit is computed from data")
    make, (batch, kinds, many) = Maker(rw), scores.known_shape
    if limit is None or 0 in limit.known_shape:
        asked: Dim = 0
    else:
        told = Told(rw, node)
        (number,) = told.content(limit)
        if not is_known(limit):
            number = told.size(minimum(maximum(number, 0), many))
        told.emit()
        asked = number
    if overlap is not None and 0 in overlap.known_shape:
        overlap = None
    if least is not None and 0 in least.known_shape:
        least = None
    most = minimum(asked, many)
    dtype = str(boxes.dtype)
    numbers = [
        rw.constant(np.array(default, to_numpy(dtype)))
        if value is None
        else make.cast(rw.reshape(value, ()), dtype)
        for value, default in ((overlap, 0.0), (least, -np.inf))
    ]
    ordered: list[Value | None] = [
        Value(rw.graph.fresh("scores"), scores.dtype, scores.shape),
        Value(rw.graph.fresh("order"), _INT, scores.shape),
    ]
    attrs = {"axis": 2, "largest": 1, "sorted": 1}
    rw.insert(Node("TopK", [scores, sizes_value(rw, [many])], ordered, attrs, version=11))
    best = ordered[0]
    assert best is not None
    taken = rw.emit(
        "Suppress",
        [boxes, cast(rw, best, dtype), ordered[1], *numbers],
        "int32",
        (batch, kinds, most),
        attrs={
            "centred": int(node.attrs.get("center_point_box", 0)),
            "limited": int(least is not None),
        },
        domain=OWN_DOMAIN,
    )
    whole = batch * kinds * most
    flat = rw.reshape(taken, (whole,))
    chosen = make("GreaterOrEqual", flat, 0, dtype="bool")
    size = node.output.known_shape[0]
    places = positions(rw, node, chosen, size)
    gather = {"axis": 0, "positions": "clamped"}
    box = rw.emit("Gather", [flat, places], "int32", (size,), attrs=gather, version=13)
    room = make.size(most)
    line = make("Div", places, make("Max", room, 1))
    columns = [
        make("Div", line, make("Max", make.size(kinds), 1)),
        make("Mod", line, make("Max", make.size(kinds), 1)),
        make.cast(box, _INT),
    ]
    parts: list[Value | None] = [rw.reshape(column, (size, 1)) for column in columns]
    return rw.emit("Concat", parts, _INT, (size, 3), attrs={"axis": 1})


RULES = (
    Rule("non-zero-to-positions", ("NonZero",), non_zero),
    Rule("compress-to-gather", ("Compress",), compress),
    Rule("unique-to-sorted", ("Unique",), unique),
    Rule("suppress", ("NonMaxSuppression",), non_max_suppression),
)
