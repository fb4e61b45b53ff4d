"""Cache entries and exported models: a key record and named sections, all digested.

`write` streams a container, `read` hands out its sections after every byte has been checked. The
layout is described in `clinfer.cache.header`. Digests and check values stand beside the data, so
they find damage, never malice; trust comes from who may write the directory, or from a signature.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from clinfer.cache.digests import tree_checks, tree_digests
from clinfer.cache.files import LoadError, load
from clinfer.cache.header import (
    ALIGNMENT,
    MAX_HEADER_BYTES,
    MAX_SECTIONS,
    PAGE,
    SECTION_NAME,
    EntryError,
    Header,
    damaged,
    encode_header,
    parse_header,
    place_sections,
)
from clinfer.cache.record import KeyRecord
from clinfer.cache.stats import Reason
from clinfer.errors import BlobError, CacheError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    SectionData = Buffer | Sequence[Buffer]

PAGE_ALIGNED = ("weights",)
"""The sections that are page-aligned unless the writer says otherwise."""


class Entry(NamedTuple):
    """A container that passed every check.

    `sections` are read-only byte views, in the order they were written. Those written page-aligned
    start at a multiple of 4096 in memory if the container came from a file; they stay valid after
    the file is replaced or removed. `nbytes` is the container's size, `build_seconds` what its
    content had cost to make, 0 where unknown. `content` is the digest, in hexadecimal, that
    determines every byte of the container: the one its header ends with.
    """

    record: KeyRecord
    sections: Mapping[str, memoryview]
    nbytes: int
    build_seconds: float
    content: str

    def section(self, name: str) -> memoryview:
        """One section's bytes. Raises BlobError where there is none of that name."""
        if name not in self.sections:
            known = ", ".join(self.sections)
            raise BlobError(f"the {self.record.kind} has no section '{name}', only: {known}")
        return self.sections[name]


class Container(NamedTuple):
    """An entry together with the bytes it was read from, to be passed on unchanged."""

    entry: Entry
    data: memoryview


def write(
    file: BinaryIO,
    record: KeyRecord,
    sections: Mapping[str, SectionData],
    *,
    seconds: float = 0.0,
    page_aligned: Collection[str] = PAGE_ALIGNED,
) -> int:
    """Writes a container to a binary file and returns its size in bytes.

    A section is a C-contiguous buffer or a sequence of them, whose bytes are joined. `seconds` is
    what making the content had cost. Raises CacheError for a section name that is not allowed.
    """
    total = 0
    for piece in pieces(record, sections, seconds=seconds, page_aligned=page_aligned):
        total += piece.nbytes
        rest = piece
        while rest.nbytes:
            rest = rest[file.write(rest) or 0 :]
    return total


def to_bytes(
    record: KeyRecord,
    sections: Mapping[str, SectionData],
    *,
    seconds: float = 0.0,
    page_aligned: Collection[str] = PAGE_ALIGNED,
) -> bytes:
    """A container in memory; as `write`."""
    return b"".join(pieces(record, sections, seconds=seconds, page_aligned=page_aligned))


def pieces(
    record: KeyRecord,
    sections: Mapping[str, SectionData],
    *,
    seconds: float = 0.0,
    page_aligned: Collection[str] = PAGE_ALIGNED,
) -> Iterator[memoryview]:
    """The consecutive parts of a container; nothing large is copied. As `write`."""
    if len(sections) > MAX_SECTIONS:
        raise CacheError(f"{len(sections)} sections, at most {MAX_SECTIONS} are allowed")
    for name in sections:
        if SECTION_NAME.fullmatch(name) is None:
            raise CacheError(f"{name!r} is no section name: a-z first, then a-z, 0-9, '_.-'")
    groups = [_views(data) for data in sections.values()]
    alignments = [PAGE if name in page_aligned else ALIGNMENT for name in sections]
    lengths = [sum(view.nbytes for view in group) for group in groups]
    digests, checks = tree_digests(groups), tree_checks(groups)
    described = zip(sections, alignments, lengths, digests, checks, strict=True)
    rows = place_sections(record, list(described))
    header = encode_header(record, rows, seconds)
    yield memoryview(header)
    position = len(header)
    for row, group in zip(rows, groups, strict=True):
        if row.offset > position:
            yield memoryview(bytes(row.offset - position))
        yield from group
        position = row.end


