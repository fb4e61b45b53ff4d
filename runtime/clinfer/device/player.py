"""The player of a plan: kernels as functions, and its tables.

`clinfer_kernels/player.cl` describes the tables.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinfer.device import machine_code
from clinfer.device.instance import Timing, bytes_of
from clinfer.device.pocl_binary import LayoutError
from clinfer.log import Log
from clinfer.lowering.binding import BoundLaunch
from clinfer.lowering.plan import Array, Plan
from clinfer_kernels.player import HELPS, INSIDE, OPEN, STEP_WORDS, STOP, launch_line, shares

if TYPE_CHECKING:
    from clinfer.device.programs import BuiltProgram

_LOG = Log("clinfer.device")
ALIGNMENT = 128
"""Bytes: where buffers and local memory begin."""
_SETTLING_SECONDS = 0.0001

Words = np.ndarray[Any, np.dtype[np.uint64]]


class Player(NamedTuple):
    """A plan's kernels as functions, by the number of their program, and the player itself."""

    play: Callable[..., None]
    helper: BuiltProgram
    codes: tuple[int, ...]
    weights: dict[int, Array]
    places: dict[int, int]

    @staticmethod
    def of(plan: Plan, programs: Sequence[BuiltProgram]) -> Player | None:
        """The plan's player; None where it has none, or its code cannot be loaded here."""
        if plan.player is None:
            return None
        try:
            codes = [program.code() for program in programs]
        except (LayoutError, OSError) as error:
            _LOG.warning("launches go through the driver's queue, which is slower: %s", error)
            return None
        weights = {
            number: bytes_of(plan.constants[buffer.constant])
            for number, buffer in enumerate(plan.buffers)
            if buffer.kind == "const"
        }
        play = codes[plan.player].function()
        addresses = tuple(code.address for code in codes)
        places = {number: array.ctypes.data for number, array in weights.items()}
        return Player(play, programs[plan.player], addresses, weights, places)

    def caller(self, words: Sequence[int]) -> partial[None]:
        """The call of the player alone with these arguments, `player.cl` says of which types."""
        values = np.array([*words, *machine_code.context((1, 1, 1))], np.uint64)
        pointers = values.ctypes.data + 8 * _count(len(words))
        context = values.ctypes.data + 8 * len(words)
        addresses = [ctypes.c_size_t(word) for word in (pointers.ctypes.data, context)]
        groups = [ctypes.c_size_t(0)] * 3  # converted once: that takes longer than the call
        call = partial(self.play, *addresses, *groups)
        call.kept = (values, pointers)  # type: ignore[attr-defined]
        return call


class LaunchRows(NamedTuple):
    """Launches as the tables need them: addresses of code, groups along three axes, first words.

    `local` are those with local memory, by their places; `launches` makes all of them.
    """

    codes: Words
    groups: np.ndarray[Any, np.dtype[np.int64]]
    starts: np.ndarray[Any, np.dtype[np.int64]]
    local: Mapping[int, BoundLaunch]
    launches: Callable[[], Sequence[BoundLaunch]]

    @staticmethod
    def of(launches: Sequence[BoundLaunch], player: Player) -> LaunchRows:
        """Those of launches whose arguments' words lie one after the other."""
        counts = [len(launch.args) for launch in launches]
        return LaunchRows(
            np.array([player.codes[launch.program] for launch in launches], np.uint64),
            np.array([_groups(launch) for launch in launches], np.int64).reshape(-1, 3),
            np.array([0, *accumulate(counts)][: len(counts)], np.int64),
            {n: launch for n, launch in enumerate(launches) if _local_bytes(launch)},
            lambda: launches,
        )


class LocalMemory:
    """Local memory of each thread: for one group at a time, so launches have it in common."""

    def __init__(self, launches: Iterable[BoundLaunch], threads: int) -> None:
        self.threads = threads
        self._each = max((_local_bytes(launch) for launch in launches), default=0)
        self._memory = np.empty(self._each * threads + ALIGNMENT, np.uint8)
        self._kept: list[Words] = []

    def rows(self, launch: BoundLaunch, shared: Words) -> Words:
        """Addresses of a launch's arguments, a row a thread, from those of shared arguments."""
        rows = np.tile(shared, (self.threads, 1))
        places = aligned(self._memory.ctypes.data) + self._each * _count(self.threads)
        for index, (kind, nbytes) in enumerate(launch.args):
            if kind == "local":
                rows[:, index] = places.ctypes.data + 8 * _count(self.threads)
                self._kept.append(places)
                places = places + aligned(nbytes)
        self._kept.append(rows)
        return rows


