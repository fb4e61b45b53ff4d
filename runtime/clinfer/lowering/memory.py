"""The memory plan: where in one arena each temporary buffer lives.

Greedy by size (Pisarchyk and Lee, 'Efficient Memory Management for Deep Neural Net Inference',
2020): the largest buffer first, each at the lowest offset where nothing alive at the same time is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


class Lifetime(NamedTuple):
    """A buffer of `nbytes` that is written in step `first` and last read in step `last`."""

    nbytes: int
    first: int
    last: int


class Arena(NamedTuple):
    """Byte offsets, one per buffer in the order given, and the arena's size in bytes."""

    offsets: tuple[int, ...]
    nbytes: int


def least_bytes(buffers: Sequence[Lifetime]) -> int:
    """The largest sum of buffers alive in one step: no arena is smaller."""
    changes: Counter[int] = Counter()
    for life in buffers:
        changes[life.first] += life.nbytes
        changes[life.last + 1] -= life.nbytes
    return max(accumulate(changes[step] for step in sorted(changes)), default=0)


def plan_arena(buffers: Sequence[Lifetime], alignment: int) -> Arena:
    """Places the buffers; every offset is a multiple of `alignment` bytes."""
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].nbytes, buffers[i].first, i))
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), by offset
    total = 0
    for index in order:
        life = buffers[index]
        start = 0
        for offset, end, first, last in placed:
            if last < life.first or first > life.last:
                continue
            if offset - start >= life.nbytes:
                break
            start = max(start, end)
        end = start + -(-max(life.nbytes, 1) // alignment) * alignment
        offsets[index] = start
        placed.append((start, end, life.first, life.last))
        placed.sort()
        total = max(total, end)
    return Arena(tuple(offsets), total)
