"""Operators whose sizes, axes or places are in data: read once, then as if they had been known.

Each rule reads the numbers (`told.Told`), says what the sizes of the result are, and puts canonical
operators in the node's place. Axes are sizes too: a tensor is seen as [d0, 1, 1, d2, ...], where
each dimension is the one or the other by a number that a run gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Shape, Value
from clinfer.graph.shape_rules.sizes import range_length
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM, REDUCTIONS
from clinfer.passes.canonicalise.maker import Maker, count, sizes_value
from clinfer.passes.canonicalise.told import (
    Told,
    clamped,
    equals,
    is_known,
    is_negative,
    is_readable,
    wrapped,
)
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.query import integers, normal_axis
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import (
    Dim,
    TooComplex,
    ceildiv,
    differs,
    floordiv,
    maximum,
    product,
)

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_MANY = Refusal("its sizes are computed from data, from more numbers than are read")
_Apply = Callable[[Rewriter, Node], Outcome]


def _reading(*indices: int) -> Callable[[_Apply], _Apply]:
    """A rule for nodes of whose inputs at `indices` some have a content that only a run tells."""

    def wrap(rule: _Apply) -> _Apply:
        def apply(rw: Rewriter, node: Node) -> Outcome:
            given = [node.input(index) for index in indices]
            if is_known(*given):
                return None
            if not all(is_readable(value) for value in given):
                return _MANY
            try:
                return rule(rw, node)
            except TooComplex as error:
                return Refusal(str(error))

        return apply

    return wrap


# -- shapes --------------------------------------------------------------------------------------


@_reading(1)
def reshape(rw: Rewriter, node: Node) -> Outcome:
    """Reshape: 0 takes the input's size, -1 what is left."""
    x, told = node.required(0), Told(rw, node)
    source, total = x.known_shape, product(x.known_shape)
    is_zero = bool(node.attrs.get("allowzero", 0))
    asked: list[Dim] = []
    for axis, size in enumerate(told.content(node.required(1))):
        copied = source[axis] if axis < len(source) else -2
        asked.append(told.define(size if is_zero else size + copied * equals(size, 0)))
    is_open = [told.define(equals(size, -1)) for size in asked]
    known = product(told.define(n + 2 * left) for n, left in zip(asked, is_open, strict=True))
    rest = told.define(floordiv(total, maximum(known, 1)))
    meant = [told.define(n + left * (rest + 1)) for n, left in zip(asked, is_open, strict=True)]
    told.require(sum(is_open, start=0), 1, "at most one size of -1", "at most")
    told.require(product(meant), total, "the numbers of elements before and after must be equal")
    shape = node.output.known_shape
    told.give_all(shape, meant)
    told.emit()
    return rw.reshape(x, shape)


@_reading(1)
def expand(rw: Rewriter, node: Node) -> Outcome:
    """Expand: the broadcast of the input's shape and the one given."""
    x, told = node.required(0), Told(rw, node)
    shape = node.output.known_shape
    asked = told.content(node.required(1))
    wide = [*[1] * (len(shape) - len(asked)), *asked]
    own = [*[1] * (len(shape) - len(x.known_shape)), *x.known_shape]
    meant = []
    for left, right in zip(own, wide, strict=True):
        size = told.define(_joined(left, right))
        for part in (left, right):
            told.require(part, size, "sizes that are broadcast must be equal or 1", "fits")
        meant.append(size)
    told.give_all(shape, meant)
    told.emit()
    return rw.emit("Expand", [x], x.dtype, shape)


def _joined(left: Dim, right: Dim) -> Dim:
    """The size of a broadcast of sizes that may be any numbers yet."""
    return right + (left - right) * differs(left, 1)


@_reading(0)
def constant_of_shape(rw: Rewriter, node: Node) -> Outcome:
    """ConstantOfShape: one element, expanded."""
    told, shape = Told(rw, node), node.output.known_shape
    told.give_all(shape, told.content(node.required(0)))
    told.emit()
    content = np.asarray(node.attrs.get("value", np.zeros((), np.float32))).reshape(())
    element = rw.constant(content)
    return rw.emit("Expand", [element], element.dtype, shape)


