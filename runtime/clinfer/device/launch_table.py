"""The launches of a played plan as arrays: what sizes decide of them is filled in all at once.

A decoder whose cache grows has other sizes in each run. So a plan's launches are laid out once, a
word for each argument of each launch, and new sizes cost a few operations on whole arrays.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from clinfer.device.instance import scalar_bytes
from clinfer.device.player import LaunchRows, Player, Words
from clinfer.lowering.binding import BoundLaunch, Closed, Sizes, bind_launch
from clinfer.lowering.plan import LaunchStep, Plan
from clinfer_kernels.dims import Dim

Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

_BITS = {
    "int": 8 * ctypes.sizeof(ctypes.c_int32),
    "uint": 8 * ctypes.sizeof(ctypes.c_uint32),
    "long": 8 * ctypes.sizeof(ctypes.c_int64),
}


class _Sizes:
    """The different sizes that a plan's launches have, each of them computed once."""

    def __init__(self) -> None:
        self.dims: list[Dim] = []
        self._places: dict[Dim, int] = {}

    def place(self, dim: Dim) -> int:
        """The number of a size."""
        place = self._places.setdefault(dim, len(self.dims))
        if place == len(self.dims):
            self.dims.append(dim)
        return place

    def values(self, sizes: Sizes) -> tuple[Integers, set[int]]:
        """All of them, and those that have no value of 64 bits, for which 0 stands."""
        try:
            found: Integers = np.array([sizes(dim) for dim in self.dims], np.int64)
            return found, set()
        except ArithmeticError:
            each = [_value(sizes, dim) for dim in self.dims]
            without = {place for place, value in enumerate(each) if value is None}
            return np.array([value or 0 for value in each], np.int64), without


def _value(sizes: Sizes, dim: Dim) -> int | None:
    try:
        return int(np.int64(sizes(dim)))
    except ArithmeticError:
        return None


class _Column:
    """Numbers of which some are known and others are sizes; `rows` are the launches they are of."""

    def __init__(self, known: _Sizes) -> None:
        self._known = known
        self._fixed: list[int] = []
        self._places: list[int] = []
        self._sizes: list[int] = []
        self.rows: list[int] = []

    def __len__(self) -> int:
        return len(self._fixed)

    def add(self, dim: Dim, row: int) -> None:
        """One more number."""
        if not isinstance(dim, int):
            self._places.append(len(self._fixed))
            self._sizes.append(self._known.place(dim))
        self._fixed.append(dim if isinstance(dim, int) else 0)
        self.rows.append(row)

    def finish(self) -> None:
        """After the last one."""
        self._numbers = np.array(self._fixed, np.int64)
        self._at, self._of = np.array([self._places, self._sizes], np.int64).reshape(2, -1)

    def values(self, values: Integers) -> Integers:
        """The numbers, from those of the sizes."""
        found: Integers = self._numbers.copy()
        found[self._at] = values[self._of]
        return found

    def rows_of(self, sizes: set[int]) -> list[tuple[int, Dim]]:
        """The launches that have one of these sizes, with it."""
        pairs = zip(self._places, self._sizes, strict=True)
        return [(self.rows[at], self._known.dims[of]) for at, of in pairs if of in sizes]


class Bound(NamedTuple):
    """The launches for some sizes: their numbers in the plan and rows, arguments, operations."""

    steps: Sequence[int]
    rows: LaunchRows
    values: Words
    flops: Integers
    touched: Callable[[int, int], int]


