"""DFT and STFT as products with matrices of cosines and sines; MelWeightMatrix as arithmetic.

A transform of n samples costs n numbers for each frequency: a matrix of many elements is left to
NumPy's FFT on the host.
"""

from __future__ import annotations

from math import pi

import numpy as np

from clinfer.dtypes import BY_ONNX, to_numpy
from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.from_data import axes_of, chosen
from clinfer.passes.canonicalise.maker import Maker, count, number
from clinfer.passes.canonicalise.told import Told, equals, is_known, is_readable
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.query import integers, normal_axis
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, floordiv, minimum, product

_MOST = 1 << 24  # elements of a matrix
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def dft(rw: Rewriter, node: Node) -> Outcome:
    """DFT(x [..., n, ..., 1 or 2], length?, axis?): [p, s, n] times [n, frequencies]."""
    x, length, axis = node.required(0), node.input(1), node.input(2)
    shape, rank = x.known_shape, len(x.known_shape)
    parts = shape[-1]
    if x.dtype not in _FLOATS or not isinstance(parts, int) or parts not in (1, 2):
        return Refusal("it is not of real or complex floats")
    if not (is_readable(length) and is_readable(axis)):
        return Refusal("its length or axis are computed from data")
    if node.attrs.get("inverse", 0) and not node.attrs.get("onesided", 0):
        # An ONNX case asks for the last bits of an FFT where the sum is 0.
        return Refusal("an inverse transform to complex numbers is left to NumPy's FFT")
    told, make = Told(rw, node), Maker(rw)
    given = node.attrs.get("axis", -2 if node.version >= 20 else 1)
    where = integers(axis) if axis is not None else [given]
    inverse, onesided = (bool(node.attrs.get(name, 0)) for name in ("inverse", "onesided"))
    before: Dim
    size: Dim
    behind: Dim
    if where is not None:
        at = normal_axis(where[0], rank)
        before, size, behind = product(shape[:at]), shape[at], product(shape[at + 1 : -1])
    else:
        (place,) = axes_of(told, axis, rank)
        hits = [equals(place, a) for a in range(rank - 1)]
        ranges = [
            (product(shape[:a]), shape[a], product(shape[a + 1 : -1])) for a in range(rank - 1)
        ]
        before, size, behind = (
            told.size(chosen(hits, numbers)) for numbers in zip(*ranges, strict=True)
        )
    if length is not None:
        (asked,) = told.content(length)
        count_of: Dim = asked if is_known(length) else told.size(asked)
    else:
        count_of = 2 * (size - 1) if inverse and onesided else size
    frequencies = count_of
    if onesided and not inverse:
        frequencies = floordiv(count_of, 2) + 1
    taken = floordiv(count_of, 2) + 1 if onesided and inverse else count_of
    used = size if taken == size else minimum(size, taken)
    result = node.output.known_shape
    if where is not None:
        told.give(result[at], frequencies)
    else:
        for a in range(rank - 1):
            told.give(result[a], shape[a] + hits[a] * (frequencies - shape[a]))
    told.emit()
    if _is_large(used, frequencies):
        return Refusal("its matrix of cosines would have too many elements")
    real = "float64" if x.dtype == "float64" else "float32"
    apart = rw.reshape(make.cast(x, real), (before, size, behind, parts))
    cut = emit_slice(
        rw,
        apart,
        {} if used == size else {1: (0, 1)},
        Value("", real, (before, used, behind, parts)),
    )
    lines = rw.transpose(cut, (0, 2, 3, 1))
    signal = [_part(rw, lines, 2, part) for part in range(parts)]
    found = _Transform(rw, used, frequencies, count_of, inverse, onesided, real).of(signal)
    stacked = _stacked(rw, found, (before, behind, frequencies))
    turned = rw.transpose(stacked, (0, 2, 1, 3))
    return rw.reshape(make.cast(turned, str(x.dtype)), result)