@_reading(1)
def tile(rw: Rewriter, node: Node) -> Outcome:
    """Tile: [d0, ...] as [1, d0, ...], expanded to [r0, d0, ...]."""
    x, told = node.required(0), Told(rw, node)
    shape = node.output.known_shape
    repeats = [told.size(n) for n in told.content(node.required(1))]
    told.give_all(shape, [n * d for n, d in zip(repeats, x.known_shape, strict=True)])
    told.emit()
    apart = [d for size in x.known_shape for d in (1, size)]
    wide = [d for pair in zip(repeats, x.known_shape, strict=True) for d in pair]
    spread = rw.emit("Expand", [rw.reshape(x, apart)], x.dtype, tuple(wide))
    return rw.reshape(spread, shape)


@_reading(1)
def split(rw: Rewriter, node: Node) -> Outcome:
    """Split: a slice for each part."""
    x, told = node.required(0), Told(rw, node)
    axis = normal_axis(node.attrs.get("axis", 0), len(x.known_shape))
    message = ("a part", 0, x.known_shape[axis] + 1)
    asked = told.content(node.required(1), message)
    told.require(sum(asked, start=0), x.known_shape[axis], "the parts must be the whole")
    start: Dim = 0
    made: list[Value | None] = []
    ranges: list[tuple[Value, Dim]] = []
    for value, size in zip(node.outputs, asked, strict=True):
        if value is None:
            start = start + told.size(size)
            continue
        told.give(value.known_shape[axis], size)
        ranges.append((value, start))
        start = start + value.known_shape[axis]
    told.emit()
    parts = iter([emit_slice(rw, x, {axis: (first, 1)}, value) for value, first in ranges])
    made = [None if value is None else next(parts) for value in node.outputs]
    return made


@_reading(1)
def top_k(rw: Rewriter, node: Node) -> Outcome:
    """TopK: k is a size."""
    x, k, told = node.required(0), node.required(1), Told(rw, node)
    axis = normal_axis(node.attrs.get("axis", -1), len(x.known_shape))
    (asked,) = told.content(k, ("k", 0, x.known_shape[axis] + 1))
    (size,) = {v.known_shape[axis]: None for v in node.outputs if v is not None}.keys() or (None,)
    assert size is not None
    told.give(size, asked)
    told.emit()
    known = sizes_value(rw, [size])
    made = Node(
        "TopK",
        [x, known],
        [
            None if v is None else Value(rw.graph.fresh(v.name), v.dtype, v.shape)
            for v in node.outputs
        ],
        dict(node.attrs),
        node.name,
        version=node.version,
    )
    rw.insert(made)
    return made.outputs


# -- ranges and parts ----------------------------------------------------------------------------


@_reading(0, 1, 2)
def range_(rw: Rewriter, node: Node) -> Outcome:
    """Range: start + i * delta; how many there are is computed in float64 for floats."""
    start, limit, delta = (node.required(index) for index in range(3))
    dtype = str(start.dtype)
    if range_length([start, limit, delta]) is not None:
        return None
    told, make = Told(rw, node), Maker(rw)
    if any(v.known_shape not in ((), (1,)) for v in (start, limit, delta)):
        return Refusal("its operands are no scalars")
    start, limit, delta = (rw.reshape(v, ()) for v in (start, limit, delta))
    if dtype in _FLOATS:
        span = make("Sub", limit, start) if dtype in ("float32", "float64") else None
        if span is None:
            span = make("Sub", make.cast(limit, "float64"), make.cast(start, "float64"))
        steps = make("Div", make.cast(span, "float64"), make.cast(delta, "float64"))
        counted = make.cast(make("Ceil", make("Max", steps, 0.0)), "int64")
        (number,) = told.content(counted)
    else:
        (first,), (last,), (step,) = (told.content(v) for v in (start, limit, delta))
        is_none = equals(step, 0)
        told.require(is_none, 0, "a delta other than 0 is expected")
        number = maximum(ceildiv(last - first, told.define(step + is_none)), 0)
    size = node.output.known_shape[0]
    told.give(size, number)
    told.emit()
    places = make.cast(count(rw, size, (size,)), dtype)
    return make("Add", make("Mul", places, delta), start)