class LaunchTable:
    """All launches of a plan that a player runs.

    `slots` are the words that hold the address of a buffer, by its number.
    """

    def __init__(self, plan: Plan, player: Player) -> None:
        launches = [(n, s) for n, s in enumerate(plan.steps) if isinstance(s, LaunchStep)]
        self._launches = [step for _, step in launches]
        self._steps = np.array([number for number, _ in launches], np.int64)
        self._codes = np.array([player.codes[s.program] for s in self._launches], np.uint64)
        self._sizes = _Sizes()
        columns = [_Column(self._sizes) for _ in range(4)]
        self._when, self._groups, self._flops, self._words = columns
        self._kinds: list[str] = []
        self._floats: list[tuple[int, Dim, int]] = []
        self._buffers: list[tuple[int, int]] = []
        self._touched: list[set[int]] = []
        self.slots: dict[int, list[int]] = {}
        starts: list[int] = []
        for row, step in enumerate(self._launches):
            starts.append(len(self._words))
            self._add(row, step)
        for column in columns:
            column.finish()
        self._buffer_words, self._buffer_numbers = (
            np.array(self._buffers, np.int64).reshape(-1, 2).T
        )
        self._starts = np.array(starts, np.int64)
        bits = np.array([_BITS.get(kind, 64) for kind in self._kinds], np.int64)
        signed = np.array([kind != "uint" for kind in self._kinds], bool)
        self._low = np.where(signed, -(1 << (bits - 1)), 0)
        self._high = np.where(bits == 64, np.iinfo(np.int64).max, (1 << (bits - signed)) - 1)
        self._masks = np.where(bits == 64, -1, (1 << (bits % 64)) - 1).astype(np.int64)
        self._local = [
            row
            for row, step in enumerate(self._launches)
            if any(arg.kind == "local" for arg in step.args)
        ]

    def _add(self, row: int, step: LaunchStep) -> None:
        self._when.add(step.when, row)
        self._flops.add(step.flops, row)
        for size in (*step.global_size, 1, 1)[:3]:
            self._groups.add(size, row)
        for arg in step.args:
            word = len(self._words)
            self._kinds.append(arg.ctype if arg.kind == "scalar" else "long")
            if arg.kind == "buffer":
                self._buffers.append((word, arg.buffer))
                self.slots.setdefault(arg.buffer, []).append(word)
            if arg.kind in ("buffer", "local"):
                self._words.add(0, row)
            elif arg.ctype in _BITS:
                self._words.add(arg.value, row)
            else:
                self._floats.append((word, arg.value, row))
                self._words.add(0, row)
        self._touched.append({arg.buffer for arg in step.args if arg.kind == "buffer"})

    def bound(
        self,
        sizes: Sizes,
        closed: Closed,
        addresses: Sequence[int],
        nbytes: Callable[[int], int],
    ) -> Bound:
        """The launches that run for these sizes; `addresses` are those of the plan's buffers.

        `nbytes` gives the bytes of a buffer.

        Raises `DeviceError` for a size that no argument of a kernel can be.
        """
        known, without = self._sizes.values(sizes)
        runs = self._when.values(known) != 0
        if closed.is_any:
            runs &= np.array([not closed.has_step(n) for n in self._steps.tolist()], bool)
        groups = self._groups.values(known).reshape(-1, 3)
        runs &= (groups != 0).all(1)
        for row, dim in self._words.rows_of(without) if without else ():
            if runs[row]:
                scalar_bytes("long", sizes(dim))
        words = self._words.values(known)
        for word in np.flatnonzero((words < self._low) | (words > self._high)).tolist():
            if runs[self._words.rows[word]]:
                scalar_bytes(self._kinds[word], int(words[word]))
        values = (words & self._masks).view(np.uint64)
        for number, dim, row in self._floats:
            if runs[row]:
                values[number] = int.from_bytes(scalar_bytes("float", sizes(dim)), "little")
        values[self._buffer_words] = np.array(addresses, np.uint64)[self._buffer_numbers]
        active = np.flatnonzero(runs)
        rows = LaunchRows(
            self._codes[active],
            groups[active],
            self._starts[active],
            self._with_local(active, sizes),
            lambda: [bind_launch(self._launches[row], sizes) for row in active],
        )
        flops = self._flops.values(known)[active]
        steps = self._steps[active].tolist()
        return Bound(steps, rows, values, flops, lambda a, b: self._bytes(active[a:b], nbytes))

    def _with_local(self, active: Integers, sizes: Sizes) -> dict[int, BoundLaunch]:
        if not self._local:
            return {}
        places = {int(row): place for place, row in enumerate(active)}
        found: Iterable[int] = (row for row in self._local if row in places)
        return {places[row]: bind_launch(self._launches[row], sizes) for row in found}

    def _bytes(self, rows: Integers, nbytes: Callable[[int], int]) -> int:
        """The bytes of the buffers that launches touch, of each launch by itself."""
        return sum(nbytes(n) for row in rows.tolist() for n in self._touched[row])
