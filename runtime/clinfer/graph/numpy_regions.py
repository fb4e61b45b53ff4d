"""RoiAlign in NumPy: bilinear samples of regions, as ONNX Runtime takes them.

Samples outside the image are 0 and are not walked: the work is that of the image, however large a
region is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np

from clinfer.errors import InputError
from clinfer.graph.ir import Array
from clinfer.graph.numpy_indexing import require

_MOST = 1 << 20  # samples of a bin along an axis


class _Samples(NamedTuple):
    """Of one bin along one axis: each sample lies between the pixels `low` and `high`.

    `weights` are theirs; `left_out` says whether samples lie outside the image.
    """

    low: Array
    high: Array
    weights: tuple[Array, Array]
    left_out: bool


def roi_align(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Images [N, C, H, W], regions [count, (x0, y0, x1, y1)]: [count, C, rows, columns]."""
    x, regions, batch = inputs
    require(batch, 0, len(x), "a region's image")
    if not np.isfinite(regions).all():
        raise InputError("finite corners of regions expected, found some that are not")
    wide = np.float64 if x.dtype == np.float64 else np.float32
    images = x.astype(wide, copy=False)
    pooled = int(attrs.get("output_height", 1)), int(attrs.get("output_width", 1))
    result = np.zeros((len(regions), x.shape[1], *pooled), wide)
    combined = _averages if attrs.get("mode", "avg") == "avg" else _maxima
    for number, region in enumerate(regions.astype(wide)):
        image = images[int(batch[number])]
        if not image.size or not result.size:
            continue
        corners = region * wide(attrs.get("spatial_scale", 1.0))
        rows = _axis(attrs, corners[1], corners[3], pooled[0], image.shape[1])
        columns = _axis(attrs, corners[0], corners[2], pooled[1], image.shape[2])
        result[number] = combined(image, rows, columns)
    return [result.astype(x.dtype)]


def _axis(
    attrs: Mapping[str, Any], first: Any, last: Any, bins: int, size: int
) -> tuple[int, list[_Samples]]:
    """How many samples a bin has along an axis, and those of each bin in the image."""
    of = type(first)
    is_half = attrs.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    start = first - of(0.5 if is_half else 0)
    length = (last - first) if is_half else max(last - first, of(1))
    step = length / of(bins)
    count = int(attrs.get("sampling_ratio", 0)) or ceil(step)
    return count, [_samples(start + of(b) * step, step, count, size) for b in range(bins)]


def _samples(start: Any, step: Any, count: int, size: int) -> _Samples:
    """Samples start + (i + 1/2) * step / count within [-1, size]."""
    begin, end = 0, max(count, 0)
    if step > 0 and end:
        begin = max(floor((-1 - float(start)) / float(step) * count) - 1, 0)
        end = min(ceil((size - float(start)) / float(step) * count) + 1, end)
    if end - begin > _MOST:
        raise InputError(f"at most {_MOST} samples of a bin along an axis, found {end - begin}")
    of = type(start)
    offsets = np.arange(begin, max(end, begin)).astype(of) + of(0.5)
    places = start + offsets * (step / of(count or 1))
    inside = places[(places >= -1) & (places <= size)]
    place = np.clip(inside, 0, size - 1)
    low = place.astype(np.int64)
    above = place - low.astype(of)
    high = np.minimum(low + 1, size - 1)
    return _Samples(low, high, (1 - above, above), len(inside) < count)


def _averages(
    image: Array, rows: tuple[int, list[_Samples]], columns: tuple[int, list[_Samples]]
) -> Array:
    """The mean of a bin's samples is bilinear in the weights of rows and of columns."""
    down = _weights(rows, image.shape[1], image.dtype)
    across = _weights(columns, image.shape[2], image.dtype)
    result: Array = down @ image @ across.T
    return result


def _weights(axis: tuple[int, list[_Samples]], size: int, dtype: np.dtype[Any]) -> Array:
    """What each pixel of an axis counts in each bin."""
    count, bins = axis
    result = np.zeros((len(bins), size))
    for row, samples in zip(result, bins, strict=True):
        np.add.at(row, samples.low, samples.weights[0])
        np.add.at(row, samples.high, samples.weights[1])
    return (result / max(count, 1)).astype(dtype)


def _maxima(
    image: Array, rows: tuple[int, list[_Samples]], columns: tuple[int, list[_Samples]]
) -> Array:
    """The greatest weighted pixel of a bin, not the greatest sample: ONNX has it so."""
    result = np.zeros((image.shape[0], len(rows[1]), len(columns[1])), image.dtype)
    for i, down in enumerate(rows[1]):
        for j, across in enumerate(columns[1]):
            if not len(down.low) or not len(across.low):
                continue
            greatest = 0 if down.left_out or across.left_out else -np.inf
            found = np.full(image.shape[0], greatest, image.dtype)
            for y, y_weights in ((down.low, down.weights[0]), (down.high, down.weights[1])):
                for row, weight in zip(y, y_weights, strict=True):
                    line = image[:, row] * weight
                    for x, x_weights in zip((across.low, across.high), across.weights, strict=True):
                        found = np.maximum(found, (line[:, x] * x_weights).max(1))
            result[:, i, j] = found
    return result
