"""Calls that must not hang: run beside the caller, given up when nothing is heard of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Beat = Callable[[], None]


def in_time(seconds: float, task: Callable[[Beat], T]) -> T:
    """What `task` returns or raises; TimeoutError when it is silent for `seconds`.

    `task` is called with a function by which it tells that it gets on. It runs in a thread of its
    own, which nobody can end: after a timeout it is left to itself, and its result is dropped. The
    thread does not keep the process alive.
    """
    news: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            result = task(lambda: news.put(None))
        except BaseException as error:
            news.put(_raiser(error))
        else:
            news.put(lambda: result)

    threading.Thread(target=work, name="clinfer-remote", daemon=True).start()
    while True:
        try:
            outcome = news.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"no answer within {seconds:g} s") from None
        if outcome is not None:
            return outcome()


def _raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail
