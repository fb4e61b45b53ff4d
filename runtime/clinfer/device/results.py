"""Memory of results, used again when nobody has them any more.

New memory costs more than what a kernel does with it: the system gives it page by page, zeroed,
while the kernel writes. So a request keeps the memory of large results and gives it out again, but
never as long as an array, or a view of one, is alive that has it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from clinfer.errors import DeviceError, ShapeError

Array = np.ndarray[Any, Any]

ALIGNMENT = 128
"""Bytes that results begin at a multiple of: vectors written past the caches have to be aligned."""

# Large arrays of others begin where a page does, or a little later. A processor compares a load's
# place in its page with those of the stores before; half a page away they cannot be taken for it.
_PAGE = 4096
_PLAIN = (np.ndarray, np.memmap)
_IN_PAGE = 2048
_LEAST = 1 << 20  # bytes; what is smaller the allocator keeps by itself
_KEPT = 3  # the results being made, those of the run before, and those before if somebody has them


class _Block(NamedTuple):
    """Memory, and the last array that was made of it, which all its views keep alive."""

    memory: Array
    user: weakref.ref[Array]


class ResultMemory:
    """Arrays for one result of a plan, one run after the other."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "a result") -> Array:
        """A new array with any content.

        Raises `DeviceError` where there is no memory, `ShapeError` naming it for sizes that no
        array can have, though one of them is 0.
        """
        nbytes = prod(shape) * dtype.itemsize
        if nbytes < _LEAST:
            try:
                return np.empty(shape, dtype)
            except ValueError:
                raise ShapeError(
                    f"{name} has the shape {list(shape)} in this run: no element, but sizes that "
                    "no array can have; use smaller ones"
                ) from None
        memory = self._free(nbytes)
        start = (_IN_PAGE - memory.ctypes.data) % _PAGE
        # Its base is no array, so it is itself the base of all views, also of views of views.
        made = np.frombuffer(memory.data[start : start + nbytes], np.uint8)
        self._blocks.append(_Block(memory, weakref.ref(made)))
        del self._blocks[:-_KEPT]
        return made.view(dtype).reshape(shape)

    def _free(self, nbytes: int) -> Array:
        """Memory that nobody has, taken out of the list; new memory where there is none."""
        for index, block in enumerate(self._blocks):
            if block.user() is None and block.memory.nbytes == nbytes + _PAGE:
                return self._blocks.pop(index).memory
        return new_memory(nbytes + _PAGE)


def takes(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], others: Iterable[Any]) -> bool:
    """Whether a run can write a result of that shape straight into a user's array.

    It has no gaps, and shares no memory with the `others`, which the run reads or writes too. What
    a class of somebody else's makes of its memory is not known.
    """
    flags = array.flags
    return (
        type(array) in _PLAIN
        and array.shape == shape
        and array.dtype == dtype
        and bool(flags.c_contiguous and flags.writeable and flags.aligned)
        and not any(isinstance(o, np.ndarray) and np.may_share_memory(array, o) for o in others)
    )


def own(value: Any) -> Any:
    """A copy that shares no memory with the value: an array, or a host object made of some."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: own(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([own(item) for item in value])
    return value


def new_memory(nbytes: int) -> Array:
    """So many bytes. Raises `DeviceError` where there is no memory."""
    try:
        return np.empty(nbytes, np.uint8)
    except MemoryError:
        raise DeviceError(
            f"there is no memory for a buffer of {nbytes} bytes; use smaller input sizes"
        ) from None
