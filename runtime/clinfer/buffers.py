"""OpenCL buffers and arrays in them, pyopencl's and our own, as runs take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinfer.device import shared
from clinfer.device.remote import RemoteArray
from clinfer.errors import InputError


class OnDevice:
    """A tensor of clinfer's own that lies on a device (`clinfer.remote.RemoteTensor`)."""

    array: RemoteArray


def remote_array(
    value: Any, what: str, dtype: np.dtype[Any], shape: Sequence[int] | None
) -> RemoteArray | np.ndarray[Any, Any]:
    """A `RemoteTensor`, pyopencl's array or buffer as a run takes it; of `shape` where it has none.

    An array of pyopencl without elements has no buffer: it is one of the host's without elements.
    Raises `InputError` naming `what` for another type, gaps, or a buffer that is too small.
    """
    if isinstance(value, OnDevice):
        array = value.array.named(what, value)
    elif hasattr(value, "base_data"):
        if value.base_data is None and value.size == 0 and value.dtype == dtype:
            return np.empty(value.shape, dtype)
        array = _of_array(value, what)
    else:
        array = _of_buffer(value, what, dtype, shape)
    if array.dtype != dtype:
        raise InputError(
            f"{what} has {dtype} elements, what is given {array.dtype}; convert it on the device"
        )
    require_inside(array)
    return array


def require_writable(array: RemoteArray) -> None:
    """Raises `InputError` where kernels must not write to the buffer."""
    if shared.buffer_flags(array.buffer.int_ptr) & shared.READ_ONLY:
        raise InputError(f"{array.what}: the buffer is READ_ONLY; give one that can be written to")


def _of_array(value: Any, what: str) -> RemoteArray:
    """pyopencl.array.Array."""
    handle = shared.handle_of(value.base_data)
    if handle is None:
        raise InputError(
            f"{what}: the array's memory is no buffer (but {type(value.base_data).__name__}); give "
            "an array in a buffer, or value.get()"
        )
    if not value.flags.c_contiguous:
        raise InputError(f"{what}: the array has gaps; give array.copy()")
    queue = shared.handle_of(value.queue) or 0
    held = held_buffer(handle, what)
    return RemoteArray(held, value.shape, value.dtype, value.offset, queue).named(what, value)


def _of_buffer(
    value: Any, what: str, dtype: np.dtype[Any], shape: Sequence[int] | None
) -> RemoteArray:
    """pyopencl.Buffer, which has neither shape nor type."""
    handle = shared.handle_of(value)
    if handle is None or not (hasattr(value, "get_host_array") or hasattr(value, "get_sub_region")):
        raise InputError(f"{what}: {type(value).__name__} is no buffer of OpenCL")
    if shape is None:
        raise InputError(
            f"{what} has free sizes, and a buffer has no shape: give "
            "clinfer.RemoteTensor(context, buffer, type, shape)"
        )
    return RemoteArray(held_buffer(handle, what), shape, dtype, 0).named(what, value)


def held_buffer(handle: int, what: str) -> Any:
    if not shared.is_buffer(handle):
        raise InputError(f"{what}: an image or a pipe of OpenCL is given, expected a buffer")
    return shared.held_buffer(handle)


def require_inside(array: RemoteArray) -> None:
    size = shared.buffer_size(array.buffer.int_ptr)
    start = array.offset
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise InputError(f"{array.what}: offset counts bytes from 0 on, found {start!r}")
    if start + array.nbytes > size:
        raise InputError(
            f"{array.what} of shape {list(array.shape)} and {array.dtype} needs {array.nbytes} "
            f"bytes from byte {start} on; the buffer has {size}"
        )


def required_handle(value: Any, what: str) -> int:
    handle = shared.handle_of(value)
    if handle is None:
        raise InputError(
            f"{what} is pyopencl's object or its handle, an integer; found {type(value).__name__}"
        )
    return handle
