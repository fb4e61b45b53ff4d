"""OpenCL's objects: what clinfer uses of them, over the functions of `clinfer.device.loader`.

Names and arguments are those of pyopencl, of which this is a small part. An object releases what it
holds when it goes, and keeps alive what it needs. Every failed call raises `Error` with the name of
the function and of its code.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np

from clinfer.device.calls import (
    STATUS,
    Error,
    Handle,
    as_sizes,
    as_text,
    ask,
    check,
    list_handles,
    make,
)
from clinfer.device.loader import functions

Array = np.ndarray[Any, Any]


class device_type:  # noqa: N801
    """Bits of `Device.type`."""

    CPU = 1 << 1
    GPU = 1 << 2


class mem_flags:  # noqa: N801
    """Flags of `Buffer`."""

    READ_WRITE = 1 << 0
    READ_ONLY = 1 << 2
    USE_HOST_PTR = 1 << 3
    ALLOC_HOST_PTR = 1 << 4
    COPY_HOST_PTR = 1 << 5


class command_queue_properties:  # noqa: N801
    """Properties of `CommandQueue`."""

    PROFILING_ENABLE = 1 << 1


_ALL_TYPES = 0xFFFFFFFF
_EVENT_STATUS = 0x11D3
_LEAST_SLEEP, _MOST_SLEEP = 5e-5, 0.02  # seconds

_PLATFORM_INFO = {"version": 0x0901, "name": 0x0902}
_DEVICE_TEXTS = {
    "name": 0x102B,
    "vendor": 0x102C,
    "driver_version": 0x102D,
    "version": 0x102F,
    "extensions": 0x1030,
    "opencl_c_version": 0x103D,
}
_DEVICE_NUMBERS = {
    "type": 0x1000,
    "max_compute_units": 0x1002,
    "max_work_group_size": 0x1004,
    "max_mem_alloc_size": 0x1010,
    "mem_base_addr_align": 0x1019,
    "global_mem_size": 0x101F,
    "local_mem_size": 0x1023,
    "double_fp_config": 0x1032,
    "host_unified_memory": 0x1035,
    "native_vector_width_float": 0x103A,
    "compute_capability_major_nv": 0x4000,
    "compute_capability_minor_nv": 0x4001,
    "ip_version_intel": 0x4250,
}
_SUB_GROUP_SIZES_INTEL = 0x4108
_OPENCL_C_FEATURES = 0x106F
_FEATURE_BYTES = 68  # cl_name_version: a number of 4 bytes, then the name
_BINARY_SIZES = 0x1165
_BINARIES = 0x1166
_KERNEL_NAMES = 0x1168
_BUILD_LOG = 0x1183
_WORK_GROUP_SIZE = 0x11B0
_COMPILE_WORK_GROUP_SIZE = 0x11B1
_STARTED = 0x1282
_ENDED = 0x1283
_REGION = 0x1220
_MAP_BOTH = 1 << 0 | 1 << 1  # to read and to write


def get_platforms() -> list[Platform]:
    """The platforms of all installed drivers. Raises `Error` where there is none."""
    call = functions().clGetPlatformIDs
    return [Platform(handle) for handle in list_handles("clGetPlatformIDs", call)]


class Platform:
    """A driver. `name` and `version` are its texts."""

    name: str
    version: str

    def __init__(self, handle: Handle) -> None:
        self.int_ptr = handle

    def __getattr__(self, name: str) -> str:
        if name not in _PLATFORM_INFO:
            raise AttributeError(name)
        return as_text(ask("clGetPlatformInfo", (self.int_ptr,), _PLATFORM_INFO[name]))

    def get_devices(self) -> list[Device]:
        """Its devices."""
        call = functions().clGetDeviceIDs

        def listed(count: int, found: Any, total: Any) -> int:
            code: int = call(self.int_ptr, _ALL_TYPES, count, found, total)
            return code

        return [Device(handle) for handle in list_handles("clGetDeviceIDs", listed)]


class Device:
    """A device; its properties are asked for each time. Sizes in bytes."""

    name: str
    vendor: str
    driver_version: str
    version: str
    extensions: str
    opencl_c_version: str
    type: int
    max_compute_units: int
    max_work_group_size: int
    max_mem_alloc_size: int
    mem_base_addr_align: int
    global_mem_size: int
    local_mem_size: int
    double_fp_config: int
    host_unified_memory: int
    native_vector_width_float: int
    compute_capability_major_nv: int
    compute_capability_minor_nv: int
    ip_version_intel: int

    def __init__(self, handle: Handle) -> None:
        self.int_ptr = handle

    def __getattr__(self, name: str) -> Any:
        if name in _DEVICE_TEXTS:
            return as_text(self._info(_DEVICE_TEXTS[name]))
        if name in _DEVICE_NUMBERS:
            return int.from_bytes(self._info(_DEVICE_NUMBERS[name]), sys.byteorder)
        raise AttributeError(name)

    @property
    def opencl_c_features(self) -> list[str]:
        """Names of OpenCL C 3.0 features. Raises `Error` on an older device."""
        content = self._info(_OPENCL_C_FEATURES)
        starts = range(0, len(content), _FEATURE_BYTES)
        return [as_text(content[start + 4 : start + _FEATURE_BYTES]) for start in starts]

    @property
    def sub_group_sizes_intel(self) -> tuple[int, ...]:
        """What cl_intel_required_subgroup_size allows. Raises `Error` without that extension."""
        return as_sizes(self._info(_SUB_GROUP_SIZES_INTEL))

    def _info(self, what: int) -> bytes:
        return ask("clGetDeviceInfo", (self.int_ptr,), what)


class _Held:
    """An object with a handle that is released when it goes, but not as the process ends."""

    _releases = ""

    def __init__(self, handle: Handle) -> None:
        self.int_ptr = handle
        self._functions = functions()  # of which a forked child releases nothing

    def __del__(self, is_ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if hasattr(self, "_functions") and not is_ending():
            getattr(self._functions, self._releases)(self.int_ptr)


class Context(_Held):
    """A context on devices of one platform."""

    _releases = "clReleaseContext"

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = list(devices)
        handles = (ctypes.c_void_p * len(self.devices))(*[d.int_ptr for d in self.devices])
        made = make("clCreateContext", None, len(self.devices), handles, None, None)
        super().__init__(made)


class CommandQueue(_Held):
    """An in-order queue on the context's first device."""

    _releases = "clReleaseCommandQueue"

    def __init__(self, context: Context, properties: int = 0) -> None:
        self.context = context
        self.is_profiling = bool(properties & command_queue_properties.PROFILING_ENABLE)
        device = context.devices[0].int_ptr
        super().__init__(make("clCreateCommandQueue", context.int_ptr, device, properties))

    def finish(self) -> None:
        """Returns when all that was queued is done."""
        check(functions().clFinish(self.int_ptr), "clFinish")

    def flush(self) -> None:
        """Lets the device begin with what was queued."""
        check(functions().clFlush(self.int_ptr), "clFlush")

    def wait(self) -> None:
        """As `finish`, looking again and again, so that Python sees to signals in between.

        Sleeps for a sixteenth of the time that it has waited: that much later it may return.
        """
        mark = (ctypes.c_void_p * 1)()
        code = functions().clEnqueueMarkerWithWaitList(self.int_ptr, 0, None, mark)
        check(code, "clEnqueueMarkerWithWaitList")
        event = Event(mark[0] or 0)
        self.flush()
        start = perf_counter()
        while not event.is_over:
            sleep(min(max((perf_counter() - start) / 16, _LEAST_SLEEP), _MOST_SLEEP))
        self.finish()


