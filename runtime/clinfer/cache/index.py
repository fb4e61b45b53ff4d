"""The index of a pack: the entries it holds, by key record, with the digest of each content.

    {"entries":{RECORD DIGEST:{"content":DIGEST,"record":[[NAME,VALUE],...],"size":BYTES},...},
     "format":1,"name":NAME,"serial":NUMBER}

One index has one encoding: ASCII JSON without spaces, keys in order. `content` is the digest a
container's header ends with, which determines all its bytes (`Entry.content`), so whoever signs an
index signs the entries. `serial` grows from one pack of a name to the next: a reader that has seen
a later one refuses an earlier one, which a signature alone could not tell from a current one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from clinfer.cache.record import KeyRecord
from clinfer.errors import CacheError

INDEX_FORMAT = 1
MAX_SERIAL = 2**63 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONTENT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Limits:
    """What a reader takes at most; whatever claims more is refused before it is unfolded.

    `ratio` is bytes of an entry to bytes it is stored in; `entry` and `total` are bytes unfolded.
    """

    index: int = 32 * 2**20
    entries: int = 32768
    entry: int = 8 * 2**30 - 1
    total: int = 256 * 2**30
    ratio: int = 200


LIMITS = Limits()


@dataclass(frozen=True)
class IndexEntry:
    """One entry of a pack: its key, the digest of its content, its size in bytes."""

    record: KeyRecord
    content: str
    size: int

    @property
    def digest(self) -> str:
        """The entry's name."""
        return self.record.digest


@dataclass(frozen=True)
class Index:
    """A pack's name, its serial number and its entries in the order of their names.

    Raises CacheError for a name or number that is not allowed, and for an entry given twice.
    """

    name: str
    serial: int
    entries: tuple[IndexEntry, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise CacheError(
                f"{self.name!r} is no pack's name: up to 64 letters, digits, '.', '_', '-', "
                "a letter or digit first"
            )
        if type(self.serial) is not int or not 0 <= self.serial <= MAX_SERIAL:
            raise CacheError(f"a pack's serial number is 0 to {MAX_SERIAL}, found {self.serial!r}")
        ordered = tuple(sorted(self.entries, key=lambda entry: entry.digest))
        object.__setattr__(self, "entries", ordered)
        if len(self.by_digest) != len(ordered):
            raise CacheError("a pack's index names an entry twice")

    @cached_property
    def by_digest(self) -> Mapping[str, IndexEntry]:
        """The entries by name."""
        return {entry.digest: entry for entry in self.entries}

    @property
    def nbytes(self) -> int:
        """All entries' sizes together."""
        return sum(entry.size for entry in self.entries)

    def find(self, record: KeyRecord) -> IndexEntry | None:
        """The entry of that key, None where there is none."""
        return self.by_digest.get(record.digest)

    def encode(self) -> bytes:
        """The one encoding of this index."""
        entries = {
            entry.digest: {
                "content": entry.content,
                "record": entry.record.fields,
                "size": entry.size,
            }
            for entry in self.entries
        }
        return _encode(
            {"entries": entries, "format": INDEX_FORMAT, "name": self.name, "serial": self.serial}
        )

    @classmethod
    def parse(cls, data: bytes, limits: Limits = LIMITS) -> Index:
        """The index of that encoding. Raises CacheError for any other text, and above a limit."""
        if len(data) > limits.index:
            raise CacheError(f"a pack's index of {len(data)} bytes is longer than allowed")
        try:
            document = json.loads(data)
            if not isinstance(document, dict) or document.get("format") != INDEX_FORMAT:
                raise CacheError(f"a pack's index is not of format {INDEX_FORMAT}")
            listed = document["entries"].items()
            if len(listed) > limits.entries:
                raise CacheError(
                    f"a pack's index names {len(listed)} entries, at most {limits.entries} are read"
                )
            entries = [_entry(name, fields, limits) for name, fields in listed]
            index = cls(document["name"], document["serial"], tuple(entries))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CacheError(f"a pack's index cannot be read: {error!r}") from None
        if index.nbytes > limits.total:
            raise CacheError(
                f"a pack's entries take {index.nbytes} bytes, at most {limits.total} are read"
            )
        if index.encode() != data:
            raise CacheError("a pack's index is not in its canonical encoding")
        return index


def index_of(name: str, serial: int, entries: Iterable[IndexEntry]) -> Index:
    """An index of entries; of several with one key the first counts."""
    chosen: dict[str, IndexEntry] = {}
    for entry in entries:
        chosen.setdefault(entry.digest, entry)
    return Index(name, serial, tuple(chosen.values()))


def _entry(name: str, fields: Any, limits: Limits) -> IndexEntry:
    content, size = fields["content"], fields["size"]
    record = KeyRecord(tuple((key, value) for key, value in fields["record"]))
    if record.digest != name:
        raise CacheError(f"a pack's index names an entry {name!r}, its record {record.digest}")
    if not isinstance(content, str) or _CONTENT.fullmatch(content) is None:
        raise CacheError(f"a pack's index has {content!r} for a digest")
    if type(size) is not int or not 0 <= size <= limits.entry:
        raise CacheError(f"a pack's index claims an entry of {size!r} bytes")
    return IndexEntry(record, content, size)


def _encode(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return text.encode("ascii")
