"""Memory of results is used again, but never while anybody can see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clinfer.device.results import ALIGNMENT, ResultMemory
from guards import UNGUARDED

Array = np.ndarray[Any, Any]
SHAPE = (1024, 300)
F32 = np.dtype("float32")


@pytest.fixture(autouse=True)
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results as they are outside of tests: without guard bytes."""
    monkeypatch.setattr(ResultMemory, "array", UNGUARDED)


def address(array: Array) -> int:
    return int(array.ctypes.data)


def test_memory_is_used_again_when_its_array_is_gone() -> None:
    memory = ResultMemory()
    first = memory.array(SHAPE, F32)
    second = memory.array(SHAPE, F32)
    places = {address(first), address(second)}
    assert len(places) == 2
    del first
    third = memory.array(SHAPE, F32)
    assert address(third) in places
    assert address(third) != address(second)
    assert address(third) % ALIGNMENT == 0
    assert third.shape == SHAPE
    assert third.flags.c_contiguous
    assert third.flags.writeable


VIEWS: dict[str, Callable[[Array], Any]] = {
    "slice": lambda array: array[5:, ::2],
    "reshape": lambda array: array.reshape(-1),
    "transpose": lambda array: array.T,
    "memoryview": lambda array: memoryview(array),
    "dtype": lambda array: array.view(np.uint8),
    "twice": lambda array: array[3:][2:].T,
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_keep_memory(view: str) -> None:
    memory = ResultMemory()
    array = memory.array(SHAPE, F32)
    array[:] = 7
    made = VIEWS[view](array)
    before = np.asarray(made).tobytes()
    del array
    for _ in range(5):
        memory.array(SHAPE, F32)[:] = 9
    assert np.asarray(made).tobytes() == before


def test_results_that_all_stay_are_all_their_own() -> None:
    memory = ResultMemory()
    kept = [memory.array(SHAPE, F32) for _ in range(8)]
    for number, array in enumerate(kept):
        array[:] = number
    assert [int(array[-1, -1]) for array in kept] == list(range(8))


def test_small_and_empty_results_have_memory_of_their_own() -> None:
    memory = ResultMemory()
    assert memory.array((3, 4), F32).flags.owndata
    assert memory.array((0, 4), F32).shape == (0, 4)
    assert memory.array((), F32).shape == ()


def test_another_size_takes_other_memory() -> None:
    memory = ResultMemory()
    memory.array(SHAPE, F32)
    assert memory.array((2048, 300), F32).nbytes == 2048 * 300 * 4
    assert memory.array(SHAPE, np.dtype("float64")).dtype == np.float64
