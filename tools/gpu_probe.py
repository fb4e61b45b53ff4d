"""A GPU at hand, for tools/gpu_first_run.py: buffers, builds, times of launches by events.

Through pyopencl, not through clinfer: what is asked here (pinned memory, compiler options, PTX in
OpenCL C) clinfer does not ask for yet.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("PYOPENCL_NO_CACHE", "1")  # read as pyopencl is imported

import numpy as np
import pyopencl as cl

from clinfer.device.discover import open_device

STANDARD = "-cl-std=CL1.2"


class Probe:
    """A context and two queues on clinfer's device 'GPU'; `small`: sizes of a trial.

    Raises `DeviceError` where there is none.
    """

    def __init__(self, small: bool = False) -> None:
        self.device = cl.Device.from_int_ptr(open_device("GPU").cl.int_ptr)
        self.small = small
        self.context = cl.Context([self.device])
        self.queue = cl.CommandQueue(self.context)
        profiling = cl.command_queue_properties.PROFILING_ENABLE
        self.timed_queue = cl.CommandQueue(self.context, properties=profiling)

    def build(self, source: str, options: str = STANDARD) -> tuple[cl.Program, float]:
        """(program, seconds). Raises `pyopencl.Error` with the compiler's log."""
        start = time.perf_counter()
        program = cl.Program(self.context, source).build(options)
        return program, time.perf_counter() - start

    def load(self, binary: bytes) -> tuple[cl.Program, float]:
        """(program, seconds) of a binary. Raises `pyopencl.Error`."""
        start = time.perf_counter()
        program = cl.Program(self.context, [self.device], [binary]).build()
        return program, time.perf_counter() - start

    def buffer(self, content: int | np.ndarray[Any, Any]) -> cl.Buffer:
        """Of so many bytes, or with a copy of the array."""
        flags = cl.mem_flags.READ_WRITE
        if isinstance(content, int):
            return cl.Buffer(self.context, flags, content)
        return cl.Buffer(self.context, flags | cl.mem_flags.COPY_HOST_PTR, hostbuf=content)

    def kernel(self, program: cl.Program, *arguments: Any) -> cl.Kernel:
        """The program's only kernel with these arguments; numbers are int.

        It keeps buffers alive, which a driver does not (clSetKernelArg retains none).
        """
        kernel = cl.Kernel(program, program.kernel_names)
        kernel.set_args(*[np.int32(a) if isinstance(a, int) else a for a in arguments])
        kernel.arguments = arguments
        return kernel

    def seconds(
        self, kernel: cl.Kernel, shape: Sequence[int], group: Sequence[int], runs: int = 10
    ) -> float:
        """Of a launch on the device by its events, the least of so many runs."""
        queue = self.timed_queue
        events = [cl.enqueue_nd_range_kernel(queue, kernel, shape, group) for _ in range(runs)]
        queue.finish()
        return min((event.profile.end - event.profile.start) * 1e-9 for event in events)

    def read(self, buffer: cl.Buffer, into: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The array, filled."""
        cl.enqueue_copy(self.queue, into, buffer)
        return into


def fastest(run: Callable[[], Any], runs: int = 5) -> float:
    """Seconds of the fastest of so many runs."""
    return min(_seconds(run) for _ in range(runs))


def median(run: Callable[[], Any], limit: float, most: int = 50) -> tuple[float, int]:
    """(median seconds, number of runs), of at most `most` runs in about `limit` seconds."""
    times: list[float] = []
    while len(times) < most and sum(times) < limit:
        times.append(_seconds(run))
    return statistics.median(times), len(times)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
