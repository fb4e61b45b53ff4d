"""The layout of the container that holds a cache entry or an exported model.

    offset 0     head      magic, format version, sizes, counts                     40 bytes
                 record    the key record in its canonical encoding
                 rows      per section: name, alignment, offset, length,
                           digest, check value                                     100 bytes each
                 digest    SHA-256 of everything above                              32 bytes
                 zeros     up to the first section's alignment
                 section 0, zeros, section 1, zeros, ... last section; the file ends with it

Integers are little-endian. A section starts at the first multiple of its alignment after the one
before it: 4096 bytes for what a driver may use in place, 64 for the rest. A section's digest is the
SHA-256 tree of `clinfer.cache.digests`, its check value the XXH3 tree. Every byte is thus fixed by
the format or covered by a digest and a check value: a change of any single bit is found by either.
They stand beside the data, so they find damage, never malice; trust comes from who may write the
directory, or from a signature over the digests.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from clinfer.cache.digests import CHECK_BYTES, DIGEST_BYTES
from clinfer.cache.record import MAX_RECORD_BYTES, KeyRecord
from clinfer.cache.stats import Reason
from clinfer.errors import BlobError, CacheError
from clinfer.sha256 import sha256

MAGIC = b"\x89CLINF\r\n"
FORMAT_VERSION = 2
PAGE = 4096
"""Alignment in bytes of sections that are handed to a driver in place."""
ALIGNMENT = 64
"""Alignment in bytes of all other sections."""
MAX_SECTIONS = 256
SECTION_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")

_HEAD = struct.Struct("<8sIIQQII")
_ROW = struct.Struct(f"<32sIQQ{DIGEST_BYTES}s{CHECK_BYTES}s")
_MOST_NANOSECONDS = 2**63
MAX_HEADER_BYTES = _HEAD.size + MAX_RECORD_BYTES + MAX_SECTIONS * _ROW.size + DIGEST_BYTES


class EntryError(BlobError):
    """A container was refused; `reason` is what statistics count, the message names the check."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Head(NamedTuple):
    """The first bytes of a container, field by field."""

    magic: bytes
    version: int
    header_bytes: int
    file_bytes: int
    build_ns: int
    record_bytes: int
    section_count: int


class Section(NamedTuple):
    """Where a section lies; offset and length in bytes."""

    name: str
    alignment: int
    offset: int
    length: int
    digest: bytes
    check: bytes

    @property
    def end(self) -> int:
        return self.offset + self.length


class Header(NamedTuple):
    """What stands before the sections. `header_bytes` ends with its digest, `file_bytes` is all.

    `digest` covers the header and, through the rows' digests, every byte of the container.
    """

    record: KeyRecord
    sections: tuple[Section, ...]
    header_bytes: int
    file_bytes: int
    build_seconds: float
    digest: bytes


def encode_header(record: KeyRecord, rows: Sequence[Section], seconds: float) -> bytes:
    """The header of a container with these sections, whose content took `seconds` to build."""
    header_bytes = header_length(record, len(rows))
    build_ns = max(0, min(int(seconds * 1e9), _MOST_NANOSECONDS))
    head = _Head(
        magic=MAGIC,
        version=FORMAT_VERSION,
        header_bytes=header_bytes,
        file_bytes=rows[-1].end if rows else header_bytes,
        build_ns=build_ns,
        record_bytes=len(record.encoded),
        section_count=len(rows),
    )
    header = _HEAD.pack(*head) + record.encoded + b"".join(map(_pack_row, rows))
    return header + sha256(header).digest()


def place_sections(
    record: KeyRecord, sections: Sequence[tuple[str, int, int, bytes, bytes]]
) -> tuple[Section, ...]:
    """Lays out sections given as (name, alignment, length, digest, check), one after another."""
    rows = []
    end = header_length(record, len(sections))
    for name, alignment, length, digest, check in sections:
        rows.append(Section(name, alignment, _aligned(end, alignment), length, digest, check))
        end = rows[-1].end
    return tuple(rows)


def header_length(record: KeyRecord, section_count: int) -> int:
    """Bytes of a header, its digest included."""
    return _header_bytes(len(record.encoded), section_count)


