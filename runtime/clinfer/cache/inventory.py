"""What a cache directory holds: listing, comparing, checking, removing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clinfer import config
from clinfer.cache.entry import read, read_header
from clinfer.cache.folder import Folder, Removed, Slot, UntrustedDirectoryError
from clinfer.cache.header import EntryError
from clinfer.cache.record import FieldDifference, KeyRecord
from clinfer.cache.stats import Counters, Miss, Reason


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


@dataclass(frozen=True)
class Nearest:
    """The entry of the same kind whose key differs in the fewest fields."""

    record: KeyRecord
    differences: tuple[FieldDifference, ...]
    directory: Path


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


class Inventory:
    """The part of a store that works on all of its entries; see `Store` for the arguments."""

    def __init__(
        self,
        directory: str | Path,
        *,
        readonly: bool,
        size_limit: int | None,
        allow_shared: bool | None,
    ) -> None:
        shared = config.CACHE_ALLOW_SHARED.get() if allow_shared is None else allow_shared
        self.directory = Path(directory).expanduser().absolute()
        self.readonly = readonly
        self.size_limit = size_limit
        self.folder = Folder(self.directory, allow_shared=shared)
        self._allow_shared = shared
        self._counters = Counters()

    def entries(self) -> Iterator[EntryInfo]:
        """What is stored, most recently used first; entries with a damaged header are left out.

        A directory that others can write is not looked into.
        """
        if self.refusal() is not None:
            return
        pinned = self.folder.pins()
        for slot in self._slots():
            try:
                header = read_header(slot.path, allow_shared=self._allow_shared)
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

    def nearest(self, record: KeyRecord) -> Nearest | None:
        """The stored key of the same kind nearest to `record`, which itself is passed over."""
        best: Nearest | None = None
        for info in self.entries():
            if info.record.kind != record.kind or info.record == record:
                continue
            differences = record.diff(info.record)
            if best is None or len(differences) < len(best.differences):
                best = Nearest(info.record, differences, self.directory)
        return best

    def verify(self, *, remove: bool = False) -> list[Problem]:
        """Reads and checks every entry whole; with `remove`, what failed is removed."""
        problems = []
        for slot in self._slots():
            failure = self._failure(slot)
            if failure is not None:
                gone = remove and self._remove(slot.path)
                problems.append(Problem(slot.digest, failure.reason, failure.detail, gone))
        return problems

    def pin(self, record: KeyRecord) -> bool:
        """Exempts an entry from eviction and pruning; False where that cannot be written."""
        if self.readonly:
            return False
        try:
            self.folder.pin(record.digest)
        except (OSError, UntrustedDirectoryError):
            return False
        return True

    def unpin(self, record: KeyRecord) -> bool:
        """Ends a pin; False where that cannot be written."""
        if self.readonly:
            return False
        try:
            self.folder.unpin(record.digest)
        except OSError:
            return False
        return True

    def prune(self, *, limit: int | None = None, age: float | None = None) -> Removed:
        """Removes unpinned entries unused for `age` seconds, then the least recently used ones
        until the entries take at most `limit` bytes. A read-only store is left as it is."""
        if self.readonly:
            return Removed(0, 0)
        removed = self.folder.prune(limit=limit, age=age)
        self._counters.evicted(removed.entries)
        return removed

    def clear(self, *, keep_pinned: bool = False) -> Removed:
        """Removes all entries and memos. A read-only store is left as it is."""
        if self.readonly:
            return Removed(0, 0)
        return self.folder.clear(keep_pinned=keep_pinned)

    def info(self) -> StoreInfo:
        """The directory in numbers; reads the header of each entry."""
        slots = self._slots()
        pinned = self.folder.pins()
        kinds = Counter(info.record.kind for info in self.entries())
        refusal = self.refusal()
        return StoreInfo(
            directory=self.directory,
            readonly=self.readonly,
            limit=self.size_limit,
            entries=len(slots),
            bytes=sum(slot.size for slot in slots),
            pinned=sum(slot.digest in pinned for slot in slots),
            kinds=dict(kinds),
            problem=None if refusal is None else refusal.detail,
        )

    def refusal(self) -> Miss | None:
        """Why the directory is not used at all, None where it is."""
        try:
            self.folder.check()
        except UntrustedDirectoryError as error:
            return Miss(Reason.REFUSED, str(error))
        except OSError as error:
            detail = f"the cache directory '{self.directory}' cannot be examined: {error}"
            return Miss(Reason.UNREADABLE, detail)
        return None

    def _slots(self) -> list[Slot]:
        return sorted(self.folder.slots(), key=lambda slot: slot.used, reverse=True)

    def _failure(self, slot: Slot) -> Miss | None:
        try:
            entry = read(slot.path, allow_shared=self._allow_shared)
        except EntryError as error:
            # An entry that another process has just removed is no problem.
            return None if error.reason is Reason.ABSENT else Miss(error.reason, str(error))
        if entry.record.digest != slot.digest:
            return Miss(Reason.FOREIGN, f"holds the entry {entry.record.digest}")
        return None

    def _remove(self, path: Path) -> bool:
        if self.readonly:
            return False
        try:
            path.unlink()
        except OSError:
            return False
        return True
