"""Arrays of other libraries as NumPy's, over the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from clinfer.boundary import first_line
from clinfer.errors import InputError

Array = np.ndarray[Any, Any]

_ON_HOST = (1, 3, 11, 13)
"""DLPack's devices whose memory the processor reads: plain, and what GPUs have pinned or manage."""
_DEVICES = {2: "CUDA", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 14: "oneAPI"}


def array_of(value: Any, what: str) -> Array:
    """The value as an array: without a copy what is one already, or speaks DLPack on the host.

    Raises `InputError` naming `what` for what is no array, or lies on another device.
    """
    if hasattr(value, "__dlpack_device__") and not isinstance(value, np.ndarray):
        return _exchanged(value, what)
    try:
        return np.asarray(value)
    except Exception as error:  # also what the user's object raises
        raise InputError(f"{what} is not an array: {error}") from error


def _exchanged(value: Any, what: str) -> Array:
    """By DLPack; what has no exchange there (text, types that NumPy lacks) by `__array__`."""
    try:
        device = int(value.__dlpack_device__()[0])
    except Exception as error:  # the user's object
        raise InputError(f"{what}: __dlpack_device__ failed: {first_line(error)}") from error
    if device not in _ON_HOST:
        raise InputError(
            f"{what} lies in the memory of a device ({_DEVICES.get(device, f'DLPack {device}')}); "
            "copy it to the host, as .cpu() does, or give an OpenCL buffer of the model's context "
            "(docs/sharing-memory.md)"
        )
    try:
        return np.from_dlpack(value)
    except Exception as error:
        refused = error
    try:
        if hasattr(value, "__array__"):
            return np.asarray(value)
    except Exception as error:
        refused = error
    raise InputError(f"{what} cannot be read by DLPack: {first_line(refused)}") from refused
