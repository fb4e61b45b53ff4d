"""A plan that runs without a queue between its launches: `clinfer_kernels.player` tells how.

The thread that asks for an inference leads: it calls the player, a function like any kernel.
Helpers are work-groups of the same kernel, enqueued before, that the driver's own threads run;
nobody waits for them to come. Kernels get addresses of host memory, so inputs are read where the
caller has them and results are written where he gets them.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.instance import Instance, Timing, bytes_of, scalar_bytes
from clinfer.device.player import ALIGNMENT, Helpers, LocalMemory, Player, Tables, Words, aligned
from clinfer.device.results import ResultMemory, new_memory
from clinfer.lowering.binding import BoundLaunch, Sizes, bind_arena, bind_launch
from clinfer.lowering.plan import Array, HostStep, LaunchStep
from clinfer_kernels.player import LEADS

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan

# A segment's floating-point operations and bytes from which on waking helpers is worth it: some
# 20 microseconds of one core.
_LEAST_FLOPS = 1_000_000
_LEAST_BYTES = 200_000


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
        local = LocalMemory(self._launches, threads)
        self._tables = Tables(player, self._launches, self._values, local)
        self._helpers = Helpers(player, queue, self._tables, threads)
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
        arena = bind_arena(self.plan, self.sizes, ALIGNMENT)
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
        memory = new_memory(nbytes + ALIGNMENT)
        self._memory.append(memory)
        return aligned(memory.ctypes.data)

    def _arguments(self) -> Words:
        """A word for each argument of each launch; `_slots` says where buffers' addresses are."""
        values: list[int] = []
        for launch in self._launches:
            for kind, value in launch.args:
                if kind == "buffer":
                    self._slots[value].append(len(values))
                    values.append(self._addresses[value])
                elif kind == "local":
                    values.append(0)  # not the same for all threads: `LocalMemory`
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


def _bound(step: LaunchStep | HostStep, sizes: Sizes) -> BoundLaunch | HostStep:
    return bind_launch(step, sizes) if isinstance(step, LaunchStep) else step
