"""A plan that runs without a queue between its launches: `clinfer_kernels.player` tells how.

The thread that asks for an inference leads: it calls the player, a function like any kernel.
Helpers are work-groups of the same kernel, enqueued before, that the driver's own threads run;
nobody waits for them to come. Kernels get addresses of host memory, so inputs are read where the
caller has them and results are written where he gets them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.helpers import Helpers, helpers_for
from clinfer.device.instance import Instance, Timing, bytes_of
from clinfer.device.loops import Turn, again_call, loop_call
from clinfer.device.player import ALIGNMENT, LocalMemory, Player, Tables, aligned
from clinfer.device.results import new_memory, own
from clinfer.device.round_loop import LoopScript
from clinfer.device.round_script import Launches, Unplayable
from clinfer.device.round_sizes import is_playable
from clinfer.device.rounds import Rounds
from clinfer.device.transfers import COPIED, Transfers
from clinfer.lowering.arenas import bind_arena
from clinfer.lowering.binding import Sizes
from clinfer.lowering.plan import AgainStep, Array, Block, BranchStep, LaunchStep, LoopStep
from clinfer.runs import require_wanted
from clinfer_kernels.player import LEADS, LEFT

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan

# A segment's floating-point operations and bytes from which on waking helpers is worth it: some
# 20 microseconds of one core.
_LEAST_FLOPS = 1_000_000
_LEAST_BYTES = 200_000
_LITTLE = 1 << 16  # bytes of an arena, of which too many do not count

_STEPS_BEFORE = 4  # of a loop, before instructions are written for it: that takes a millisecond


def is_worth_help(flops: int, nbytes: Callable[[], int]) -> bool:
    """Whether launches in a row have so much to do that helpers are woken for them.

    `nbytes` counts the bytes of the buffers that each of them touches.
    """
    return flops >= _LEAST_FLOPS or nbytes() >= _LEAST_BYTES


def element_at(address: int, dtype: str, offset: int) -> int:
    """The element of some integers' or truth values' memory."""
    size = dtypes.size_of(dtype)
    found = ctypes.string_at(address + offset * size, size)
    return int.from_bytes(found, "little", signed=not dtype.startswith("u"))


class PlayedInstance(Instance):
    """Tables for the player, and the memory of all buffers."""

    _prepares_late = True
    _arena: Array
    _tables: Tables
    _helpers: Helpers

    def __init__(
        self,
        loaded: LoadedPlan,
        player: Player,
        queue: Any,
        sizes: Sizes,
        threads: int,
        profiling: bool = False,
        before: Instance | None = None,
    ) -> None:
        """`before` is not used any more: this one may have what it had."""
        super().__init__(loaded, sizes)
        heir_of = before if isinstance(before, PlayedInstance) else None
        self._player = player
        self._profiling = profiling
        self._memory: list[Array] = []
        self._addresses: dict[int, int] = {}
        self._nbytes: dict[int, int] = {}
        self._arena = np.empty(0, np.uint8) if heir_of is None else heir_of._arena
        self._allocate()
        addresses = [self._addresses.get(number, 0) for number in range(len(self.plan.buffers))]
        table = loaded.launch_table
        self._bound = table.bound(sizes, self.closed, addresses, self._bytes_of)
        self._slots, self._values = table.slots, self._bound.values
        self._numbers = {number: place for place, number in enumerate(self._bound.steps)}
        rows = self._bound.rows
        local = LocalMemory(rows.local.values(), threads)
        if heir_of is not None and not heir_of._tables.fits(rows, threads):
            heir_of = None
        room = None if heir_of is None else heir_of._tables
        self._tables = Tables(player, rows, self._values, local, room)
        self._reset = self._tables.reset
        self._helpers = (
            helpers_for(player, queue, self._tables) if heir_of is None else heir_of._helpers
        )
        self._last: list[Any] = []
        self._rounds: dict[int, Rounds | None] = {}
        self._inputs: Sequence[Any] = ()  # kernels read them in place
        self._segments = self.calls(0, len(self.plan.steps))
        self._transfers = Transfers(self.plan, sizes, self.objects, self._view, self._point)

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        self._inputs = inputs
        results = self._transfers.begin(inputs, into)
        self._reset()
        if self._profiling:
            self._last.clear()
        try:
            for segment in self._segments:
                segment()
        except BaseException:  # Ctrl-C may come between letting helpers in and leading them
            self._tables.settle()
            raise
        if self.plan.checks:
            self._check()
        self._transfers.end(results)
        for place, port in self._transfers.others:
            results[place] = self._result(port.buffer, port.shape)
        return results

    def timings(self) -> list[Timing]:
        """By the processor's time stamps, taken when the leader begins and ends a launch."""
        found: list[Timing] = []
        for record in self._last:
            found += self._tables.timings(*record) if len(record) == 4 else [record]
        return found

    # -- preparation -----------------------------------------------------------------------------

    def _allocate(self) -> None:
        known = self.loaded.arenas
        arena = bind_arena(self.plan, self.sizes, ALIGNMENT, self.closed, known=known)
        base = self._arena_of(arena.nbytes)
        some_closed = self.closed.is_any
        for number, buffer in enumerate(self.plan.buffers):
            if some_closed and buffer.kind in ("temp", "sizes") and self.closed.has(buffer):
                continue
            if buffer.kind == "temp":
                self._addresses[number] = base + arena.offsets[number]
            elif buffer.kind == "const":
                self._addresses[number] = self._player.places[number]
            elif buffer.kind in ("input", "output"):
                nbytes = self._bytes_of(number)
                self._addresses[number] = self._new_memory(nbytes if nbytes <= COPIED else 0)
            elif buffer.kind == "sizes":
                content = self._sizes_content(buffer)
                self._memory.append(content)
                self._addresses[number] = content.ctypes.data
            elif buffer.kind == "status":
                self._addresses[number] = self.reports.ctypes.data
            elif buffer.constant >= 0:
                self.objects[number] = self.plan.constants[buffer.constant]

    def _bytes_of(self, number: int) -> int:
        """The bytes of a buffer."""
        found = self._nbytes.get(number)
        if found is None:
            found = self._nbytes[number] = self.plan.buffers[number].nbytes(self.sizes)
        return found

    def _arena_of(self, nbytes: int) -> int:
        """The address of the temporaries' memory; what was there before serves, if it has room.

        Sizes that grow do so little by little: what takes its place has an eighth more.
        """
        if not nbytes + ALIGNMENT <= self._arena.nbytes <= 2 * nbytes + _LITTLE:
            more = nbytes // 8 if self._arena.nbytes else 0
            self._arena = new_memory(nbytes + more + ALIGNMENT)
        return aligned(self._arena.ctypes.data)

    def _new_memory(self, nbytes: int) -> int:
        """The address of new memory, aligned."""
        memory = new_memory(nbytes + ALIGNMENT)
        self._memory.append(memory)
        return aligned(memory.ctypes.data)

    def calls(self, first: int, end: int) -> list[Callable[[], None]]:
        """Launches in a row are one call of the player; other steps are calls of their own."""
        calls: list[Callable[[], None]] = []
        steps = self._course(first, end)
        for is_launch, members in groupby(steps, lambda item: isinstance(item[1], LaunchStep)):
            if is_launch:
                found = [self._numbers[n] for n, _ in members if n in self._numbers]
                if found:
                    calls.append(self._player_call(found[0], found[-1] + 1))
                continue
            for number, step in members:
                if isinstance(step, BranchStep):
                    calls.append(self._branch_call(step))
                elif isinstance(step, LoopStep):
                    calls.append(loop_call(self, number, step))
                elif isinstance(step, AgainStep):
                    calls.append(again_call(self, step))
                else:
                    calls.append(self._host_call(step))
        return calls

    def _player_call(self, first: int, end: int) -> Callable[[], None]:
        lead = self._tables.caller(first, end, LEADS)
        is_worth = self._is_worth_help(first, end)
        call_helpers = self._helpers.caller(first, end) if is_worth else None
        state = self._tables.state

        def call() -> None:
            if call_helpers is not None:
                call_helpers()
            lead()
            while state[LEFT]:  # Python sees to signals in between
                require_wanted()
                lead()

        def timed() -> None:
            start = perf_counter()
            call()
            self._last.append((first, end, start, perf_counter() - start))

        return timed if self._profiling else call

    def _is_worth_help(self, first: int, end: int) -> bool:
        flops = int(self._bound.flops[first:end].sum())
        return is_worth_help(flops, lambda: self._bound.touched(first, end))

    def _host_call(self, step: Any) -> Callable[[], None]:
        def call() -> None:
            start, end = self._run_host(step)
            if self._profiling:
                self._last.append((step, start, end - start))

        return call

    # -- transfers -------------------------------------------------------------------------------

    def _view(self, number: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A small buffer's own memory as an array."""
        nbytes = prod(shape) * dtype.itemsize
        memory = (ctypes.c_byte * nbytes).from_address(self._addresses[number])
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def _point(self, number: int, address: int) -> None:
        """Gives the launches another address for a buffer."""
        self._addresses[number] = address
        for slot in self._slots.get(number, ()):
            self._values[slot] = address

    def _result(self, number: int, shape: Any) -> Any:
        if self.plan.buffers[number].kind == "host":
            return own(self.objects[number])  # it may be a constant, an input, another result
        return self.read(number).reshape([self.sizes(d) for d in shape or ()])

    def read(self, number: int) -> Array:
        """A copy of a buffer's content, flat, in its dtype."""
        buffer = self.plan.buffers[number]
        array = np.empty(self.sizes(buffer.size), dtypes.to_numpy(buffer.dtype))
        if array.size:
            ctypes.memmove(array.ctypes.data, self._addresses[number], array.nbytes)
        return array

    def _element(self, number: int, offset: int) -> int:
        return element_at(self._addresses[number], self.plan.buffers[number].dtype, offset)

    def copy(self, of: int, to: int, nbytes: int, of_at: int = 0, to_at: int = 0) -> None:
        ctypes.memmove(self._addresses[to] + to_at, self._addresses[of] + of_at, nbytes)

    def count(self, number: int, done: int) -> None:
        ctypes.c_int64.from_address(self._addresses[number]).value = done

    def go_round(self, number: int, turn: Turn) -> bool:
        if self._profiling:  # each launch is timed by itself
            return False
        if number not in self._rounds:
            if turn.done < _STEPS_BEFORE:
                return False
            self._rounds[number] = self._written(number)
        rounds = self._rounds[number]
        if rounds is None:
            return False
        if rounds.play(turn, turn.limit, self._addresses) is not None:
            self._check()
            raise AssertionError("sizes that are bound leave a loop's step to nobody else")
        for of, to in rounds.swapped:
            first, second = self._addresses[of], self._addresses[to]
            self._point(of, second)
            self._point(to, first)
        return True

    def _written(self, number: int) -> Rounds | None:
        step = self.plan.steps[number]
        assert isinstance(step, LoopStep)
        try:
            if not is_playable(self.plan, step.block):
                return None
            return Rounds(LoopScript(self, step, {}), self._player, {})
        except Unplayable:
            return None

    def block_taken(self, step: BranchStep) -> Block | None:
        """See `round_script.Stage`."""
        block = self._decided(step)
        for taken in step.blocks if block is None else (block,):
            if self.closed.why(taken) is not None:
                raise Unplayable
        return block

    def keep_apart(self, number: int) -> None:
        """See `round_script.Stage`."""
        nbytes = self._bytes_of(number)
        address = self._new_memory(nbytes)
        ctypes.memmove(address, self._addresses[number], nbytes)
        self._point(number, address)

    def slots_of(self, number: int) -> Sequence[int]:
        """See `round_script.Stage`."""
        first = self._values.ctypes.data
        return [first + 8 * slot for slot in self._slots.get(number, ())]

    def row_of_launches(self, first: int, end: int) -> tuple[Launches | None, int]:
        """See `round_script.Stage`."""
        last = first
        while last < end and isinstance(self.plan.steps[last], LaunchStep):
            last += 1
        found = [self._numbers[n] for n in range(first, last) if n in self._numbers]
        if not found:
            return None, last
        helpers = self._helpers if self._is_worth_help(found[0], found[-1] + 1) else None
        return Launches(self._tables, found[0], found[-1] + 1, helpers), last

    def renewal(self, first: int, end: int) -> Callable[[], None] | None:
        found = [self._numbers[n] for n in range(first, end) if n in self._numbers]
        return self._tables.renewal(min(found), max(found) + 1) if found else None

    def _write(self, number: int, array: Array) -> None:
        if array.size:
            content = bytes_of(array)
            ctypes.memmove(self._addresses[number], content.ctypes.data, content.nbytes)
