"""Work on large memory shared out to threads: what NumPy and hashlib do of it releases the GIL."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Made = TypeVar("Made")

_MOST_THREADS = 8
_THREADED_FROM = 8 * 2**20


def usable_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def executor(count: int, name: str) -> ThreadPoolExecutor:
    """A pool of threads. Raises `OSError` once the interpreter has begun to end.

    The standard library's module of them cannot be loaded then any more, say in what `atexit`
    calls; where it has been loaded before, it is `submit` that raises `RuntimeError`.
    """
    try:
        from concurrent.futures import ThreadPoolExecutor
    except RuntimeError as error:
        raise OSError(f"the interpreter is ending: {error}") from error
    return ThreadPoolExecutor(count, name)


def in_threads(task: Callable[[int], Made], count: int, size: int) -> list[Made]:
    """[task(0), ..., task(count - 1)], begun in this order, in threads where `size` bytes are worth
    it.

    The calling thread takes part, so the work is done even where no thread can be started. The
    first exception of a task is raised here.
    """
    threads = min(_MOST_THREADS, usable_cores(), count) if size >= _THREADED_FROM else 1
    if threads <= 1:
        return [task(index) for index in range(count)]
    results: dict[int, Made] = {}
    waiting = deque(range(count))
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            try:
                index = waiting.popleft()
            except IndexError:
                return
            try:
                results[index] = task(index)
            except BaseException as error:
                failures.append(error)

    helpers = []
    for _ in range(threads - 1):
        helper = threading.Thread(target=work, name="clinfer-memory", daemon=True)
        try:
            helper.start()
        except RuntimeError:
            break
        helpers.append(helper)
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(count)]
