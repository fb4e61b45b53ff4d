"""Resize in NumPy: every form, for what has no kernel (sizes of the run, parts, antialiasing).

An axis is resized by a matrix [out, in] of weights. Where ONNX leaves a choice it is ONNX
Runtime's: integers are cut toward zero, antialiased ones are rounded after each axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clinfer.graph.ir import Array
from clinfer_kernels.resize_problem import as_fraction


class _Axis(NamedTuple):
    """One axis: sizes before and after, the factor (None: their quotient), the part resized."""

    number: int
    size: int
    out: int
    scale: float | None
    start: float
    end: float


def resize(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    axes = _axes(attrs, x.shape, *(*inputs[1:], None, None, None)[:3])
    dtype = x.dtype
    made = x if attrs.get("mode", "nearest") == "nearest" else x.astype(_precision(dtype))
    outside = np.zeros((1,) * x.ndim, bool)
    for axis in reversed(axes):
        places = _positions(attrs, axis)
        if attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
            beyond = (places < 0) | (places > axis.size - 1)
            outside = outside | beyond.reshape(
                [-1 if k == axis.number else 1 for k in range(x.ndim)]
            )
        elif axis.size == axis.out and axis.scale in (None, 1.0):
            continue
        made = _along(attrs, axis, places, made, dtype)
    if dtype.kind in "iu" and made.dtype.kind == "f":
        info = np.iinfo(dtype)
        made = np.clip(np.trunc(made.astype(np.float32)), info.min, info.max)
    result = made.astype(dtype)
    fill = np.array(attrs.get("extrapolation_value", 0.0)).astype(dtype)
    return [np.where(outside, fill, result) if outside.any() else result]


def filters(
    attrs: Mapping[str, Any], shape: Sequence[int], scales: Array | None, sizes: Array | None
) -> list[tuple[int, Array]]:
    """Of an antialiased resize: each axis with its matrix [out, in], in the order of applying."""
    changed = [
        axis
        for axis in reversed(_axes(attrs, shape, None, scales, sizes))
        if axis.size != axis.out or axis.scale not in (None, 1.0)
    ]
    return [(axis.number, _filtered(attrs, axis, _positions(attrs, axis))) for axis in changed]


def _precision(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype.itemsize > 2 else np.float32)


def _axes(
    attrs: Mapping[str, Any],
    shape: Sequence[int],
    roi: Array | None,
    scales: Array | None,
    sizes: Array | None,
) -> list[_Axis]:
    rank = len(shape)
    named = [int(a) % rank for a in attrs.get("axes") or range(rank)]
    count = len(named)
    own = [shape[a] for a in named]
    factors: list[float | None] = [None] * count
    if sizes is not None and sizes.size:
        outs = [int(s) for s in sizes.reshape(-1)]
        policy = attrs.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratios = [out / size for out, size in zip(outs, own, strict=True)]
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            outs = [int(np.floor(ratio * size + 0.5)) for size in own]
            factors = [ratio] * count
    else:
        if scales is None or scales.size != count:
            raise ValueError(f"{count} scales or sizes expected")
        factors = [float(s) for s in scales.reshape(-1)]
        outs = [
            int(np.floor(np.float32(n) * np.float32(s))) for n, s in zip(own, factors, strict=True)
        ]
    if any(out < 0 for out in outs) or any(s is not None and s <= 0 for s in factors):
        raise ValueError(f"positive scales and sizes expected, found {factors} and {outs}")
    if any(out and not size for out, size in zip(outs, own, strict=True)):
        raise ValueError(f"nothing to resize along an axis of size 0 to {outs}")
    whole = roi is None or roi.size != 2 * count
    part = np.repeat([0.0, 1.0], count) if whole else np.asarray(roi, np.float64).reshape(-1)
    rows = zip(named, own, outs, factors, part[:count], part[count:], strict=True)
    return sorted(_Axis(*row) for row in rows)


def _quotient(attrs: Mapping[str, Any], axis: _Axis) -> tuple[Array, int]:
    """Places as whole numbers over one denominator; see `clinfer_kernels.resize`."""
    o = np.arange(axis.out, dtype=np.int64).astype(object)
    up, down = axis.out, axis.size
    if axis.scale is not None:
        ratio = as_fraction(axis.scale)
        up, down = ratio.numerator, ratio.denominator
    kind = attrs.get("coordinate_transformation_mode", "half_pixel")
    if kind in ("align_corners", "pytorch_half_pixel") and axis.out <= 1:
        return o * 0, 1
    if kind == "align_corners" and axis.scale is not None:
        # ONNX's test data, unlike ONNX Runtime, have the length that was not cut to a whole one.
        span = axis.size * up - down
        return (o * (axis.size - 1) * down, span) if span > 0 else (o * 0, 1)
    if kind == "align_corners":
        return o * (axis.size - 1), axis.out - 1
    if kind == "asymmetric":
        return o * down, up
    if kind == "tf_half_pixel_for_nn":
        return (2 * o + 1) * down, 2 * up
    shift = axis.size * up - axis.out * down if kind == "half_pixel_symmetric" else 0
    return (2 * o + 1) * down - up + shift, 2 * up


def _positions(attrs: Mapping[str, Any], axis: _Axis) -> Array:
    """Where each output lies along the input's axis."""
    if attrs.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        over, under = _quotient(attrs, axis)
        return (over / max(under, 1)).astype(np.float64)
    start, end, last = (np.float32(v) for v in (axis.start, axis.end, axis.size - 1))
    if axis.out <= 1:
        return np.full(axis.out, np.float32(0.5) * (start + end) * last)
    o = np.arange(axis.out, dtype=np.float32)
    found: Array = start * last + o * (end - start) * last / np.float32(axis.out - 1)
    return found


