"""A folder of this process alone for what drivers write and read back, in memory where possible.

PoCL unpacks every binary into its cache folder, each file synced to disk, and believes files that
it finds there more than the binary it was given. In a fresh folder in memory unpacking costs a
tenth, and only what the binary holds is used. The folder goes when the process ends; folders of
processes that were killed go when the next one is made. Whether a process lives is seen by a lock
that it holds on a file in its folder.
"""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import IO

_PREFIX = "clinfer-scratch-"
_LOCK = ".lock"
_LEAST_BYTES = 32 << 20
# A folder younger than this may not be locked yet.
_GRACE_SECONDS = 60.0
_held: list[IO[bytes]] = []


def new_folder() -> Path:
    """A new empty folder, removed when this process ends."""
    base = _base()
    _remove_abandoned(base)
    folder = base / f"{_PREFIX}{os.urandom(8).hex()}"
    folder.mkdir(mode=0o700)
    lock = (folder / _LOCK).open("wb")
    _try_lock(lock)
    _held.append(lock)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _base() -> Path:
    """Memory, if there is room and code may be loaded from there; else the usual folder."""
    for place in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "")):
        if place and _is_fit(Path(place)):
            return Path(place)
    import tempfile

    return Path(tempfile.gettempdir())


def _is_fit(place: Path) -> bool:
    try:
        facts = os.statvfs(place)
    except (OSError, AttributeError):
        return False
    may_execute = not facts.f_flag & getattr(os, "ST_NOEXEC", 0)
    room = facts.f_bavail * facts.f_frsize
    return may_execute and room >= _LEAST_BYTES and os.access(place, os.W_OK | os.X_OK)


def remove_all() -> None:
    """Removes this process's folders, for one that ends without its `atexit` functions."""
    for lock in _held:
        _remove(Path(lock.name).parent, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            facts = folder.lstat()
            if facts.st_uid != os.getuid() or time.time() - facts.st_mtime < _GRACE_SECONDS:
                continue
            with (folder / _LOCK).open("rb") as lock:
                if _try_lock(lock):
                    import shutil

                    shutil.rmtree(folder, ignore_errors=True)
        except (OSError, AttributeError):
            continue


def _try_lock(file: IO[bytes]) -> bool:
    """Whether this process holds the lock now; False where files cannot be locked."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
