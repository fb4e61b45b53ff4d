"""Time that is over when something has happened: no test depends on how fast a machine is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

LIMIT = 600.0
"""Seconds that nothing takes, however busy the machine is."""


def timer_over_at(mark: Path) -> type[Thread]:
    """In place of `threading.Timer`: time of `LIMIT` is over once when the file is there.

    There is to be one such timer at a time.
    """

    class Timer(Thread):
        def __init__(self, seconds: float, action: Callable[[], None]) -> None:
            super().__init__(daemon=True)
            self._seconds = seconds
            self._action = action
            self._cancelled = Event()

        def run(self) -> None:
            while not self._cancelled.wait(0.02):
                if self._seconds == LIMIT and mark.exists():
                    mark.unlink()
                    self._action()
                    return

        def cancel(self) -> None:
            self._cancelled.set()

    return Timer
