"""A plan that runs without a queue between its launches: `clinfer_kernels.player` tells how.

The thread that asks for an inference leads: it calls the player, a function like any kernel.
Helpers are work-groups of the same kernel, enqueued before, that the driver's own threads run;
nobody waits for them to come. Kernels get addresses of host memory, so inputs are read where the
caller has them and results are written where he gets them.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinfer import dtypes
from clinfer.device import machine_code
from clinfer.device.instance import Instance, Timing, bytes_of, scalar_bytes
from clinfer.device.opencl import cl
from clinfer.device.pocl_binary import LayoutError
from clinfer.device.results import ResultMemory, new_memory
from clinfer.lowering.binding import BoundLaunch, Sizes, bind_arena, bind_launch
from clinfer.lowering.plan import Array, HostStep, LaunchStep, Plan
from clinfer_kernels.player import (
    BEGINS,
    COME,
    CROWD_LINES,
    HELPS,
    LEADS,
    LINE,
    PRESENT,
    STEP_WORDS,
    launch_line,
    share,
)

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan
    from clinfer.device.programs import BuiltProgram

_LOG = logging.getLogger("clinfer.device")
_ALIGNMENT = 128
# A segment's floating-point operations and bytes from which on waking helpers is worth it: some
# 20 microseconds of one core.
_LEAST_FLOPS = 1_000_000
_LEAST_BYTES = 200_000

# Helpers sent by all instances, and helpers that have come, a line apart. Only who holds the lock
# changes the first, only helpers the second.
_CROWD = np.zeros(CROWD_LINES * LINE, np.int32)
_SENDING = Lock()

_Words = np.ndarray[Any, np.dtype[np.uint64]]


class Player(NamedTuple):
    """A plan's kernels as functions, by the number of their program, and the player itself."""

    play: Callable[..., None]
    helper: BuiltProgram
    codes: tuple[int, ...]
    weights: dict[int, Array]

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
        return Player(play, programs[plan.player], addresses, weights)


