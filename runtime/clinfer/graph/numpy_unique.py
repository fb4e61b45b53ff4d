"""Unique in NumPy, of numbers and of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array


def unique(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Elements, or parts along an axis, that differ: y, first indices, inverse, counts.

    [...] -> [count] without an axis, else the input's shape with `count` at the axis. In order, or
    as they are met where `sorted` is 0. NaNs are alike; text is in the order of code points.
    """
    x = np.asarray(inputs[0])
    axis = attrs.get("axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    first, inverse, counts = _text(x, axis) if x.dtype.kind == "O" else _numbers(x, axis)
    if not attrs.get("sorted", 1):
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        first, inverse, counts = first[order], rank[inverse], counts[order]
    results = [np.asarray(part, np.int64) for part in (first, inverse, counts)]
    return [np.take(x, first, axis), *results]


def _numbers(x: Array, axis: int) -> tuple[Array, Array, Array]:
    _, first, inverse, counts = np.unique(x, True, True, True, None if x.ndim == 1 else axis)
    return first, inverse.reshape(-1), counts


def _text(x: Array, axis: int) -> tuple[Array, Array, Array]:
    rows = np.moveaxis(x, axis, 0)
    keys = [tuple(map(str, row.ravel().tolist())) for row in rows[:, None]]
    met: dict[tuple[str, ...], int] = {}
    for index, key in enumerate(keys):
        met.setdefault(key, index)
    found = {key: number for number, key in enumerate(sorted(met))}
    first = np.array([met[key] for key in found], np.int64)
    inverse = np.array([found[key] for key in keys], np.int64)
    return first, inverse, np.bincount(inverse, minlength=len(found))
