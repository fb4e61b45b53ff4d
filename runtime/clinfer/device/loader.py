"""The OpenCL library: found, loaded, and its functions with what they take and return.

The library is the loader of OpenCL drivers (ICD loader) that pyopencl brings along, where that is
installed, because the drivers of `pip install clinfer[pocl]` and the like lie beside it; else the
system's. pyopencl itself is not imported: it takes longer than many a model to load.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from clinfer import forks
from clinfer.errors import DeviceError

# pyopencl's extension module, loaded as a library like any other. The functions of the loader it
# is linked to are found through it, and its search path leads that loader to the drivers.
_EXTENSION = "_cl*.so"
_SYSTEM = {
    "win32": ("OpenCL.dll",),
    "darwin": ("/System/Library/Frameworks/OpenCL.framework/OpenCL", "libOpenCL.dylib"),
}
_ELSEWHERE = ("libOpenCL.so.1", "libOpenCL.so")

_STATUS = POINTER(c_int32)
_SIZE = POINTER(c_size_t)
_HANDLES = POINTER(c_void_p)
_INFO = (c_void_p, c_uint32, c_size_t, c_void_p, _SIZE)
_MADE = c_void_p
_CODE = c_int32

# Functions that may take long: other threads of Python run meanwhile. (returns, takes)
_SLOW = {
    "clGetPlatformIDs": (_CODE, (c_uint32, _HANDLES, POINTER(c_uint32))),
    "clGetDeviceIDs": (_CODE, (c_void_p, c_uint64, c_uint32, _HANDLES, POINTER(c_uint32))),
    "clCreateContext": (
        _MADE,
        (c_void_p, c_uint32, _HANDLES, c_void_p, c_void_p, _STATUS),
    ),
    "clCreateProgramWithSource": (
        _MADE,
        (c_void_p, c_uint32, POINTER(c_char_p), _SIZE, _STATUS),
    ),
    "clCreateProgramWithBinary": (
        _MADE,
        (c_void_p, c_uint32, _HANDLES, _SIZE, POINTER(c_char_p), _STATUS, _STATUS),
    ),
    "clBuildProgram": (_CODE, (c_void_p, c_uint32, _HANDLES, c_char_p, c_void_p, c_void_p)),
    "clGetProgramInfo": (_CODE, _INFO),
    "clCreateBuffer": (_MADE, (c_void_p, c_uint64, c_size_t, c_void_p, _STATUS)),
    "clEnqueueReadBuffer": (
        _CODE,
        (c_void_p, c_void_p, c_uint32, c_size_t, c_size_t, c_void_p, c_uint32, _HANDLES, _HANDLES),
    ),
    "clEnqueueWriteBuffer": (
        _CODE,
        (c_void_p, c_void_p, c_uint32, c_size_t, c_size_t, c_void_p, c_uint32, _HANDLES, _HANDLES),
    ),
    "clEnqueueMapBuffer": (
        _MADE,
        (
            *(c_void_p, c_void_p, c_uint32, c_uint64, c_size_t, c_size_t),
            *(c_uint32, _HANDLES, _HANDLES, _STATUS),
        ),
    ),
    "clFinish": (_CODE, (c_void_p,)),
    "clFlush": (_CODE, (c_void_p,)),
    "clReleaseContext": (_CODE, (c_void_p,)),
    "clReleaseCommandQueue": (_CODE, (c_void_p,)),
    "clReleaseMemObject": (_CODE, (c_void_p,)),
    "clReleaseProgram": (_CODE, (c_void_p,)),
    "clReleaseKernel": (_CODE, (c_void_p,)),
    "clReleaseEvent": (_CODE, (c_void_p,)),
}
# Functions that return at once; letting another thread run would cost more than they take.
_QUICK = {
    "clGetPlatformInfo": (_CODE, _INFO),
    "clGetDeviceInfo": (_CODE, _INFO),
    "clGetProgramBuildInfo": (_CODE, (c_void_p, *_INFO)),
    "clGetKernelWorkGroupInfo": (_CODE, (c_void_p, *_INFO)),
    "clGetEventProfilingInfo": (_CODE, _INFO),
    "clGetEventInfo": (_CODE, _INFO),
    "clEnqueueMarkerWithWaitList": (_CODE, (c_void_p, c_uint32, _HANDLES, _HANDLES)),
    "clEnqueueUnmapMemObject": (
        _CODE,
        (c_void_p, c_void_p, c_void_p, c_uint32, _HANDLES, _HANDLES),
    ),
    "clCreateCommandQueue": (_MADE, (c_void_p, c_void_p, c_uint64, _STATUS)),
    "clCreateSubBuffer": (_MADE, (c_void_p, c_uint64, c_uint32, c_void_p, _STATUS)),
    "clCreateKernel": (_MADE, (c_void_p, c_char_p, _STATUS)),
    "clSetKernelArg": (_CODE, (c_void_p, c_uint32, c_size_t, c_void_p)),
    "clEnqueueNDRangeKernel": (
        _CODE,
        (c_void_p, c_void_p, c_uint32, _SIZE, _SIZE, _SIZE, c_uint32, _HANDLES, _HANDLES),
    ),
}
# Functions for objects that clinfer shares with others: looked up when first used.
_SHARED = {
    "clRetainContext": (_CODE, (c_void_p,)),
    "clRetainCommandQueue": (_CODE, (c_void_p,)),
    "clRetainMemObject": (_CODE, (c_void_p,)),
    "clGetContextInfo": (_CODE, _INFO),
    "clGetCommandQueueInfo": (_CODE, _INFO),
    "clGetMemObjectInfo": (_CODE, _INFO),
    "clEnqueueMarkerWithWaitList": (_CODE, (c_void_p, c_uint32, _HANDLES, _HANDLES)),
    "clEnqueueBarrierWithWaitList": (_CODE, (c_void_p, c_uint32, _HANDLES, _HANDLES)),
    "clEnqueueCopyBuffer": (
        _CODE,
        (*(c_void_p,) * 3, *(c_size_t,) * 3, c_uint32, _HANDLES, _HANDLES),
    ),
    "clFlush": (_CODE, (c_void_p,)),
}


class Functions:
    """OpenCL's functions by name, as attributes, with their types set.

    In a forked child none of them reaches the driver, whose threads and queues are the parent's:
    what releases or waits has nothing to do there, all others raise `DeviceError`.
    """

    def __init__(self, path: str) -> None:
        convention = getattr(ctypes, "WinDLL", ctypes.CDLL)
        self.path = path
        self.is_lost = False
        self._bind(convention(path), _SLOW)
        self._bind(ctypes.PyDLL(path), _QUICK)
        forks.before_heirs(self._lose)

    def _bind(self, library: Any, table: dict[str, Any]) -> None:
        for name, (returns, takes) in table.items():
            function = getattr(library, name)
            function.restype = returns
            function.argtypes = takes
            setattr(self, name, function)

    def _lose(self) -> None:
        self.is_lost = True
        for name in (*_SLOW, *_QUICK, *_SHARED):
            does_nothing = name.startswith(("clRelease", "clFinish", "clEnqueueUnmap"))
            setattr(self, name, _succeed if does_nothing else refuse)

    def __getattr__(self, name: str) -> Any:
        if name not in _SHARED:
            raise AttributeError(f"{name} is not among the functions of OpenCL that are used")
        convention = getattr(ctypes, "WinDLL", ctypes.CDLL)
        self._bind(convention(self.path), {name: _SHARED[name]})
        return getattr(self, name)


def refuse(*_arguments: Any) -> NoReturn:
    """Says what is possible in a forked child. Raises `DeviceError`."""
    raise DeviceError(
        "this process was forked from one that had opened OpenCL's drivers, whose threads and "
        "queues are the parent's alone: compile the model in the child, and let the parent open "
        "no device before it forks, or start the process with 'spawn'; docs/processes.md tells "
        "what a child can do"
    )


def _succeed(*_arguments: Any) -> int:
    return 0


@lru_cache(maxsize=1)
def functions() -> Functions:
    """OpenCL's functions. Raises `OSError` where there is no library that has them."""
    reasons = []
    for path in _candidates():
        try:
            return Functions(path)
        except (OSError, AttributeError) as error:  # noqa: PERF203
            reasons.append(str(error))
    raise OSError("; ".join(reasons))


def package() -> Path | None:
    """The folder of pyopencl, where the library in use is the one it brings along."""
    path = Path(functions().path)
    return path.parent if path in _bundled(path.parent) else None


def _candidates() -> Iterator[str]:
    try:
        spec = find_spec("pyopencl")
    except ValueError:  # sys.modules says that there is none
        spec = None
    if spec is not None and spec.origin and sys.platform != "win32":
        folder = Path(spec.origin).resolve().parent
        # Where that loader looks for drivers besides the system's; pyopencl sets it too.
        os.environ["PYOPENCL_HOME"] = str(folder)
        yield from map(str, _bundled(folder))
    yield from _SYSTEM.get(sys.platform, _ELSEWHERE)


def _bundled(folder: Path) -> list[Path]:
    return sorted(folder.glob(_EXTENSION))