class PlayedInstance(Instance):
    """Tables for the player, and the memory of all buffers."""

    def __init__(
        self, loaded: LoadedPlan, player: Player, queue: Any, sizes: Sizes, threads: int
    ) -> None:
        super().__init__(loaded, sizes)
        self._player = player
        self._memory: list[Array] = []
        self._addresses: dict[int, int] = {}
        self._results: dict[int, ResultMemory] = defaultdict(ResultMemory)
        self._allocate()
        bound = [_bound(step, sizes) for step in self.plan.steps]
        steps = [step for step in bound if not (isinstance(step, BoundLaunch) and step.is_empty)]
        self._launches = [step for step in steps if isinstance(step, BoundLaunch)]
        self._slots: dict[int, list[int]] = defaultdict(list)
        self._values = self._arguments()
        local = _LocalMemory(self._launches, threads)
        self._tables = _Tables(player, self._launches, self._values, local)
        self._helpers = _Helpers(player, queue, self._tables, threads)
        self._segments = self._cut(steps)
        self._last: list[Any] = []

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """One inference; see `Session.run`."""
        self._bind_inputs(inputs)
        results = self._bind_outputs()
        self._tables.reset()
        self._last = []
        for segment in self._segments:
            segment()
        for index, port in enumerate(self.plan.outputs):
            if results[index] is None:
                results[index] = self._result(port.buffer, port.shape)
        return results

    def timings(self) -> list[Timing]:
        """By the processor's time stamps, taken when the leader begins and ends a launch."""
        found: list[Timing] = []
        for record in self._last:
            found += self._tables.timings(*record) if len(record) == 4 else [record]
        return found

    # -- preparation -----------------------------------------------------------------------------

    def _allocate(self) -> None:
        arena = bind_arena(self.plan, self.sizes, _ALIGNMENT)
        base = self._new_memory(arena.nbytes)
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "temp":
                self._addresses[number] = base + arena.offsets[number]
            elif buffer.kind == "const":
                self._addresses[number] = self._player.weights[number].ctypes.data
            elif buffer.kind == "output":
                self._addresses[number] = self._new_memory(buffer.nbytes(self.sizes))
            elif buffer.kind == "sizes":
                content = self._sizes_content(buffer)
                self._memory.append(content)
                self._addresses[number] = content.ctypes.data
            elif buffer.kind == "input":
                self._addresses[number] = base
            elif buffer.constant >= 0:
                self.objects[number] = self.plan.constants[buffer.constant]

    def _new_memory(self, nbytes: int) -> int:
        """The address of new memory, aligned."""
        memory = new_memory(nbytes + _ALIGNMENT)
        self._memory.append(memory)
        return _aligned(memory.ctypes.data)

    def _arguments(self) -> _Words:
        """A word for each argument of each launch; `_slots` says where buffers' addresses are."""
        values: list[int] = []
        for launch in self._launches:
            for kind, value in launch.args:
                if kind == "buffer":
                    self._slots[value].append(len(values))
                    values.append(self._addresses[value])
                elif kind == "local":
                    values.append(0)  # not the same for all threads: `_LocalMemory`
                else:
                    values.append(int.from_bytes(scalar_bytes(kind, value), "little"))
        return np.array(values, np.uint64)

    def _cut(self, steps: Sequence[BoundLaunch | HostStep]) -> list[Callable[[], None]]:
        """Launches in a row are one call of the player; host steps are calls of their own."""
        segments: list[Callable[[], None]] = []
        first = 0
        for is_launch, members in groupby(steps, lambda step: isinstance(step, BoundLaunch)):
            found = list(members)
            if is_launch:
                end = first + len(found)
                segments.append(self._player_call(first, end))
                first = end
            else:
                segments += [self._host_call(step) for step in found]
        return segments

    def _player_call(self, first: int, end: int) -> Callable[[], None]:
        launches = self._launches[first:end]
        lead = self._tables.caller(first, end, LEADS)
        nbytes = sum(self._touched(launch) for launch in launches)
        is_little = sum(x.flops for x in launches) < _LEAST_FLOPS and nbytes < _LEAST_BYTES
        call_helpers = None if is_little else self._helpers.caller(first, end)

        def call() -> None:
            start = perf_counter()
            try:
                if call_helpers is not None:
                    call_helpers()
            finally:
                lead()  # whom `call_helpers` has let in must not be left alone
            seconds = perf_counter() - start
            self._last.append((first, end, start, seconds))

        return call

    def _touched(self, launch: BoundLaunch) -> int:
        numbers = {value for kind, value in launch.args if kind == "buffer"}
        return sum(self.plan.buffers[n].nbytes(self.sizes) for n in numbers)

    def _host_call(self, step: Any) -> Callable[[], None]:
        def call() -> None:
            start, end = self._run_host(step)
            self._last.append((step, start, end - start))

        return call

    # -- transfers -------------------------------------------------------------------------------

    def _bind_inputs(self, inputs: Sequence[Any]) -> None:
        self._inputs = inputs  # kernels read them in place
        for port, value in zip(self.plan.inputs, inputs, strict=True):
            if self.plan.buffers[port.buffer].kind == "host":
                self.objects[port.buffer] = value
            elif value.size:
                self._point(port.buffer, value.ctypes.data)

    def _bind_outputs(self) -> list[Any]:
        """Arrays that kernels write results to; None for results that are copied at the end."""
        results: list[Any] = []
        bound: set[int] = set()
        for port in self.plan.outputs:
            if self.plan.buffers[port.buffer].kind != "output" or port.buffer in bound:
                results.append(None)
                continue
            bound.add(port.buffer)
            shape = tuple(self.sizes(d) for d in port.shape or ())
            array = self._results[port.buffer].array(shape, dtypes.to_numpy(port.dtype))
            if array.size:
                self._point(port.buffer, array.ctypes.data)
            results.append(array)
        return results

    def _point(self, number: int, address: int) -> None:
        """Gives the launches another address for a buffer."""
        self._addresses[number] = address
        for slot in self._slots.get(number, ()):
            self._values[slot] = address

    def _result(self, number: int, shape: Any) -> Any:
        if self.plan.buffers[number].kind == "host":
            return self.objects[number]
        return self.read(number).reshape([self.sizes(d) for d in shape or ()])

    def read(self, number: int) -> Array:
        """A copy of a buffer's content, flat, in its dtype."""
        buffer = self.plan.buffers[number]
        array = np.empty(self.sizes(buffer.size), dtypes.to_numpy(buffer.dtype))
        if array.size:
            ctypes.memmove(array.ctypes.data, self._addresses[number], array.nbytes)
        return array

    def _write(self, number: int, array: Array) -> None:
        if array.size:
            content = bytes_of(array)
            ctypes.memmove(self._addresses[number], content.ctypes.data, content.nbytes)


class _LocalMemory:
    """Local memory of each thread: for one group at a time, so launches have it in common."""

    def __init__(self, launches: Sequence[BoundLaunch], threads: int) -> None:
        self.threads = threads
        self._each = max((_local_bytes(launch) for launch in launches), default=0)
        self._memory = np.empty(self._each * threads + _ALIGNMENT, np.uint8)
        self._kept: list[_Words] = []

    def rows(self, launch: BoundLaunch, shared: _Words) -> _Words:
        """Addresses of a launch's arguments, a row a thread, from those of shared arguments."""
        rows = np.tile(shared, (self.threads, 1))
        places = _aligned(self._memory.ctypes.data) + self._each * _count(self.threads)
        for index, (kind, nbytes) in enumerate(launch.args):
            if kind == "local":
                rows[:, index] = places.ctypes.data + 8 * _count(self.threads)
                self._kept.append(places)
                places = places + _aligned(nbytes)
        self._kept.append(rows)
        return rows


