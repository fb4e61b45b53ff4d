"""Operators that pick by position: comparisons with positions, gathers and scatters."""

from __future__ import annotations

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.maker import Maker, count
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.query import normal_axis, sizes
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, product


def one_hot(rw: Rewriter, node: Node) -> Outcome:
    """`on` where the position along the new axis is the index, which may count from the end."""
    depth, values = node.required(1), node.required(2)
    known = sizes(depth)
    if known is None:
        return Refusal("its depth is computed from data")
    make = Maker(rw)
    indices = make.cast(node.required(0), "int64")
    shape = indices.known_shape
    axis = normal_axis(node.attrs.get("axis", -1), len(shape) + 1)
    size = make.size(known[0])
    negative = make("Less", indices, 0, dtype="bool")
    wrapped = make("Where", negative, make("Add", indices, size), indices, dtype="int64")
    column = rw.reshape(wrapped, (*shape[:axis], 1, *shape[axis:]))
    spread = (known[0], *[1] * (len(shape) - axis))
    hit = make("Equal", column, count(rw, known[0], spread), dtype="bool")
    scalar = Value("", values.dtype, (1,))
    off, on = (rw.reshape(emit_slice(rw, values, {0: (i, 1)}, scalar), ()) for i in (0, 1))
    return make("Where", hit, on, off, dtype=values.dtype)


def hardmax(rw: Rewriter, node: Node) -> Outcome:
    """1 where the position along the axis is that of the first maximum."""
    x = node.required(0)
    shape = x.known_shape
    axis = normal_axis(node.attrs.get("axis", -1), len(shape))
    make = Maker(rw)
    attrs = {"axis": axis, "keepdims": 1, "select_last_index": 0}
    kept = (*shape[:axis], 1, *shape[axis + 1 :])
    best = rw.emit("ArgMax", [x], "int64", kept, attrs=attrs, version=13)
    spread = (shape[axis], *[1] * (len(shape) - axis - 1))
    return make.cast(
        make("Equal", best, count(rw, shape[axis], spread), dtype="bool"), str(x.dtype)
    )


def reverse_sequence(rw: Rewriter, node: Node) -> Outcome:
    """Row b is read at length[b] - 1 - t for t < length[b], behind that at t."""
    x = node.required(0)
    make = Maker(rw)
    if node.attrs.get("batch_axis", 1) == 1:
        swap = (1, 0, *range(2, len(x.known_shape)))
        return rw.transpose(_reversed(make, rw.transpose(x, swap), node.required(1)), swap)
    return _reversed(make, x, node.required(1))


def _reversed(make: Maker, x: Value, lengths: Value) -> Value:
    """x [N, T, ...], lengths [N]."""
    rw = make.rw
    batch, steps = x.known_shape[:2]
    step = count(rw, steps, (1, steps))
    ends = rw.reshape(make.cast(lengths, "int64"), (batch, 1))
    within = make("Less", step, ends, dtype="bool")
    mirrored = make("Sub", make("Sub", ends, 1), step)
    places = make("Where", within, mirrored, step, dtype="int64")
    # A length that is none is a place that is none: the gather reports it.
    low = make("Less", ends, 0, dtype="bool")
    high = make("Greater", ends, make.size(steps), dtype="bool")
    none = make("Or", low, high, dtype="bool")
    places = make("Where", none, ends, places, dtype="int64")
    indices = rw.reshape(places, (batch, steps, 1))
    attrs = {"batch_dims": 1, "positions": "lengths"}
    return rw.emit("GatherND", [x, indices], x.dtype, x.shape, attrs=attrs, version=13)


def max_unpool(rw: Rewriter, node: Node) -> Outcome:
    """Maxima put back, into zeros, at their flat indices in the tensor that was pooled.

    An output shape larger than what the window makes of the input adds zeros behind.
    """
    x, indices = node.required(0), node.required(1)
    shape = node.output.known_shape
    kernel = list(node.attrs["kernel_shape"])
    rank = len(kernel)
    strides = node.attrs.get("strides", [1] * rank)
    pads = node.attrs.get("pads", [0] * (2 * rank))
    spatial: list[Dim] = []
    for a, size in enumerate(x.known_shape[2:]):
        spatial.append((size - 1) * strides[a] - pads[a] - pads[rank + a] + kernel[a])
    pooled = (*x.known_shape[:2], *spatial)
    missing = [wanted - own for wanted, own in zip(shape, pooled, strict=True)]
    if not all(isinstance(m, int) and m >= 0 for m in missing):
        return Refusal("how much larger its output is than what it pooled is not known")
    total = product(pooled)
    zero = rw.constant(np.zeros((), to_numpy(str(x.dtype))))
    empty = rw.emit("Expand", [rw.reshape(zero, (1,))], x.dtype, (total,))
    flat = [rw.reshape(v, (product(x.known_shape),)) for v in (indices, x)]
    attrs = {"axis": 0, "positions": "natural"}
    inputs = [empty, *flat]
    put = rw.emit("ScatterElements", inputs, x.dtype, (total,), attrs=attrs, version=18)
    result = rw.reshape(put, pooled)
    if not any(missing):
        return result
    ends = rw.constant(np.array([*[0] * len(shape), *missing], np.int64))
    return rw.emit("Pad", [result, ends, zero], x.dtype, shape, version=13)


RULES = (
    Rule("one-hot-to-where", ("OneHot",), one_hot),
    Rule("hardmax-to-equal", ("Hardmax",), hardmax),
    Rule("reverse-sequence-to-gather", ("ReverseSequence",), reverse_sequence),
    Rule("max-unpool-to-scatter", ("MaxUnpool",), max_unpool),
)
