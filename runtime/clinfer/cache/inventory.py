"""What a cache directory holds, for people: listing, comparing, checking.

Apart from the store, because a start from a warm cache needs none of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clinfer.cache.entry import read, read_header
from clinfer.cache.folder import Slot
from clinfer.cache.header import EntryError
from clinfer.cache.record import FieldDifference, KeyRecord
from clinfer.cache.stats import Miss, Reason

if TYPE_CHECKING:
    from clinfer.cache.store import Store


@dataclass(frozen=True)
class EntryInfo:
    """An entry as its header tells it; sizes in bytes, `used` in seconds since 1970."""

    digest: str
    record: KeyRecord
    size: int
    used: float
    pinned: bool
    sections: Mapping[str, int]
    build_seconds: float


ENVIRONMENT_FIELDS = frozenset(
    (
        "format",
        "generator",
        "target",
        "device",
        "device_version",
        "driver",
        "platform",
        "platform_version",
        "processor",
    )
)
"""The fields of a key that say for what and by what was compiled, not what."""


@dataclass(frozen=True)
class Nearest:
    """The entry of the same kind whose key is nearest: if possible one of the same thing, compiled
    for or by something else, and then the one that differs in the fewest fields.
    """

    record: KeyRecord
    differences: tuple[FieldDifference, ...]
    directory: Path

    @property
    def is_same_thing(self) -> bool:
        """Whether it is what is wanted, but for another device, driver or release."""
        return ENVIRONMENT_FIELDS.issuperset(item.name for item in self.differences)

    @property
    def distance(self) -> tuple[bool, int]:
        """What is compared: lower is nearer."""
        return not self.is_same_thing, len(self.differences)


def explanation(what: str, miss: Miss, kind: str, nearest: Nearest | None) -> str:
    """Why `what`, of that kind, is missing, for people: the reason, and how the nearest differs."""
    lines = [f"{what} is not in the cache ({miss.reason}: {miss.detail})"]
    if nearest is None:
        lines.append(f"no other {kind} is there")
    else:
        lines.append(
            f"the nearest {kind} in '{nearest.directory}', {nearest.record.digest[:12]}, differs in"
        )
        lines.extend(f"  {difference}" for difference in nearest.differences)
    return "\n".join(lines)


@dataclass(frozen=True)
class Problem:
    """An entry that failed verification; `removed` tells whether it is gone now."""

    digest: str
    reason: Reason
    detail: str
    removed: bool


@dataclass(frozen=True)
class StoreInfo:
    """A directory in numbers; sizes in bytes. `limit` None: no size limit.

    `problem` says why the directory is not used, None where it is.
    """

    directory: Path
    readonly: bool
    limit: int | None
    entries: int
    bytes: int
    pinned: int
    kinds: Mapping[str, int]
    problem: str | None


def entries(store: Store) -> Iterator[EntryInfo]:
    """What is stored, most recently used first; entries with a damaged header are left out.

    A directory that others can write is not looked into.
    """
    if store.refusal() is not None:
        return
    pinned = store.folder.pins()
    for slot in _slots(store):
        try:
            header = read_header(slot.path, allow_shared=store.allow_shared)
        except EntryError:
            continue
        yield EntryInfo(
            digest=slot.digest,
            record=header.record,
            size=slot.size,
            used=slot.used,
            pinned=slot.digest in pinned,
            sections={section.name: section.length for section in header.sections},
            build_seconds=header.build_seconds,
        )


def nearest(store: Store, record: KeyRecord) -> Nearest | None:
    """The stored key of the same kind nearest to `record`, which itself is passed over."""
    return nearest_of((info.record for info in entries(store)), record, store.directory)


def nearest_of(records: Iterable[KeyRecord], record: KeyRecord, directory: Path) -> Nearest | None:
    """Of the records kept in `directory`, the one of the same kind nearest to `record`."""
    best: Nearest | None = None
    for candidate in records:
        if candidate.kind != record.kind or candidate == record:
            continue
        found = Nearest(candidate, record.diff(candidate), directory)
        if best is None or found.distance < best.distance:
            best = found
    return best


def verify(store: Store, *, remove: bool = False) -> list[Problem]:
    """Reads and checks every entry whole; with `remove`, what failed is removed."""
    problems = []
    for slot in _slots(store):
        failure = _failure(store, slot)
        if failure is not None:
            gone = remove and store.remove_file(slot.path)
            problems.append(Problem(slot.digest, failure.reason, failure.detail, gone))
    for path in store.folder.obstacles():
        detail = f"'{path}' is a directory, so the entry can never be stored: remove it"
        problems.append(Problem(path.name, Reason.REFUSED, detail, removed=False))
    return problems


def info(store: Store) -> StoreInfo:
    """The directory in numbers; reads the header of each entry."""
    slots = _slots(store)
    pinned = store.folder.pins()
    kinds = Counter(info.record.kind for info in entries(store))
    refusal = store.refusal()
    return StoreInfo(
        directory=store.directory,
        readonly=store.readonly,
        limit=store.size_limit,
        entries=len(slots),
        bytes=sum(slot.size for slot in slots),
        pinned=sum(slot.digest in pinned for slot in slots),
        kinds=dict(kinds),
        problem=None if refusal is None else refusal.detail,
    )


def _slots(store: Store) -> list[Slot]:
    return sorted(store.folder.slots(), key=lambda slot: slot.used, reverse=True)


def _failure(store: Store, slot: Slot) -> Miss | None:
    try:
        entry = read(slot.path, allow_shared=store.allow_shared)
    except EntryError as error:
        # An entry that another process has just removed is no problem.
        return None if error.reason is Reason.ABSENT else Miss(error.reason, str(error))
    if entry.record.digest != slot.digest:
        return Miss(Reason.FOREIGN, f"holds the entry {entry.record.digest}")
    return None
