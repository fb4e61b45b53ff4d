"""A cache directory's layout, and what can be done to it without reading an entry's content.

    DIRECTORY/
      CACHEDIR.TAG           tells backup programs that nothing here needs keeping
      entries/ab/abcd...     one file per entry, named by the SHA-256 of its key record
      memos/12/1234...       small notes that only save time (content digests of model files)
      pins/abcd...           an empty file: that entry is not evicted
      locks/abcd...          build locks; their content means nothing
      drivers/nvidia/...     what GPU drivers keep of their own (`clinfer.device.driver_caches`)
      tmp/                   files being written; leftovers are swept after an hour

Every file name is made here from hexadecimal digits. Files with other names are left alone. The
modification time of an entry is when it was last used.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import NamedTuple

from clinfer.cache.files import READABLE_FOLDER, write_atomic
from clinfer.cache.trust import distrust_directory
from clinfer.errors import CacheError

DRIVERS = "drivers"
_DIGEST = re.compile(r"[0-9a-f]{64}")
TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# This directory is a cache of clinfer; see https://bford.info/cachedir/\n"
)
_TEMPORARY_SECONDS = 3600.0
_MEMO_SECONDS = 90 * 86400.0
_LOCK_SECONDS = 7 * 86400.0
# A time further ahead than machines' clocks differ was taken from a clock that was wrong.
_AHEAD_SECONDS = 86400.0


class UntrustedDirectoryError(Exception):
    """Others can write the directory; the message is for the user."""


class Slot(NamedTuple):
    """An entry's file: its size in bytes, and when it was last used in seconds since 1970."""

    digest: str
    path: Path
    size: int
    used: float


class Removed(NamedTuple):
    """What a removal took away, and the bytes of unpinned entries it left; bytes are file sizes.

    `stuck` counts the entries that should have gone and are still there.
    """

    entries: int
    bytes: int
    left: int = 0
    stuck: int = 0


