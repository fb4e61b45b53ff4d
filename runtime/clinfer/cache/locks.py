"""Build locks: of several processes that miss the same entry, one builds it and the others wait.

A lock is advice. Without filelock, on a file system without locks, after a timeout or any other
fault the caller builds for itself, which costs time and nothing else. The kernel ends the lock of a
process that dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process's build."""

_POLL_SECONDS = 0.02


@contextmanager
def build_lock(path: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[bool]:
    """Holds the lock file `path`, whose folder exists; yields whether it could be had.

    Waits at most `timeout` seconds. Any thread may end it. Raises only what the body of the `with`
    statement raises.
    """
    try:
        from filelock import FileLock
    except ImportError:
        yield False
        return
    held = False
    lock = None
    # filelock raises OSError, its own Timeout (an OSError too), NotImplementedError where the file
    # system has no locks, RuntimeError where this thread holds the lock already.
    with suppress(OSError, NotImplementedError, RuntimeError, ValueError):
        lock = FileLock(path, mode=0o600, thread_local=False)
        lock.acquire(timeout=timeout, poll_interval=_POLL_SECONDS)
        held = True
    try:
        yield held
    finally:
        if lock is not None and held:
            with suppress(OSError, RuntimeError):
                lock.release()
