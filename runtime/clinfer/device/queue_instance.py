"""A plan that runs on a command queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.hoststep import binds
from clinfer.device.instance import Instance, Timing, bytes_of, scalar_bytes
from clinfer.device.opencl import cl as opencl
from clinfer.device.results import ResultMemory
from clinfer.errors import DeviceError
from clinfer.lowering.binding import (
    BoundLaunch,
    Sizes,
    bind_arena,
    bind_launch,
    check_constraints,
)
from clinfer.lowering.plan import Array, Buffer, HostStep, HostValue, LaunchStep

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan


class QueueInstance(Instance):
    """Kernels on a queue: arguments set once, every step enqueued in each run."""

    def __init__(self, loaded: LoadedPlan, queue: Any, sizes: Sizes) -> None:
        super().__init__(loaded, sizes)
        self.queue = queue
        self.buffers: dict[int, Any] = dict(loaded.weights)
        self.events: list[tuple[BoundLaunch | HostStep, Any]] = []
        self._results: dict[int, ResultMemory] = defaultdict(ResultMemory)
        self._allocate()
        self._steps = self._prepare()

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """One inference; see `Session.run`."""
        self._write_inputs(inputs)
        self.events = [(what, step()) for what, step in self._steps]
        return self._read_outputs()

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

    def _allocate(self) -> None:
        device = self.loaded.device
        arena = bind_arena(self.plan, self.sizes, device.info.mem_base_align)
        memory = self._new_buffer(arena.nbytes) if arena.nbytes else None
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "temp":
                if memory is None or buffer.first < 0:
                    continue
                size = max(buffer.nbytes(self.sizes), 1)
                self.buffers[number] = memory.get_sub_region(arena.offsets[number], size)
            else:
                self._allocate_own(number, buffer)

    def _allocate_own(self, number: int, buffer: Buffer) -> None:
        """A buffer outside the arena: inputs, outputs, sizes."""
        if buffer.kind in ("input", "output"):
            self.buffers[number] = self._new_buffer(buffer.nbytes(self.sizes))
        elif buffer.kind == "sizes":
            array = self._sizes_content(buffer)
            self.buffers[number] = self._new_buffer(array.nbytes)
            self._write(number, array)
        elif buffer.kind == "host" and buffer.constant >= 0:
            self.objects[number] = self.plan.constants[buffer.constant]

    def _new_buffer(self, nbytes: int) -> Any:
        cl = opencl()

        limit = self.loaded.device.info.max_alloc
        if nbytes > limit:
            raise DeviceError(
                f"a buffer of {nbytes} bytes is needed, but {self.loaded.device.info.full_name} "
                f"allows {limit} bytes in one allocation; use smaller input sizes"
            )
        return cl.Buffer(self.loaded.device.context, cl.mem_flags.READ_WRITE, max(nbytes, 1))

    def _prepare(self) -> list[Any]:
        steps: list[Any] = []
        for step in self.plan.steps:
            if isinstance(step, LaunchStep):
                bound = bind_launch(step, self.sizes)
                if not bound.is_empty:
                    steps.append((bound, self._launcher(bound)))
            else:
                steps.append((step, lambda step=step: self._run_host(step)))
        return steps

    def _launcher(self, bound: BoundLaunch) -> Any:
        cl = opencl()

        kernel = self.loaded.programs[bound.program].kernel()
        for index, (kind, value) in enumerate(bound.args):
            if kind == "buffer":
                kernel.set_arg(index, self.buffers[value])
            elif kind == "local":
                kernel.set_arg(index, cl.LocalMemory(max(value, 1)))
            else:
                kernel.set_arg(index, scalar_bytes(kind, value))
        enqueue = cl.enqueue_nd_range_kernel
        queue, shape, group = self.queue, bound.global_size, bound.local_size
        return lambda: enqueue(queue, kernel, shape, group)

    # -- transfers -------------------------------------------------------------------------------

    def _write(self, number: int, array: Array) -> None:
        cl = opencl()

        if array.size:
            content = bytes_of(array)
            cl.enqueue_copy(self.queue, self.buffers[number], content, is_blocking=False)
            self._keep.append(content)

    def read(self, number: int) -> Array:
        """A buffer's content, flat, in its dtype."""
        cl = opencl()

        buffer = self.plan.buffers[number]
        array = np.empty(self.sizes(buffer.size), dtypes.to_numpy(buffer.dtype))
        if array.size:
            cl.enqueue_copy(self.queue, array.view(np.uint8), self.buffers[number])
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

    def _read_outputs(self) -> list[Any]:
        cl = opencl()

        results: list[Any] = []
        for port in self.plan.outputs:
            buffer = self.plan.buffers[port.buffer]
            if buffer.kind == "host":
                results.append(self.objects[port.buffer])
                continue
            shape = tuple(self.sizes(d) for d in port.shape or ())
            array = self._results[port.buffer].array(shape, dtypes.to_numpy(port.dtype))
            if array.size:
                flat = array.reshape(-1).view(np.uint8)
                cl.enqueue_copy(self.queue, flat, self.buffers[port.buffer], is_blocking=False)
            results.append(array)
        self.queue.finish()
        self._keep.clear()
        return results


class LateInstance(QueueInstance):
    """A plan some of whose sizes only a host step gives: buffers and arguments are made per run."""

    def _allocate(self) -> None:
        self._input_values: Mapping[str, int] = dict(self.sizes.values)
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind in ("input", "host"):
                self._allocate_own(number, buffer)

    def _prepare(self) -> list[Any]:
        return []

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """One inference; every step allocates what it touches first, sizes known by then."""
        self.sizes = Sizes(self._input_values)
        self.events = []
        self._drop(("temp", "output", "sizes"))
        self._write_inputs(inputs)
        for index, step in enumerate(self.plan.steps):
            if isinstance(step, LaunchStep):
                self._touch(arg.buffer for arg in step.args if arg.kind == "buffer")
                bound = bind_launch(step, self.sizes)
                if not bound.is_empty:
                    self.events.append((bound, self._launcher(bound)()))
            else:
                self._touch(v.buffer for v in step.inputs if v is not None)
                self.events.append((step, self._run_host(step)))
            self._release(index)
        self._touch(port.buffer for port in self.plan.outputs)
        return self._read_outputs()

    def _touch(self, numbers: Any) -> None:
        for number in numbers:
            if number in self.buffers:
                continue
            buffer = self.plan.buffers[number]
            if buffer.kind == "temp":
                self.buffers[number] = self._new_buffer(buffer.nbytes(self.sizes))
            else:
                self._allocate_own(number, buffer)

    def _host_output(self, step: HostStep, value: HostValue, result: Any) -> None:
        if value.tensor is not None:
            binds(step, value.tensor, np.shape(result), self.sizes)
            check_constraints(self.plan, self.sizes)
            self._touch([value.buffer])
        super()._host_output(step, value, result)

    def _release(self, index: int) -> None:
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "temp" and buffer.last == index:
                self.buffers.pop(number, None)

    def _drop(self, kinds: tuple[str, ...]) -> None:
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind in kinds:
                self.buffers.pop(number, None)
