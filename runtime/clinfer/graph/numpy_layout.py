"""Pad, TopK and MaxRoiPool in NumPy, for the forms without a kernel: sizes of the run, regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array


def pad(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """What negative pads cut is gone before the rest is padded, as in ONNX Runtime."""
    x, pads, fill, axes = (*inputs, None, None)[:4]
    named = [int(a) % x.ndim for a in (range(x.ndim) if axes is None else np.ravel(axes))]
    amounts = [int(p) for p in np.ravel(pads)]
    if len(amounts) != 2 * len(named) or len(set(named)) != len(named):
        raise ValueError(f"2 pads for each of the axes {named} expected, found {amounts}")
    both = dict(zip(named, zip(amounts, amounts[len(named) :], strict=False), strict=False))
    widths = [both.get(axis, (0, 0)) for axis in range(x.ndim)]
    mode = attrs.get("mode", "constant")
    if any(sum(w) + n < 0 for w, n in zip(widths, x.shape, strict=True)):
        raise ValueError(f"pads {amounts} cut off more than the shape {list(x.shape)} has")
    result = x
    for axis, (size, (begin, end)) in enumerate(zip(x.shape, widths, strict=True)):
        places = np.arange(-begin, size + end)
        low, high = max(-begin, 0), size + min(end, 0)
        if mode == "constant":
            result = _filled(result, axis, places, (low, high), fill)
        elif (begin, end) != (0, 0):
            result = result.take(_source(places - low, high - low, mode) + low, axis)
    return [result]


def _filled(x: Array, axis: int, places: Array, kept: tuple[int, int], fill: Array | None) -> Array:
    if len(places) == x.shape[axis] and not (len(places) and places[0]):
        return x
    shape = (*x.shape[:axis], len(places), *x.shape[axis + 1 :])
    result = np.full(shape, 0 if fill is None else np.ravel(fill)[0], x.dtype)
    inside = np.flatnonzero((places >= kept[0]) & (places < kept[1]))
    if len(inside):
        where: Any = (*((slice(None),) * axis), inside)
        result[where] = x.take(places[inside], axis)
    return result


def _source(places: Array, size: int, mode: str) -> Array:
    """Which of `size` elements each place shows."""
    if len(places) and size < 1:
        raise ValueError(f"nothing to pad from in mode '{mode}': an axis has no elements left")
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "wrap":
        return places % max(size, 1)
    period = max(2 * (size - 1), 1)
    turned: Array = places % period
    return np.minimum(turned, period - turned) if size > 1 else places * 0


def top_k(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """NaN counts as the largest; of equal elements the first comes first."""
    x, count = inputs[0], int(np.ravel(inputs[1])[0])
    axis = int(attrs.get("axis", -1)) % max(x.ndim, 1)
    size = x.shape[axis]
    if not 0 <= count <= size:
        raise ValueError(f"k within [0, {size}], the size of axis {axis}, expected, found {count}")
    keys = x if x.dtype.kind in "iufb" else x.astype(np.float32)
    if attrs.get("largest", 1):
        back = np.flip(keys, axis).argsort(axis, kind="stable")
        order = size - 1 - np.flip(back, axis)
    else:
        order = keys.argsort(axis, kind="stable")
    chosen = order.take(range(count), axis).astype(np.int64)
    return [np.take_along_axis(x, chosen, axis), chosen]


def max_roi_pool(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Regions [image, x0, y0, x1, y1], both ends included; empty bins are 0."""
    x, rois = inputs
    scale = np.float32(attrs.get("spatial_scale", 1.0))
    rows, columns = (int(n) for n in attrs["pooled_shape"])
    height, width = x.shape[2:]
    result = np.zeros((len(rois), x.shape[1], rows, columns), x.dtype)
    for number, region in enumerate(np.asarray(rois, np.float32)):
        image = int(region[0])
        if not 0 <= image < len(x):
            raise ValueError(f"images 0 to {len(x) - 1} in the regions expected, found {image}")
        corners = region[1:] * scale
        x0, y0, x1, y1 = np.trunc(corners + np.copysign(np.float32(0.5), corners)).astype(int)
        for i, (top, bottom) in enumerate(_bins(y0, y1, rows, height)):
            for j, (left, right) in enumerate(_bins(x0, x1, columns, width)):
                if bottom > top and right > left:
                    part = x[image, :, top:bottom, left:right]
                    result[number, :, i, j] = part.max((1, 2))
    return [result]


def _bins(first: int, last: int, count: int, size: int) -> list[tuple[int, int]]:
    step = np.float32(max(last - first + 1, 1)) / np.float32(count)
    bounds = [(np.floor(k * step), np.ceil((k + 1) * step)) for k in range(count)]
    return [(int(np.clip(a + first, 0, size)), int(np.clip(b + first, 0, size))) for a, b in bounds]
