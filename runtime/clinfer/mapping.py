"""Model files as memory: pages come from the file when they are touched, and can be let go again.

A mapped file that is shortened ends the process that touches what is gone (SIGBUS). So only files
that are large and on a local file system are mapped, and a model whose files have changed is not
used any more.
"""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MAP_FROM = 2**20
"""Files of at least this many bytes are mapped, smaller ones are read."""

# File systems whose files keep their pages after another machine has removed them. From any other a
# file is read: a page fault on a file that is gone from an NFS server ends the process.
_LOCAL = frozenset(
    b"ext2 ext3 ext4 xfs btrfs bcachefs f2fs zfs tmpfs overlay squashfs erofs jfs".split()
)


class _Pages(mmap.mmap):
    """A read-only mapping of a file. Its pages may be dropped at any time: they are read again."""


class MappedFile:
    """A file's bytes, one-dimensional and read-only. Raises OSError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        self.path = path
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            self._state = _state(status)
            self.is_mapped = status.st_size >= MAP_FROM and may_map(status.st_dev)
            if self.is_mapped:
                pages = _Pages(file.fileno(), status.st_size, access=mmap.ACCESS_READ)
                self.content: Array = np.frombuffer(pages, np.uint8)
            else:
                content = file.read()
                self.content = np.frombuffer(content, np.uint8) if content else np.empty(0, "u1")

    @property
    def has_changed(self) -> bool:
        """Whether the mapped file is another than when it was opened; a copy never changes."""
        if not self.is_mapped:
            return False
        try:
            return _state(self.path.stat()) != self._state
        except OSError:
            return True


def is_file(path: Path) -> bool:
    """Whether there is a regular file; not where the path cannot be followed, or be one at all."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # no right to look, too long a name; a null character
        return False


def is_mapped(array: Array) -> bool:
    """Whether the array lies in a mapped model file."""
    return _pages_of(array) is not None


def drop_pages(array: Array) -> None:
    """Gives the memory of an array in a mapped file back; later reads find it in the file again.

    Of other arrays nothing is dropped.
    """
    pages = _pages_of(array)
    if pages is None or not array.size or not hasattr(pages, "madvise"):
        return
    first = array.__array_interface__["data"][0] - _address(pages)
    reach = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
    low = first + sum(r for r in reach if r < 0)
    high = first + sum(r for r in reach if r > 0) + array.itemsize
    start = low - low % mmap.PAGESIZE
    pages.madvise(mmap.MADV_DONTNEED, start, high - start)


def _pages_of(array: Any) -> _Pages | None:
    """The mapping that an array, through whatever views, lies in."""
    while array is not None and not isinstance(array, _Pages):
        array = getattr(array, "obj", None) or getattr(array, "base", None)
    return array


def _address(pages: _Pages) -> int:
    import numpy as np

    found: int = np.frombuffer(pages, np.uint8).__array_interface__["data"][0]
    return found


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def may_map(device: int) -> bool:
    """Whether a mapped file on that device outlives its removal.

    Windows refuses to remove mapped files. Elsewhere the device must be found in Linux's table of
    mounts, as a local file system.
    """
    if sys.platform == "win32":
        return True
    try:
        table = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}".encode()
    for line in table.splitlines():
        mount, _, source = line.partition(b" - ")
        if wanted in mount.split()[2:3]:
            return bool(_LOCAL.intersection(source.split()[:1]))
    return False
