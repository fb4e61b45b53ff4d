"""A plan that runs on a command queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.instance import Instance, OnDevice, Timing, scalar_bytes
from clinfer.device.late import Late
from clinfer.device.loops import again_call, loop_call
from clinfer.device.opencl import cl as opencl
from clinfer.device.results import ResultMemory, own, takes
from clinfer.device.shared import copy_buffer
from clinfer.device.staging import Staging, as_bytes, room
from clinfer.errors import DeviceError
from clinfer.lowering.arenas import ArenaPlan, bind_arena
from clinfer.lowering.binding import BoundLaunch, Sizes, bind_launch
from clinfer.lowering.plan import (
    AgainStep,
    Array,
    BranchStep,
    Buffer,
    HostStep,
    LaunchStep,
    LoopStep,
)
from clinfer.runs import require_wanted

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan


_LONG_FLOPS = 100_000_000_000  # a tenth of a second of a fast processor, milliseconds of a GPU
_LONG_SECONDS = 0.2
_LEAST_STACK = 1024  # bytes that rows of an unknown number get at first
_LAUNCHES_A_FLUSH = 16  # so that the device begins while the rest is queued


class QueueInstance(Instance):
    """Kernels on a queue: arguments set once, every step enqueued in each run."""

    def __init__(
        self, loaded: LoadedPlan, queue: Any, sizes: Sizes, staging: Staging | None = None
    ) -> None:
        """`staging` is what inputs and results pass through, where the device has own memory."""
        super().__init__(loaded, sizes)
        self.queue = queue
        self._staging = staging
        self._staged: list[tuple[Array, Array]] = []  # (a result, where it arrives)
        self._unflushed = 0  # launches since the device was last told to begin
        self.buffers: dict[int, Any] = dict(loaded.weights)
        self.events: list[tuple[BoundLaunch | HostStep, Any]] = []
        self._results: dict[int, ResultMemory] = defaultdict(ResultMemory)
        self._may_take_long = True  # until it did not
        self._queued = 0  # operations since there was nothing to wait for
        self._flops = 0  # of all launches
        self._in_parts = False  # so many that a run waits in between
        self._prepare()

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        self._begin(inputs)
        self._write_inputs(inputs)
        self.events = []
        for call in self._steps:
            call()
        return self._read_outputs(into)

    def _begin(self, inputs: Sequence[Any]) -> None:
        """Before a run: pinned memory for its inputs, and for the results whose sizes are known."""
        self._staged.clear()
        if self._staging is not None:
            given = [value.nbytes for value in inputs if isinstance(value, np.ndarray)]
            self._staging.begin(sum(map(room, [*given, *self._result_sizes])))

    @cached_property
    def _result_sizes(self) -> list[int]:
        numbers = [port.buffer for port in self.plan.outputs]
        buffers = [b for b in (self.plan.buffers[n] for n in numbers) if b.kind != "host"]
        try:
            return [buffer.nbytes(self.sizes) for buffer in buffers]
        except KeyError:  # sizes that a host step gives
            return []

    def _make_room(self, launch: BoundLaunch) -> None:
        """Has no more in the queue than what an interrupt may have to wait for."""
        if self._queued and self._queued + launch.flops > _LONG_FLOPS:
            self._wait()
        self._queued += launch.flops

    def _wait(self) -> None:
        """Returns when all that is queued is done; an interrupt ends it where that takes long."""
        require_wanted()
        self._queued = 0
        start = perf_counter()
        if self._may_take_long:
            self.queue.wait()
        else:
            self.queue.finish()
        self._may_take_long = perf_counter() - start > _LONG_SECONDS

    def timings(self) -> list[Timing]:
        """From the events' time stamps; a host step has its own clock, and begins at an end."""
        found: list[Timing] = []
        end = 0.0
        for what, mark in self.events:
            if isinstance(what, BoundLaunch):
                start, seconds = mark.profile.start * 1e-9, mark.profile.end * 1e-9
                found.append((what, start, seconds - start))
            else:
                found.append((what, end, mark[1] - mark[0]))
            end = found[-1][1] + found[-1][2]
        return found

    # -- preparation -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._allocate()
        self._steps = self.calls(0, len(self.plan.steps))
        if self._flops > _LONG_FLOPS:
            self._in_parts = True
            self._steps = self.calls(0, len(self.plan.steps))

    def _allocate(self) -> None:
        arena = self._arena()
        memory = [self._new_buffer(nbytes) for nbytes in arena.allocations]
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "temp":
                if number in arena.offsets:
                    size = max(buffer.nbytes(self.sizes), 1)
                    which, start = arena.place(number)
                    self.buffers[number] = memory[which].get_sub_region(start, size)
            elif buffer.kind != "sizes" or not self.closed.has(buffer):
                self._allocate_own(number, buffer)

    def _arena(self) -> ArenaPlan:
        """Where temporaries live: in one allocation, or in several where one cannot be so large."""
        info = self.loaded.device.info
        where = (self.plan, self.sizes, info.mem_base_align, self.closed)
        arena = bind_arena(*where)
        if arena.nbytes <= info.max_alloc:
            return arena
        block = info.max_alloc - info.max_alloc % info.mem_base_align
        for number in arena.offsets:
            self._require_room(self.plan.buffers[number].nbytes(self.sizes), block)
        return bind_arena(*where, block)

    def _allocate_own(self, number: int, buffer: Buffer) -> None:
        """A buffer outside the arena: inputs, outputs, sizes."""
        if buffer.kind in ("input", "output"):
            self.buffers[number] = self._new_buffer(buffer.nbytes(self.sizes))
        elif buffer.kind == "sizes":
            array = self._sizes_content(buffer)
            self.buffers[number] = self._new_buffer(array.nbytes)
            self._write(number, array)
        elif buffer.kind == "status":
            self.buffers[number] = self._new_buffer(self.reports.nbytes)
            self._write(number, self.reports)
        elif buffer.kind == "host" and buffer.constant >= 0:
            self.objects[number] = self.plan.constants[buffer.constant]

    def _new_buffer(self, nbytes: int) -> Any:
        cl = opencl()

        self._require_room(nbytes, self.loaded.device.info.max_alloc)
        return cl.Buffer(self.loaded.device.context, cl.mem_flags.READ_WRITE, max(nbytes, 1))

    def _require_room(self, nbytes: int, limit: int) -> None:
        if nbytes > limit:
            raise DeviceError(
                f"a buffer of {nbytes} bytes is needed, but {self.loaded.device.info.full_name} "
                f"allows {limit} bytes in one allocation; use smaller input sizes"
            )

    def calls(self, first: int, end: int) -> list[Callable[[], None]]:
        calls: list[Callable[[], None]] = []
        for number, step in self._course(first, end):
            if isinstance(step, BranchStep):
                calls.append(self._branch_call(step))
            elif isinstance(step, LoopStep):
                calls.append(loop_call(self, number, step))
            elif isinstance(step, AgainStep):
                calls.append(again_call(self, step))
            elif isinstance(step, HostStep):
                calls.append(self._noted(step, partial(self._run_host, step)))
            elif isinstance(step, LaunchStep):  # sizes are read by `LateInstance` alone
                bound = bind_launch(step, self.sizes)
                if not bound.is_empty:
                    self._flops += bound.flops
                    if self._in_parts:
                        calls.append(partial(self._make_room, bound))
                    calls.append(self._noted(bound, self._launcher(bound)))
                    if self._launched():
                        calls.append(self.queue.flush)
        return calls

    def _noted(self, what: BoundLaunch | HostStep, do: Callable[[], Any]) -> Callable[[], None]:
        """What is done in a run, with its time kept where times are kept."""
        if not self.queue.is_profiling:
            return do
        return lambda: self.events.append((what, do()))

    def _launched(self) -> bool:
        """Counts a launch; whether the device is to be told to begin behind it."""
        self._unflushed = (self._unflushed + 1) % _LAUNCHES_A_FLUSH
        return self._unflushed == 0

    def _launcher(self, bound: BoundLaunch) -> Any:
        cl = opencl()

        kernel = self.loaded.programs[bound.program].kernel()
        for index, (kind, value) in enumerate(bound.args):
            if kind == "buffer":
                self._set_buffer(kernel, index, value)
            elif kind == "local":
                kernel.set_arg(index, cl.LocalMemory(max(value, 1)))
            else:
                kernel.set_arg(index, scalar_bytes(kind, value))
        return cl.launch(self.queue, kernel, bound.global_size, bound.local_size)

    def _set_buffer(self, kernel: Any, index: int, number: int) -> None:
        kernel.set_arg(index, self.buffers[number])

    # -- transfers -------------------------------------------------------------------------------

    def _read_reports(self) -> None:
        """Queues a copy of the reports, which is there when what is queued behind it is."""
        if self.plan.status is not None:
            words = self.reports.view(np.uint8)
            opencl().enqueue_copy(
                self.queue, words, self.buffers[self.plan.status], is_blocking=False
            )

    def _write(self, number: int, array: Array) -> None:
        cl = opencl()

        if array.size:
            content = as_bytes(array, self._staging)
            cl.enqueue_copy(self.queue, self.buffers[number], content, is_blocking=False)
            self._keep.append(content)

    def copy(self, of: int, to: int, nbytes: int, of_at: int = 0, to_at: int = 0) -> None:
        copy_buffer(self.queue, self.buffers[of], self.buffers[to], nbytes, of_at, to_at)

    def read(self, number: int) -> Array:
        """A buffer's content, flat, in its dtype."""
        cl = opencl()

        buffer = self.plan.buffers[number]
        array = np.empty(self.sizes(buffer.size), dtypes.to_numpy(buffer.dtype))
        if array.size:
            copied = array.view(np.uint8)
            cl.enqueue_copy(self.queue, copied, self.buffers[number], is_blocking=False)
            self._wait()
        return array

    @property
    def _keep(self) -> list[Array]:
        """Arrays a queued transfer still reads; emptied when the queue has finished."""
        kept: list[Array] = self.__dict__.setdefault("_kept", [])
        return kept

    def _write_inputs(self, inputs: Sequence[Any]) -> None:
        for port, value in zip(self.plan.inputs, inputs, strict=True):
            if self.plan.buffers[port.buffer].kind == "host":
                self.objects[port.buffer] = value
            else:
                self._write(port.buffer, value)

    def _read_outputs(self, into: Mapping[int, Any] | None) -> list[Any]:
        cl = opencl()

        results: list[Any] = []
        for port in self.plan.outputs:
            buffer = self.plan.buffers[port.buffer]
            if buffer.kind == "host":
                results.append(own(self.objects[port.buffer]))
                continue
            shape = tuple(self.sizes(d) for d in port.shape or ())
            dtype = dtypes.to_numpy(port.dtype)
            array = None if into is None else into.get(len(results))
            if isinstance(array, OnDevice):
                results.append(self._deliver(port.buffer, array, shape))
                continue
            if array is None or not takes(array, shape, dtype, results):
                memory = self._results[port.buffer]
                array = memory.array(shape, dtype, f"output '{port.name}'")
            if array.size:
                flat = array.reshape(-1).view(np.uint8)
                staged = None if self._staging is None else self._staging.take(flat.nbytes)
                if staged is not None:
                    self._staged.append((flat, staged))
                    flat = staged
                cl.enqueue_copy(self.queue, flat, self.buffers[port.buffer], is_blocking=False)
            results.append(array)
        self._read_reports()
        self._wait()
        for flat, staged in self._staged:
            flat[...] = staged
        self._staged.clear()
        self._keep.clear()
        self._check()
        return results

    def _deliver(self, number: int, target: Any, shape: tuple[int, ...]) -> Any:
        """Queues what fills a place on the device with a result: `remote_instance`."""
        raise NotImplementedError


