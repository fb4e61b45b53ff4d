"""OpenCL objects that somebody else has made, by their handles: held, asked, put in order.

What meets here is the driver's: pyopencl and clinfer call the same loader, so that a handle
(`int_ptr`) means the same object in both. A handle that is none cannot be told from one; drivers
end the process. Whoever gives one vouches for it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from typing import Any

from clinfer.device.binding import Buffer, CommandQueue, Context, Device
from clinfer.device.calls import Handle, as_sizes, ask, check
from clinfer.device.loader import functions

_CONTEXT_DEVICES = 0x1081
_QUEUE_CONTEXT = 0x1090
_QUEUE_DEVICE = 0x1091
_QUEUE_PROPERTIES = 0x1093
_MEM_TYPE = 0x1100
_MEM_FLAGS = 0x1101
_MEM_SIZE = 0x1102
_MEM_CONTEXT = 0x1106
_MEM_PARENT = 0x1107
_IS_BUFFER = 0x10F0
READ_ONLY = 1 << 2
_PROFILING = 1 << 1


def context_of(handle: Handle) -> Context:
    """A context that is kept as long as the object is."""
    check(functions().clRetainContext(handle), "clRetainContext")
    found = Context.__new__(Context)
    super(Context, found).__init__(handle)
    found.devices = [
        Device(d) for d in as_sizes(ask("clGetContextInfo", (handle,), _CONTEXT_DEVICES))
    ]
    return found


def queue_context(queue: Handle) -> Handle:
    """The context that a queue belongs to."""
    return _number("clGetCommandQueueInfo", queue, _QUEUE_CONTEXT)


def queue_device(queue: Handle) -> Handle:
    """The device that a queue is for."""
    return _number("clGetCommandQueueInfo", queue, _QUEUE_DEVICE)


def held_queue(handle: Handle, context: Context) -> CommandQueue:
    """A queue that is kept as long as the object is."""
    check(functions().clRetainCommandQueue(handle), "clRetainCommandQueue")
    found = CommandQueue.__new__(CommandQueue)
    super(CommandQueue, found).__init__(handle)
    found.context = context
    found.is_profiling = bool(
        _number("clGetCommandQueueInfo", handle, _QUEUE_PROPERTIES) & _PROFILING
    )
    return found


def held_buffer(handle: Handle) -> Buffer:
    """A buffer that is kept as long as the object is."""
    check(functions().clRetainMemObject(handle), "clRetainMemObject")
    found = Buffer.__new__(Buffer)
    super(Buffer, found).__init__(handle)
    found._kept = None
    return found


def buffer_size(handle: Handle) -> int:
    """Bytes of a buffer."""
    return _number("clGetMemObjectInfo", handle, _MEM_SIZE)


def buffer_flags(handle: Handle) -> int:
    """What it was made with: `binding.mem_flags`."""
    return _number("clGetMemObjectInfo", handle, _MEM_FLAGS)


def buffer_context(handle: Handle) -> Handle:
    """The context that it belongs to."""
    return _number("clGetMemObjectInfo", handle, _MEM_CONTEXT)


def buffer_memory(handle: Handle) -> Handle:
    """The buffer that it is a part of, else itself: two with one memory may overlap."""
    return _number("clGetMemObjectInfo", handle, _MEM_PARENT) or handle


def is_buffer(handle: Handle) -> bool:
    """Whether a memory object is a buffer, no image and no pipe."""
    return _number("clGetMemObjectInfo", handle, _MEM_TYPE) == _IS_BUFFER


def follow(queue: CommandQueue, others: Iterable[Handle]) -> None:
    """What is queued from now on waits for all that other queues have been given before.

    By a marker's event on each, for which a barrier on this one waits.
    """
    calls = functions()
    for other in others:
        if other == queue.int_ptr:
            continue
        event = (ctypes.c_void_p * 1)()
        check(
            calls.clEnqueueMarkerWithWaitList(other, 0, None, event), "clEnqueueMarkerWithWaitList"
        )
        try:
            check(calls.clFlush(other), "clFlush")
            code = calls.clEnqueueBarrierWithWaitList(queue.int_ptr, 1, event, None)
            check(code, "clEnqueueBarrierWithWaitList")
        finally:
            calls.clReleaseEvent(event[0])


def copy_buffer(
    queue: CommandQueue, of: Buffer, into: Buffer, nbytes: int, start: int = 0, at: int = 0
) -> None:
    """Queues a copy from byte `start` of one buffer to byte `at` of another."""
    handles = (queue.int_ptr, of.int_ptr, into.int_ptr)
    code = functions().clEnqueueCopyBuffer(*handles, start, at, nbytes, 0, None, None)
    check(code, "clEnqueueCopyBuffer")


def _number(function: str, handle: Handle, what: int) -> int:
    return int.from_bytes(ask(function, (handle,), what), sys.byteorder)


def handle_of(value: Any) -> Handle | None:
    """The handle of pyopencl's object, or a number that is one; None for anything else."""
    if isinstance(value, bool):
        return None
    found = value if isinstance(value, int) else getattr(value, "int_ptr", None)
    return found if isinstance(found, int) and found > 0 else None
