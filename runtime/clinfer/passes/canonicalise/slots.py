"""Places by arithmetic: identity matrices, slots of a cache, samples between pixels; and Det."""

from __future__ import annotations

from math import prod

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM
from clinfer.passes.canonicalise.maker import Maker, count, number
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.query import normal_axis
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, product

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_MOST_STEPS = 16  # of an elimination that is written out


def eye_like(rw: Rewriter, node: Node) -> Outcome:
    """EyeLike: 1 where column - row = k."""
    make = Maker(rw)
    rows, columns = node.output.known_shape
    across, down = count(rw, columns, (1, columns)), count(rw, rows, (rows, 1))
    shift = int(node.attrs.get("k", 0))
    hit = make("Equal", across, make("Add", down, shift), dtype="bool")
    return make.cast(hit, str(node.output.dtype))


def tensor_scatter(rw: Rewriter, node: Node) -> Outcome:
    """TensorScatter(cache [N, ..., n, ...], update, write_indices [N]): ScatterElements.

    A write index that is outside is reported.
    """
    cache, update, starts = node.required(0), node.required(1), node.input(2)
    shape, wanted = cache.known_shape, update.known_shape
    rank = len(shape)
    axis = normal_axis(node.attrs.get("axis", -2), rank)
    make = Maker(rw)
    size = wanted[axis]
    steps = count(rw, size, (size, *[1] * (rank - axis - 1)))
    if starts is not None:
        given = make.cast(starts, "int64")
        column = (shape[0], *[1] * (rank - 1))
        if node.attrs.get("mode", "linear") == "circular":
            first = rw.reshape(given, column)
            turned = make("Mod", make("Add", first, steps), make.size(shape[axis]))
            below = make("Less", first, 0, dtype="bool")
            steps = make("Where", below, first, turned, dtype="int64")
        else:
            room = shape[axis] - size + 1  # a gather from so many places reports the others
            attrs = {"axis": 0, "positions": "natural"}
            inputs = [count(rw, room, (room,)), given]
            first = rw.emit("Gather", inputs, "int64", given.shape, attrs=attrs, version=13)
            steps = make("Add", rw.reshape(first, column), steps)
    places = rw.emit("Expand", [steps], "int64", wanted)
    attrs = {"axis": axis, "positions": "natural"}
    inputs = [cache, places, update]
    return rw.emit("ScatterElements", inputs, cache.dtype, shape, attrs=attrs, version=18)


def det(rw: Rewriter, node: Node) -> Outcome:
    """Det [..., n, n] by Gaussian elimination with pivots, written out."""
    x = node.required(0)
    shape = x.known_shape
    n = shape[-1]
    if not isinstance(n, int) or not 1 <= n <= _MOST_STEPS or x.dtype not in _FLOATS:
        return Refusal(f"matrices of 1 to {_MOST_STEPS} rows of floats have an elimination")
    make = Maker(rw)
    batch = product(shape[:-2])
    rest = rw.reshape(x, (batch, n, n))
    result: Value | None = None
    for left in range(n, 0, -1):
        pivot, rest = _eliminated(make, rest, batch, left)
        result = pivot if result is None else make("Mul", result, pivot)
    assert result is not None
    return rw.reshape(result, node.output.known_shape)


def _eliminated(make: Maker, x: Value, batch: Dim, n: int) -> tuple[Value, Value]:
    """The signed pivot [batch, 1, 1] of [batch, n, n], and what is left: [batch, n - 1, n - 1]."""
    rw = make.rw

    def part(value: Value, rows: tuple[int, int], columns: tuple[int, int]) -> Value:
        shape = (batch, rows[1] - rows[0], columns[1] - columns[0])
        kept: dict[int, tuple[Dim, int]] = {}
        if rows != (0, value.known_shape[1]):
            kept[1] = (rows[0], 1)
        if columns != (0, value.known_shape[2]):
            kept[2] = (columns[0], 1)
        return emit_slice(rw, value, kept, Value("", value.dtype, shape))

    if n == 1:
        return x, x
    column = make("Abs", part(x, (0, n), (0, 1)))
    attrs = {"axis": 1, "keepdims": 1, "select_last_index": 0}
    best = rw.emit("ArgMax", [column], "int64", (batch, 1, 1), attrs=attrs, version=13)
    hit = make("Equal", best, count(rw, n, (n, 1)), dtype="bool")
    zero = number(rw, 0.0, x.dtype)
    picked = make("Where", hit, x, zero, dtype=x.dtype)
    sums = {"axes": [1], "keepdims": 1}
    row = rw.emit("ReduceSum", [picked], x.dtype, (batch, 1, n), attrs=sums, version=ATTRIBUTE_FORM)
    swapped = make("Where", hit, part(x, (0, 1), (0, n)), x, dtype=x.dtype)
    pivot = part(row, (0, 1), (0, 1))
    is_zero = make("Equal", pivot, 0.0, dtype="bool")
    safe = make("Where", is_zero, number(rw, 1.0, x.dtype), pivot, dtype=x.dtype)
    share = make("Div", part(swapped, (1, n), (0, 1)), safe)
    left = make("Sub", part(swapped, (1, n), (1, n)), make("Mul", share, part(row, (0, 1), (1, n))))
    stays = make("Equal", best, 0, dtype="bool")
    return make("Where", stays, pivot, make("Neg", pivot), dtype=x.dtype), left