class Buffer(_Held):
    """Memory of a context. `hostbuf` is what it starts with, or, with USE_HOST_PTR, what it is."""

    _releases = "clReleaseMemObject"

    def __init__(
        self, context: Context, flags: int, size: int = 0, hostbuf: Array | None = None
    ) -> None:
        place = None if hostbuf is None else _address(hostbuf)
        nbytes = size if hostbuf is None else hostbuf.nbytes
        self._kept: Any = hostbuf if flags & mem_flags.USE_HOST_PTR else None
        super().__init__(make("clCreateBuffer", context.int_ptr, flags, nbytes, place))

    def get_sub_region(self, origin: int, size: int) -> Buffer:
        """A window on it, in bytes."""
        region = (ctypes.c_size_t * 2)(origin, size)
        made = make("clCreateSubBuffer", self.int_ptr, 0, _REGION, ctypes.byref(region))
        window = Buffer.__new__(Buffer)
        _Held.__init__(window, made)
        window._kept = self
        return window


class PinnedMemory:
    """Memory of the host's that the driver has made for copies, mapped until the object goes.

    `bytes` is a window on it, which is not to be kept longer than the object.
    """

    def __init__(self, queue: CommandQueue, nbytes: int) -> None:
        flags = mem_flags.READ_WRITE | mem_flags.ALLOC_HOST_PTR
        self._queue = queue
        self._buffer = Buffer(queue.context, flags, nbytes)
        place = (queue.int_ptr, self._buffer.int_ptr, 1, _MAP_BOTH, 0, nbytes, 0, None, None)
        self._address = make("clEnqueueMapBuffer", *place)
        memory = (ctypes.c_uint8 * nbytes).from_address(self._address)
        self.bytes: Array = np.frombuffer(memoryview(memory), np.uint8)

    def __del__(self, is_ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "_address", 0) and not is_ending():
            what = (self._queue.int_ptr, self._buffer.int_ptr, self._address)
            functions().clEnqueueUnmapMemObject(*what, 0, None, None)


