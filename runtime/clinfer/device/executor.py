"""Runs a plan: weights on the device, arguments bound once, an in-order queue that replays steps.

LoadedPlan   one per compiled model: programs and weights, shared by all requests
Session      one per request: a queue, and an `Instance` for each set of input shapes
Instance     buffers, kernels with their arguments set, ready to replay
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.hoststep import HostRunner, binds
from clinfer.device.opencl import cl as opencl
from clinfer.device.profile import StepTime, step_times
from clinfer.errors import DeviceError
from clinfer.lowering.binding import (
    BoundLaunch,
    Sizes,
    bind_arena,
    bind_inputs,
    bind_launch,
    check_constraints,
)
from clinfer.lowering.plan import Array, Buffer, HostStep, HostValue, LaunchStep, Plan

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.programs import BuiltProgram

_SCALARS = {
    "int": struct.Struct("=i"),
    "long": struct.Struct("=q"),
    "float": struct.Struct("=f"),
    "uint": struct.Struct("=I"),
}
_INSTANCES_PER_SESSION = 8


class LoadedPlan:
    """A plan with its programs and weights on a device. Safe to share between threads."""

    def __init__(self, device: Device, plan: Plan, programs: Sequence[BuiltProgram]) -> None:
        cl = opencl()

        self.device = device
        self.plan = plan
        self.programs = list(programs)
        self._host = HostRunner(plan)
        in_place = device.shares_host_memory
        use = cl.mem_flags.USE_HOST_PTR if in_place else cl.mem_flags.COPY_HOST_PTR
        flags = cl.mem_flags.READ_ONLY | use
        self.weights: dict[int, Any] = {}
        with _driver_errors(device):
            for number, buffer in enumerate(plan.buffers):
                if buffer.kind == "const":
                    content = _bytes_of(plan.constants[buffer.constant])
                    self.weights[number] = cl.Buffer(device.context, flags, hostbuf=content)

    @property
    def host(self) -> HostRunner:
        return self._host

    def session(self, profiling: bool = False) -> Session:
        """A new request's own queue and buffers; `profiling` keeps the time of every step."""
        with _driver_errors(self.device):
            return Session(self, profiling)


class Session:
    """Runs one request at a time on its own queue."""

    def __init__(self, loaded: LoadedPlan, profiling: bool = False) -> None:
        self.loaded = loaded
        self.queue = loaded.device.new_queue(profiling)
        self.profile: tuple[StepTime, ...] = ()
        self._profiling = profiling
        self._instances: OrderedDict[tuple[Any, ...], Instance] = OrderedDict()
        self._lock = Lock()

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """One inference: inputs by position (arrays of the plan's dtypes, or host objects).

        Raises `InputError` and `ShapeError` for shapes that do not fit, `DeviceError` where the
        driver fails.
        """
        with self._lock:
            with _driver_errors(self.loaded.device):
                instance = self._instance(inputs)
                results = instance.run(inputs)
            if self._profiling:
                self.profile = step_times(instance)
            return results

    def _instance(self, inputs: Sequence[Any]) -> Instance:
        shapes = tuple(x.shape if isinstance(x, np.ndarray) else None for x in inputs)
        known = self._instances.get(shapes)
        if known is None:
            sizes = bind_inputs(self.loaded.plan, shapes)
            kind = LateInstance if self.loaded.plan.has_late_symbols else Instance
            known = kind(self.loaded, self.queue, sizes)
            self._instances[shapes] = known
            if len(self._instances) > _INSTANCES_PER_SESSION:
                self._instances.popitem(last=False)
        else:
            self._instances.move_to_end(shapes)
        return known


