"""Calls of OpenCL made to fail, and what is held counted; for tests and tools/inject_faults.py.

All calls of clinfer go through the one object that `clinfer.device.loader.functions` gives. A
`Driver` puts itself in place of that object's functions, so production code knows nothing of it.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from clinfer.device import loader

DEVICE_NOT_AVAILABLE = -2
MEM_OBJECT_ALLOCATION_FAILURE = -4
OUT_OF_RESOURCES = -5
OUT_OF_HOST_MEMORY = -6
BUILD_PROGRAM_FAILURE = -11
EVENTS_FAILED = -14
INVALID_COMMAND_QUEUE = -36
INVALID_BINARY = -42

_ANY = (OUT_OF_HOST_MEMORY, OUT_OF_RESOURCES, DEVICE_NOT_AVAILABLE)
# What else the specification, or what drivers do, lets a function answer with.
_MORE = {
    "clCreateBuffer": (MEM_OBJECT_ALLOCATION_FAILURE,),
    "clCreateSubBuffer": (MEM_OBJECT_ALLOCATION_FAILURE,),
    "clEnqueueNDRangeKernel": (MEM_OBJECT_ALLOCATION_FAILURE, INVALID_COMMAND_QUEUE),
    "clEnqueueReadBuffer": (MEM_OBJECT_ALLOCATION_FAILURE, EVENTS_FAILED),
    "clEnqueueWriteBuffer": (MEM_OBJECT_ALLOCATION_FAILURE,),
    "clBuildProgram": (BUILD_PROGRAM_FAILURE, INVALID_BINARY),
    "clCreateProgramWithBinary": (INVALID_BINARY,),
    "clFinish": (EVENTS_FAILED, INVALID_COMMAND_QUEUE),
}
_RELEASES = "clRelease"
_OURS = str(Path(loader.__file__).parents[1])
_WRAPPERS = ("loader.py", "calls.py", "binding.py")


def codes(function: str) -> tuple[int, ...]:
    """The codes that a function is made to fail with."""
    return _ANY + _MORE.get(function, ())


class Point(NamedTuple):
    """A call of OpenCL: the function, and where in clinfer it was called from."""

    function: str
    site: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.function} from {' < '.join(self.site)}"


class Fault(NamedTuple):
    """The call number `at` fails with a code; where it `lasts`, so do all that follow.

    Releases are carried out all the same: what they answer matters to nobody.
    """

    at: int
    code: int
    lasts: bool = False

    @property
    def refuses_binary(self) -> bool:
        """Whether a binary is at fault by this, not the device or its memory."""
        return self.code in (BUILD_PROGRAM_FAILURE, INVALID_BINARY)

    def hits(self, number: int) -> bool:
        return number == self.at or (self.lasts and number > self.at)


class Held(NamedTuple):
    """What is held at a moment: handles of each kind, descriptors, threads of the process."""

    handles: dict[str, int]
    descriptors: int
    threads: int


class Driver:
    """The functions of OpenCL, counted, and made to fail when told; in place as a context."""

    def __init__(self) -> None:
        self._library = loader.functions()
        self._originals: dict[str, Any] = {
            name: found for name, found in vars(self._library).items() if name.startswith("cl")
        }
        self._live: dict[str, Counter[int]] = {}
        self._fault: Fault | None = None
        self._points: list[Point] | None = None
        self._number = 0
        self.hit = ""  # the function that failed first in the last block
        self._lock = threading.Lock()

    def __enter__(self) -> Driver:
        for name, original in self._originals.items():
            setattr(self._library, name, self._replacement(name, original))
        return self

    def __exit__(self, *error: object) -> None:
        for name, original in self._originals.items():
            setattr(self._library, name, original)

    @contextmanager
    def recording(self) -> Iterator[list[Point]]:
        """The calls made in a block, in order."""
        self._points, self._number = [], 0
        try:
            yield self._points
        finally:
            self._points = None

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """A block, from whose first call on the calls are counted, from 0."""
        self._fault, self._number, self.hit = fault, 0, ""
        try:
            yield
        finally:
            self._fault = None

    def held(self) -> Held:
        """What is held now, after the garbage has been collected."""
        gc.collect()
        handles = {kind: sum(found.values()) for kind, found in self._live.items()}
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
        return Held({kind: n for kind, n in sorted(handles.items()) if n}, descriptors, threads)

    # -- private -------------------------------------------------------------------------------

    def _replacement(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            code = self._answer(name)
            if code and not name.startswith(_RELEASES):
                return _failed(original, arguments, code)
            result = original(*arguments)
            self._count(name, arguments, result)
            return code or result

        return call

    def _answer(self, name: str) -> int:
        """The code that this call fails with; 0 for none."""
        with self._lock:
            number, self._number = self._number, self._number + 1
            if self._points is not None:
                self._points.append(Point(name, _site()))
            fault = self._fault
            if fault is None or not fault.hits(number):
                return 0
            self.hit = self.hit or name
            return fault.code

    def _count(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        with self._lock:
            if name.startswith(_RELEASES):
                kind = name.removeprefix(_RELEASES)
                self._live.setdefault(kind, Counter())[int(arguments[0])] -= 1
            elif name.startswith("clCreate") and result:
                self._live.setdefault(_kind(name), Counter())[int(result)] += 1
            elif name == "clEnqueueNDRangeKernel" and arguments[-1] is not None:
                self._live.setdefault("Event", Counter())[int(arguments[-1][0])] += 1


def _kind(creates: str) -> str:
    """What is made, as its release names it."""
    made = creates.removeprefix("clCreate")
    if made.startswith("Program"):
        return "Program"
    return "MemObject" if made in ("Buffer", "SubBuffer") else made


def _failed(original: Any, arguments: tuple[Any, ...], code: int) -> Any:
    """What a failed call gives: its code, or nothing and the code where its last argument says."""
    if original.restype is loader._CODE:
        return code
    arguments[-1]._obj.value = code
    return None


def _site() -> tuple[str, ...]:
    """The places in clinfer that lead to this call, the innermost first."""
    found: list[str] = []
    frame = sys._getframe(3)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_OURS) and not path.endswith(_WRAPPERS):
            found.append(f"{path[len(_OURS) + 1 :]}:{frame.f_lineno}")
        frame = frame.f_back
    return tuple(found)
