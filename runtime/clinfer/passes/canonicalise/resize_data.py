"""Resize by factors, sizes or regions that are in data: gathers along each axis, and their sum.

Places are computed in float64 from the factors, as `clinfer_kernels.resize` has the formulas. An
antialiased resize is a product with a matrix for each axis, whose rows are the stretched filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM
from clinfer.passes.canonicalise.maker import Maker, count, number, sizes_value
from clinfer.passes.canonicalise.told import Told, is_readable
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.query import inverse, normal_axis, sizes
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_REAL = "float64"
_SNAP = float(1 << 14)  # places nearer to a half than its inverse are meant to be there
_CROP = "tf_crop_and_resize"


@dataclass(frozen=True)
class _Axis:
    """A dimension: its sizes, its factor, and the part of it that is looked at, as scalars."""

    number: int
    size: Dim
    out: Dim
    scale: Value
    start: Value | None
    end: Value | None


def resize(rw: Rewriter, node: Node) -> Outcome:
    """Resize(x, roi, scales, sizes) where the canonical form does not take it."""
    x, attrs = node.required(0), node.attrs
    if len(node.inputs) < 3 or "scales" in attrs:
        return None
    scales, wanted = node.input(2), node.input(3)
    is_crop = attrs.get("coordinate_transformation_mode") == _CROP
    policy = str(attrs.get("keep_aspect_ratio_policy", "stretch"))
    is_smooth = bool(attrs.get("antialias", 0)) and attrs.get("mode", "nearest") != "nearest"
    if scales is not None and 0 in scales.known_shape:
        scales = None
    known = scales.const is not None if scales is not None else sizes(wanted) is not None
    named = [normal_axis(a, len(x.known_shape)) for a in attrs.get("axes", range(x.rank or 0))]
    fixed = all(isinstance(n, int) for n in (*x.known_shape, *node.output.known_shape))
    if known and not is_crop and policy == "stretch" and (fixed or not is_smooth):
        return None
    if x.dtype not in _FLOATS and is_smooth:
        return Refusal("it is antialiased, and not of floats")
    if wanted is not None and not is_readable(wanted):
        return Refusal("its sizes are computed from data, and too many")
    return _Resized(rw, node, named).result(scales, wanted, policy)


class _Resized:
    """A Resize on its way into other operators."""

    def __init__(self, rw: Rewriter, node: Node, named: Sequence[int]) -> None:
        self.rw, self.node, self.named = rw, node, named
        self.make = Maker(rw)
        self.attrs = node.attrs
        self.coordinates = str(node.attrs.get("coordinate_transformation_mode", "half_pixel"))

    def result(self, scales: Value | None, wanted: Value | None, policy: str) -> Outcome:
        x, make = self.node.required(0), self.make
        factors = self._sizes(scales, wanted, policy)
        value = x
        outside: Value | None = None
        is_gathered = self.attrs.get("mode", "nearest") == "nearest"
        if not is_gathered:
            value = make.cast(x, x.dtype if x.dtype == _REAL else "float32")
        for axis in self._axes(factors):
            places = self._places(axis, scales is not None)
            if self.coordinates == _CROP:
                outside = self._outside(axis, places, outside)
            value = self._along(value, axis, places)
        value = self._as(value, str(x.dtype))
        if outside is not None:
            fill = number(self.rw, self.attrs.get("extrapolation_value", 0.0), x.dtype)
            value = make("Where", outside, fill, value, dtype=x.dtype)
        return value

    # -- sizes ---------------------------------------------------------------------------------

    def _sizes(self, scales: Value | None, wanted: Value | None, policy: str) -> Value:
        """Lets the result's sizes be known; gives the factors [n] in float64."""
        rw, make, node = self.rw, self.make, self.node
        own = [node.required(0).known_shape[a] for a in self.named]
        outs = [node.output.known_shape[a] for a in self.named]
        told = Told(rw, node)
        if scales is not None:
            single = make.cast(scales, "float32")
            given = make("Mul", make.cast(sizes_value(rw, own), "float32"), single)
            told.give_all(outs, told.content(make.cast(make("Floor", given), "int64")))
            told.emit()
            return make.cast(scales, _REAL)
        assert wanted is not None
        before = make.cast(sizes_value(rw, own), _REAL)
        ratios = make("Div", make.cast(wanted, _REAL), before)
        if policy == "stretch":
            told.give_all(outs, told.content(wanted))
            told.emit()
            return ratios
        attrs = {"axes": [0], "keepdims": 1}
        op = "ReduceMin" if policy == "not_larger" else "ReduceMax"
        ratio = rw.emit(op, [ratios], _REAL, (1,), attrs=attrs, version=ATTRIBUTE_FORM)
        kept = make("Floor", make("Add", make("Mul", before, ratio), 0.5))
        told.give_all(outs, told.content(make.cast(kept, "int64")))
        told.emit()
        return rw.emit("Expand", [ratio], _REAL, (len(outs),))

    def _axes(self, factors: Value) -> list[_Axis]:
        node = self.node
        roi = node.input(1) if self.coordinates == _CROP else None
        many = len(self.named)
        region = None if roi is None else self.make.cast(roi, _REAL)
        found = []
        for place, axis in enumerate(self.named):
            start = end = None
            if region is not None:
                start, end = (self._one(region, at) for at in (place, many + place))
            size, out = (v.known_shape[axis] for v in (node.required(0), node.output))
            found.append(_Axis(axis, size, out, self._one(factors, place), start, end))
        return sorted(found, key=lambda axis: axis.number)

    def _one(self, x: Value, place: int) -> Value:
        part = emit_slice(self.rw, x, {0: (place, 1)}, Value("", x.dtype, (1,)))
        return self.rw.reshape(part, ())

    # -- places --------------------------------------------------------------------------------

    def _places(self, axis: _Axis, by_factor: bool) -> Value:
        """Where each output lies along the input's axis: [out]."""
        make = self.make
        o = make.cast(count(self.rw, axis.out, (axis.out,)), _REAL)
        size, out = (make.cast(make.size(n), _REAL) for n in (axis.size, axis.out))
        last = make("Sub", size, 1.0)
        many = make("Greater", out, 1.0, dtype="bool")
        if self.coordinates == _CROP:
            assert axis.start is not None
            assert axis.end is not None
            span = make("Mul", make("Sub", axis.end, axis.start), last)
            steps = make("Max", make("Sub", out, 1.0), 1.0)
            spread = make(
                "Add", make("Mul", axis.start, last), make("Div", make("Mul", o, span), steps)
            )
            middle = make("Mul", make("Mul", make("Add", axis.start, axis.end), 0.5), last)
            return make("Where", many, spread, middle, dtype=_REAL)
        if self.coordinates == "align_corners":
            reach = make("Sub", make("Mul", size, axis.scale) if by_factor else out, 1.0)
            spread = make("Div", make("Mul", o, last), make("Max", reach, 1e-9))
            return make("Where", many, spread, number(self.rw, 0.0, _REAL), dtype=_REAL)
        if self.coordinates == "asymmetric":
            return make("Div", o, axis.scale)
        centre = make("Div", make("Add", o, 0.5), axis.scale)
        if self.coordinates == "tf_half_pixel_for_nn":
            return centre
        place = make("Sub", centre, 0.5)
        if self.coordinates == "pytorch_half_pixel":
            return make("Where", many, place, number(self.rw, 0.0, _REAL), dtype=_REAL)
        if self.coordinates == "half_pixel_symmetric":
            cut = make("Sub", 1.0, make("Div", out, make("Mul", axis.scale, size)))
            return make("Add", make("Mul", make("Mul", size, 0.5), cut), place)
        return place

    def _outside(self, axis: _Axis, places: Value, before: Value | None) -> Value:
        make = self.make
        last = make.cast(make.size(axis.size - 1), _REAL)
        low = make("Less", places, 0.0, dtype="bool")
        high = make("Greater", places, last, dtype="bool")
        rank = len(self.node.output.known_shape)
        column = (axis.out, *[1] * (rank - axis.number - 1))
        found = self.rw.reshape(make("Or", low, high, dtype="bool"), column)
        return found if before is None else make("Or", before, found, dtype="bool")

    # -- values --------------------------------------------------------------------------------

    def _along(self, x: Value, axis: _Axis, places: Value) -> Value:
        mode = self.attrs.get("mode", "nearest")
        if mode == "nearest":
            return self._gathered(x, axis, self._nearest(axis, places))
        if self.attrs.get("antialias", 0):
            return self._filtered(x, axis, places)
        make = self.make
        base = make("Floor", places)
        taps = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
        last = make.cast(make.size(axis.size - 1), _REAL)
        shares: list[Value] = []
        indices: list[Value] = []
        for tap in taps:
            at = make("Add", base, float(tap))
            share = self._kernel(make("Sub", places, at))
            inside = make("Min", make("Max", at, 0.0), last)
            if mode == "cubic" and self.attrs.get("exclude_outside", 0):
                is_in = make("Equal", inside, at, dtype="bool")
                share = make("Where", is_in, share, number(self.rw, 0.0, _REAL), dtype=_REAL)
            shares.append(share)
            indices.append(make.cast(inside, "int64"))
        if self.attrs.get("exclude_outside", 0):
            total = shares[0]
            for share in shares[1:]:
                total = make("Add", total, share)
            shares = [make("Div", share, total) for share in shares]
        rank = len(x.known_shape)
        column = (axis.out, *[1] * (rank - axis.number - 1))
        result: Value | None = None
        for share, index in zip(shares, indices, strict=True):
            weight = self.rw.reshape(make.cast(share, str(x.dtype)), column)
            part = make("Mul", self._gathered(x, axis, index), weight)
            result = part if result is None else make("Add", result, part)
        assert result is not None
        return result

    def _gathered(self, x: Value, axis: _Axis, index: Value) -> Value:
        shape = (*x.known_shape[: axis.number], axis.out, *x.known_shape[axis.number + 1 :])
        attrs = {"axis": axis.number, "positions": "clamped"}
        return self.rw.emit("Gather", [x, index], x.dtype, shape, attrs=attrs, version=13)

    def _nearest(self, axis: _Axis, places: Value) -> Value:
        make = self.make
        snapped = make("Div", make("Round", make("Mul", places, _SNAP)), _SNAP)
        mode = str(self.attrs.get("nearest_mode", "round_prefer_floor"))
        if mode == "floor":
            found = make("Floor", snapped)
        elif mode == "ceil":
            found = make("Ceil", snapped)
        elif mode == "round_prefer_ceil":
            found = make("Floor", make("Add", snapped, 0.5))
        else:
            found = make("Ceil", make("Sub", snapped, 0.5))
        return make.cast(found, "int64")

    def _kernel(self, distance: Value) -> Value:
        """A tap's weight: a triangle, or Keys' cubic (IEEE ASSP, 1981)."""
        make = self.make
        d = make("Abs", distance)
        if self.attrs.get("mode") == "linear":
            return make("Max", make("Sub", 1.0, d), 0.0)
        a = float(self.attrs.get("cubic_coeff_a", -0.75))
        near = make("Sub", make("Mul", d, a + 2), a + 3)
        near = make("Add", make("Mul", near, make("Mul", d, d)), 1.0)
        far = make("Add", make("Mul", make("Sub", make("Mul", d, a), 5 * a), d), 8 * a)
        far = make("Sub", make("Mul", far, d), 4 * a)
        is_near = make("LessOrEqual", d, 1.0, dtype="bool")
        is_far = make("Less", d, 2.0, dtype="bool")
        rest = make("Where", is_far, far, number(self.rw, 0.0, _REAL), dtype=_REAL)
        return make("Where", is_near, near, rest, dtype=_REAL)

    def _filtered(self, x: Value, axis: _Axis, places: Value) -> Value:
        """The filter stretched over all elements that an output stands for, as a matrix [in, out].

        Beyond the ends it meets the last element again, unless that is left out.
        """
        rw, make = self.rw, self.make
        stretch = make("Max", make("Div", 1.0, axis.scale), 1.0)
        beyond: Dim = 0
        if not self.attrs.get("exclude_outside", 0):
            told = Told(rw, self.node)
            reach = make("Add", make("Ceil", make("Mul", stretch, 2.0)), 1.0)
            beyond = told.size(told.content(make.cast(reach, "int64"))[0])
            told.emit()
        full = axis.size + 2 * beyond
        at = make("Sub", count(rw, full, (full, 1)), make.size(beyond))
        away = make("Sub", make.cast(at, _REAL), rw.reshape(places, (1, axis.out)))
        weights = self._kernel(make("Div", away, stretch))
        total = self._summed(weights, axis.out)
        matrix = weights
        if beyond != 0:
            parts = [(0, beyond), (beyond, axis.size), (beyond + axis.size, beyond)]
            low, matrix, high = (
                emit_slice(rw, weights, {0: (start, 1)}, Value("", _REAL, (n, axis.out)))
                for start, n in parts
            )
            row = count(rw, axis.size, (axis.size, 1))
            for end, rest in ((0, low), (axis.size - 1, high)):
                hit = make("Equal", row, make.size(end), dtype="bool")
                more = make(
                    "Where", hit, self._summed(rest, axis.out), number(rw, 0.0, _REAL), dtype=_REAL
                )
                matrix = make("Add", matrix, more)
        is_zero = make("Equal", total, 0.0, dtype="bool")
        total = make("Where", is_zero, number(rw, 1.0, _REAL), total, dtype=_REAL)
        matrix = make.cast(make("Div", matrix, total), str(x.dtype))
        order = [a for a in range(len(x.known_shape)) if a != axis.number] + [axis.number]
        moved = rw.transpose(x, order)
        shape = (*moved.known_shape[:-1], axis.out)
        product = rw.emit("MatMul", [moved, matrix], x.dtype, shape)
        return rw.transpose(product, inverse(order))

    def _summed(self, weights: Value, out: Dim) -> Value:
        attrs = {"axes": [0], "keepdims": 1}
        return self.rw.emit(
            "ReduceSum", [weights], _REAL, (1, out), attrs=attrs, version=ATTRIBUTE_FORM
        )

    def _as(self, x: Value, dtype: str) -> Value:
        """Back in the element type of the input; integers are cut toward zero, saturating."""
        make = self.make
        if x.dtype == dtype:
            return x
        if dtype in _FLOATS or dtype == "bool":
            return make.cast(x, dtype)
        info = np.iinfo(dtype)
        return make.cast(make("Min", make("Max", x, float(info.min)), float(info.max)), dtype)


RULES = (Rule("resize-from-data", ("Resize",), resize),)