class Instance:
    """A plan bound to sizes: buffers made, arguments set, nothing left to decide per run."""

    def __init__(self, loaded: LoadedPlan, queue: Any, sizes: Sizes) -> None:
        self.loaded = loaded
        self.plan = loaded.plan
        self.queue = queue
        self.sizes = sizes
        self.buffers: dict[int, Any] = dict(loaded.weights)
        self.objects: dict[int, Any] = {}
        self.events: list[tuple[BoundLaunch | HostStep, Any]] = []
        self._allocate()
        self._steps = self._prepare()

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """One inference; see `Session.run`."""
        self._write_inputs(inputs)
        self.events = [(what, step()) for what, step in self._steps]
        return self._read_outputs()

    # -- preparation -----------------------------------------------------------------------------

    def _allocate(self) -> None:
        device = self.loaded.device
        arena = bind_arena(self.plan, self.sizes, device.info.mem_base_align)
        memory = self._new_buffer(arena.nbytes) if arena.nbytes else None
        for number, buffer in enumerate(self.plan.buffers):
            if buffer.kind == "temp":
                if memory is None or buffer.first < 0:
                    continue
                size = max(self.sizes(buffer.nbytes), 1)
                self.buffers[number] = memory.get_sub_region(arena.offsets[number], size)
            else:
                self._allocate_own(number, buffer)

    def _allocate_own(self, number: int, buffer: Buffer) -> None:
        """A buffer outside the arena: inputs, outputs, sizes."""
        if buffer.kind in ("input", "output"):
            self.buffers[number] = self._new_buffer(self.sizes(buffer.nbytes))
        elif buffer.kind == "sizes":
            content = [self.sizes(d) for d in buffer.content]
            array = np.array(content, dtype=dtypes.to_numpy(buffer.dtype))
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
                _set_scalar(kernel, index, kind, value)
        enqueue = cl.enqueue_nd_range_kernel
        queue, shape, group = self.queue, bound.global_size, bound.local_size
        return lambda: enqueue(queue, kernel, shape, group)

    # -- transfers -------------------------------------------------------------------------------

    def _write(self, number: int, array: Array) -> None:
        cl = opencl()

        if array.size:
            content = _bytes_of(array)
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
            array = np.empty(shape, dtypes.to_numpy(port.dtype))
            if array.size:
                flat = array.reshape(-1).view(np.uint8)
                cl.enqueue_copy(self.queue, flat, self.buffers[port.buffer], is_blocking=False)
            results.append(array)
        self.queue.finish()
        self._keep.clear()
        return results

    # -- host steps ------------------------------------------------------------------------------

    def _run_host(self, step: HostStep) -> tuple[float, float]:
        """Runs a host step between launches; returns when it began and ended, in seconds."""
        start = perf_counter()
        arguments = [self._host_input(value) for value in step.inputs]
        results = self.loaded.host.run(step, arguments)
        for value, result in zip(step.outputs, results, strict=False):
            if value is not None:
                self._host_output(step, value, result)
        return start, perf_counter()

    def _host_input(self, value: HostValue | None) -> Any:
        if value is None:
            return None
        if value.tensor is None:
            return self.objects[value.buffer]
        tensor = value.tensor
        flat = self.read(value.buffer)
        start = flat[self.sizes(tensor.offset) :]
        shape = tuple(self.sizes(d) for d in tensor.shape)
        steps = tuple(self.sizes(s) * flat.itemsize for s in tensor.strides)
        return np.lib.stride_tricks.as_strided(start, shape, steps).copy()

    def _host_output(self, step: HostStep, value: HostValue, result: Any) -> None:
        if value.tensor is None:
            self.objects[value.buffer] = result
            return
        array = np.ascontiguousarray(result, dtypes.to_numpy(value.tensor.dtype))
        binds(step, value.tensor, np.shape(result), self.sizes)
        self._write(value.buffer, array)


class LateInstance(Instance):
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
                self.buffers[number] = self._new_buffer(self.sizes(buffer.nbytes))
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


@contextmanager
def _driver_errors(device: Device) -> Iterator[None]:
    """Errors of the driver as `DeviceError`, with the device's name."""
    try:
        yield
    except opencl().Error as error:
        raise DeviceError(
            f"{device.info.full_name} failed: {error}; where memory is short, use a smaller model, "
            "smaller inputs or fewer requests"
        ) from error


def _set_scalar(kernel: Any, index: int, kind: str, value: int) -> None:
    """Sets a scalar argument from its bytes."""
    try:
        packed = _SCALARS[kind].pack(value)
    except struct.error:
        raise DeviceError(
            f"a size of {value} does not fit the kernels' '{kind}'; use smaller input sizes"
        ) from None
    kernel.set_arg(index, packed)


def _bytes_of(array: Array) -> Array:
    """The array's memory as bytes: ml_dtypes' element types have no buffer format of their own."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8) if flat.size else np.zeros(1, np.uint8)
