"""What packs and caches cover: the difference between two, and what one lacks.

Two keys are about the same subject if they differ in nothing but versions: a model recompiled by
another release of clinfer or for another driver is renewed, not lost and gained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from clinfer.cache.entry import Entry
from clinfer.cache.index import Index, IndexEntry
from clinfer.cache.inventory import Nearest, explanation
from clinfer.cache.record import FieldDifference, FieldValue, KeyRecord
from clinfer.cache.stats import Miss, Reason

Subject = tuple[tuple[str, FieldValue], ...]

_VERSIONS = frozenset(
    ("format", "generator", "target", "device_version", "driver", "platform_version")
)


class Source(Protocol):
    """What has entries: a store, a pack, a layer."""

    def peek(self, record: KeyRecord) -> Entry | Miss:
        """The entry of that key, checked, or why there is none."""

    def nearest(self, record: KeyRecord) -> Nearest | None:
        """The key of the same kind nearest to `record`."""


@dataclass(frozen=True)
class Renewed:
    """An entry whose subject is covered on both sides, under keys that differ in versions."""

    before: IndexEntry
    after: IndexEntry
    differences: tuple[FieldDifference, ...]


@dataclass(frozen=True)
class Difference:
    """How the coverage of two indexes differs.

    `same` counts keys on both sides, `rebuilt` those of them whose content differs.
    """

    gained: tuple[IndexEntry, ...]
    lost: tuple[IndexEntry, ...]
    renewed: tuple[Renewed, ...]
    same: int
    rebuilt: int


@dataclass(frozen=True)
class Gap:
    """A key without a usable entry: why, and the nearest key where there is one."""

    what: str
    record: KeyRecord
    miss: Miss
    nearest: Nearest | None

    def __str__(self) -> str:
        """What `CACHE_MODE=cache-only` would say of it."""
        return explanation(self.what, self.miss, self.record.kind, self.nearest)

    @property
    def verdict(self) -> str:
        """'untrusted', 'incompatible' (there, but for or by something else) or 'incomplete'."""
        if self.miss.reason in (Reason.UNTRUSTED, Reason.REFUSED):
            return "untrusted"
        if self.miss.reason is Reason.VERSION:
            return "incompatible"
        absent = self.miss.reason is Reason.ABSENT
        if absent and self.nearest is not None and self.nearest.is_same_thing:
            return "incompatible"
        return "incomplete"


def difference(before: Index, after: Index) -> Difference:
    """What `after` covers that `before` did not, and the other way round."""
    common = before.by_digest.keys() & after.by_digest.keys()
    lost: dict[Subject, list[IndexEntry]] = {}
    for entry in before.entries:
        if entry.digest not in common:
            lost.setdefault(_subject(entry.record), []).append(entry)
    renewed = []
    gained = []
    for entry in after.entries:
        if entry.digest in common:
            continue
        candidates = lost.get(_subject(entry.record))
        if not candidates:
            gained.append(entry)
            continue
        nearest = min(candidates, key=lambda old: len(old.record.diff(entry.record)))
        candidates.remove(nearest)
        renewed.append(Renewed(nearest, entry, nearest.record.diff(entry.record)))
    return Difference(
        gained=tuple(gained),
        lost=tuple(entry for entries in lost.values() for entry in entries),
        renewed=tuple(renewed),
        same=len(common),
        rebuilt=sum(before.by_digest[d].content != after.by_digest[d].content for d in common),
    )


def no_flaw(entry: Entry) -> str:
    """Takes every intact entry."""
    return ""


def gaps(
    needed: Iterable[tuple[str, KeyRecord]],
    sources: Sequence[Source],
    flaw: Callable[[Entry], str] = no_flaw,
) -> list[Gap]:
    """Of the needed keys, each with a word for people, those that no source has an entry for.

    Every entry is read and checked whole, and `flaw` says what is wrong with one that is intact
    ('': nothing); nothing is built or run.
    """
    found = []
    for what, record in needed:
        miss = _miss(record, sources, flaw)
        if miss is not None:
            near = [source.nearest(record) for source in sources]
            known = [item for item in near if item is not None]
            nearest = min(known, key=lambda item: item.distance, default=None)
            found.append(Gap(what, record, miss, nearest))
    return found


def describe(record: KeyRecord) -> dict[str, str]:
    """What people want to see of a key: kind, what it is about, device, driver."""
    about = record.get("entry") or str(record.get("model") or record.digest)[:12]
    return {
        "entry": record.digest[:12],
        "kind": record.kind,
        "what": str(about),
        "device": str(record.get("device") or ""),
        "driver": str(record.get("driver") or ""),
    }


def _subject(record: KeyRecord) -> Subject:
    return tuple(field for field in record.fields if field[0] not in _VERSIONS)


def _miss(
    record: KeyRecord, sources: Sequence[Source], flaw: Callable[[Entry], str]
) -> Miss | None:
    """Why no source has the entry, the first reason other than 'absent'; None where one has."""
    worst = Miss(Reason.ABSENT, f"no entry {record.digest[:12]}")
    for source in sources:
        found = source.peek(record)
        if isinstance(found, Entry):
            wrong = flaw(found)
            if not wrong:
                return None
            found = Miss(Reason.DAMAGED, wrong)
        if worst.reason is Reason.ABSENT:
            worst = found
    return worst
