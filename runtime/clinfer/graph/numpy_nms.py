"""NonMaxSuppression in NumPy: how many boxes are left is known only when it has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array

_PIECE = 32  # boxes whose overlaps with each other are computed at once


def non_max_suppression(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Boxes [N, B, 4], scores [N, C, B]: int64 [count, 3] of (batch, class, box).

    Of each batch and class the box of the highest score is taken, of equal ones the first; those
    that overlap it by more than the threshold are dropped; and so on.
    """
    boxes, scores = inputs[0], inputs[1]
    most, overlap, least = (_scalar(inputs, index) for index in (2, 3, 4))
    limit = 0 if most is None else int(most)
    corners = _corners(boxes, bool(attrs.get("center_point_box", 0)))
    found = [
        (batch, kind, box)
        for batch, kind in np.ndindex(scores.shape[:2])
        for box in _taken(corners[batch], scores[batch, kind], limit, overlap or 0.0, least)
    ]
    return [np.array(found, np.int64).reshape(-1, 3)]


def _scalar(inputs: Sequence[Any], index: int) -> float | None:
    if index >= len(inputs) or inputs[index] is None or inputs[index].size == 0:
        return None
    value: float = inputs[index].reshape(-1)[0].item()
    return value


def _corners(boxes: Array, is_centred: bool) -> Array:
    """Rows (low 0, low 1, high 0, high 1, area) of each batch: [N, 5, B]."""
    first, second, third, fourth = np.moveaxis(boxes, -1, 0)
    if is_centred:
        first, second = first - third / 2, second - fourth / 2
        third, fourth = first + third, second + fourth
    low = np.minimum(first, third), np.minimum(second, fourth)
    high = np.maximum(first, third), np.maximum(second, fourth)
    area = (high[0] - low[0]) * (high[1] - low[1])
    return np.stack([*low, *high, area], axis=1)


def _taken(
    corners: Array, scores: Array, limit: int, overlap: float, least: float | None
) -> list[int]:
    """The boxes of one class, the highest score first."""
    left = np.arange(scores.size) if least is None else np.flatnonzero(scores > least)
    left = left[np.argsort(-scores[left], kind="stable")]
    chosen: list[int] = []
    for start in range(0, left.size, _PIECE):
        if len(chosen) == limit:
            break
        piece = left[start : start + _PIECE]
        if chosen:
            shares = _overlaps(corners[:, chosen, None], corners[:, None, piece])
            piece = piece[(shares <= overlap).all(axis=0)]
        chosen += piece[_kept(corners[:, piece], overlap, limit - len(chosen))].tolist()
    return chosen


def _kept(rows: Array, overlap: float, limit: int) -> list[int]:
    """Which boxes of a piece are taken."""
    hides = _overlaps(rows[:, :, None], rows[:, None, :]) > overlap
    hidden = np.zeros(rows.shape[1], bool)
    kept: list[int] = []
    for box in range(rows.shape[1]):
        if hidden[box]:
            continue
        kept.append(box)
        if len(kept) == limit:
            break
        hidden |= hides[box]
    return kept


def _overlaps(one: Array, others: Array) -> Array:
    """Intersection over union; 0 where an area is."""
    sides = np.minimum(one[2:4], others[2:4]) - np.maximum(one[:2], others[:2])
    common = sides[0].clip(0) * sides[1].clip(0)
    union = one[4] + others[4] - common
    shares: Array = np.zeros_like(common)
    np.divide(common, union, out=shares, where=(common > 0) & (union > 0))
    return shares
