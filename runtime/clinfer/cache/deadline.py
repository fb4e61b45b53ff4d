"""Calls that must not hang: run beside the caller, given up when they are silent or too slow."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Beat = Callable[[int], None]

SLOWEST = 2**20
"""Bytes in a second below which a transfer is given up."""


class _AbandonedError(Exception):
    """Nobody waits for the task any more."""


def in_time(seconds: float, task: Callable[[Beat], T]) -> T:
    """What `task` returns or raises; TimeoutError when it is silent for `seconds`, or too slow.

    `task` is called with a function by which it tells how many bytes have come. For each of them it
    has more time, as much as at `SLOWEST` bytes a second: who sends a byte now and then gains
    nothing. It runs in a thread of its own, which nobody can end: after a timeout its next beat
    raises, and its result is dropped. The thread does not keep the process alive.
    """
    news: queue.SimpleQueue[Callable[[], T] | int] = queue.SimpleQueue()
    abandoned = threading.Event()

    def beat(count: int) -> None:
        if abandoned.is_set():
            raise _AbandonedError
        news.put(count)

    def work() -> None:
        try:
            result = task(beat)
        except BaseException as error:
            news.put(_raiser(error))
        else:
            news.put(lambda: result)

    threading.Thread(target=work, name="clinfer-remote", daemon=True).start()
    start = time.monotonic()
    received = 0
    try:
        while True:
            left = start + seconds + received / SLOWEST - time.monotonic()
            outcome = news.get(timeout=max(0.0, min(seconds, left)))
            if not isinstance(outcome, int):
                return outcome()
            received += outcome
            if time.monotonic() > start + seconds + received / SLOWEST:
                raise queue.Empty
    except queue.Empty:
        abandoned.set()
        if not received:
            raise TimeoutError(f"no answer within {seconds:g} s") from None
        passed = time.monotonic() - start
        raise TimeoutError(f"only {received} bytes within {passed:.1f} s") from None


def _raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail
