"""The memory plan: where in one arena each temporary buffer lives.

Greedy by size (Pisarchyk and Lee, 'Efficient Memory Management for Deep Neural Net Inference',
2020): the largest buffer first, each at the lowest offset where nothing alive at the same time is.
Where thousands are alive at the same time that takes too long, and they are placed step by step.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import accumulate
from typing import NamedTuple

# Pairs of buffers alive at the same time that the greedy plan looks at; 2,000 buffers make so many.
_MOST_LOOKS = 1 << 21
_FEW = 128  # buffers that are sooner looked at one by one than indexed


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


def plan_arena(buffers: Sequence[Lifetime], alignment: int, block: int | None = None) -> Arena:
    """Places the buffers; every offset is a multiple of `alignment` bytes.

    With `block`, a multiple of it too, no buffer lies in two blocks of so many bytes, unless it is
    larger than one: each block can be an allocation of its own.
    """
    if block is not None:
        found = _by_size(buffers, alignment, block, most_looks=None)
        assert found is not None
        return found
    return _by_size(buffers, alignment) or _by_time(buffers, alignment)


def _by_size(
    buffers: Sequence[Lifetime],
    alignment: int,
    block: int | None = None,
    most_looks: int | None = _MOST_LOOKS,
) -> Arena | None:
    """The greedy plan; None where too many buffers are alive at the same time."""
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].nbytes, buffers[i].first, i))
    offsets = [0] * len(buffers)
    few = len(buffers) <= _FEW
    placed: _Few | _Placed = _Few() if few else _Placed(max(life.last for life in buffers))
    total = 0
    looks = 0
    for index in order:
        life = buffers[index]
        meeting = placed.meeting(life)
        looks += len(meeting)
        if most_looks is not None and looks > most_looks:
            return None
        size = -(-max(life.nbytes, 1) // alignment) * alignment
        start = 0
        for offset, end in meeting:
            start = _within(start, size, block)
            if offset - start >= life.nbytes:
                break
            start = max(start, end)
        start = _within(start, size, block)
        end = start + size
        offsets[index] = start
        placed.add(life, (start, end))
        total = max(total, end)
    return Arena(tuple(offsets), total)


def _within(start: int, size: int, block: int | None) -> int:
    """The first place from `start` on where `size` bytes lie in one block."""
    if block is None or start // block == (start + size - 1) // block:
        return start
    return -(-start // block) * block


class _Few:
    """Where the buffers placed so far are, (offset, end), found by looking at each."""

    def __init__(self) -> None:
        self._all: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), sorted

    def meeting(self, life: Lifetime) -> list[tuple[int, int]]:
        """Those alive while `life` is, sorted."""
        _, start, stop = life
        return [(a, b) for a, b, first, last in self._all if first <= stop and last >= start]

    def add(self, life: Lifetime, place: tuple[int, int]) -> None:
        insort(self._all, (*place, life.first, life.last))


class _Placed:
    """The same for many, found by when they are alive.

    Those alive in one step lie in a segment tree over the steps, in the nodes above that step.
    """

    def __init__(self, last: int) -> None:
        self._leaves = 1 << (last + 1).bit_length()
        self._alive: dict[int, list[tuple[int, int]]] = {}
        self._starts: list[tuple[int, int, int]] = []  # (first step, offset, end), sorted

    def meeting(self, life: Lifetime) -> list[tuple[int, int]]:
        """Those alive while `life` is, sorted."""
        found: list[tuple[int, int]] = []
        node = self._leaves + life.first
        while node:
            found += self._alive.get(node, ())
            node >>= 1
        low = bisect_left(self._starts, (life.first + 1, -1, -1))
        high = bisect_left(self._starts, (life.last + 1, -1, -1))
        found += [place[1:] for place in self._starts[low:high]]
        found.sort()
        return found

    def add(self, life: Lifetime, place: tuple[int, int]) -> None:
        insort(self._starts, (life.first, *place))
        low, high = self._leaves + life.first, self._leaves + life.last + 1
        while low < high:
            if low & 1:
                self._alive.setdefault(low, []).append(place)
                low += 1
            if high & 1:
                high -= 1
                self._alive.setdefault(high, []).append(place)
            low >>= 1
            high >>= 1


def _by_time(buffers: Sequence[Lifetime], alignment: int) -> Arena:
    """Step by step, each buffer in the smallest gap that takes it; n log n, a little larger."""
    order = sorted(range(len(buffers)), key=lambda i: (buffers[i].first, -buffers[i].nbytes, i))
    offsets = [0] * len(buffers)
    gaps = _Gaps()
    alive: list[tuple[int, int, int]] = []  # a heap: (last step, offset, bytes)
    total = 0
    for index in order:
        life = buffers[index]
        while alive and alive[0][0] < life.first:
            _, offset, size = heappop(alive)
            gaps.give(offset, size)
        size = -(-max(life.nbytes, 1) // alignment) * alignment
        start = gaps.take(size)
        if start is None:
            start, total = total, total + size
        offsets[index] = start
        heappush(alive, (life.last, start, size))
    return Arena(tuple(offsets), total)


class _Gaps:
    """Free ranges of an arena, neighbours joined."""

    def __init__(self) -> None:
        self._sizes: list[tuple[int, int]] = []  # (bytes, offset), sorted
        self._starts: dict[int, int] = {}  # offset -> bytes
        self._ends: dict[int, int] = {}  # end -> offset

    def take(self, size: int) -> int | None:
        """The start of the smallest gap that has room; None where none has."""
        at = bisect_left(self._sizes, (size, -1))
        if at == len(self._sizes):
            return None
        found, start = self._sizes[at]
        self._drop(start)
        if found > size:
            self._keep(start + size, found - size)
        return start

    def give(self, start: int, size: int) -> None:
        """A range is free again."""
        end = start + size
        if end in self._starts:
            end += self._starts[end]
            self._drop(start + size)
        if start in self._ends:
            start = self._ends[start]
            self._drop(start)
        self._keep(start, end - start)

    def _keep(self, start: int, size: int) -> None:
        insort(self._sizes, (size, start))
        self._starts[start] = size
        self._ends[start + size] = start

    def _drop(self, start: int) -> None:
        size = self._starts.pop(start)
        del self._ends[start + size]
        del self._sizes[bisect_left(self._sizes, (size, start))]