def deform_conv(rw: Rewriter, node: Node) -> Outcome:
    """DeformConv (Dai et al., ICCV 2017): bilinear samples at shifted places, times the weights.

    The four pixels around a sample are rows of channels that GatherND takes; outside is 0.
    """
    x, w, offset = node.required(0), node.required(1), node.required(2)
    bias, mask = node.input(3), node.input(4)
    if len(x.known_shape) != 4 or x.dtype not in _FLOATS:
        return Refusal("it is not of two spatial dimensions")
    batch, channels, *sizes = x.known_shape
    many, per_group, *kernel = w.known_shape
    outs = node.output.known_shape[2:]
    groups, shifts = (int(node.attrs.get(name, 1)) for name in ("group", "offset_group"))
    window = [k for k in kernel if isinstance(k, int)]
    if not isinstance(many, int) or not isinstance(per_group, int) or len(window) != 2:
        return Refusal("its channels or its window are not known when the model is compiled")
    taps = prod(window)
    strides = node.attrs.get("strides", [1, 1])
    dilations = node.attrs.get("dilations", [1, 1])
    pads = node.attrs.get("pads", [0, 0, 0, 0])
    make = Maker(rw)
    real = "float64" if x.dtype == "float64" else "float32"
    moved = rw.reshape(make.cast(offset, real), (batch, shifts, *kernel, 2, *outs))
    axes = []
    for axis in range(2):
        spread: list[Dim] = [1, 1, 1, 1]
        spread[axis] = kernel[axis]
        taps_at = make(
            "Mul", rw.reshape(count(rw, kernel[axis], (kernel[axis],)), spread), dilations[axis]
        )
        form: list[Dim] = [1, 1]
        form[axis] = outs[axis]
        start = make(
            "Sub", make("Mul", count(rw, outs[axis], tuple(form)), strides[axis]), pads[axis]
        )
        place = make.cast(make("Add", taps_at, start), real)
        shape = (batch, shifts, *kernel, 1, *outs)
        shift = emit_slice(rw, moved, {4: (axis, 1)}, Value("", real, shape))
        axes.append(make("Add", rw.reshape(shift, (batch, shifts, *kernel, *outs)), place))
    spots = taps * product(outs)
    rows = batch * shifts
    last = rw.transpose(
        rw.reshape(x, (batch, shifts, channels // shifts, *sizes)),
        (0, 1, 3, 4, 2),
    )
    pixels = rw.reshape(last, (rows, product(sizes), channels // shifts))
    total: Value | None = None
    bases = [make("Floor", place) for place in axes]
    for corner in range(4):
        flat: Value | None = None
        share: Value | None = None
        for axis, up in enumerate((corner >> 1, corner & 1)):
            at = make("Add", bases[axis], float(up))
            away = make("Sub", 1.0, make("Abs", make("Sub", axes[axis], at)))
            end = make.cast(make.size(sizes[axis] - 1), real)
            near = make("Min", make("Max", at, 0.0), end)
            inside = make("Equal", near, at, dtype="bool")
            weight = make("Where", inside, away, number(rw, 0.0, real), dtype=real)
            index = make.cast(near, "int64")
            flat = (
                index
                if flat is None
                else make("Add", make("Mul", flat, make.size(sizes[1])), index)
            )
            share = weight if share is None else make("Mul", share, weight)
        assert flat is not None
        assert share is not None
        found = rw.emit(
            "GatherND",
            [pixels, rw.reshape(flat, (rows, spots, 1))],
            x.dtype,
            (rows, spots, channels // shifts),
            attrs={"batch_dims": 1, "positions": "clamped"},
            version=13,
        )
        part = make("Mul", make.cast(found, real), rw.reshape(share, (rows, spots, 1)))
        total = part if total is None else make("Add", total, part)
    assert total is not None
    if mask is not None:
        total = make("Mul", total, rw.reshape(make.cast(mask, real), (rows, spots, 1)))
    inner = product(outs)
    split = rw.reshape(total, (batch, shifts, taps, inner, channels // shifts))
    columns = rw.transpose(split, (0, 1, 4, 2, 3))
    columns = rw.reshape(columns, (batch, groups, per_group * taps, inner))
    weights = rw.reshape(make.cast(w, real), (groups, many // groups, per_group * taps))
    made = (batch, groups, many // groups, inner)
    result = rw.reshape(rw.emit("MatMul", [weights, columns], real, made), (batch, many, *outs))
    if bias is not None:
        result = make("Add", result, rw.reshape(make.cast(bias, real), (many, 1, 1)))
    return make.cast(result, str(x.dtype))


RULES = (
    Rule("eye-to-positions", ("EyeLike",), eye_like),
    Rule("tensor-scatter", ("TensorScatter",), tensor_scatter),
    Rule("det-to-elimination", ("Det",), det),
    Rule("deform-conv-to-gathers", ("DeformConv",), deform_conv),
)
