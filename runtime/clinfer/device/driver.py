"""What pyopencl does not offer, asked of the OpenCL library itself."""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path
from typing import Any

_SUB_GROUP_SIZES_INTEL = 0x4108


def loaded_libraries(name: str) -> list[Path]:
    """The shared objects in this process whose paths hold that name; none but on Linux."""
    found = {line.rpartition(" ")[2] for line in memory_map() if name in line}
    return [Path(path) for path in sorted(found)]


def memory_map() -> list[str]:
    """The lines of /proc/self/maps; none where there is no such file."""
    try:
        text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()


def subgroup_sizes(device: Any) -> tuple[int, ...]:
    """The sizes of sub-groups that cl_intel_required_subgroup_size names; () if it tells none."""
    library = _opencl()
    if library is None:
        return ()
    handle = ctypes.c_void_p(device.int_ptr)
    size = ctypes.c_size_t()
    ask = library.clGetDeviceInfo
    if ask(handle, _SUB_GROUP_SIZES_INTEL, ctypes.c_size_t(0), None, ctypes.byref(size)):
        return ()
    sizes = (ctypes.c_size_t * (size.value // ctypes.sizeof(ctypes.c_size_t)))()
    if ask(handle, _SUB_GROUP_SIZES_INTEL, size, sizes, None):
        return ()
    return tuple(sizes)


def _opencl() -> ctypes.CDLL | None:
    """The library pyopencl works with."""
    loaded = [str(path) for path in loaded_libraries("libOpenCL")]
    for name in [*loaded, ctypes.util.find_library("OpenCL")]:
        if name is not None:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
    return None