def _along(
    attrs: Mapping[str, Any], axis: _Axis, places: Array, x: Array, dtype: np.dtype[Any]
) -> Array:
    mode = attrs.get("mode", "nearest")
    if mode == "nearest":
        return x.take(_nearest(attrs, axis, places), axis.number)
    smooth = bool(attrs.get("antialias", 0))
    matrix = _filtered(attrs, axis, places) if smooth else _weights(attrs, axis, places)
    if smooth and dtype.kind in "iu":
        return _fixed(matrix, x, axis.number, dtype)
    moved = np.tensordot(matrix.astype(x.dtype), x, axes=(1, axis.number))
    return np.moveaxis(moved, 0, axis.number)


def _nearest(attrs: Mapping[str, Any], axis: _Axis, places: Array) -> Array:
    over: Array = places
    under: int = 1
    if attrs.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        over, under = _quotient(attrs, axis)
    mode = attrs.get("nearest_mode", "round_prefer_floor")
    if mode == "simple":  # of the first Resize
        mode = "ceil" if axis.scale is not None and axis.scale < 1 else "floor"
    if mode == "floor":
        found = over // under
    elif mode == "ceil":
        found = -(-over // under)
    elif mode == "round_prefer_ceil":
        found = (2 * over + under) // (2 * under)
    else:
        found = -((under - 2 * over) // (2 * under))
    clipped: Array = np.clip(found.astype(np.int64), 0, axis.size - 1)
    return clipped


def _kernel(attrs: Mapping[str, Any], distance: Array) -> Array:
    """A tap's weight by its distance: a triangle, or Keys' cubic."""
    d = np.abs(distance)
    if attrs["mode"] == "linear":
        triangle: Array = np.maximum(1 - d, 0)
        return triangle
    a = float(attrs.get("cubic_coeff_a", -0.75))
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _weights(attrs: Mapping[str, Any], axis: _Axis, places: Array) -> Array:
    """Two or four taps; those beyond an end are its element, or left out."""
    reach = 1 if attrs["mode"] == "linear" else 2
    low = np.floor(places).astype(np.int64)
    matrix = np.zeros((axis.out, axis.size))
    for tap in range(1 - reach, reach + 1):
        at = low + tap
        weight = _kernel(attrs, places - at)
        if reach == 2 and attrs.get("exclude_outside", 0):
            weight = np.where((at < 0) | (at >= axis.size), 0, weight)
        np.add.at(matrix, (np.arange(axis.out), np.clip(at, 0, axis.size - 1)), weight)
    return matrix / matrix.sum(1, keepdims=True) if attrs.get("exclude_outside", 0) else matrix


def _filtered(attrs: Mapping[str, Any], axis: _Axis, places: Array) -> Array:
    """The filter stretched over all elements that an output stands for.

    Beyond the ends it meets the last element again, unless that is left out.
    """
    scale = axis.out / axis.size if axis.scale is None else axis.scale
    stretch = max(1 / scale, 1.0)
    bare = attrs.get("exclude_outside", 0)
    beyond = 0 if bare else int(np.ceil(2 * stretch)) + 1
    at = np.arange(-beyond, axis.size + beyond)
    weights = _kernel(attrs, (at - places[:, None]) / stretch)
    total = weights.sum(1, keepdims=True)
    matrix = np.zeros((axis.out, axis.size))
    rows = np.arange(axis.out)[:, None]
    np.add.at(matrix, (rows, np.clip(at, 0, axis.size - 1)[None]), weights)
    scaled: Array = matrix / np.where(total == 0, 1, total)
    return scaled


_BITS = 22


def _fixed(matrix: Array, x: Array, number: int, dtype: np.dtype[Any]) -> Array:
    """The weighted sum in fixed point, rounded."""
    weights = np.floor(matrix * (1 << _BITS) + 0.5).astype(np.int64)
    summed = np.tensordot(weights, x.astype(np.int64), axes=(1, number)) + (1 << (_BITS - 1))
    info = np.iinfo(dtype)
    rounded: Array = np.clip(np.moveaxis(summed, 0, number) >> _BITS, info.min, info.max)
    return rounded
