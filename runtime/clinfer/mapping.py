"""Model files as memory: pages come from the file when they are touched, and can be let go again.

A mapped file that is shortened ends the process that touches what is gone (SIGBUS). So only files
that are large and on a local file system are mapped, and a model whose files have changed is not
used any more.

A model names the files that hold its tensors, and a model may come from anybody. `open_beside`
opens such a file only where it lies in the model's folder when every link is followed, and only if
it is a regular file. One exception: in a snapshot of Hugging Face's hub

    models--NAME/snapshots/HASH/model.onnx_data -> ../../blobs/SHA256

a link may lead to anything below the same `models--NAME`. Hard links are files of the folder.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
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


# What a file is opened with: nothing that could wait (a pipe), or hand it to a child.
_OPEN = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_OPEN |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | _NO_LINK
_OUTSIDE = "it leads outside the model's folder"


class _Pages(mmap.mmap):
    """A read-only mapping of a file. Its pages may be dropped at any time: they are read again."""


class MappedFile:
    """A file's bytes, one-dimensional and read-only. Raises OSError where it cannot be read.

    `descriptor` is the open file, which is closed here; `path` is where it was found.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        import numpy as np

        self.path = path
        with open(descriptor, "rb") as file:
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


def open_file(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file. Raises OSError, also for a folder, a pipe or a device."""
    return _open_regular(path, None, 0)


def open_beside(folder: Path, name: str) -> int:
    """A descriptor of the regular file `name` beside or below a model in `folder`.

    Raises OSError or ValueError where there is none, and where it is elsewhere (see the module's
    text). What is checked is what is opened: no link is followed on the way, whoever may be
    changing the folder meanwhile.
    """
    root, parts = _place(folder, name)
    if not parts:
        raise _unfit(stat.S_IFDIR)
    if os.open not in os.supports_dir_fd:
        return _open_regular(os.path.join(root, *parts), None, _NO_LINK)  # noqa: PTH118
    at = os.open(root, _FOLDER & ~_NO_LINK | getattr(os, "O_CLOEXEC", 0))
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER | getattr(os, "O_CLOEXEC", 0), dir_fd=at)
            os.close(at)
            at = inner
        return _open_regular(parts[-1], at, _NO_LINK)
    finally:
        os.close(at)


def stat_beside(folder: Path, name: str) -> os.stat_result:
    """The status of the file that `open_beside` opens. Raises as it does, but for rights to read.

    A name without folders that is no link needs no following.
    """
    if name == PurePosixPath(name).name and not is_absolute(name):
        status = (folder / name).lstat()
        if stat.S_ISREG(status.st_mode):
            return status
    descriptor = open_beside(folder, name)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def is_absolute(name: str) -> bool:
    """Whether a name does not depend on the folder it is looked up in, or goes up from it."""
    posix, windows = PurePosixPath(name.replace("\\", "/")), PureWindowsPath(name)
    return posix.is_absolute() or bool(windows.drive) or ".." in posix.parts


def _place(folder: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """The folder that `name` may not leave, and its path below it, every link followed."""
    if is_absolute(name):
        raise OSError(errno.EXDEV, _OUTSIDE)
    home = PurePath(os.path.realpath(folder))
    target = PurePath(os.path.realpath(home / name))
    for root in (home, _hub_root(home)):
        if root is not None and target.is_relative_to(root):
            return str(root), target.relative_to(root).parts
    raise OSError(errno.EXDEV, _OUTSIDE)


def _hub_root(folder: PurePath) -> PurePath | None:
    """`models--NAME`, for a folder in one of its snapshots."""
    for snapshot in (folder, *folder.parents):
        above = snapshot.parent
        if above.name == "snapshots" and above.parent.name.startswith("models--"):
            return above.parent
    return None


def _open_regular(name: str | os.PathLike[str], dir_fd: int | None, flags: int) -> int:
    """Opens a regular file; looked at before too, since opening a device may do things."""
    follow = not flags & _NO_LINK
    kind = os.stat(name, dir_fd=dir_fd, follow_symlinks=follow).st_mode
    if not stat.S_ISREG(kind):
        raise _unfit(kind)
    descriptor = os.open(name, _OPEN | flags, dir_fd=dir_fd)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise _unfit(kind)
    return descriptor


def _unfit(kind: int) -> OSError:
    if stat.S_ISDIR(kind):
        return OSError(errno.EISDIR, "it is a folder")
    if stat.S_ISLNK(kind):
        return OSError(errno.ELOOP, "its links lead nowhere, or change")
    return OSError(errno.EINVAL, "it is a pipe or a device")


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