class Program(_Held):
    """A program, not yet built."""

    _releases = "clReleaseProgram"

    def __init__(self, context: Context, handle: Handle) -> None:
        self.device = context.devices[0]
        super().__init__(handle)

    @classmethod
    def from_source(cls, context: Context, source: str) -> Program:
        """Of OpenCL C."""
        text = ctypes.c_char_p(source.encode())
        arguments = (context.int_ptr, 1, ctypes.byref(text), None)
        return cls(context, make("clCreateProgramWithSource", *arguments))

    @classmethod
    def from_binary(cls, context: Context, binary: bytes) -> Program:
        """Of a binary for the context's first device."""
        device = ctypes.c_void_p(context.devices[0].int_ptr)
        length = ctypes.c_size_t(len(binary))
        content = ctypes.c_char_p(binary)
        where = (ctypes.byref(device), ctypes.byref(length), ctypes.byref(content), None)
        return cls(context, make("clCreateProgramWithBinary", context.int_ptr, 1, *where))

    def build(self, options: str = "") -> None:
        """Raises `Error` with the driver's log."""
        code = functions().clBuildProgram(self.int_ptr, 0, None, options.encode(), None, None)
        if code:
            text = f"clBuildProgram failed: {STATUS.get(code, code)}\n{self._log()}"
            raise Error(text.strip(), code)

    def _log(self) -> str:
        try:
            handles = (self.int_ptr, self.device.int_ptr)
            return as_text(ask("clGetProgramBuildInfo", handles, _BUILD_LOG))
        except Error:
            return ""

    @property
    def kernel_names(self) -> list[str]:
        """The names of its kernels."""
        return as_text(ask("clGetProgramInfo", (self.int_ptr,), _KERNEL_NAMES)).split(";")

    def binary(self) -> bytes:
        """Its binary for the context's first device."""
        (size,) = as_sizes(ask("clGetProgramInfo", (self.int_ptr,), _BINARY_SIZES))[:1]
        content = ctypes.create_string_buffer(size)
        place = ctypes.c_void_p(ctypes.addressof(content))
        room = ctypes.sizeof(place)
        call = functions().clGetProgramInfo
        code = call(self.int_ptr, _BINARIES, room, ctypes.byref(place), None)
        check(code, "clGetProgramInfo")
        return content.raw


class LocalMemory(NamedTuple):
    """An argument in local memory; `size` in bytes."""

    size: int


