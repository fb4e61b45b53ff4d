"""The one layer of a pack's image: a tar archive that holds a cache directory and its sealed index.

    CACHEDIR.TAG
    entries/  entries/ab/  entries/ab/abcd...     one file per entry, in the order of their names
    pack.index                                    the sealed index, the last file
    1024 zero bytes

Headers are those of POSIX.1-1988 ('ustar') with every field fixed but name, size and type: owner
0:0, time 0, mode 0644 or 0755. So the same entries give the same bytes, and a reader takes only a
header that is byte for byte the one it would have written. Nothing is ever extracted: links,
devices, other names and repetitions are not this format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO

from clinfer.cache.index import LIMITS, Limits
from clinfer.cache.sealed import INDEX_FILE, read_exactly
from clinfer.errors import CacheError

TAG_FILE = "CACHEDIR.TAG"
BLOCK = 512
_END = bytes(2 * BLOCK)
_FILE, _FOLDER = b"0", b"5"
_ENTRY = re.compile(r"entries/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_ENTRY_FOLDER = re.compile(r"entries/([0-9a-f]{2}/)?")
_MOST_FOLDERS = 257


@dataclass(frozen=True)
class Member:
    """Where a file of the archive lies, in bytes."""

    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a file of that size, or before nothing for a name that ends with '/'."""
    folder = name.endswith("/")
    mode = b"0000755\0" if folder else b"0000644\0"
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        mode,
        b"0000000\0" * 2,  # user, group
        b"%011o\0" % size,
        b"%011o\0" % 0,  # time
        b" " * 8,  # the checksum counts itself as spaces
        _FOLDER if folder else _FILE,
        bytes(100),  # name of a link
        b"ustar\00000",
        bytes(64),  # names of user and group
        b"0000000\0" * 2,  # device
        bytes(155 + 12),
    )
    block = b"".join(fields)
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]


def padding(size: int) -> bytes:
    """The zeros after a file of that size."""
    return bytes(-size % BLOCK)


def end() -> bytes:
    """What the archive ends with."""
    return _END


def walk(file: FileIO, limits: Limits = LIMITS) -> dict[str, Member]:
    """The archive's files: entries by their digest, `pack.index` and CACHEDIR.TAG by name.

    Raises CacheError for anything that the format does not have, naming it.
    """
    found: dict[str, Member] = {}
    folders: set[str] = set()
    for name, member in _members(file):
        if name.endswith("/"):
            if _ENTRY_FOLDER.fullmatch(name) is None or name in folders:
                raise _foreign(name)
            folders.add(name)
            continue
        entry = _ENTRY.fullmatch(name)
        key = name if entry is None else entry[2]
        if (entry is None and name not in (TAG_FILE, INDEX_FILE)) or key in found:
            raise _foreign(name)
        found[key] = member
        if len(found) > limits.entries + 2 or len(folders) > _MOST_FOLDERS:
            raise CacheError(f"the layer has more than {limits.entries} entries")
    return found


def _members(file: FileIO) -> Iterator[tuple[str, Member]]:
    """Every member of the archive. Each byte between their contents is checked."""
    size = os.fstat(file.fileno()).st_size
    position = 0
    gap = 0
    while True:
        file.seek(position - gap)
        block = read_exactly(file, gap + BLOCK)
        if any(block[:gap]):
            raise CacheError(f"the layer's padding before byte {position} is not zero")
        block = block[gap:]
        if not any(block):
            break
        name, length = _parse(block, position)
        position += BLOCK
        if length > size - position:
            raise CacheError(f"the layer ends inside '{name}'")
        yield name, Member(position, length)
        gap = len(padding(length))
        position += length + gap
    if read_exactly(file, BLOCK) != bytes(BLOCK) or file.tell() != size:
        raise CacheError("the layer does not end where its archive does")


def _parse(block: bytes, position: int) -> tuple[str, int]:
    """Name and size from a header. Raises CacheError unless it is one that `header` makes."""
    name = block[:100].rstrip(b"\0").decode("latin-1")
    digits = block[124:135]
    length = int(digits, 8) if re.fullmatch(rb"[0-7]{11}", digits) else -1
    if not name.isascii() or length < 0 or header(name, length) != block:
        raise CacheError(
            f"the layer's header at byte {position}, {name!r}, is none that clinfer writes"
        )
    if name.endswith("/") and length:
        raise _foreign(name)
    return name, length


def _foreign(name: str) -> CacheError:
    return CacheError(f"the layer holds {name!r}, which does not belong into a pack")