class LateInstance(Late, QueueInstance):
    """A plan some of whose sizes only a host step gives: buffers and arguments are made per run."""

    def _prepare(self) -> None:
        self._await_sizes()
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind in ("input", "host", "status"):
                self._allocate_own(number, buffer)

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        """One inference; every step allocates what it touches first, sizes known by then."""
        self.events = []
        self._begin(inputs)
        self._drop(("temp", "output", "sizes"))
        self._stacked: dict[int, int] = {}  # bytes of buffers that grow
        self._write_inputs(inputs)
        self._run_all()
        self._touch(port.buffer for port in self.plan.outputs)
        return self._read_outputs(into)

    def _do_launches(self, first: int, end: int) -> int:
        step = self.plan.steps[first]
        assert isinstance(step, LaunchStep)
        self._touch(arg.buffer for arg in step.args if arg.kind == "buffer")
        bound = bind_launch(step, self.sizes)
        if not bound.is_empty:
            self._make_room(bound)
            self._noted(bound, self._launcher(bound))()
            if self._launched():
                self.queue.flush()
        return first + 1

    def _do_host(self, step: HostStep) -> None:
        self._noted(step, partial(self._run_host, step))()

    def _touch(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self.buffers:
                continue
            buffer = self.plan.buffers[number]
            if buffer.kind == "temp":
                self.buffers[number] = self._new_buffer(buffer.nbytes(self.sizes))
            else:
                self._allocate_own(number, buffer)

    def _release(self, index: int) -> None:
        for number in self._ends.get(index, ()):
            self.buffers.pop(number, None)

    def _move(self, of: int, to: int) -> None:
        if self.plan.buffers[to].kind == "host":
            self.objects[to] = self.objects[of]
        else:
            self.buffers[to] = self.buffers.pop(of)

    def _grow(self, number: int, row: int, nbytes: int) -> None:
        if number not in self.buffers:  # the loop has begun anew
            self._stacked.pop(number, None)
        try:
            if number not in self._stacked:
                self._touch([number])
                return
        except KeyError:  # the number of rows is known when the loop is over
            pass
        needed = (row + 1) * nbytes
        if needed > self._stacked.get(number, -1):
            old = self.buffers.get(number)
            self._stacked[number] = max(2 * needed, _LEAST_STACK)
            self.buffers[number] = made = self._new_buffer(self._stacked[number])
            if old is not None and row * nbytes:
                copy_buffer(self.queue, old, made, row * nbytes, 0, 0)

    def _drop_sizes(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.buffers.pop(number, None)

    def _drop(self, kinds: tuple[str, ...]) -> None:
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind in kinds:
                self.buffers.pop(number, None)
