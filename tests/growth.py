"""How the work of a task grows, counted in calls of functions: no clock is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def operations(task: Callable[[], object]) -> int:
    """How many functions the task calls, those of C and steps of generators among them."""
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        task()
    finally:
        sys.setprofile(before)
    return count


def growth(task: Callable[[int], object], size: int, factor: int = 4) -> float:
    """How many times the work for `size` the work for `factor` * `size` is."""
    task(2)  # what is made once
    few = operations(lambda: task(size))
    return operations(lambda: task(factor * size)) / few
