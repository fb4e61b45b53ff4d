"""How a played plan gets its inputs and gives its results, decided once for a set of sizes.

Kernels have addresses of host memory. To give them another address costs about a microsecond, to
copy some kilobytes a tenth of that: so small inputs and results are copied into and out of memory
that launches have for good, and large ones are read and written where the caller has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from clinfer import dtypes
from clinfer.device.results import ResultMemory, takes
from clinfer.lowering.binding import Sizes
from clinfer.lowering.plan import Array, Plan, PlanPort

COPIED = 16 << 10
"""Bytes up to which a copy is cheaper than another address."""

View = Callable[[int, tuple[int, ...], np.dtype[Any]], Array]
"""A buffer's own memory as an array."""
Point = Callable[[int, int], None]
"""Gives launches another address of a buffer."""


class _Given(NamedTuple):
    """A result written where the caller gets it."""

    place: int
    buffer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    memory: ResultMemory


class Transfers:
    """Inputs and results of one instance, by their positions."""

    def __init__(
        self, plan: Plan, sizes: Sizes, objects: dict[int, Any], view: View, point: Point
    ) -> None:
        """`objects` take inputs that kernels do not see, by their buffers."""
        self._objects = objects
        self._point = point
        self._kept: list[tuple[int, int]] = []
        self._copied: list[tuple[int, Array]] = []
        self._read: list[tuple[int, int]] = []
        self._filled: list[tuple[int, Array]] = []
        self._given: list[_Given] = []
        self.others: list[tuple[int, PlanPort]] = []
        """Results that lie elsewhere: in objects, constants, or where another result does."""
        self._none: list[Any] = [None] * len(plan.outputs)
        for place, port in enumerate(plan.inputs):
            if plan.buffers[port.buffer].kind == "host":
                self._kept.append((place, port.buffer))
                continue
            shape, dtype, nbytes = _array(port, sizes)
            if nbytes > COPIED:
                self._read.append((place, port.buffer))
            elif nbytes:
                self._copied.append((place, view(port.buffer, shape, dtype)))
        bound: set[int] = set()
        for place, port in enumerate(plan.outputs):
            if plan.buffers[port.buffer].kind != "output" or port.buffer in bound:
                self.others.append((place, port))
                continue
            bound.add(port.buffer)
            shape, dtype, nbytes = _array(port, sizes)
            if 0 < nbytes <= COPIED:
                self._filled.append((place, view(port.buffer, shape, dtype)))
            else:
                self._given.append(_Given(place, port.buffer, shape, dtype, ResultMemory()))

    def begin(self, inputs: Sequence[Any], into: Mapping[int, Any] | None) -> list[Any]:
        """Gives the launches a run's inputs, and arrays for results; returns those."""
        for place, view in self._copied:
            view[...] = inputs[place]
        for place, buffer in self._read:
            self._point(buffer, inputs[place].ctypes.data)
        for place, buffer in self._kept:
            self._objects[buffer] = inputs[place]
        results = self._none.copy()
        if into is not None:
            for place, view in self._filled:
                array = into.get(place)
                if array is not None and takes(array, view.shape, view.dtype, ()):
                    results[place] = array
        for place, buffer, shape, dtype, memory in self._given:
            array = None if into is None else into.get(place)
            if array is None or not takes(array, shape, dtype, [*inputs, *results]):
                array = memory.array(shape, dtype)
            if array.size:
                self._point(buffer, array.ctypes.data)
            results[place] = array
        return results

    def end(self, results: list[Any]) -> None:
        """Copies the small results to where they are wanted, else into new arrays."""
        for place, view in self._filled:
            if results[place] is None:
                results[place] = view.copy()
            else:
                results[place][...] = view


def _array(port: PlanPort, sizes: Sizes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    shape = tuple(sizes(d) for d in port.shape or ())
    dtype = dtypes.to_numpy(port.dtype)
    return shape, dtype, prod(shape) * dtype.itemsize
