"""A plan some of whose sizes only a host step gives, without a queue: in a forked child.

The thread that asks calls the player for one launch after the other, alone: what a launch touches
is made when its sizes are known.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.instance import Timing, bytes_of, scalar_bytes
from clinfer.device.late import Late
from clinfer.device.player import ALIGNMENT, LocalMemory, Player, Tables, aligned
from clinfer.device.results import new_memory, own
from clinfer.lowering.binding import BoundLaunch, Sizes
from clinfer.lowering.plan import Array, HostStep
from clinfer_kernels.player import LEADS, LEFT

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan


class LatePlayedInstance(Late):
    """Memory and tables are made in each run."""

    def __init__(self, loaded: LoadedPlan, player: Player, sizes: Sizes) -> None:
        super().__init__(loaded, sizes)
        self._player = player
        self._await_sizes()
        self._memory: dict[int, Array] = {}
        self._addresses: dict[int, int] = {}
        self._timings: list[Timing] = []

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        """One inference; into given arrays results are copied afterwards."""
        self.reports[:] = 0
        self._timings = []
        self._memory, self._addresses = {}, {}
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "host" and buffer.constant >= 0:
                self.objects[number] = self.plan.constants[buffer.constant]
        for port, value in zip(self.plan.inputs, inputs, strict=True):
            if self.plan.buffers[port.buffer].kind == "host":
                self.objects[port.buffer] = value
            else:
                self._keep(port.buffer, value)
        self._run_all()
        self._check()
        return [self._result(port.buffer, port.shape) for port in self.plan.outputs]

    def timings(self) -> list[Timing]:
        return self._timings

    def _do_launch(self, bound: BoundLaunch) -> None:
        values = [self._value(kind, value) for kind, value in bound.args]
        words = np.array(values, np.uint64)
        tables = Tables(self._player, [bound], words, LocalMemory([bound], 1))
        lead = tables.caller(0, 1, LEADS)
        start = perf_counter()
        lead()
        while tables.state[LEFT]:  # Python sees to signals in between
            lead()
        self._timings.append((bound, start, perf_counter() - start))

    def _do_host(self, step: HostStep) -> None:
        start, end = self._run_host(step)
        self._timings.append((step, start, end - start))

    def _value(self, kind: str, value: int) -> int:
        if kind == "buffer":
            return self._address(value)
        if kind == "local":
            return 0  # `LocalMemory`
        return int.from_bytes(scalar_bytes(kind, value), "little")

    # -- memory ----------------------------------------------------------------------------------

    def _address(self, number: int) -> int:
        """Where a buffer is; it is made where it is not there yet, its sizes being known."""
        if number not in self._addresses:
            buffer = self.plan.buffers[number]
            if buffer.kind == "const":
                self._keep(number, self._player.weights[number])
            elif buffer.kind == "sizes":
                self._keep(number, self._sizes_content(buffer))
            elif buffer.kind == "status":
                self._keep(number, self.reports)
            else:
                memory = new_memory(buffer.nbytes(self.sizes) + ALIGNMENT)
                self._memory[number] = memory
                self._addresses[number] = aligned(memory.ctypes.data)
        return self._addresses[number]

    def _touch(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if self.plan.buffers[number].kind != "host":
                self._address(number)

    def _keep(self, number: int, content: Array) -> None:
        self._memory[number] = content
        self._addresses[number] = content.ctypes.data

    def _release(self, index: int) -> None:
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "temp" and buffer.last == index:
                self._memory.pop(number, None)
                self._addresses.pop(number, None)

    def _result(self, number: int, shape: Any) -> Any:
        if self.plan.buffers[number].kind == "host":
            return own(self.objects[number])
        return self.read(number).reshape([self.sizes(d) for d in shape or ()])

    def read(self, number: int) -> Array:
        """A copy of a buffer's content, flat, in its dtype."""
        buffer = self.plan.buffers[number]
        array = np.empty(self.sizes(buffer.size), dtypes.to_numpy(buffer.dtype))
        if array.size:
            ctypes.memmove(array.ctypes.data, self._address(number), array.nbytes)
        return array

    def _write(self, number: int, array: Array) -> None:
        if array.size:
            content = bytes_of(array)
            ctypes.memmove(self._address(number), content.ctypes.data, content.nbytes)
