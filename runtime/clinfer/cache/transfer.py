"""Objects of a remote store by their path, through fsspec.

Everything fsspec and the packages behind it can raise becomes a `TransferError` with the reason
that statistics count. No message shows the user and password of a URL.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from clinfer.cache.deadline import SLOWEST, Beat, in_time
from clinfer.cache.files import write_fault
from clinfer.cache.stats import Reason
from clinfer.errors import CacheError, PropertyError

T = TypeVar("T")

_PARTIAL = "tmp"  # where a cache directory has them: what is left there is swept with it
_PIECE = 8 * 2**20
_NOT_FOUND = 404
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]*@")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(::|://)", re.IGNORECASE)

# Where an object appears whole when it is written. Elsewhere it is written under another name and
# moved.
_WHOLE = frozenset(
    ("abfs", "adl", "az", "gcs", "gs", "http", "https", "memory", "oci", "oss", "s3", "s3a", "tos")
)


class TransferError(Exception):
    """A call failed; `reason` is what statistics count, `lasting` says that others will too."""

    def __init__(self, reason: Reason, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.lasting = lasting


class Incoming:
    """An object as it arrives. Raises TransferError."""

    def __init__(self, file: Any, reading: Callable[[Callable[[Beat], None]], None]) -> None:
        self._file = file
        self._reading = reading
        self._start = b""

    def start(self, count: int) -> bytes:
        """The first bytes, at most `count`; fewer where the object is shorter."""
        found = bytearray()
        self._take(count, found.extend)
        self._start = bytes(found)
        return self._start

    def whole(self, size: int) -> memoryview:
        """The object with what `start` gave, `size` bytes, page-aligned."""
        extra = len(self._start) - size
        memory = mmap.mmap(-1, max(size, 1))
        memory.write(self._start[:size])
        if extra < 0:
            self._take(-extra, memory.write)
        if extra > 0 or memory.tell() < size or self._reads_on():
            found = "more" if memory.tell() == size else memory.tell()
            raise TransferError(Reason.DAMAGED, f"has {found} bytes, its header says {size}")
        return memoryview(memory)[:size].toreadonly()

    def _reads_on(self) -> bool:
        found = bytearray()
        self._take(1, found.extend)
        return bool(found)

    def _take(self, count: int, keep: Callable[[bytes], object]) -> None:
        def task(beat: Beat) -> None:
            left = count
            while left and (piece := self._file.read(min(_PIECE, left))):
                beat(len(piece))
                keep(piece)
                left -= len(piece)

        self._reading(task)


class Objects:
    """The objects below a URL. `place` is the URL as messages may show it.

    A call that gets no answer for `timeout` seconds is given up, and one that takes longer than
    that and a second for each MiB. Nothing is opened before the first call; a forked process opens
    anew. Raises PropertyError for text that is no such URL.
    """

    def __init__(self, url: str, timeout: float) -> None:
        if _SCHEME.match(url) is None:
            raise PropertyError(
                f"a remote store is a URL, found {url!r}: say s3://bucket/folder or file:///folder"
            )
        if url.lower().startswith("http") and re.search(r"[?#]", url):
            raise PropertyError("the URL of a remote store over HTTP takes no '?' and no '#'")
        self.place = without_credentials(url)
        self._url = url
        self._timeout = timeout
        self._opened: tuple[int, Any, str] | None = None

    def connect(self) -> None:
        """Opens the file system. Raises CacheError saying what is missing, say a package."""
        try:
            in_time(self._timeout, lambda _: self._open())
        except Exception as error:
            raise CacheError(
                f"the remote store {self.place}: {without_credentials(str(error))}"
            ) from None

    def local_folder(self) -> Path | None:
        """The folder of a store on this machine, None for any other. Raises TransferError."""
        file_system, root = self._reading(lambda _: self._open())
        return Path(root) if _protocols(file_system) & {"file", "local"} else None

    def is_memory(self) -> bool:
        """Whether the store lives in this process. Raises TransferError."""
        file_system, _ = self._reading(lambda _: self._open())
        return "memory" in _protocols(file_system)

    def read(self, name: str, most: int) -> memoryview:
        """An object's bytes. Raises TransferError, also above `most` bytes."""
        with self.incoming(name, most) as object_:
            data = object_.start(most + 1)
        if len(data) > most:
            raise too_long(len(data), most)
        return memoryview(data)

    @contextmanager
    def incoming(self, name: str, most: int) -> Iterator[Incoming]:
        """An object that is read bit by bit. Raises TransferError, also above `most` bytes."""

        def task(_: Beat) -> tuple[Any, int | None]:
            file_system, root = self._open()
            # An HTTP server need not know ranges: the whole is asked for and read as it comes.
            streamed = bool(_protocols(file_system) & {"http", "https"})
            path = f"{root}/{name}"
            file = file_system.open(path, "rb", block_size=0 if streamed else _PIECE)
            return file, None if streamed else getattr(file, "size", None)

        file, size = self._reading(task)
        try:
            if size is not None and size > most:
                raise too_long(size, most)
            yield Incoming(file, self._reading)
        finally:
            with suppress(Exception):
                in_time(self._timeout, lambda _: file.close())

    def write(self, name: str, data: bytes) -> None:
        """Stores an object, replacing an older one. Raises TransferError."""

        def task(beat: Beat) -> None:
            file_system, root = self._open()
            _write(file_system, root, name, data)

        try:
            in_time(self._timeout + len(data) / SLOWEST, task)
        except TransferError:
            raise
        except Exception as error:
            raise _failure(error, Reason.UNWRITABLE, Reason.READ_ONLY) from None

    def start(self, name: str, count: int) -> bytes:
        """The first bytes of an object, at most `count`. Raises TransferError."""

        def task(_: Beat) -> bytes:
            file_system, root = self._open()
            return bytes(file_system.cat_file(f"{root}/{name}", start=0, end=count))

        return self._reading(task)

    def names(self, folder: str) -> list[str]:
        """The objects of a folder, without its path, in order. Raises TransferError."""

        def task(_: Beat) -> list[str]:
            file_system, root = self._open()
            try:
                found = file_system.ls(f"{root}/{folder}", detail=False)
            except FileNotFoundError:
                return []
            return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

        return self._reading(task)

    def remove(self, name: str) -> None:
        """Removes an object, if it is there. Raises TransferError."""

        def task(_: Beat) -> None:
            file_system, root = self._open()
            with suppress(FileNotFoundError):
                file_system.rm_file(f"{root}/{name}")

        self._removing(task)

    def remove_all(self, folder: str) -> None:
        """Removes a folder with all that is in it, if it is there. Raises TransferError."""

        def task(_: Beat) -> None:
            file_system, root = self._open()
            with suppress(FileNotFoundError):
                file_system.rm(f"{root}/{folder}", recursive=True)

        self._removing(task)

    def _removing(self, task: Callable[[Beat], None]) -> None:
        try:
            in_time(self._timeout, task)
        except TransferError:
            raise
        except Exception as error:
            raise _failure(error, Reason.UNWRITABLE, Reason.READ_ONLY) from None

    def _reading(self, task: Callable[[Beat], T]) -> T:
        """What a task gives that only reads. Raises TransferError."""
        try:
            return in_time(self._timeout, task)
        except TransferError:
            raise
        except Exception as error:
            raise _failure(error, Reason.UNREADABLE, Reason.UNREADABLE) from None

    def _open(self) -> tuple[Any, str]:
        """The file system and the path of the store in it."""
        process = os.getpid()
        opened = self._opened
        if opened is None or opened[0] != process:
            try:
                from fsspec.core import url_to_fs

                file_system, root = url_to_fs(self._url, use_listings_cache=False)
            except ImportError as error:  # fsspec itself, or what it needs for this kind of URL
                hint = ": pip install 'clinfer[remote]'" if error.name == "fsspec" else ""
                raise TransferError(Reason.UNREADABLE, f"{error}{hint}", lasting=True) from None
            except Exception as error:
                raise TransferError(
                    Reason.UNREADABLE,
                    without_credentials(f"{type(error).__name__}: {error}"),
                    lasting=True,
                ) from None
            opened = (process, file_system, root.rstrip("/"))
            self._opened = opened
        return opened[1], opened[2]