def payload_bytes(sections: Mapping[str, SectionData]) -> int:
    """Bytes of all sections together."""
    return sum(view.nbytes for data in sections.values() for view in _views(data))


def read(
    source: Buffer | str | Path,
    *,
    expect_kind: str | None = None,
    expect_record: KeyRecord | None = None,
    allow_shared: bool = False,
    thorough: bool = True,
) -> Entry:
    """The container in a buffer or file, after every check of every byte has passed.

    Sections are checked by their digests; not `thorough`, for what this machine has written, by the
    check values, which are many times as fast and find damage as surely.

    A file is opened once, without following a link, and the bytes that were checked are the bytes
    handed out; `allow_shared` also takes a file that others can write. A buffer must not change
    while the entry is used. Raises EntryError (a BlobError), whose message names the failed check.
    """
    container = read_container(
        source,
        expect_kind=expect_kind,
        expect_record=expect_record,
        allow_shared=allow_shared,
        thorough=thorough,
    )
    return container.entry


def read_container(
    source: Buffer | str | Path,
    *,
    expect_kind: str | None = None,
    expect_record: KeyRecord | None = None,
    allow_shared: bool = False,
    thorough: bool = True,
) -> Container:
    """As `read`, with the container's bytes."""
    if isinstance(source, (str, Path)):
        view, mapped = _load(Path(source), allow_shared)
    else:
        view, mapped = _bytes_of(source).toreadonly(), False
    header = parse_header(bytes(view[:MAX_HEADER_BYTES]), view.nbytes, expect_record)
    record = header.record
    if expect_record is not None:
        check_record(record, expect_record)
    if expect_kind is not None and record.kind != expect_kind:
        found = record.kind
        raise EntryError(Reason.FOREIGN, f"expected a '{expect_kind}', found a '{found}'")
    _check_padding(view, header)
    sections: dict[str, memoryview] = {}
    for row in header.sections:
        data = view[row.offset : row.end]
        # A mapping shows later writes to the file, so all but the page-aligned data is copied
        # before it is checked.
        keep = not mapped or row.alignment == PAGE
        sections[row.name] = data if keep else memoryview(bytes(data))
    hashes = tree_digests if thorough else tree_checks
    found_hashes = hashes([[data] for data in sections.values()])
    for row, found_hash in zip(header.sections, found_hashes, strict=True):
        if found_hash != (row.digest if thorough else row.check):
            raise damaged(f"the digest of section '{row.name}' does not match its content")
    content = header.digest.hex()
    entry = Entry(record, sections, view.nbytes, header.build_seconds, content)
    return Container(entry, view)


def check_record(record: KeyRecord, expected: KeyRecord) -> None:
    """Raises EntryError where a container holds another key than expected."""
    if record != expected:
        differing = "; ".join(map(str, expected.diff(record)))
        raise EntryError(Reason.FOREIGN, f"holds another key: {differing or 'order of fields'}")


def read_header(path: Path, *, allow_shared: bool = False) -> Header:
    """The checked header of a container file; its sections are not read. Raises EntryError."""
    try:
        loaded = load(path, allow_shared=allow_shared, most=MAX_HEADER_BYTES)
    except LoadError as fault:
        raise EntryError(fault.reason, str(fault)) from fault
    return parse_header(bytes(loaded.view), loaded.size)


def _load(path: Path, allow_shared: bool) -> tuple[memoryview, bool]:
    try:
        loaded = load(path, allow_shared=allow_shared)
    except LoadError as fault:
        raise EntryError(fault.reason, str(fault)) from fault
    return loaded.view, loaded.mapped


def _check_padding(view: memoryview, header: Header) -> None:
    position = header.header_bytes
    for row in header.sections:
        if any(view[position : row.offset]):
            raise damaged(f"the padding before section '{row.name}' is not zero")
        position = row.end


def _views(data: SectionData) -> list[memoryview]:
    if isinstance(data, Sequence) and not isinstance(data, (bytes, bytearray, memoryview)):
        return [_bytes_of(part) for part in data]
    return [_bytes_of(data)]


def _bytes_of(data: Buffer) -> memoryview:
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")
