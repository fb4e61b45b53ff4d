"""A pack in one file: a sealed index, then each entry's container in the order of the index.

    sealed index    see `clinfer.cache.sealed`
    frame, per entry of the index, in its order:
        4   how it is stored: 0 as it is, 1 compressed (zlib, RFC 1950)
        4   zero
        8   bytes stored
            stored bytes
    the file ends with the last frame

Integers are little-endian. There are no names but those in the index, which are digests. A frame
says nothing that must be believed: what comes out of it is compared with the index. Before any
memory is taken, its size is bounded by the index, by the bytes that lie in the file, and by
`Limits.ratio` times those for compressed ones.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from clinfer import forks
from clinfer.cache.entry import Container, read_container
from clinfer.cache.files import write_atomic
from clinfer.cache.header import EntryError, damaged
from clinfer.cache.index import LIMITS, Index, IndexEntry, Limits, index_of
from clinfer.cache.sealed import seal
from clinfer.cache.signing import SigningKey
from clinfer.cache.stats import Reason
from clinfer.errors import CacheError

Loaders = Mapping[str, Callable[[], Container]]
"""Entries by name, each read and checked when its turn comes."""

_RAW, _ZLIB = 0, 1
_FRAME = struct.Struct("<IIQ")
_PIECE = 2**20
_WORTH = 0.9  # compressed only where it takes at most this share
_OPEN = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


@dataclass(frozen=True)
class _Frame:
    """Where an entry's stored bytes lie."""

    offset: int
    stored: int
    codec: int


class Reader:
    """Bytes of an open file by offset; any thread may read. Raises OSError where they are missing.

    Closes `file` with itself.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._turn = forks.new_lock()

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def fill(self, offset: int, view: memoryview) -> None:
        """Fills `view` from `offset` on."""
        filled = 0
        while filled < view.nbytes:
            count = self._read(offset + filled, view[filled:])
            if not count:
                raise OSError(f"the file ends {view.nbytes - filled} bytes too early")
            filled += count

    def _read(self, offset: int, view: memoryview) -> int:
        # Forked processes share a file's position, threads too.
        if sys.platform != "win32" and hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [view], offset)
        with self._turn:
            self._file.seek(offset)
            return self._file.readinto(view) or 0

    def memory(self, offset: int, size: int) -> mmap.mmap | bytearray:
        """A copy of `size` bytes from `offset` on; it starts at a page."""
        memory = _memory(size)
        with memoryview(memory) as view:
            self.fill(offset, view)
        return memory

    def close(self) -> None:
        """Closes the file; what was read before stays valid."""
        self._file.close()


class PackFile:
    """Entries read from an open pack file; any thread may read. Closes `file` with itself."""

    def __init__(self, file: FileIO, index: Index, start: int, limits: Limits = LIMITS) -> None:
        self._reader = Reader(file)
        self._frames = self._walk(index, start, limits)

    def container(self, entry: IndexEntry) -> Container:
        """The entry in memory, page-aligned and checked. Raises EntryError."""
        frame = self._frames[entry.digest]
        try:
            memory = self._unfolded(frame, entry.size)
        except (OSError, MemoryError, OverflowError, ValueError) as error:
            raise EntryError(Reason.UNREADABLE, f"cannot be read from the pack: {error}") from None
        return checked(read_container(memory, expect_record=entry.record), entry)

    def close(self) -> None:
        """Closes the file; entries read before stay valid."""
        self._reader.close()

    def _walk(self, index: Index, start: int, limits: Limits) -> dict[str, _Frame]:
        """Where each frame lies. Raises CacheError unless they fill the file exactly."""
        end = self._reader.size
        frames = {}
        position = start
        for entry in index.entries:
            position += _FRAME.size
            if position > end:
                raise CacheError(f"the pack ends before its entry {entry.digest[:12]}")
            head = bytearray(_FRAME.size)
            self._reader.fill(position - _FRAME.size, memoryview(head))
            codec, zero, stored = _FRAME.unpack(head)
            if stored > end - position:
                raise CacheError(f"the pack ends inside its entry {entry.digest[:12]}")
            if zero or codec not in (_RAW, _ZLIB):
                raise CacheError(f"the frame of entry {entry.digest[:12]} is damaged")
            if codec == _RAW and stored != entry.size:
                raise CacheError(
                    f"entry {entry.digest[:12]} takes {stored} bytes, the index says {entry.size}"
                )
            if entry.size > stored * limits.ratio:
                raise CacheError(
                    f"entry {entry.digest[:12]} would unfold {stored} bytes to {entry.size}, more "
                    f"than {limits.ratio} times as many"
                )
            frames[entry.digest] = _Frame(position, stored, codec)
            position += stored
        if position != end:
            raise CacheError(f"{end - position} bytes follow the pack's last entry")
        return frames

    def _unfolded(self, frame: _Frame, size: int) -> mmap.mmap | bytearray:
        """A frame's content of exactly `size` bytes. Raises EntryError, OSError."""
        if frame.codec == _RAW:
            return self._reader.memory(frame.offset, size)
        memory = _memory(size)
        with memoryview(memory) as view:
            self._unfold(frame, view)
        return memory

    def _unfold(self, frame: _Frame, view: memoryview) -> None:
        unfold = zlib.decompressobj()
        filled = 0
        try:
            for piece in self._pieces(frame):
                if unfold.eof:
                    raise damaged("bytes follow what was compressed")
                rest = piece
                while rest and not unfold.eof:
                    # One byte more than fits shows that there is too much.
                    part = unfold.decompress(rest, view.nbytes - filled + 1)
                    if filled + len(part) > view.nbytes:
                        raise damaged(f"unfolds to more than {view.nbytes} bytes")
                    view[filled : filled + len(part)] = part
                    filled += len(part)
                    rest = unfold.unconsumed_tail
        except zlib.error as error:
            raise damaged(f"cannot be unfolded: {error}") from None
        if not unfold.eof or unfold.unused_data or filled != view.nbytes:
            raise damaged(f"unfolds to {filled} bytes or not at all, expected {view.nbytes}")

    def _pieces(self, frame: _Frame) -> Iterator[bytes]:
        end = frame.offset + frame.stored
        for offset in range(frame.offset, end, _PIECE):
            piece = bytearray(min(_PIECE, end - offset))
            self._reader.fill(offset, memoryview(piece))
            yield bytes(piece)


