"""Calls of OpenCL: their status becomes an exception, what they tell becomes a value."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from clinfer.device.loader import functions
from clinfer.errors import DeviceError

Handle = int

STATUS = {
    -1: "DEVICE_NOT_FOUND",
    -2: "DEVICE_NOT_AVAILABLE",
    -3: "COMPILER_NOT_AVAILABLE",
    -4: "MEM_OBJECT_ALLOCATION_FAILURE",
    -5: "OUT_OF_RESOURCES",
    -6: "OUT_OF_HOST_MEMORY",
    -7: "PROFILING_INFO_NOT_AVAILABLE",
    -11: "BUILD_PROGRAM_FAILURE",
    -12: "MAP_FAILURE",
    -13: "MISALIGNED_SUB_BUFFER_OFFSET",
    -14: "EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST",
    -30: "INVALID_VALUE",
    -31: "INVALID_DEVICE_TYPE",
    -32: "INVALID_PLATFORM",
    -33: "INVALID_DEVICE",
    -34: "INVALID_CONTEXT",
    -35: "INVALID_QUEUE_PROPERTIES",
    -36: "INVALID_COMMAND_QUEUE",
    -37: "INVALID_HOST_PTR",
    -38: "INVALID_MEM_OBJECT",
    -42: "INVALID_BINARY",
    -43: "INVALID_BUILD_OPTIONS",
    -44: "INVALID_PROGRAM",
    -45: "INVALID_PROGRAM_EXECUTABLE",
    -46: "INVALID_KERNEL_NAME",
    -47: "INVALID_KERNEL_DEFINITION",
    -48: "INVALID_KERNEL",
    -49: "INVALID_ARG_INDEX",
    -50: "INVALID_ARG_VALUE",
    -51: "INVALID_ARG_SIZE",
    -52: "INVALID_KERNEL_ARGS",
    -53: "INVALID_WORK_DIMENSION",
    -54: "INVALID_WORK_GROUP_SIZE",
    -55: "INVALID_WORK_ITEM_SIZE",
    -56: "INVALID_GLOBAL_OFFSET",
    -58: "INVALID_EVENT",
    -59: "INVALID_OPERATION",
    -61: "INVALID_BUFFER_SIZE",
    -63: "INVALID_GLOBAL_WORK_SIZE",
    -1001: "PLATFORM_NOT_FOUND_KHR",
}
_DEVICE_NOT_FOUND = -1
# What is wrong with the device or its memory, whatever it was given.
_TROUBLE = frozenset([-2, -4, -5, -6, -14, -34, -36])


class Error(DeviceError):
    """A call of OpenCL failed; `code` is what it answered.

    `is_trouble`: the device, its context, a queue or memory is at fault, not what was asked.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_trouble(self) -> bool:
        return self.code in _TROUBLE


def check(code: int, function: str) -> None:
    """Raises `Error` for any code but that of success."""
    if code:
        raise Error(f"{function} failed: {STATUS.get(code, code)}", code)


def make(function: str, *arguments: Any) -> Handle:
    """What a function makes that reports its status through its last argument."""
    code = ctypes.c_int32()
    made = getattr(functions(), function)(*arguments, ctypes.byref(code))
    check(code.value, function)
    return int(made or 0)


def list_handles(function: str, call: Callable[[int, Any, Any], int]) -> list[Handle]:
    """All that a function lists; none where it says that there are no devices."""
    total = ctypes.c_uint32()
    code = call(0, None, ctypes.byref(total))
    if code == _DEVICE_NOT_FOUND:
        return []
    check(code, function)
    found = (ctypes.c_void_p * max(total.value, 1))()
    check(call(total.value, found, None), function)
    return [handle for handle in found if handle]


def ask(function: str, handles: tuple[Handle, ...], what: int) -> bytes:
    """What a clGet...Info function tells."""
    call = getattr(functions(), function)
    size = ctypes.c_size_t()
    check(call(*handles, what, 0, None, ctypes.byref(size)), function)
    content = ctypes.create_string_buffer(size.value)
    check(call(*handles, what, size.value, content, None), function)
    return content.raw[: size.value]


def as_text(content: bytes) -> str:
    """Up to the zero that ends it."""
    return content.split(b"\0")[0].decode("utf-8", "replace")


def as_sizes(content: bytes) -> tuple[int, ...]:
    """Values of C's size_t."""
    width = ctypes.sizeof(ctypes.c_size_t)
    starts = range(0, len(content), width)
    return tuple(int.from_bytes(content[i : i + width], sys.byteorder) for i in starts)