def parse_header(data: bytes, file_bytes: int | None, expected: KeyRecord | None = None) -> Header:
    """The checked header of a file of `file_bytes` bytes; None: as many as the header claims.

    `data` is the file's start, at least up to the end of its header; MAX_HEADER_BYTES are enough.
    `expected` saves parsing a record with the same encoding. Raises EntryError.
    """
    if len(data) < _HEAD.size:
        raise damaged(f"{len(data)} bytes are too short for a header")
    head = _Head._make(_HEAD.unpack_from(data))
    if head.magic != MAGIC:
        raise damaged("not a clinfer file: its first bytes differ")
    if head.version != FORMAT_VERSION:
        raise EntryError(
            Reason.VERSION,
            f"written in format version {head.version}, this release reads {FORMAT_VERSION}",
        )
    if head.record_bytes > MAX_RECORD_BYTES:
        raise damaged(f"the header claims a key record of {head.record_bytes} bytes")
    if head.section_count > MAX_SECTIONS:
        raise damaged(f"the header claims {head.section_count} sections")
    if head.header_bytes != _header_bytes(head.record_bytes, head.section_count):
        raise damaged("the header's length does not fit its record and sections")
    if head.header_bytes > len(data):
        raise damaged("the file ends inside its header")
    digested = head.header_bytes - DIGEST_BYTES
    digest = sha256(data[:digested]).digest()
    if digest != data[digested : head.header_bytes]:
        raise damaged("the header's digest does not match")
    if head.build_ns > _MOST_NANOSECONDS:
        raise damaged("the header claims an impossible build time")
    rows_at = _HEAD.size + head.record_bytes
    record = _parse_record(data[_HEAD.size : rows_at], expected)
    rows = _parse_rows(data, rows_at, head)
    if file_bytes not in (None, head.file_bytes):
        raise damaged(f"the header claims {head.file_bytes} bytes, the file has {file_bytes}")
    return Header(record, rows, head.header_bytes, head.file_bytes, head.build_ns / 1e9, digest)


def _parse_record(encoded: bytes, expected: KeyRecord | None) -> KeyRecord:
    if expected is not None and expected.encoded == encoded:
        return expected
    try:
        return KeyRecord.from_json(encoded)
    except CacheError as error:
        raise damaged(str(error)) from None


def _parse_rows(data: bytes, start: int, head: _Head) -> tuple[Section, ...]:
    """Checks that the sections follow one another as the layout has it and fill the file."""
    rows = []
    names = set()
    position = head.header_bytes
    for index in range(head.section_count):
        fields = _ROW.unpack_from(data, start + index * _ROW.size)
        padded, alignment, offset, length, digest, check = fields
        name = padded.rstrip(b"\0").decode("latin-1")
        if SECTION_NAME.fullmatch(name) is None:
            raise damaged(f"section {index} has the name {name!r}, which is not allowed")
        if name in names:
            raise damaged(f"two sections are named '{name}'")
        names.add(name)
        if alignment not in (ALIGNMENT, PAGE):
            raise damaged(f"section '{name}' claims an alignment of {alignment} bytes")
        if offset < position:
            raise damaged(f"section '{name}' overlaps what stands before it")
        if offset != _aligned(position, alignment):
            raise damaged(f"section '{name}' is not where the layout puts it")
        if offset + length > head.file_bytes:
            raise damaged(f"section '{name}' lies beyond the end of the file")
        rows.append(Section(name, alignment, offset, length, digest, check))
        position = offset + length
    if position != head.file_bytes:
        raise damaged(f"{head.file_bytes - position} bytes follow the last section")
    return tuple(rows)


def _pack_row(row: Section) -> bytes:
    name = row.name.encode()
    return _ROW.pack(name, row.alignment, row.offset, row.length, row.digest, row.check)


def _header_bytes(record_bytes: int, section_count: int) -> int:
    return _HEAD.size + record_bytes + section_count * _ROW.size + DIGEST_BYTES


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def damaged(message: str) -> EntryError:
    """The error for a check that only damage can fail."""
    return EntryError(Reason.DAMAGED, message)