def _write(file_system: Any, root: str, name: str, data: bytes) -> None:
    path = f"{root}/{name}"
    _make_folder(file_system, path)
    if _protocols(file_system) & _WHOLE:
        file_system.pipe_file(path, data)
        return
    # In a folder of their own, so that no listing shows what a process left when it was killed.
    partial = f"{root}/{_PARTIAL}/{os.getpid()}.{os.urandom(4).hex()}"
    _make_folder(file_system, partial)
    try:
        file_system.pipe_file(partial, data)
        file_system.mv(partial, path)
    except BaseException:
        with suppress(Exception):
            file_system.rm_file(partial)
        raise


def _make_folder(file_system: Any, path: str) -> None:
    with suppress(NotImplementedError):  # object stores have no folders, and some say so
        file_system.makedirs(path.rpartition("/")[0], exist_ok=True)


def too_long(size: int, most: int) -> TransferError:
    """The error of an object of that many bytes."""
    return TransferError(Reason.DAMAGED, f"has {size} bytes or more, at most {most} are read")


def _failure(error: Exception, reason: Reason, forbidden: Reason) -> TransferError:
    """What an exception of fsspec means: `forbidden` where it is a matter of rights."""
    actual = error
    if isinstance(error, FileNotFoundError):
        # fsspec's HTTP calls everything 'not found' and keeps what it was as the cause.
        cause = error.__cause__
        if cause is None or getattr(cause, "status", 0) == _NOT_FOUND:
            return TransferError(Reason.ABSENT, "no such object")
        actual = cause if isinstance(cause, Exception) else error
    message = without_credentials(f"{type(actual).__name__}: {actual}")
    if isinstance(actual, OSError) and write_fault(actual) is Reason.NO_SPACE:
        return TransferError(Reason.NO_SPACE, message)
    if isinstance(actual, (PermissionError, NotImplementedError)):
        return TransferError(forbidden, message)
    return TransferError(reason, message, lasting=True)


def _protocols(file_system: Any) -> set[str]:
    named = file_system.protocol
    return {named} if isinstance(named, str) else set(named)


def without_credentials(text: str) -> str:
    """Text without the user and password of any URL in it."""
    return _CREDENTIALS.sub("", text)
