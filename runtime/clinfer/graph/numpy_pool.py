"""Pools in NumPy, for windows that no kernel takes: SAME with a stride and sizes of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.numpy_windows import Attrs, Axis, axes_of, taps_of, wide


def max_pool(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """The greatest elements and their indices, counted over all of the data."""
    (x,) = inputs
    axes, window = _axes(attrs, x)
    shape = (*x.shape[:2], *(a.inner for a in axes))
    least = -np.inf if x.dtype.kind not in "iu" else np.iinfo(x.dtype).min
    values, places = np.full(shape, least, x.dtype), np.full(shape, -1)
    flat = np.arange(int(np.prod(x.shape[2:]))).reshape(x.shape[2:])
    if attrs.get("storage_order", 0):  # the first axis is the innermost
        flat = flat.reshape(x.shape[:1:-1]).T
    for _, inside, outside in taps_of(axes, window):
        part = x[outside]
        is_found = (part > values[inside]) | (places[inside] < 0)
        places[inside] = np.where(is_found, flat[outside], places[inside])
        values[inside] = np.where(part > values[inside], part, values[inside])
    plane = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * len(axes))
    return [values, places + plane * flat.size]


def average_pool(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """Means; padding counts with `count_include_pad`, with 2 what lies beyond it, too."""
    (x,) = inputs
    axes, window = _axes(attrs, x)
    data = wide(x)
    total = np.zeros((*x.shape[:2], *(a.inner for a in axes)), data.dtype)
    count = np.zeros(total.shape[2:], data.dtype)
    for _, inside, outside in taps_of(axes, window):
        total[inside] += data[outside]
        count[inside] += 1
    counted = attrs.get("count_include_pad", 0)
    if counted == 2:
        count = np.full_like(count, np.prod(window))
    elif counted:
        count = np.ones((), data.dtype)
        for axis, taps in zip(axes, window, strict=True):
            count = np.multiply.outer(count, _counted(axis, taps)).astype(data.dtype)
    return [(total / np.maximum(count, 1)).astype(x.dtype)]


def lp_pool(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """p-norms."""
    (x,) = inputs
    axes, window = _axes(attrs, x)
    power = int(attrs.get("p", 2))
    data = np.abs(wide(x)) ** power
    total = np.zeros((*x.shape[:2], *(a.inner for a in axes)), data.dtype)
    for _, inside, outside in taps_of(axes, window):
        total[inside] += data[outside]
    return [(total ** (1.0 / power)).astype(x.dtype)]


def _axes(attrs: Attrs, x: Array) -> tuple[list[Axis], list[int]]:
    window = [int(n) for n in attrs["kernel_shape"]]
    return axes_of(attrs, x.shape[2:], window), window


def _counted(axis: Axis, taps: int) -> Array:
    """How many taps of each place lie in the padded data."""
    room = axis.outer + axis.end + axis.begin - np.arange(axis.inner) * axis.stride
    return np.minimum(-(-room // axis.dilation), taps)