def open_file(path: Path, *, follow: bool = True) -> FileIO:
    """A regular file, opened for reading, with `follow` through links too.

    Raises CacheError for anything else.
    """
    flags = _OPEN if follow else _OPEN | getattr(os, "O_NOFOLLOW", 0)
    try:
        file = os.fdopen(os.open(path, flags), "rb", buffering=0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CacheError(f"'{path}' cannot be opened: {reason}") from None
    if not S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise CacheError(f"'{path}' is not a regular file")
    return file


def checked(container: Container, entry: IndexEntry) -> Container:
    """The container, if it is the one the index names. Raises EntryError."""
    if container.entry.content != entry.content:
        raise EntryError(
            Reason.UNTRUSTED,
            f"is intact, but not what the index was signed for: expected content "
            f"{entry.content[:12]}, found {container.entry.content[:12]}",
        )
    return container


def write_pack(
    path: Path,
    loaders: Loaders,
    *,
    name: str,
    serial: int,
    keys: Iterable[SigningKey] = (),
    compress: bool = False,
) -> Index:
    """Writes a pack of these entries, signed with each key; returns its index.

    The file appears whole or not at all. Each entry is read and checked once, and what was checked
    is what is written. Raises CacheError where an entry or the file fails.
    """
    spool = path.with_name(f".{path.name[:64]}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with spool.open("xb+") as file:
            entries = [_spool(file, load(), compress) for _, load in sorted(loaders.items())]
            index = index_of(name, serial, entries)
            file.seek(0)
            write_atomic(path, path.parent, _parts(seal(index, keys), file))
        path.chmod(0o644)
    except OSError as error:
        raise CacheError(f"the pack '{path}' cannot be written: {error}") from None
    finally:
        with suppress(OSError):
            spool.unlink()
    return index


def _spool(file: BinaryIO, container: Container, compress: bool) -> IndexEntry:
    """Appends an entry's frame to a file of frames."""
    entry = IndexEntry(container.entry.record, container.entry.content, container.data.nbytes)
    if entry.size > LIMITS.entry:
        raise CacheError(f"entry {entry.digest[:12]} of {entry.size} bytes is too long for a pack")
    start = file.tell()
    stored = _compressed(file, container.data) if compress else None
    if stored is None:
        file.seek(start)
        file.truncate()
        file.write(_FRAME.pack(_RAW, 0, entry.size))
        file.write(container.data)
        return entry
    file.seek(start)
    file.write(_FRAME.pack(_ZLIB, 0, stored))
    file.seek(0, os.SEEK_END)
    return entry


def _compressed(file: BinaryIO, data: memoryview) -> int | None:
    """Writes an empty frame and the compressed data; None where that does not pay."""
    file.write(bytes(_FRAME.size))
    fold = zlib.compressobj()
    stored = 0
    for offset in range(0, data.nbytes, _PIECE):
        stored += file.write(fold.compress(data[offset : offset + _PIECE]))
    stored += file.write(fold.flush())
    pays = stored <= data.nbytes * _WORTH and data.nbytes <= stored * LIMITS.ratio
    return stored if pays else None


def _parts(sealed: bytes, file: BinaryIO) -> Iterator[memoryview]:
    yield memoryview(sealed)
    while piece := file.read(8 * _PIECE):
        yield memoryview(piece)


def _memory(size: int) -> mmap.mmap | bytearray:
    """Zeroed memory that starts at a page."""
    return mmap.mmap(-1, size) if size else bytearray()
