"""Key records: what an entry depends on, as named fields in a fixed order.

A record has one encoding: JSON without spaces, ASCII only, an array of [name, value] pairs in the
record's order. Its SHA-256 is the entry's name. Nothing may enter a record that cannot change the
result: no path, no time, no environment, no process history.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

from clinfer.errors import BlobError, CacheError
from clinfer.sha256 import sha256

FieldValue = str | int | bool

PART = "part"
"""The kind of key of a program that is kept until the compiled model that needs it is stored."""
MAX_RECORD_BYTES = 64 * 1024
MAX_FIELDS = 256
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_LOWEST = -(2**63)
_HIGHEST = 2**64 - 1


class FieldDifference(NamedTuple):
    """A field in which two records differ; None where a record lacks it."""

    name: str
    here: FieldValue | None
    there: FieldValue | None

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.here)} here, {_shown(self.there)} there"


class KeyRecord:
    """An ordered list of (name, value); the first field is `kind`, a string.

    Values are strings, integers of 64 bits or booleans; 1 and True differ, and so do records whose
    fields come in another order. Raises CacheError for anything else, for a name used twice, and
    for a record above MAX_RECORD_BYTES when encoded.
    """

    def __init__(self, fields: Iterable[tuple[str, FieldValue]]) -> None:
        self.fields = tuple((name, value) for name, value in fields)
        _check(self.fields)
        text = json.dumps(self.fields, ensure_ascii=True, separators=(",", ":"))
        self.encoded = text.encode("ascii")
        if len(self.encoded) > MAX_RECORD_BYTES:
            size = len(self.encoded)
            raise CacheError(
                f"a key record takes {size} bytes, at most {MAX_RECORD_BYTES} are allowed"
            )

    def __repr__(self) -> str:
        return f"KeyRecord(fields={self.fields!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyRecord) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    @classmethod
    def make(cls, kind: str, fields: Iterable[tuple[str, FieldValue]]) -> KeyRecord:
        """A record of that kind, with the fields in the order given."""
        return cls((("kind", kind), *fields))

    @classmethod
    def from_json(cls, data: bytes | str) -> KeyRecord:
        """The record that `to_json` gave. Raises CacheError unless the encoding is canonical."""
        encoded = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        if len(encoded) > MAX_RECORD_BYTES:
            raise CacheError(f"a key record of {len(encoded)} bytes is longer than allowed")
        try:
            pairs = json.loads(encoded)
        except (ValueError, RecursionError) as error:
            raise CacheError(f"a key record is not JSON: {error}") from None
        if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
            raise CacheError("a key record is not a list of [name, value] pairs")
        record = cls(tuple((name, value) for name, value in pairs))
        if record.encoded != encoded:
            raise CacheError("a key record is not in its canonical encoding")
        return record

    def to_json(self) -> str:
        """The canonical encoding, as text."""
        return self.encoded.decode("ascii")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the encoding, 64 hexadecimal digits: the name of the entry."""
        return sha256(self.encoded).hexdigest()

    @property
    def kind(self) -> str:
        return str(self.fields[0][1])

    def __getitem__(self, name: str) -> FieldValue:
        """The value of a field; raises KeyError."""
        return dict(self.fields)[name]

    def get(self, name: str) -> FieldValue | None:
        """The value of a field, None where there is none."""
        return dict(self.fields).get(name)

    def diff(self, other: KeyRecord) -> tuple[FieldDifference, ...]:
        """The fields that differ, in this record's order, then the other's own ones."""
        here = dict(self.fields)
        there = dict(other.fields)
        names = list(dict.fromkeys([*here, *there]))
        pairs = [(name, here.get(name), there.get(name)) for name in names]
        return tuple(FieldDifference(*pair) for pair in pairs if not _same(pair[1], pair[2]))

    def require(self, expected: Mapping[str, FieldValue], what: str) -> None:
        """Raises BlobError naming each field whose value is not the expected one.

        `what` is how the error calls the thing that carries this record, say "the blob".
        """
        mine = dict(self.fields)
        wrong = [
            f"{name} is {_shown(mine.get(name))}, expected {_shown(value)}"
            for name, value in expected.items()
            if not _same(mine.get(name), value)
        ]
        if wrong:
            raise BlobError(f"{what} was made for something else: {'; '.join(wrong)}")


def _check(fields: tuple[tuple[str, FieldValue], ...]) -> None:
    if not fields or fields[0][0] != "kind" or not isinstance(fields[0][1], str):
        raise CacheError("the first field of a key record is 'kind', a string")
    if len(fields) > MAX_FIELDS:
        raise CacheError(f"a key record has {len(fields)} fields, at most {MAX_FIELDS} are allowed")
    seen = set()
    for name, value in fields:
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise CacheError(f"{name!r} is no field name: a-z first, then a-z, 0-9, '_', '.', '-'")
        if name in seen:
            raise CacheError(f"the field '{name}' occurs twice in a key record")
        seen.add(name)
        if type(value) not in (str, int, bool):
            found = type(value).__name__
            raise CacheError(f"the field '{name}' holds a {found}, expected str, int or bool")
        if type(value) is int and not _LOWEST <= value <= _HIGHEST:
            raise CacheError(f"the field '{name}' holds an integer of more than 64 bits")


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2


def _same(left: FieldValue | None, right: FieldValue | None) -> bool:
    return type(left) is type(right) and left == right


def _shown(value: FieldValue | None) -> str:
    return "absent" if value is None else repr(value)