class Kernel(_Held):
    """A kernel of a built program, with arguments of its own."""

    _releases = "clReleaseKernel"

    def __init__(self, program: Program, name: str) -> None:
        self._arguments: dict[int, Any] = {}
        super().__init__(make("clCreateKernel", program.int_ptr, name.encode()))

    def set_arg(self, index: int, value: Buffer | LocalMemory | bytes) -> None:
        """Sets an argument: a buffer, local memory, or the bytes of a scalar."""
        set_arg = functions().clSetKernelArg
        if isinstance(value, Buffer):
            self._arguments[index] = value
            handle = ctypes.c_void_p(value.int_ptr)
            code = set_arg(self.int_ptr, index, ctypes.sizeof(handle), ctypes.byref(handle))
        elif isinstance(value, LocalMemory):
            code = set_arg(self.int_ptr, index, value.size, None)
        else:
            code = set_arg(self.int_ptr, index, len(value), value)
        check(code, "clSetKernelArg")

    def work_group_limit(self, device: Device) -> int:
        """The most work-items of a group of it."""
        return int(as_sizes(self._group_info(device, _WORK_GROUP_SIZE))[0])

    def required_group(self, device: Device) -> tuple[int, ...]:
        """The size of groups it requires; zeros for none."""
        return as_sizes(self._group_info(device, _COMPILE_WORK_GROUP_SIZE))

    def _group_info(self, device: Device, what: int) -> bytes:
        return ask("clGetKernelWorkGroupInfo", (self.int_ptr, device.int_ptr), what)


class Profile(NamedTuple):
    """When a command began to run and was done, in nanoseconds of the device's clock."""

    start: int
    end: int


class Event(_Held):
    """A command; those of launches are on profiling queues."""

    _releases = "clReleaseEvent"

    @property
    def is_over(self) -> bool:
        """Whether it is done, or has failed."""
        content = ask("clGetEventInfo", (self.int_ptr,), _EVENT_STATUS)
        return int.from_bytes(content, sys.byteorder, signed=True) <= 0

    @property
    def profile(self) -> Profile:
        """Its times, once it is done."""
        return Profile(self._time(_STARTED), self._time(_ENDED))

    def _time(self, what: int) -> int:
        content = ask("clGetEventProfilingInfo", (self.int_ptr,), what)
        return int.from_bytes(content, sys.byteorder)


def launch(
    queue: CommandQueue, kernel: Kernel, shape: Sequence[int], group: Sequence[int]
) -> Callable[[], Event | None]:
    """What queues a launch with the arguments the kernel has then; sizes in work-items.

    It gives an event on a profiling queue, nothing on another. All that a call passes is made here.
    """
    sizes = ctypes.c_size_t * len(shape)
    call = partial(
        functions().clEnqueueNDRangeKernel,
        ctypes.c_void_p(queue.int_ptr),
        ctypes.c_void_p(kernel.int_ptr),
        len(shape),
        None,
        sizes(*shape),
        sizes(*group),
        0,
        None,
    )

    alive = (queue, kernel)

    def enqueue(_: object = alive) -> None:
        code = call(None)
        if code:
            check(code, "clEnqueueNDRangeKernel")

    def enqueue_timed(_: object = alive) -> Event:
        event = (ctypes.c_void_p * 1)()
        check(call(event), "clEnqueueNDRangeKernel")
        return Event(event[0] or 0)

    return enqueue_timed if queue.is_profiling else enqueue


def enqueue_nd_range_kernel(
    queue: CommandQueue, kernel: Kernel, shape: Sequence[int], group: Sequence[int]
) -> Event | None:
    """Queues a launch, as `launch` says."""
    return launch(queue, kernel, shape, group)()


def enqueue_copy(
    queue: CommandQueue,
    into: Buffer | Array,
    of: Buffer | Array,
    is_blocking: bool = True,
    start: int = 0,
) -> None:
    """Queues a copy between a buffer, from byte `start` on, and an array, as long as the array.

    An array must live until the copy is done.
    """
    if isinstance(into, Buffer) and isinstance(of, np.ndarray):
        buffer, array, function = into, of, "clEnqueueWriteBuffer"
    elif isinstance(into, np.ndarray) and isinstance(of, Buffer):
        buffer, array, function = of, into, "clEnqueueReadBuffer"
    else:
        raise TypeError(f"expected a buffer and an array, found {type(into)} and {type(of)}")
    where = (queue.int_ptr, buffer.int_ptr, int(is_blocking), start)
    what = (array.nbytes, _address(array))
    check(getattr(functions(), function)(*where, *what, 0, None, None), function)


def _address(array: Array) -> int:
    """Where a contiguous array's memory begins."""
    if not array.flags.c_contiguous:
        raise ValueError("an array with gaps cannot be given to a driver")
    return int(array.__array_interface__["data"][0])