def stft(rw: Rewriter, node: Node) -> Outcome:
    """STFT(signal [N, n] or [N, n, 1 or 2], step, window?, length?): frames, times the matrices."""
    x, step, window, length = (*node.inputs, None, None)[:4]
    assert x is not None
    if x.dtype not in _FLOATS or not (is_readable(step) and is_readable(length)):
        return Refusal("its step or length are computed from data")
    shape = x.known_shape
    parts = shape[2] if len(shape) == 3 else 1
    if not isinstance(parts, int) or parts not in (1, 2):
        return Refusal("it is not of real or complex numbers")
    told, make = Told(rw, node), Maker(rw)
    (hop,) = (_size(told, step, n) for n in told.content(step, ("the step", 1, shape[1] + 1)))
    if length is not None:
        most = ("the frame's length", 1, shape[1] + 1)
        (frame,) = (_size(told, length, n) for n in told.content(length, most))
    else:
        frame = shape[1] if window is None else window.known_shape[0]
    if window is not None:
        told.require(frame, window.known_shape[0], "the window must have a frame's length")
    frequencies = floordiv(frame, 2) + 1 if node.attrs.get("onesided", 1) else frame
    frames = floordiv(shape[1] - frame, hop) + 1
    told.give(node.output.known_shape[1], frames)
    told.give(node.output.known_shape[2], frequencies)
    told.emit()
    if _is_large(frame, frequencies):
        return Refusal("its matrix of cosines would have too many elements")
    real = "float64" if x.dtype == "float64" else "float32"
    signal = rw.reshape(make.cast(x, real), (shape[0], shape[1], parts))
    frames = node.output.known_shape[1]
    starts = make("Mul", count(rw, frames, (frames, 1)), make.size(hop))
    places = make("Add", starts, count(rw, frame, (1, frame)))
    attrs = {"axis": 1, "positions": "clamped"}
    cut = (shape[0], frames, frame, parts)
    pieces = rw.emit("Gather", [signal, places], real, cut, attrs=attrs, version=13)
    if window is not None:
        pieces = make("Mul", pieces, rw.reshape(make.cast(window, real), (frame, 1)))
    lines = rw.transpose(pieces, (0, 1, 3, 2))
    values = [_part(rw, lines, 2, part) for part in range(parts)]
    found = _Transform(rw, frame, frequencies, frame, False, False, real).of(values)
    whole = _stacked(rw, found, (shape[0], frames, frequencies))
    return rw.reshape(make.cast(whole, str(x.dtype)), node.output.known_shape)


def _size(told: Told, value: Value | None, n: Dim) -> Dim:
    return n if is_known(value) else told.size(n)


def _is_large(rows: Dim, columns: Dim) -> bool:
    return isinstance(rows, int) and isinstance(columns, int) and rows * columns > _MOST


def _part(rw: Rewriter, x: Value, axis: int, place: int) -> Value:
    shape = x.known_shape
    kept = (*shape[:axis], 1, *shape[axis + 1 :])
    whole: dict[int, tuple[Dim, int]] = {} if shape[axis] == 1 else {axis: (place, 1)}
    part = emit_slice(rw, x, whole, Value("", x.dtype, kept))
    return rw.reshape(part, (*shape[:axis], *shape[axis + 1 :]))


def _stacked(rw: Rewriter, parts: list[Value], shape: tuple[Dim, ...]) -> Value:
    columns: list[Value | None] = [rw.reshape(part, (*shape, 1)) for part in parts]
    if len(parts) == 1:
        assert columns[0] is not None
        return columns[0]
    made = (*shape, len(parts))
    return rw.emit("Concat", columns, parts[0].dtype, made, attrs={"axis": len(shape)})


