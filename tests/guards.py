"""Guard bytes around every tensor of a run, so that stray writes are noticed and stray reads show.

Temporaries no longer share memory: each lies between guards, and so does each result. Before a run
all of it is filled with words that float32 reads as signalling NaN, each with a number of its own;
after it the guards must still be that.
`install()` puts it into all ways of running a plan; the test-suite does so (see conftest.py).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from clinfer.device import late_played, late_rows, played_instance, queue_instance
from clinfer.device.opencl import cl
from clinfer.device.player import ALIGNMENT
from clinfer.device.results import ResultMemory
from clinfer.lowering.arenas import ArenaPlan, bind_arena
from clinfer.lowering.memory import Arena

GUARD = 256
"""Bytes before and behind a tensor; a multiple of what devices want buffers to begin at."""

_LOCAL = threading.local()

UNGUARDED = ResultMemory.array
"""For tests of the memory of results itself."""

UNGUARDED_POOL = {"take": late_rows.Pool.take, "give": late_rows.Pool.give}
"""For tests of the pool itself."""


class StrayWriteError(BaseException):
    """A kernel wrote outside a tensor; no `Exception`, so that nothing takes it for one."""


def install() -> None:
    """Guards all instances made from now on."""
    played_instance.bind_arena = queue_instance.bind_arena = _spread
    ResultMemory.array = _result
    played = played_instance.PlayedInstance
    played._new_memory = _new_memory(played._new_memory)
    played.run = _watched(played.run, _fill_played, _check_played)
    queued, late = queue_instance.QueueInstance, queue_instance.LateInstance
    queued._new_buffer = _new_buffer(queued._new_buffer)
    queued.run = _watched(queued.run, _nothing, _check_queued)
    late.run = _watched(late.run, _forget, _check_queued)
    rows = late_played.LatePlayedInstance
    late_rows.plan_arena = _spread_row
    late_rows.Pool.take, late_rows.Pool.give = _take, _nothing
    rows._bind = _guarded_row(rows._bind)
    rows.run = _watched(rows.run, _forget_blocks, _check_blocks)


def _filled(nbytes: int) -> np.ndarray:
    """The bytes that memory is filled with; what computes with such a NaN gives another one."""
    words = np.arange(-(-nbytes // 4), dtype=np.uint32) % (1 << 20) | 0x7FA00000
    return words.view(np.uint8)[:nbytes]


def _spread(
    plan: Any, sizes: Any, alignment: int, closed: Any, block: int = 0, known: Any = None
) -> ArenaPlan:
    """An arena in which no two temporaries share memory, with a guard before and behind each.

    One that is split is as it would be without guards.
    """
    if block:
        _LOCAL.arena = 0
        arena = bind_arena(plan, sizes, alignment, closed, block)
        _LOCAL.whole = len(arena.allocations)
        return arena
    step = max(alignment, GUARD)
    offsets, end = {}, step
    for number, buffer in enumerate(plan.buffers):
        if buffer.kind == "temp" and buffer.first >= 0 and not closed.has(buffer):
            offsets[number] = end
            end += -(-buffer.nbytes(sizes) // step) * step + step
    arena = ArenaPlan(offsets, end if offsets else 0)
    _LOCAL.arena = arena.nbytes
    return arena


Range = tuple[int, int]


def _gaps(instance: Any, alignment: int) -> list[Range]:
    """The bytes of the arena that belong to no tensor."""
    arena = _spread(instance.plan, instance.sizes, alignment, instance.closed)
    gaps, end = [], 0
    for number, offset in arena.offsets.items():
        gaps.append((end, offset))
        end = offset + instance.plan.buffers[number].nbytes(instance.sizes)
    return [*gaps, (end, arena.nbytes)]


def _watched(run: Any, fill: Callable[[Any], None], check: Callable[[Any], None]) -> Any:
    @functools.wraps(run)
    def watched(self: Any, inputs: Any, into: Any = None) -> Any:
        _LOCAL.results = []
        fill(self)
        results = run(self, inputs, into)
        check(self)
        for memory, nbytes in _LOCAL.results:
            _require(memory, [(0, GUARD), (GUARD + nbytes, memory.size)], self)
        return results

    return watched


def _require(memory: np.ndarray, ranges: list[Range], instance: Any) -> None:
    filled = _filled(memory.size)
    for first, end in ranges:
        changed = np.flatnonzero(memory[first:end] != filled[first:end])
        if changed.size:
            steps = ", ".join(step.label for step in instance.plan.steps)
            raise StrayWriteError(f"{changed.size} guard bytes changed, by one of: {steps}")


def _result(
    self: ResultMemory, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "a result"
) -> np.ndarray:
    """A result between guards."""
    if 0 in shape:
        return UNGUARDED(self, shape, dtype, name)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = _filled(nbytes + 2 * GUARD)
    _LOCAL.results.append((memory, nbytes))
    return memory[GUARD : GUARD + nbytes].view(dtype).reshape(shape)


def _played_arena(instance: Any) -> np.ndarray:
    memory = instance._arena
    start = played_instance.aligned(memory.ctypes.data) - memory.ctypes.data
    return memory[start : start + _gaps(instance, ALIGNMENT)[-1][1]]


def _new_memory(make: Any) -> Any:
    """Memory of inputs and results that are copied, between guards."""

    def new_memory(self: Any, nbytes: int) -> int:
        address = make(self, nbytes + 2 * GUARD)
        start = address - self._memory[-1].ctypes.data
        memory = self._memory[-1][start : start + nbytes + 2 * GUARD]
        memory[:] = _filled(memory.size)  # it may be made during a run
        self.__dict__.setdefault("guarded", []).append((memory, nbytes))
        return address + GUARD

    return new_memory


def _fill_played(instance: Any) -> None:
    for memory in (_played_arena(instance), *(m for m, _ in instance.__dict__.get("guarded", []))):
        memory[:] = _filled(memory.size)


def _check_played(instance: Any) -> None:
    _require(_played_arena(instance), _gaps(instance, ALIGNMENT), instance)
    for memory, nbytes in instance.__dict__.get("guarded", []):
        _require(memory, [(0, GUARD), (GUARD + nbytes, memory.size)], instance)


def _new_buffer(make: Any) -> Any:
    """A buffer that is a window on a larger one; the arena, which has windows itself, is whole."""

    def new_buffer(self: Any, nbytes: int) -> Any:
        if getattr(_LOCAL, "whole", 0):  # a window on a window cannot be had
            _LOCAL.whole -= 1
            return make(self, nbytes)
        align = int(self.loaded.device.info.mem_base_align)
        is_arena = nbytes and nbytes == getattr(_LOCAL, "arena", 0)
        step = 0 if is_arena else max(align, GUARD)
        total = nbytes + 2 * step
        whole = make(self, total)
        cl().enqueue_copy(self.queue, whole, _filled(total))
        ranges = _gaps(self, align) if is_arena else [(0, step), (step + nbytes, total)]
        _LOCAL.arena = 0
        self.__dict__.setdefault("guarded", []).append((whole, total, ranges))
        return whole if is_arena else whole.get_sub_region(step, max(nbytes, 1))

    return new_buffer


def _nothing(*_: Any) -> None:
    return None


def _forget(instance: Any) -> None:
    instance.guarded = []


def _check_queued(instance: Any) -> None:
    for whole, total, ranges in instance.__dict__.get("guarded", []):
        memory = np.empty(total, np.uint8)
        cl().enqueue_copy(instance.queue, memory, whole)
        _require(memory, ranges, instance)


def _spread_row(lives: Any, alignment: int) -> Arena:
    """The arena of a row of launches, as `_spread`."""
    step = max(alignment, GUARD)
    offsets, end = [], step
    for life in lives:
        offsets.append(end)
        end += -(-life.nbytes // step) * step + step
    return Arena(tuple(offsets), end if offsets else 0)


def _guarded_row(bind: Any) -> Any:
    def guarded(self: Any, row: Any) -> Any:
        bound = bind(self, row)
        gaps, end = [], 0
        for number, offset in bound.inner:
            gaps.append((end, offset))
            end = offset + self.plan.buffers[number].nbytes(self.sizes)
        gaps.append((end, bound.nbytes))
        call = bound.call

        def run() -> None:
            start = late_played.aligned(self._arena.ctypes.data) - self._arena.ctypes.data
            arena = self._arena[start : start + bound.nbytes]
            arena[:] = _filled(arena.size)
            call()
            _require(arena, gaps, self)

        bound.call = run
        return bound

    return guarded


def _take(_pool: Any, nbytes: int) -> Any:
    """Memory of a buffer between guards; no other buffer of the run has it."""
    memory = _filled(nbytes + 2 * GUARD + ALIGNMENT)
    start = late_played.aligned(memory.ctypes.data + GUARD) - memory.ctypes.data
    _LOCAL.blocks.append((memory, [(0, start), (start + nbytes, memory.size)]))
    return late_rows.Block(memory, memory.ctypes.data + start, nbytes)


def _forget_blocks(_instance: Any) -> None:
    _LOCAL.blocks = []


def _check_blocks(instance: Any) -> None:
    for memory, ranges in _LOCAL.blocks:
        _require(memory, ranges, instance)