@_reading(1, 2, 3, 4)
def slice_(rw: Rewriter, node: Node) -> Outcome:
    """Slice: views where axes and steps are known, else a gather along each axis."""
    x, told = node.required(0), Told(rw, node)
    shape, rank = node.output.known_shape, len(x.known_shape)
    starts, ends = (told.content(node.required(index)) for index in (1, 2))
    steps: list[Dim] = [1] * len(starts) if node.input(4) is None else told.content(node.input(4))
    axes = list(range(len(starts))) if node.input(3) is None else integers(node.input(3))
    strides = [step for step in steps if isinstance(step, int)]
    if axes is not None and len(strides) == len(steps):
        kept: dict[int, tuple[Dim, int]] = {}
        for number, named in enumerate(axes):
            axis = normal_axis(named, rank)
            ends_at = (starts[number], ends[number], strides[number])
            first, length = _part(told, x.known_shape[axis], *ends_at)
            kept[axis] = (told.size(maximum(first, 0)), strides[number])
            told.give(shape[axis], length)
        told.emit()
        return emit_slice(rw, x, kept, node.output)
    named_axes: list[Dim] = (
        axes_of(told, node.input(3), rank) if axes is None else [normal_axis(a, rank) for a in axes]
    )
    plans: list[tuple[Dim, Dim, Dim]] = []
    for axis, size in enumerate(x.known_shape):
        hits = [equals(axis, a) for a in named_axes]
        among = told.define(sum(hits, start=0))
        free = 1 - among
        start, end, by = (
            told.define(meaning)
            for meaning in (
                chosen(hits, starts),
                chosen(hits, ends) + free * size,
                chosen(hits, steps) + free,
            )
        )
        first, length = _part(told, size, start, end, by)
        up, down = (told.size(maximum(n, 0)) for n in (by, 0 - by))
        plans.append((told.size(maximum(first, 0)), up - down, length))
    told.give_all(shape, [length for *_, length in plans])
    told.emit()
    make = Maker(rw)
    result = x
    for axis, (first, step, _) in enumerate(plans):
        size = shape[axis]
        index = make(
            "Add", make("Mul", count(rw, size, (size,)), make.size(step)), make.size(first)
        )
        made = (*shape[: axis + 1], *x.known_shape[axis + 1 :])
        result = rw.emit("Gather", [result, index], x.dtype, made, attrs={"axis": axis}, version=13)
    return result


def _part(told: Told, size: Dim, start: Dim, end: Dim, step: Dim) -> tuple[Dim, Dim]:
    """The first place and the number of places of start:end:step along an axis."""
    none = equals(step, 0)
    told.require(none, 0, "a step other than 0 is expected")
    back = told.define(is_negative(step))
    low, high = 0 - back, size - back
    first, last = (
        told.define(clamped(told.define(wrapped(n, size)), low, high)) for n in (start, end)
    )
    ahead = (last - first) * (1 - 2 * back)
    length = maximum(ceildiv(ahead, told.define(step * (1 - 2 * back) + none)), 0)
    return first, told.define(length)


def chosen(hits: Sequence[Dim], values: Sequence[Dim]) -> Dim:
    return sum((hit * value for hit, value in zip(hits, values, strict=True)), start=0)


@_reading(1, 3)
def pad(rw: Rewriter, node: Node) -> Outcome:
    """Pad: what negative pads cut off first, then the rest around it."""
    x, told = node.required(0), Told(rw, node)
    source, rank, shape = x.known_shape, len(x.known_shape), node.output.known_shape
    pads = told.content(node.required(1))
    half = len(pads) // 2
    named: list[Dim] = (
        list(range(rank)) if node.input(3) is None else axes_of(told, node.input(3), rank)
    )
    begins: list[Dim] = []
    cut: dict[int, tuple[Dim, int]] = {}
    left: list[Dim] = []
    for axis, size in enumerate(source):
        hits = [equals(axis, a) for a in named]
        begin, end = (told.define(chosen(hits, p)) for p in (pads[:half], pads[half:]))
        begins.append(told.size(maximum(begin, 0)))
        start, stop = (told.size(maximum(0 - n, 0)) for n in (begin, end))
        cut[axis] = (start, 1)
        left.append(told.size(size - start - stop))
        told.give(shape[axis], begin + size + end)
    told.emit()
    part = emit_slice(rw, x, cut, Value("", x.dtype, tuple(left)))
    ends = [n - begin - own for n, begin, own in zip(shape, begins, left, strict=True)]
    inputs = [part, sizes_value(rw, [*begins, *ends]), node.input(2)]
    attrs = {"mode": node.attrs.get("mode", "constant")}
    return rw.emit("Pad", inputs, x.dtype, shape, attrs=attrs, version=13)