class Folder:
    """Paths, scans and removals of one cache directory; nothing is created before `prepare`.

    What is created is its owner's alone, or `readable` by every user.
    """

    def __init__(self, directory: Path, *, allow_shared: bool, readable: bool = False) -> None:
        self.directory = directory
        self.readable = readable
        self._allow_shared = allow_shared
        self._checked: tuple[int, ...] | None = None

    def entry(self, digest: str) -> Path:
        """Where an entry lies. Raises CacheError unless `digest` is 64 hexadecimal digits."""
        return self._named("entries", digest)

    def memo(self, digest: str) -> Path:
        """Where a memo lies. Raises CacheError unless `digest` is 64 hexadecimal digits."""
        return self._named("memos", digest)

    def pin_mark(self, digest: str) -> Path:
        """The file whose presence pins an entry. Raises CacheError as `entry`."""
        return self.directory / "pins" / _checked(digest)

    def lock(self, digest: str) -> Path:
        """The file to lock while an entry is being built. Raises CacheError as `entry`."""
        return self.directory / "locks" / _checked(digest)

    def _named(self, group: str, digest: str) -> Path:
        return self.directory / group / _checked(digest)[:2] / digest

    def check(self) -> None:
        """Raises UntrustedDirectoryError where others can write the directory or what is above.

        The answer is kept while the directory stays the same one with the same owner and mode. A
        directory that does not exist passes. Raises OSError where it cannot be examined.
        """
        if self._allow_shared:
            return
        try:
            status = self.directory.stat()
        except FileNotFoundError:
            return
        identity = (status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid)
        if identity == self._checked:
            return
        self._refuse_untrusted()
        if not S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is not a directory", str(self.directory))
        if not os.access(self.directory, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.directory))
        self._checked = identity

    def _refuse_untrusted(self) -> None:
        doubt = distrust_directory(self.directory)
        if doubt is not None:
            raise UntrustedDirectoryError(doubt)

    def prepare(self, target: Path) -> Path:
        """Makes the folder of `target` and returns the folder for temporary files.

        Raises UntrustedDirectoryError, before and after creating, and OSError.
        """
        if not self._allow_shared and not self.directory.exists():
            self._refuse_untrusted()
        new = _make_directories(self.directory, self.readable)
        self.check()
        temporary = self.directory / "tmp"
        _make_directories(temporary, self.readable)
        _make_directories(target.parent, self.readable)
        if new:
            with suppress(OSError):
                tag = self.directory / "CACHEDIR.TAG"
                write_atomic(tag, temporary, [memoryview(TAG)], readable=self.readable)
        return temporary

    def prepared(self) -> Path:
        """The folder for temporary files, which `prepare` has made; nothing is made here.

        Raises UntrustedDirectoryError and OSError.
        """
        self.check()
        return self.directory / "tmp"

    def slots(self) -> Iterator[Slot]:
        """Every entry's file, in no order. Folders that cannot be read are passed over."""
        for path, status in self._files("entries", depth=2):
            if _DIGEST.fullmatch(path.name) is not None:
                yield Slot(path.name, path, status.st_size, status.st_mtime)

    def obstacles(self) -> Iterator[Path]:
        """Directories where an entry's file would lie, so that it can never be stored."""
        for path, _ in self._files("entries", depth=2, folders=True):
            if _DIGEST.fullmatch(path.name) is not None:
                yield path

    def pins(self) -> frozenset[str]:
        """The digests of pinned entries, present or not."""
        names = [path.name for path, _ in self._files("pins", depth=1)]
        return frozenset(name for name in names if _DIGEST.fullmatch(name) is not None)

    def pin(self, digest: str) -> None:
        """Exempts an entry from eviction. Raises OSError, UntrustedDirectoryError."""
        mark = self.pin_mark(digest)
        write_atomic(mark, self.prepare(mark), [], readable=self.readable)

    def unpin(self, digest: str) -> None:
        """Ends a pin; nothing happens where there is none. Raises OSError."""
        self.pin_mark(digest).unlink(missing_ok=True)

    def prune(self, *, limit: int | None, age: float | None, share: float = 1.0) -> Removed:
        """Removes unpinned entries unused for `age` seconds; then, if the others take more than
        `limit` bytes, the least recently used until they take at most `share` of it.

        Pinned entries neither go nor count. The last entry stays if it fits the limit by itself.
        """
        pinned = self.pins()
        now = time.time()
        free = [slot for slot in self.slots() if slot.digest not in pinned]
        free.sort(key=lambda slot: _known_time(slot.used, now))
        oldest = 0.0 if age is None else now - age
        split = sum(_known_time(slot.used, now) < oldest for slot in free)
        doomed = free[:split]
        kept = sum(slot.size for slot in free[split:])
        if limit is not None and kept > limit:
            for slot in free[split:]:
                alone = kept == slot.size
                if kept <= limit * share or (alone and kept <= limit):
                    break
                doomed.append(slot)
                kept -= slot.size
        total = sum(slot.size for slot in free)
        removed = _remove(doomed)
        self.sweep()
        return removed._replace(left=total - removed.bytes)

    def clear(self, *, keep_pinned: bool) -> Removed:
        """Removes entries, memos, locks, leftovers and drivers' caches; pins and what they name
        unless kept."""
        kept = self.pins() if keep_pinned else frozenset()
        removed = _remove(slot for slot in self.slots() if slot.digest not in kept)
        if not keep_pinned:
            self._remove_files("pins", 1, 0.0)
        self._remove_files("memos", 2, 0.0)
        self._remove_files("tmp", 1, 0.0)
        self._remove_files("locks", 1, 0.0)
        drivers = self.directory / DRIVERS
        if drivers.is_dir() and not drivers.is_symlink():
            import shutil

            shutil.rmtree(drivers, ignore_errors=True)
        return removed

    def sweep(self) -> None:
        """Removes what nobody needs any more: leftovers of killed writers, old memos and locks."""
        self._remove_files("tmp", 1, _TEMPORARY_SECONDS)
        self._remove_files("memos", 2, _MEMO_SECONDS)
        self._remove_files("locks", 1, _LOCK_SECONDS)

    def _remove_files(self, group: str, depth: int, age: float) -> None:
        now = time.time()
        for path, status in self._files(group, depth):
            if age == 0.0 or _known_time(status.st_mtime, now) < now - age:
                with suppress(OSError):
                    path.unlink()

    def _files(
        self, group: str, depth: int, folders: bool = False
    ) -> Iterator[tuple[Path, os.stat_result]]:
        """What lies that deep in a group: directories if `folders`, else whatever is none."""
        above = [str(self.directory / group)]
        for level in range(1, depth + 1):
            deeper: list[str] = []
            for item in _scan(above):
                with suppress(OSError):
                    is_folder = item.is_dir(follow_symlinks=False)
                    if level < depth and is_folder:
                        deeper.append(item.path)
                    elif level == depth and is_folder is folders:
                        yield Path(item.path), item.stat(follow_symlinks=False)
            above = deeper


def _known_time(used: float, now: float) -> float:
    """When a file was last used: long ago where its time cannot be, so that it does not stay for
    ever. Whoever uses it gives it the right time again."""
    return used if used <= now + _AHEAD_SECONDS else 0.0


def _scan(folders: Iterable[str]) -> Iterator[os.DirEntry[str]]:
    for folder in folders:
        try:
            with os.scandir(folder) as listing:
                items = list(listing)
        except OSError:
            continue
        yield from items


def _remove(slots: Iterable[Slot]) -> Removed:
    """Removes entries; one that is gone already is not counted, one that stays is stuck."""
    entries = 0
    size = 0
    stuck = 0
    for slot in slots:
        gone = _unlink(slot.path)
        if gone:
            entries += 1
            size += slot.size
        stuck += gone is False
    return Removed(entries, size, stuck=stuck)


def _unlink(path: Path) -> bool | None:
    """Whether a file could be removed; None where it is gone already."""
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    except OSError:
        return False
    return True


def _make_directories(path: Path, readable: bool) -> bool:
    """Makes a directory and its parents, mode 0700, or 0755 where they are to be readable by every
    user, whatever the umask; returns whether the directory is new.

    Unlike `mkdir(parents=True)`, the mode is for the parents too.
    """
    missing = []
    for folder in (path, *path.parents):
        if folder.is_dir():
            break
        missing.append(folder)
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if readable:
                folder.chmod(READABLE_FOLDER)
    if not path.is_dir():
        raise FileExistsError(errno.EEXIST, "exists and is not a directory", str(path))
    return bool(missing)


def _checked(digest: str) -> str:
    if _DIGEST.fullmatch(digest) is None:
        raise CacheError(f"{digest!r} is no entry's name: 64 hexadecimal digits")
    return digest
