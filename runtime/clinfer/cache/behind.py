"""Storing behind the first runs: a large entry is digested and written while the caller goes on.

Whoever compiles wants to run. What is stored is in memory and does not change, so a thread of low
priority can write it. The promise is that nobody in this process sees an entry before it is whole
or a directory without it: looking an entry up waits for that entry, whatever counts, lists or
removes entries waits for all, and so does the end of the interpreter. Other processes wait for the
build lock, which goes along. A process that is killed meanwhile leaves what one leaves that is
killed while it stores: a temporary file, which pruning removes, and a miss.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from clinfer import forks

FROM_BYTES = 8 * 2**20
"""Below, storing is done before anyone would miss it."""

_NICENESS = 10

_pending: dict[threading.Thread, str] = {}
_lock = forks.new_lock()
forks.before_heirs(_pending.clear)


def run(digest: str, task: Callable[[], object]) -> None:
    """Has the task, which stores the entry of that key, done in a thread; at once if none starts.

    What the task raises ends the thread as it would end any.
    """

    def work() -> None:
        try:
            _step_back()
            task()
        finally:
            with _lock:
                _pending.pop(thread, None)

    thread = threading.Thread(target=work, name="clinfer-store", daemon=False)
    try:
        with _lock:  # which its end waits for, so that it ends after it is known
            thread.start()
            _pending[thread] = digest
    except RuntimeError:
        task()


def settle(digest: str | None = None) -> None:
    """Waits until the entry of that key, or all of them, are stored."""
    if not _pending:
        return
    with _lock:
        waited = [t for t, stored in _pending.items() if digest in (None, stored)]
    for thread in waited:
        if thread is not threading.current_thread():  # the one that stores waits for nobody
            thread.join()


def _step_back() -> None:
    """Linux has a niceness for each thread, which those that it starts inherit."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