# -- axes ----------------------------------------------------------------------------------------


def axes_of(told: Told, value: Value | None, rank: int) -> list[Dim]:
    """Axes from data, counted from the front."""
    given = told.content(value, ("an axis", -rank, rank))
    return [told.define(wrapped(axis, rank)) for axis in given]


def _kept(told: Told, axes: Sequence[Dim], rank: int) -> list[Dim]:
    """For each of `rank` axes 1 where it is not among `axes`, else 0."""
    return [told.define(product(differs(a, axis) for a in axes)) for axis in range(rank)]


def _left_over(kept: Sequence[Dim], shape: Shape, rank: int) -> list[Dim]:
    """The sizes of the first `rank` axes that are kept, in order."""
    found: list[Dim] = []
    for place in range(rank):
        before: Dim = 0
        size: Dim = 0
        for keep, dim in zip(kept, shape, strict=True):
            size = size + keep * equals(before, place) * dim
            before = before + keep
        found.append(size)
    return found


@_reading(1)
def reduce(rw: Rewriter, node: Node) -> Outcome:
    """Reduce* along axes from data: of [k0, r0, k1, r1, ...] every second dimension."""
    if "axes" in node.attrs:
        return None
    x, axes = node.required(0), node.required(1)
    shape, rank = x.known_shape, len(x.known_shape)
    keeps = node.attrs.get("keepdims", 1)
    if 0 in axes.known_shape:
        none = rw.constant(np.zeros(0, np.int64))
        dtype, form = node.output.dtype, node.output.shape
        return rw.emit(node.op, [x, none], dtype, form, attrs=node.attrs, version=node.version)
    told = Told(rw, node)
    kept = _kept(told, axes_of(told, axes, rank), rank)
    pairs = [
        (told.size(1 + keep * (size - 1)), told.size(size + keep * (1 - size)))
        for keep, size in zip(kept, shape, strict=True)
    ]
    whole = tuple(size for size, _ in pairs)
    result = node.output.known_shape
    left = whole if keeps else _left_over(kept, shape, len(result))
    told.give_all(result, left)
    told.require(product(left), product(whole), "the axes must differ")
    told.emit()
    apart = rw.reshape(x, [size for pair in pairs for size in pair])
    attrs = {"axes": list(range(1, 2 * rank, 2)), "keepdims": 0}
    return rw.reshape(_reduced(rw, node, apart, whole, attrs), result)


def _reduced(rw: Rewriter, node: Node, x: Value, shape: Shape, attrs: dict[str, object]) -> Value:
    dtype = node.output.dtype
    return rw.emit(node.op, [x], dtype, shape, attrs=attrs, version=ATTRIBUTE_FORM)


@_reading(1)
def scan(rw: Rewriter, node: Node) -> Outcome:
    """CumSum, CumProd along an axis from data: [before, size, behind]."""
    x, told = node.required(0), Told(rw, node)
    shape, rank = x.known_shape, len(x.known_shape)
    if rank == 0:
        return None
    (axis,) = axes_of(told, node.required(1), rank)
    hits = [told.define(equals(axis, number)) for number in range(rank)]
    ranges = [(product(shape[:a]), shape[a], product(shape[a + 1 :])) for a in range(rank)]
    apart = [told.size(chosen(hits, sizes_of)) for sizes_of in zip(*ranges, strict=True)]
    told.emit()
    inputs = [rw.reshape(x, apart), rw.constant(np.array(1, np.int64))]
    made = rw.emit(node.op, inputs, x.dtype, tuple(apart), attrs=node.attrs, version=node.version)
    return rw.reshape(made, shape)


