"""GridSample as a gather of every output's neighbours and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM
from clinfer.passes.canonicalise.maker import Maker, number
from clinfer.passes.query import broadcast
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, product

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_TAPS = {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}  # from the floor of a place
_CUBIC_A = -0.75


@dataclass(frozen=True)
class _Axis:
    """One dimension of the input, for P places: which P x T places of it are read.

    `taps` are indices within the dimension, `weights` their shares (None: one tap, taken whole).
    """

    taps: Value
    weights: Value | None


def grid_sample(rw: Rewriter, node: Node) -> Outcome:
    """x [N, C, sizes...] at grid [N, outs..., d]: y [N, C, outs...].

    Places are computed as ONNX's reference does. The neighbours' rows of C elements are gathered
    as [N, P, T ** d, C], with P the number of outputs, and summed with their weights.
    """
    x, grid = node.required(0), node.required(1)
    mode = str(node.attrs.get("mode", "linear"))
    if mode not in _TAPS or x.dtype not in _FLOATS or grid.dtype not in _FLOATS:
        return Refusal(f"its mode is '{mode}', its dtypes {x.dtype} and {grid.dtype}")
    batch, channels, *sizes = x.known_shape
    outs = grid.known_shape[1:-1]
    places = product(outs)
    make = Maker(rw)
    axes = [_axis(make, node, grid, mode, k, size) for k, size in enumerate(sizes)]
    count = len(_TAPS[mode]) ** len(sizes)
    rank = len(sizes)
    spread = [_spread(rw, axis.taps, k, rank) for k, axis in enumerate(axes)]
    flat = spread[0]
    for size, taps in zip(sizes[1:], spread[1:], strict=True):
        flat = make("Add", make("Mul", flat, make.size(size)), taps)
    indices = rw.reshape(flat, (batch, places * count, 1))
    last = rw.transpose(x, (0, *range(2, rank + 2), 1))
    rows = rw.reshape(last, (batch, product(sizes), channels))
    found = rw.emit(
        "GatherND",
        [rows, indices],
        x.dtype,
        (batch, places * count, channels),
        attrs={"batch_dims": 1, "positions": "clamped"},  # padding_mode says what is outside
        version=13,
    )
    result = _combined(make, found, axes, (batch, places, count, channels))
    back = rw.reshape(make.cast(result, str(x.dtype)), (batch, *outs, channels))
    return rw.transpose(back, (0, rank + 1, *range(1, rank + 1)))


def _combined(make: Maker, found: Value, axes: Sequence[_Axis], shape: tuple[Dim, ...]) -> Value:
    """[N, P, T ** d, C] summed over the taps with the products of the axes' weights."""
    rw = make.rw
    known = [axis.weights for axis in axes if axis.weights is not None]
    if not known:
        return found
    spread = [_spread(rw, weights, k, len(axes)) for k, weights in enumerate(known)]
    share = spread[0]
    for other in spread[1:]:
        share = make("Mul", share, other)
    batch, places, count, channels = shape
    column = rw.reshape(share, (batch, places, count, 1))
    parts = make("Mul", make.cast(rw.reshape(found, shape), str(share.dtype)), column)
    attrs = {"axes": [2], "keepdims": 0}
    total = (batch, places, channels)
    return rw.emit("ReduceSum", [parts], parts.dtype, total, attrs=attrs, version=ATTRIBUTE_FORM)


def _spread(rw: Rewriter, x: Value, axis: int, rank: int) -> Value:
    """[N, P, T] as [N, P, 1.., T, ..1]: combinations of taps along `rank` axes broadcast."""
    batch, places, taps = x.known_shape
    units: list[Dim] = [1] * rank
    units[axis] = taps
    return rw.reshape(x, (batch, places, *units))


def _axis(make: Maker, node: Node, grid: Value, mode: str, axis: int, size: Dim) -> _Axis:
    """Taps and weights along one dimension; the grid's last component is the first of them."""
    rw = make.rw
    padding = str(node.attrs.get("padding_mode", "zeros"))
    aligned = bool(node.attrs.get("align_corners", 0))
    batch, *outs, _ = grid.known_shape
    rank = len(outs)
    component = rw.emit(
        "Slice",
        [grid],
        grid.dtype,
        (batch, *outs, 1),
        attrs={"axes": [rank + 1], "starts": [rank - 1 - axis], "steps": [1]},
    )
    real = "float64" if grid.dtype == "float64" else "float32"
    given = rw.reshape(make.cast(component, real), (batch, product(outs), 1))
    length = make.cast(make.size(size), real)
    end = make("Sub", length, 1.0)
    place = _denormalised(make, given, length, end, aligned)
    if mode == "nearest":
        place = make("Round", place)
    if padding == "border":  # far outside a place's distance from its floor is lost
        place = make("Min", make("Max", place, -4.0), make("Add", length, 4.0))
    if padding == "reflection":
        place = _reflected(make, place, length, end, aligned)
    base = place if mode == "nearest" else make("Floor", place)
    steps = rw.constant(np.array(_TAPS[mode], dtype=real))
    taps = make("Add", base, steps)
    weights = None if mode == "nearest" else _weights(make, make("Sub", place, taps), mode)
    if padding == "zeros":
        inside = make("Equal", taps, _clipped(make, taps, end), dtype="bool")
        one = number(rw, 1.0, real) if weights is None else weights
        shape = broadcast([one.known_shape, taps.known_shape])
        weights = rw.emit("Where", [inside, one, number(rw, 0.0, real)], real, shape)
    if padding == "reflection":
        taps = _reflected(make, taps, length, end, aligned)
    return _Axis(make.cast(_clipped(make, taps, end), "int64"), weights)


def _denormalised(make: Maker, x: Value, length: Value, end: Value, aligned: bool) -> Value:
    """-1 .. 1 as a place among `length` elements: of their centres, or of their outer edges."""
    from_zero = make("Add", x, 1.0)
    if aligned:
        return make("Mul", make("Div", from_zero, 2.0), end)
    return make("Div", make("Sub", make("Mul", from_zero, length), 1.0), 2.0)


def _clipped(make: Maker, x: Value, end: Value) -> Value:
    return make("Min", make("Max", x, 0.0), end)


def _reflected(make: Maker, x: Value, length: Value, end: Value, aligned: bool) -> Value:
    """A triangle wave between the borders: low + range - |(|x - low| mod 2 range) - range|."""
    low = 0.0 if aligned else -0.5
    span = make("Max", end, 1e-6) if aligned else length
    period = make("Add", span, span)
    far = make("Abs", make("Sub", x, low))
    rest = make("Sub", far, make("Mul", period, make("Floor", make("Div", far, period))))
    return make("Add", make("Sub", span, make("Abs", make("Sub", rest, span))), low)


def _weights(make: Maker, away: Value, mode: str) -> Value:
    """The share of a tap `away` from a place: a triangle, or Keys's cubic (IEEE ASSP, 1981)."""
    t = make("Abs", away)
    if mode == "linear":
        return make("Sub", 1.0, t)
    a = _CUBIC_A
    square = make("Mul", t, t)
    near = make("Sub", make("Mul", a + 2, t), a + 3)
    near = make("Add", make("Mul", near, square), 1.0)
    far = make("Sub", make("Mul", a, t), 5 * a)
    far = make("Sub", make("Mul", make("Add", make("Mul", far, t), 8 * a), t), 4 * a)
    is_near = make("LessOrEqual", t, 1.0, dtype="bool")
    return make.rw.emit("Where", [is_near, near, far], t.dtype, t.shape)


RULES = (Rule("grid-sample-to-gather", ("GridSample",), grid_sample),)