class _Tables:
    """The player's tables (`player.cl`) for launches whose arguments' values are given."""

    def __init__(
        self,
        player: Player,
        launches: Sequence[BoundLaunch],
        values: _Words,
        local: _LocalMemory,
    ) -> None:
        self.player = player
        self.threads = threads = local.threads
        self._launches = launches
        self._pointers = values.ctypes.data + 8 * _count(len(values))
        self._local = local
        self._contexts = np.array(
            [machine_code.context(_groups(x)) for x in launches], np.uint64
        ).reshape(-1, machine_code.CONTEXT_WORDS)
        self.steps = np.zeros((max(len(launches), 1), STEP_WORDS), np.uint64)
        self.state = np.zeros(launch_line(len(launches), threads), np.int32)
        self.clock = np.zeros(2 * max(len(launches), 1), np.uint64)
        self._own_context = np.array(machine_code.context((1, 1, 1)), np.uint64)
        argument = 0
        for index, launch in enumerate(launches):
            x, y, z = _groups(launch)
            self.steps[index, :7] = (
                player.codes[launch.program],
                self._pointers.ctypes.data + 8 * argument,
                self._contexts[index].ctypes.data,
                x,
                x * y,
                x * y * z,
                share(x * y * z, threads),
            )
            if _local_bytes(launch):
                own = self._pointers[argument : argument + len(launch.args)]
                rows = local.rows(launch, own)
                self.steps[index, 1], self.steps[index, 7] = rows.ctypes.data, rows.strides[0]
            argument += len(launch.args)

    def reset(self) -> None:
        """No launch has begun. What helpers count themselves with stays: one may be at the door."""
        self.state[launch_line(0, self.threads) :] = 0

    def caller(self, first: int, end: int, role: int) -> Callable[[], None]:
        """The call of the player for launches first .. end - 1."""
        addresses = [table.ctypes.data for table in (self.steps, self.state, self.clock)]
        values = np.array(
            [*addresses, first, end, self.threads, role, _CROWD.ctypes.data], np.uint64
        )
        pointers = values.ctypes.data + 8 * _count(len(values))
        play, context = self.player.play, self._own_context.ctypes.data
        at = pointers.ctypes.data

        def call(_kept: Any = (values, pointers)) -> None:
            play(at, context, 0, 0, 0)

        return call

    def timings(self, first: int, end: int, start: float, seconds: float) -> list[Timing]:
        """The launches' times: time stamps scaled to the seconds that all took, from `start`."""
        clock = self.clock[2 * first : 2 * end].astype(np.int64)
        scale = seconds / max(int(clock[-1] - clock[0]), 1)
        begins = start + (clock[::2] - clock[0]) * scale
        lengths = (clock[1::2] - clock[::2]) * scale
        found = zip(self._launches[first:end], begins.tolist(), lengths.tolist(), strict=True)
        return list(found)


class _Helpers:
    """Work-groups of the player on a queue; they touch the tables until the queue has finished."""

    def __init__(self, player: Player, queue: Any, tables: _Tables, threads: int) -> None:
        opencl = cl()
        self._queue = queue
        self._threads = threads
        flags = opencl.mem_flags.READ_WRITE | opencl.mem_flags.USE_HOST_PTR
        arrays = (tables.steps, tables.state, tables.clock)
        self._buffers = [
            opencl.Buffer(queue.context, flags, hostbuf=array.reshape(-1).view(np.uint8))
            for array in arrays
        ]
        self._player = player
        self._tables = tables
        self._sent = 0
        weakref.finalize(self, _finish, queue, tables)

    def caller(self, first: int, end: int) -> Callable[[], None] | None:
        """The call that asks for help with launches first .. end - 1; None without helpers."""
        if self._threads == 1:
            return None
        kernel = self._player.helper.kernel()
        for index, buffer in enumerate(self._buffers):
            kernel.set_arg(index, buffer)
        numbers = (
            *(("int", x) for x in (first, end, self._threads, HELPS)),
            ("long", _CROWD.ctypes.data),
        )
        for index, (kind, value) in enumerate(numbers, start=len(self._buffers)):
            kernel.set_arg(index, scalar_bytes(kind, value))
        begin, state = self._tables.caller(first, end, BEGINS), self._tables.state

        def call() -> None:
            begin()
            if state[PRESENT] < self._threads - 1 and state[COME] == self._sent:
                self._send(kernel)

        return call

    def _send(self, kernel: Any) -> None:
        groups = self._threads - 1
        with _SENDING:
            cl().enqueue_nd_range_kernel(self._queue, kernel, (groups,), (1,))
            _CROWD[0] += groups
            self._sent += 1


def _finish(queue: Any, _tables: _Tables) -> None:
    queue.finish()


def _bound(step: LaunchStep | HostStep, sizes: Sizes) -> BoundLaunch | HostStep:
    return bind_launch(step, sizes) if isinstance(step, LaunchStep) else step


def _groups(launch: BoundLaunch) -> tuple[int, int, int]:
    x, y, z = (*launch.global_size, 1, 1)[:3]
    return x, y, z


def _local_bytes(launch: BoundLaunch) -> int:
    return sum(_aligned(nbytes) for kind, nbytes in launch.args if kind == "local")


def _aligned(number: int) -> int:
    """The next multiple of the alignment."""
    return -(-number // _ALIGNMENT) * _ALIGNMENT


def _count(number: int) -> _Words:
    return np.arange(number, dtype=np.uint64)