@_reading(1)
def squeeze(rw: Rewriter, node: Node) -> Outcome:
    """Squeeze: the axes from data have one place each."""
    x, told = node.required(0), Told(rw, node)
    source, shape = x.known_shape, node.output.known_shape
    axes = axes_of(told, node.required(1), len(source))
    left = _left_over(_kept(told, axes, len(source)), source, len(shape))
    return _regrouped(rw, told, x, shape, left)


@_reading(1)
def unsqueeze(rw: Rewriter, node: Node) -> Outcome:
    """Unsqueeze: sizes of 1 at axes from data."""
    x, told = node.required(0), Told(rw, node)
    source, shape = x.known_shape, node.output.known_shape
    kept = _kept(told, axes_of(told, node.required(1), len(shape)), len(shape))
    meant: list[Dim] = []
    before: Dim = 0
    for keep in kept:
        size = chosen([equals(before, place) for place in range(len(source))], source)
        meant.append(1 + keep * (size - 1))
        before = told.define(before + keep)
    return _regrouped(rw, told, x, shape, meant)


def _regrouped(rw: Rewriter, told: Told, x: Value, shape: Shape, meant: Sequence[Dim]) -> Outcome:
    told.give_all(shape, meant)
    told.require(product(shape), product(x.known_shape), "the axes must differ, and fit the sizes")
    told.emit()
    return rw.reshape(x, shape)


# -- positions -----------------------------------------------------------------------------------


@_reading(1)
def one_hot(rw: Rewriter, node: Node) -> Outcome:
    """OneHot: the depth is a size."""
    told, make = Told(rw, node), Maker(rw)
    (asked,) = told.content(node.required(1))
    axis = normal_axis(node.attrs.get("axis", -1), len(node.output.known_shape))
    told.give(node.output.known_shape[axis], asked)
    told.emit()
    depth = make.size(node.output.known_shape[axis])
    inputs = [node.required(0), depth, node.required(2)]
    shape = node.output.shape
    return rw.emit("OneHot", inputs, node.output.dtype, shape, attrs=node.attrs, version=11)


def trilu(rw: Rewriter, node: Node) -> Outcome:
    """Trilu(x) with k from data: x where column - row - k is of the right sign, else 0."""
    x, k = node.required(0), node.input(1)
    if is_known(k) or k is None:
        return None
    make = Maker(rw)
    rows, columns = x.known_shape[-2:]
    across = count(rw, columns, (columns,))
    down = make("Add", count(rw, rows, (rows, 1)), rw.reshape(make.cast(k, "int64"), ()))
    relation = "GreaterOrEqual" if node.attrs.get("upper", 1) else "LessOrEqual"
    chosen = make(relation, across, down, dtype="bool")
    zero = rw.constant(np.zeros((), to_numpy(str(x.dtype))))
    return make("Where", chosen, x, zero, dtype=str(x.dtype))


RULES = (
    Rule("reshape-from-data", ("Reshape",), reshape),
    Rule("expand-from-data", ("Expand",), expand),
    Rule("constant-of-shape-from-data", ("ConstantOfShape",), constant_of_shape),
    Rule("tile-from-data", ("Tile",), tile),
    Rule("split-from-data", ("Split",), split),
    Rule("top-k-from-data", ("TopK",), top_k),
    Rule("range-from-data", ("Range",), range_),
    Rule("slice-from-data", ("Slice",), slice_),
    Rule("pad-from-data", ("Pad",), pad),
    Rule("reduce-from-data", REDUCTIONS, reduce),
    Rule("scan-from-data", ("CumSum", "CumProd"), scan),
    Rule("squeeze-from-data", ("Squeeze",), squeeze),
    Rule("unsqueeze-from-data", ("Unsqueeze",), unsqueeze),
    Rule("one-hot-from-data", ("OneHot",), one_hot),
    Rule("trilu-from-data", ("Trilu",), trilu),
)
