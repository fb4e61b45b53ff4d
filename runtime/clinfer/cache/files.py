"""Files of a cache: loaded without trusting them, written so that a reader never sees a part.

Invariant: a file of a cache is never written in place. It is written under a temporary name, synced
and renamed over the old one, so whoever has the old file open or mapped keeps the old bytes, and no
mapped file ever shrinks (which would end the process with SIGBUS).
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from clinfer.cache.stats import Reason
from clinfer.cache.trust import distrust
from clinfer.mapping import MAP_FROM, may_map

_OPEN_READ = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # or opening a FIFO would wait for its writer
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_OPEN_NEW = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)

READABLE_FILE = 0o644
READABLE_FOLDER = 0o755
_NO_SPACE = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_NO_WRITES = (errno.EACCES, errno.EPERM, errno.EROFS)
_REPLACE_DELAYS = (0.005, 0.02, 0.08, 0.3)


class LoadError(Exception):
    """A file could not be loaded; `reason` is what statistics count."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Loaded(NamedTuple):
    """A file's bytes, page-aligned and read-only; `mapped` where they are the file's own pages.

    `size` is the whole file's in bytes, also where only a part was asked for.
    """

    view: memoryview
    size: int
    mapped: bool


def load(path: Path, *, allow_shared: bool, most: int | None = None) -> Loaded:
    """The bytes of a regular file (its first `most`), opened once and without following a link.

    Raises LoadError: absent, refused (a link; not a regular file; written by others, unless
    `allow_shared`) or unreadable.
    """
    try:
        descriptor = os.open(path, _OPEN_READ)
    except (FileNotFoundError, NotADirectoryError):
        raise LoadError(Reason.ABSENT, "no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LoadError(Reason.REFUSED, "is a symbolic link") from None
        raise LoadError(Reason.UNREADABLE, f"cannot be opened: {error.strerror}") from None
    try:
        return _load_open(descriptor, allow_shared, most)
    except (OSError, ValueError, MemoryError) as error:
        raise LoadError(Reason.UNREADABLE, f"cannot be read: {error}") from None
    finally:
        os.close(descriptor)


def _load_open(descriptor: int, allow_shared: bool, most: int | None) -> Loaded:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise LoadError(Reason.REFUSED, "is not a regular file")
    doubt = None if allow_shared else distrust(status)
    if doubt is not None:
        hint = "chmod go-w, or set CLINFER_CACHE_ALLOW_SHARED=1 if that is meant"
        raise LoadError(Reason.REFUSED, f"{doubt} ({hint})")
    size = status.st_size
    wanted = size if most is None else min(most, size)
    if wanted == 0:
        return Loaded(memoryview(b""), size, False)
    if wanted >= MAP_FROM and may_map(status.st_dev):
        return Loaded(memoryview(_map(descriptor, wanted)), size, True)
    memory = mmap.mmap(-1, wanted)
    with memoryview(memory) as view, open(descriptor, "rb", buffering=0, closefd=False) as file:
        filled = 0
        while filled < wanted:
            count = file.readinto(view[filled:])
            if not count:
                raise OSError(f"ends at byte {filled}, expected {wanted}")
            filled += count
    return Loaded(memoryview(memory).toreadonly(), size, False)


def _map(descriptor: int, size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    return mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


def write_atomic(
    target: Path, temporary: Path, parts: Iterable[memoryview], *, readable: bool = False
) -> int:
    """Writes the parts to `target` through a new file in the folder `temporary`; returns bytes.

    Both lie on one file system, and both folders exist. The file is its owner's alone (0600), or
    `readable` by every user (0644), whatever the umask. After any exception (OSError; whatever
    `parts` raises) the temporary file is gone and the old target is as it was.
    """
    name = f"{target.name[:16]}.{os.getpid()}.{os.urandom(8).hex()}"
    path = temporary / name
    descriptor = os.open(path, _OPEN_NEW, 0o600)
    try:
        try:
            if readable:
                path.chmod(READABLE_FILE)
            size = sum(_write_all(descriptor, part) for part in parts)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _replace(path, target)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    sync_folder(target.parent)
    return size


def _write_all(descriptor: int, part: memoryview) -> int:
    rest = part
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]
    return part.nbytes


def _replace(path: Path, target: Path) -> None:
    """Windows refuses to replace a file that someone has open; that mostly passes soon."""
    for delay in _REPLACE_DELAYS if sys.platform == "win32" else ():
        with suppress(PermissionError):
            path.replace(target)
            return
        time.sleep(delay)
    path.replace(target)


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder durable, where the system can."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_fault(error: OSError) -> Reason:
    """Which reason a failed write counts as."""
    if error.errno in _NO_SPACE:
        return Reason.NO_SPACE
    if error.errno in _NO_WRITES:
        return Reason.READ_ONLY
    return Reason.UNWRITABLE
