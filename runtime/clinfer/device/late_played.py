"""A plan that is played and some of whose sizes only a run gives.

Steps that give sizes, host steps and branches cut the plan into rows of launches; each is one call
of the player (`clinfer.device.late_rows`). What a row touches has its memory when the run comes to
it.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.helpers import helpers_for
from clinfer.device.instance import Timing, bytes_of, scalar_bytes
from clinfer.device.late_rounds import LateRounds
from clinfer.device.late_rows import Arguments, Block, BoundRow, Pool, Row, bind_row, bytes_touched
from clinfer.device.played_instance import element_at, is_worth_help
from clinfer.device.player import ALIGNMENT, LaunchRows, LocalMemory, Player, Tables, aligned
from clinfer.device.results import ResultMemory, new_memory, own
from clinfer.lowering.binding import Sizes
from clinfer.lowering.plan import Array, HostStep, LaunchStep
from clinfer.runs import require_wanted
from clinfer_kernels.player import LEADS, LEFT

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan

_LEAST_STACK = 1024  # bytes that rows of an unknown number get at first


class LatePlayedInstance(LateRounds):
    """Rows bound to the sizes met so far, and the memory of the run."""

    def __init__(
        self,
        loaded: LoadedPlan,
        player: Player,
        queue: Any,
        sizes: Sizes,
        threads: int,
        profiling: bool = False,
    ) -> None:
        super().__init__(loaded, sizes)
        self._player = player
        self._queue = queue
        self._threads = threads
        self._profiling = profiling
        self._await_sizes()
        self._rows: dict[tuple[int, int], Row] = {}
        self._places = np.zeros(len(self.plan.buffers), np.uint64)
        """Where buffers are; 0 while they are not."""
        self._blocks: dict[int, Block] = {}
        self._made: dict[int, Array] = {}
        self._results: dict[int, ResultMemory] = defaultdict(ResultMemory)
        self._pool = Pool()
        self._arena = new_memory(ALIGNMENT)
        self._inputs: Sequence[Any] = ()  # kernels read them in place
        self._current: Tables | None = None
        self._last: list[Any] = []
        self._arguments = Arguments(_scalar, self._fixed_content)
        self._await_rounds()

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        """One inference; into given arrays results are copied afterwards."""
        self.reports[:] = 0
        self._last.clear()
        self._inputs = inputs
        self._begin(inputs)
        try:
            self._run_all()
        except BaseException:  # Ctrl-C may come between letting helpers in and leading them
            if self._current is not None:
                self._current.settle()
            raise
        self._check()
        results: list[Any] = []
        for port in self.plan.outputs:
            result = self._result(port.buffer, port.shape)
            is_given = any(result is other for other in results)
            results.append(own(result) if is_given else result)
        self._end()
        return results

    def timings(self) -> list[Timing]:
        found: list[Timing] = []
        for record in self._last:
            if len(record) == 4:
                tables, count, start, seconds = record
                found += tables.timings(0, count, start, seconds)
            else:
                found.append(record)
        return found

    def _begin(self, inputs: Sequence[Any]) -> None:
        self._places[:] = 0
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "host" and buffer.constant >= 0:
                self.objects[number] = self.plan.constants[buffer.constant]
        for port, value in zip(self.plan.inputs, inputs, strict=True):
            if self.plan.buffers[port.buffer].kind == "host":
                self.objects[port.buffer] = value
            else:
                self._places[port.buffer] = value.ctypes.data

    def _end(self) -> None:
        """What lives in the run alone goes; results are the caller's."""
        for block in self._blocks.values():
            self._pool.give(block)
        self._blocks.clear()
        self._made.clear()
        self._pool.end_run()

    # -- steps -----------------------------------------------------------------------------------

    def _do_launches(self, first: int, end: int) -> int:
        row = self._row(first, end)
        bound = self._bound_row(row)
        if bound.launches:
            self._point(bound)
            self._current = bound.tables
            bound.call()
        return row.end

    def _bound_row(self, row: Row) -> BoundRow:
        key = tuple([self.sizes.values[name] for name in row.names])
        bound = row.known.get(key)
        if bound is None:
            bound = self._bind(row)
            row.keep(key, bound)
        return bound

    def _row(self, first: int, end: int) -> Row:
        """The launches that come from step `first` on, before step `end`."""
        row = self._rows.get((first, end))
        if row is None:
            last = first
            while last < end and isinstance(self.plan.steps[last], LaunchStep):
                last += 1
            row = self._rows[first, end] = Row.of(self.plan, first, last)
        return row

    def _bind(self, row: Row) -> BoundRow:
        bound = bind_row(self.plan, row, self.sizes, self._arguments, ALIGNMENT)
        if not bound.launches:
            return bound
        local = LocalMemory(bound.launches, self._threads)
        rows = LaunchRows.of(bound.launches, self._player)
        tables = bound.tables = Tables(self._player, rows, bound.values, local)
        count = len(bound.launches)
        lead = tables.caller(0, count, LEADS)
        state, reset = tables.state, tables.reset
        call_helpers = None
        flops = sum(launch.flops for launch in bound.launches)
        if is_worth_help(flops, lambda: bytes_touched(self.plan, bound.launches, self.sizes)):
            bound.helpers = helpers_for(self._player, self._queue, tables)
            call_helpers = bound.helpers.caller(0, count)

        def call() -> None:
            reset()
            if call_helpers is not None:
                call_helpers()
            lead()
            while state[LEFT]:  # Python sees to signals in between
                require_wanted()
                lead()

        def timed() -> None:
            start = perf_counter()
            call()
            self._last.append((tables, count, start, perf_counter() - start))

        bound.call = timed if self._profiling else call
        return bound

    def _point_all(self, rows: Sequence[BoundRow]) -> None:
        self._have_room(max((bound.nbytes for bound in rows), default=0))
        for bound in rows:
            self._point(bound)

    def _have_room(self, nbytes: int) -> None:
        """Lets the arena of what only one row touches be so large."""
        if self._arena.nbytes < nbytes + ALIGNMENT:
            self._arena = new_memory(nbytes + ALIGNMENT)

    def _point(self, bound: BoundRow) -> None:
        """Gives the launches the addresses that their buffers have in this run."""
        places = self._places
        for number, nbytes in bound.outer:
            if not places[number]:
                self._make(number, nbytes)
        if bound.inner:
            self._have_room(bound.nbytes)
            base = aligned(self._arena.ctypes.data)
            for number, offset in bound.inner:
                places[number] = base + offset
        bound.values[bound.places] = places[bound.numbers]

    def _do_host(self, step: HostStep) -> None:
        start, end = self._run_host(step)
        if self._profiling:
            self._last.append((step, start, end - start))

    # -- memory ----------------------------------------------------------------------------------

    def _fixed_content(self, number: int) -> Array | None:
        """What a buffer holds for these sizes in all runs; None where a run writes it."""
        buffer = self.plan.buffers[number]
        if buffer.kind == "const":
            return self._player.weights[number]
        if buffer.kind == "status":
            return self.reports
        return self._sizes_content(buffer) if buffer.kind == "sizes" else None

    def _make(self, number: int, nbytes: int) -> None:
        if self.plan.buffers[number].kind == "output":
            self._made[number] = made = self._new_result(number)
            self._places[number] = made.ctypes.data
        else:
            self._blocks[number] = block = self._pool.take(nbytes)
            self._places[number] = block.address

    def _new_result(self, number: int) -> Array:
        port = next(port for port in self.plan.outputs if port.buffer == number)
        shape = tuple(self.sizes(d) for d in port.shape or ())
        memory = self._results[number]
        return memory.array(shape, dtypes.to_numpy(port.dtype), f"output '{port.name}'")

    def _touch(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            buffer = self.plan.buffers[number]
            if buffer.kind == "host" or self._places[number]:
                continue
            content = self._fixed_content(number)
            if content is not None:
                self._made[number] = content
                self._places[number] = content.ctypes.data
            else:
                self._make(number, buffer.nbytes(self.sizes))

    def _release(self, index: int) -> None:
        for number in self._ends.get(index, ()):
            block = self._blocks.pop(number, None)
            if block is not None:
                self._pool.give(block)
            self._places[number] = 0

    def copy(self, of: int, to: int, nbytes: int, of_at: int = 0, to_at: int = 0) -> None:
        ctypes.memmove(int(self._places[to]) + to_at, int(self._places[of]) + of_at, nbytes)

    def count(self, number: int, done: int) -> None:
        ctypes.c_int64.from_address(int(self._places[number])).value = done

    def _element(self, number: int, offset: int) -> int:
        return element_at(int(self._places[number]), self.plan.buffers[number].dtype, offset)

    def _move(self, of: int, to: int) -> None:
        if self.plan.buffers[to].kind == "host":
            self.objects[to] = self.objects[of]
            return
        if to in self._blocks:  # not where no step reads what was there
            self._pool.give(self._blocks[to])
        self._blocks[to] = self._blocks.pop(of)
        self._places[to], self._places[of] = self._places[of], 0

    def _grow(self, number: int, row: int, nbytes: int) -> None:
        try:
            self._touch([number])
        except KeyError:  # the number of rows is known when the loop is over
            self._places[number] = 0
        needed = (row + 1) * nbytes
        old = self._blocks.get(number)
        if old is not None and old.room >= needed:
            return
        made = self._pool.take(max(2 * needed, _LEAST_STACK))
        if old is not None:
            ctypes.memmove(made.address, old.address, row * nbytes)
            self._pool.give(old)
        self._blocks[number] = made
        self._places[number] = made.address

    def _swap(self, pairs: Sequence[tuple[int, int]]) -> None:
        blocks, places = self._blocks, self._places
        for of, to in pairs:
            blocks[of], blocks[to] = blocks[to], blocks[of]
            places[of], places[to] = places[to], places[of]

    def _room_of(self, number: int) -> int:
        return self._blocks[number].room

    def _withdraw(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            block = self._blocks.pop(number, None)
            if block is not None:
                self._pool.give(block)
                self._places[number] = 0

    def _drop_sizes(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._made.pop(number, None)
            self._places[number] = 0

    def _result(self, number: int, shape: Any) -> Any:
        if self.plan.buffers[number].kind == "host":
            return own(self.objects[number])
        self._touch([number])
        made = self._made.get(number)
        is_own = self.plan.buffers[number].kind == "output" and made is not None
        sizes = tuple(self.sizes(d) for d in shape or ())
        if is_own and made is not None and made.shape == sizes:
            return made
        return self.read(number).reshape(sizes)

    def read(self, number: int) -> Array:
        """A copy of a buffer's content, flat, in its dtype."""
        buffer = self.plan.buffers[number]
        array = np.empty(self.sizes(buffer.size), dtypes.to_numpy(buffer.dtype))
        if array.size:
            ctypes.memmove(array.ctypes.data, int(self._places[number]), array.nbytes)
        return array

    def _write(self, number: int, array: Array) -> None:
        if array.size:
            content = bytes_of(array)
            ctypes.memmove(int(self._places[number]), content.ctypes.data, content.nbytes)


def _scalar(kind: str, value: int) -> int:
    return int.from_bytes(scalar_bytes(kind, value), "little")