class _Transform:
    """A discrete Fourier transform of `samples` numbers, of a period of `period`, as a product.

    An inverse one of half a spectrum gives real numbers: all but the first frequency, and of an
    even period the last, stand for two.
    """

    def __init__(
        self,
        rw: Rewriter,
        samples: Dim,
        frequencies: Dim,
        period: Dim,
        inverse: bool,
        halved: bool,
        real: str,
    ) -> None:
        self._make, self._rw = Maker(rw), rw
        self._shape = (samples, frequencies)
        self._inverse, self._gives_real = inverse, inverse and halved
        self._dtype = real
        self._cosines, self._sines = self._matrices(period)

    def of(self, signal: list[Value]) -> list[Value]:
        """The real and the imaginary part [..., frequencies] of [..., samples]."""
        make = self._make
        x = signal[0]
        a = self._times(x, self._cosines)
        b = self._times(x, self._sines)
        if not self._inverse:
            b = make("Neg", b)
        if len(signal) == 1:
            return [a] if self._gives_real else [a, b]
        c, d = (self._times(signal[1], m) for m in (self._cosines, self._sines))
        re = make("Sub", a, d) if self._inverse else make("Add", a, d)
        return [re] if self._gives_real else [re, make("Add", b, c)]

    def _times(self, x: Value, matrix: Value) -> Value:
        shape = (*x.known_shape[:-1], self._shape[1])
        return self._rw.emit("MatMul", [x, matrix], self._dtype, shape)

    def _matrices(self, period: Dim) -> tuple[Value, Value]:
        rw, make = self._rw, self._make
        rows, columns = self._shape
        if isinstance(rows, int) and isinstance(columns, int) and isinstance(period, int):
            j, k = np.arange(rows)[:, None], np.arange(columns)[None]
            angle = 2 * pi * (j * k % max(period, 1)) / max(period, 1)
            factor = (
                np.ones((rows, 1)) if not self._inverse else np.full((rows, 1), 1 / max(period, 1))
            )
            if self._gives_real:
                factor = factor * np.where((j == 0) | (2 * j == period), 1, 2)
            made = [f(angle) * factor for f in (np.cos, np.sin)]
            cosines, sines = (rw.constant(m.astype(to_numpy(self._dtype))) for m in made)
            return cosines, sines
        row, column = count(rw, rows, (rows, 1)), count(rw, columns, (1, columns))
        length = make.size(period)
        turn = make("Mod", make("Mul", row, column), length)
        whole = make.cast(length, "float64")
        angles = make("Div", make("Mul", make.cast(turn, "float64"), 2 * pi), whole)
        results = [make(op, angles) for op in ("Cos", "Sin")]
        if self._inverse:
            share = make("Div", number(rw, 1.0, "float64"), whole)
            if self._gives_real:
                first = make("Equal", row, 0, dtype="bool")
                last = make("Equal", make("Add", row, row), length, dtype="bool")
                alone = make("Or", first, last, dtype="bool")
                one, two = (number(rw, n, "float64") for n in (1.0, 2.0))
                share = make("Mul", make("Where", alone, one, two, dtype="float64"), share)
            results = [make("Mul", m, share) for m in results]
        cosines, sines = (make.cast(m, self._dtype) for m in results)
        return cosines, sines


def mel_weight_matrix(rw: Rewriter, node: Node) -> Outcome:
    """Triangles in the mel scale: [spectrum bins, mel bins]; where edges are equal, a peak of 1."""
    make, told = Maker(rw), Told(rw, node)
    given = [rw.reshape(node.required(index), ()) for index in range(5)]
    bins, length, rate, low, high = given
    rows, columns = node.output.known_shape
    (mels,), (samples,) = told.content(bins), told.content(length)
    told.give_all((rows, columns), (floordiv(samples, 2) + 1, mels))
    told.emit()
    real = "float64"
    least, most = (
        make(
            "Mul",
            make("Log", make("Add", make("Div", make.cast(edge, real), 700.0), 1.0)),
            2595 / np.log(10),
        )
        for edge in (low, high)
    )
    step = make("Div", make("Sub", most, least), make("Add", make.cast(bins, real), 2.0))
    edges: list[Value] = []
    for shift in range(3):
        place = make("Add", make.cast(count(rw, columns, (columns,)), real), float(shift))
        mel = make("Add", make("Mul", place, step), least)
        hertz = make(
            "Mul", make("Sub", make("Exp", make("Mul", mel, np.log(10) / 2595)), 1.0), 700.0
        )
        scaled = make("Mul", hertz, make("Add", make.cast(length, real), 1.0))
        edges.append(make("Floor", make("Div", scaled, make.cast(rate, real))))
    left, centre, right = edges
    bin_of = make.cast(count(rw, rows, (rows, 1)), real)
    rising, falling = (
        make("Div", make("Sub", a, b), make("Max", make("Sub", c, d), 1.0))
        for a, b, c, d in ((bin_of, left, centre, left), (right, bin_of, right, centre))
    )
    zero, one = (number(rw, n, real) for n in (0.0, 1.0))
    is_low = make(
        "And",
        make("GreaterOrEqual", bin_of, left, dtype="bool"),
        make("Less", bin_of, centre, dtype="bool"),
    )
    is_high = make(
        "And",
        make("Greater", bin_of, centre, dtype="bool"),
        make("Less", bin_of, right, dtype="bool"),
    )
    outer = make("Where", is_high, falling, zero, dtype=real)
    sides = make("Where", is_low, rising, outer, dtype=real)
    peak = make("Equal", bin_of, centre, dtype="bool")
    result = make("Where", peak, one, sides, dtype=real)
    return make.cast(result, BY_ONNX[node.attrs.get("output_datatype", 1)].name)


RULES = (
    Rule("dft-to-products", ("DFT",), dft),
    Rule("stft-to-products", ("STFT",), stft),
    Rule("mel-to-arithmetic", ("MelWeightMatrix",), mel_weight_matrix),
)