class Tables:
    """The player's tables (`player.cl`) for launches whose arguments' values are given.

    They lie where those of `room` are, which are not used any more, where it `fits`.
    """

    def __init__(
        self,
        player: Player,
        rows: LaunchRows,
        values: Words,
        local: LocalMemory,
        room: Tables | None = None,
    ) -> None:
        self.player = player
        self.threads = threads = local.threads
        self._rows = rows
        count = len(rows.codes)
        first_word = values.ctypes.data
        self._pointers = first_word + 8 * _count(len(values))
        self._local = local
        if room is None:
            self._contexts = np.zeros((count, machine_code.CONTEXT_WORDS), np.uint64)
            self._contexts[:, : len(machine_code.USED)] = machine_code.USED
            self.steps = np.zeros((max(count, 1), STEP_WORDS), np.uint64)
            self.state = np.zeros(launch_line(count, threads), np.int32)
            self.clock = np.zeros(2 * max(count, 1), np.uint64)
        else:
            self._contexts, self.steps = room._contexts, room.steps
            self.state, self.clock = room.state, room.clock
        self._contexts[:, :3] = rows.groups
        self.reset: Callable[[], None] = partial(self.state[launch_line(0, self.threads) :].fill, 0)
        """No launch has begun. What helpers count themselves with stays: one may be at the door."""
        if not count:
            return
        steps, products = self.steps, rows.groups.cumprod(1)
        steps[:, 0] = rows.codes
        steps[:, 1] = self._pointers.ctypes.data + 8 * rows.starts
        steps[:, 2] = self._contexts.ctypes.data + self._contexts.strides[0] * _count(count)
        steps[:, 3:6] = products
        steps[:, 6] = shares(products[:, 2], threads)
        steps[:, 7] = 0
        for index, launch in rows.local.items():
            start = rows.starts[index]
            own = local.rows(launch, self._pointers[start : start + len(launch.args)])
            steps[index, 1], steps[index, 7] = own.ctypes.data, own.strides[0]

    def fits(self, rows: LaunchRows, threads: int) -> bool:
        """Whether others for these launches can have the room of these, which are done with.

        Helpers that are sent to the one then come to the other: they know no more than the room.
        """
        is_whole = not (self.state[STOP] or self.state[OPEN] or self.state[INSIDE])
        return is_whole and threads == self.threads and len(rows.codes) == len(self._contexts)

    def renewal(self, first: int, end: int) -> Callable[[], None]:
        """What makes launches first .. end - 1 ones that have not begun, between two calls."""
        lines = (launch_line(number, self.threads) for number in (first, end))
        return partial(self.state[slice(*lines)].fill, 0)

    def settle(self) -> None:
        """After a run that its leader has left for good: returns when no helper touches a buffer.

        They leave as soon as they see it; the tables are of no use any more.
        """
        self.state[OPEN] = 0
        self.state[STOP] = 1
        while self.state[INSIDE]:
            sleep(_SETTLING_SECONDS)

    def caller(self, first: int, end: int, role: int, crowd: int = 0) -> Callable[..., None]:
        """The call of the player for launches first .. end - 1, in a role.

        Whoever helps or lets helpers in gives the address of the `crowd`'s counters, a helper with
        each call the number of its group.
        """
        addresses = [table.ctypes.data for table in (self.steps, self.state, self.clock)]
        alone = self.player.caller([*addresses, first, end, self.threads, role, crowd])
        if role != HELPS:
            return alone
        play, (*words, _, y, z) = alone.func, alone.args

        def call(group: int, _kept: Any = alone) -> None:
            play(*words, group, y, z)

        return call

    def timings(self, first: int, end: int, start: float, seconds: float) -> list[Timing]:
        """The launches' times: time stamps scaled to the seconds that all took, from `start`."""
        clock = self.clock[2 * first : 2 * end].astype(np.int64)
        scale = seconds / max(int(clock[-1] - clock[0]), 1)
        begins = start + (clock[::2] - clock[0]) * scale
        lengths = (clock[1::2] - clock[::2]) * scale
        launches = self._rows.launches()[first:end]
        return list(zip(launches, begins.tolist(), lengths.tolist(), strict=True))


def _groups(launch: BoundLaunch) -> tuple[int, int, int]:
    x, y, z = (*launch.global_size, 1, 1)[:3]
    return x, y, z


def _local_bytes(launch: BoundLaunch) -> int:
    return sum(aligned(nbytes) for kind, nbytes in launch.args if kind == "local")


def aligned(number: int) -> int:
    """The next multiple of the alignment."""
    return -(-number // ALIGNMENT) * ALIGNMENT


def _count(number: int) -> Words:
    return np.arange(number, dtype=np.uint64)
