"""A plan bound to sizes, ready to run: what all ways of running have in common."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import dtypes
from clinfer.device.hoststep import binds
from clinfer.errors import DeviceError
from clinfer.lowering.binding import BoundLaunch, Sizes
from clinfer.lowering.plan import Array, Buffer, HostStep, HostValue

if TYPE_CHECKING:
    from clinfer.device.executor import LoadedPlan

Timing = tuple[BoundLaunch | HostStep, float, float]
"""A step, when it began, and how long it took, both in seconds."""

_SCALARS = {
    "int": struct.Struct("=i"),
    "long": struct.Struct("=q"),
    "float": struct.Struct("=f"),
    "uint": struct.Struct("=I"),
}


class Instance(ABC):
    """Buffers made and arguments set for the sizes of some inputs."""

    def __init__(self, loaded: LoadedPlan, sizes: Sizes) -> None:
        self.loaded = loaded
        self.plan = loaded.plan
        self.sizes = sizes
        self.objects: dict[int, Any] = {}

    @abstractmethod
    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """One inference; see `Session.run`."""

    @abstractmethod
    def timings(self) -> list[Timing]:
        """The steps of the last run, on a session that profiles; the first begins at any time."""

    @abstractmethod
    def read(self, number: int) -> Array:
        """A copy of a buffer's content, flat, in its dtype."""

    @abstractmethod
    def _write(self, number: int, array: Array) -> None:
        """Fills a buffer before the next step."""

    def _sizes_content(self, buffer: Buffer) -> Array:
        """What a buffer of kind 'sizes' holds."""
        content = [self.sizes(d) for d in buffer.content]
        return np.array(content, dtype=dtypes.to_numpy(buffer.dtype))

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


def scalar_bytes(kind: str, value: int) -> bytes:
    """A scalar argument. Raises `DeviceError` where the value does not fit its C type."""
    try:
        return _SCALARS[kind].pack(value)
    except struct.error:
        raise DeviceError(
            f"a size of {value} does not fit the kernels' '{kind}'; use smaller input sizes"
        ) from None


def bytes_of(array: Array) -> Array:
    """The array's memory as bytes: ml_dtypes' element types have no buffer format of their own."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8) if flat.size else np.zeros(1, np.uint8)
