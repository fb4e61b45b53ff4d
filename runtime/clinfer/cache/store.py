"""One cache directory: entries found by key record, never worse than no cache.

No lock is needed: an entry appears whole by a rename, is checked as it is read, and its bytes serve
the same whoever wrote it. Whatever goes wrong becomes a counted miss with its reason.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clinfer import config, forks
from clinfer.cache import behind
from clinfer.cache.entry import PAGE_ALIGNED, Container, Entry, payload_bytes, pieces, read
from clinfer.cache.files import write_atomic, write_fault
from clinfer.cache.folder import Folder, Removed, UntrustedDirectoryError
from clinfer.cache.header import EntryError
from clinfer.cache.record import KeyRecord
from clinfer.cache.stats import Counters, Miss, Reason, Stats, report
from clinfer.cache.trust import closed_to_this_user
from clinfer.errors import PropertyError

if TYPE_CHECKING:
    from clinfer.cache.entry import SectionData
    from clinfer.cache.inventory import EntryInfo, Nearest, Problem, StoreInfo

Parts = Callable[[], Iterable[memoryview]]

# Eviction goes below the limit, so that the next entries need no scan.
_EVICT_TO = 0.9
# What other processes have written shows at a scan; one is due when this part of the limit is new.
_SCAN_AFTER = 1 / 16


class Store:
    """A directory of entries. Threads and processes may share it.

    `size_limit` is in bytes; None: no limit. `allow_shared` uses a directory that others can write;
    None: as CLINFER_CACHE_ALLOW_SHARED says. What is stored is its owner's alone, or with
    CLINFER_CACHE_READABLE=1 readable by every user. A hit makes an entry recently used, at most
    once in `touch_interval` seconds. Nothing is created before something is stored. Raises
    PropertyError for text that cannot be a path.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        readonly: bool = False,
        size_limit: int | None = None,
        allow_shared: bool | None = None,
        touch_interval: float = 300.0,
    ) -> None:
        shared = config.CACHE_ALLOW_SHARED.get() if allow_shared is None else allow_shared
        self.directory = _directory(directory)
        self.readonly = readonly
        self.size_limit = size_limit
        self.allow_shared = shared
        readable = config.CACHE_READABLE.get()
        self.folder = Folder(self.directory, allow_shared=shared, readable=readable)
        self._counters = Counters()
        self._touch_interval = touch_interval
        self._lock = forks.new_lock()
        self._size: int | None = None  # bytes of all entries at the last scan
        self._added = 0  # bytes written since
        self._reported: set[Reason] = set()

    @property
    def stats(self) -> Stats:
        """What happened in this process so far."""
        behind.settle()
        return self._counters.snapshot()

    def get(self, record: KeyRecord) -> Entry | None:
        """The entry of that key, checked, or None. Never raises; the reason is counted."""
        found = self.lookup(record)
        return found if isinstance(found, Entry) else None

    def lookup(self, record: KeyRecord) -> Entry | Miss:
        """As `get`, but says why there is no entry."""
        found = self.peek(record)
        if isinstance(found, Miss):
            self._counters.miss(found.reason)
        else:
            self._counters.hit(found.nbytes, found.build_seconds)
        return found

    def peek(self, record: KeyRecord) -> Entry | Miss:
        """As `lookup`, without counting."""
        behind.settle(record.digest)
        path = self.folder.entry(record.digest)
        found = self._read(path, record)
        if isinstance(found, Entry):
            self._touch(path)
        return found

    def put(
        self,
        record: KeyRecord,
        sections: Mapping[str, SectionData],
        *,
        seconds: float = 0.0,
        page_aligned: Collection[str] = PAGE_ALIGNED,
        prepared: bool = False,
    ) -> bool:
        """Stores an entry, replacing an older one; returns whether it is stored.

        `seconds` is what building the content took. `prepared`: `prepare` has made its folders, and
        where they are gone, nothing is stored and nobody told. Never raises for a fault of the file
        system, whose reason is counted; raises CacheError for a section name that is not allowed.
        """

        def parts() -> Iterator[memoryview]:
            return pieces(record, sections, seconds=seconds, page_aligned=page_aligned)

        return self._put(record, payload_bytes(sections), parts, prepared) is None

    def prepare(self, record: KeyRecord) -> bool:
        """Makes the folders that an entry needs; returns whether they are there."""
        if self.readonly:
            return False
        try:
            self.folder.prepare(self.folder.entry(record.digest))
        except (OSError, UntrustedDirectoryError):
            return False
        return True

    def adopt(self, container: Container) -> Miss | None:
        """Stores an entry made elsewhere, byte for byte; None, or why it is not stored.

        Otherwise as `put`.
        """
        data = container.data
        return self._put(container.entry.record, data.nbytes, lambda: iter([data]))

    def forgo(self, record: KeyRecord, detail: str) -> None:
        """Counts an entry that cannot be stored, because the driver does not give its content."""
        self._counters.unstored(Reason.NO_BINARY)
        self._report(Miss(Reason.NO_BINARY, f"{record.digest}: {detail}"))

    def reject(self, entry: Entry, detail: str) -> None:
        """Takes back a hit whose content was of no use, say because the driver refused it.

        The hit becomes a miss, and the entry is removed, so that it is rebuilt.
        """
        self._counters.rejected(entry.nbytes, entry.build_seconds)
        self.discard(entry.record)
        self._report(Miss(Reason.REJECTED, f"{entry.record.digest}: {detail}"))

    def discard(self, record: KeyRecord) -> bool:
        """Removes an entry; returns whether there was one that could be removed."""
        behind.settle(record.digest)
        return self.remove_file(self.folder.entry(record.digest))

    def recall(self, record: KeyRecord) -> Entry | None:
        """A memo: like `get`, but neither counted nor among the entries."""
        found = self._read(self.folder.memo(record.digest), record)
        return found if isinstance(found, Entry) else None

    def remember(self, record: KeyRecord, sections: Mapping[str, SectionData]) -> bool:
        """Stores a memo: like `put`, but neither counted nor bound by the size limit."""
        if self.readonly:
            return False

        def parts() -> Iterator[memoryview]:
            return pieces(record, sections, page_aligned=())

        return not isinstance(self._write(self.folder.memo(record.digest), parts), Miss)

    def forget(self, record: KeyRecord) -> bool:
        """Removes a memo; returns whether there was one that could be removed."""
        return self.remove_file(self.folder.memo(record.digest))

    def entries(self) -> Iterator[EntryInfo]:
        """What is stored, most recently used first; entries with a damaged header are left out.

        A directory that others can write is not looked into.
        """
        from clinfer.cache import inventory

        behind.settle()
        return inventory.entries(self)

    def nearest(self, record: KeyRecord) -> Nearest | None:
        """The stored key of the same kind nearest to `record`, which itself is passed over."""
        from clinfer.cache import inventory

        return inventory.nearest(self, record)

    def verify(self, *, remove: bool = False) -> list[Problem]:
        """Reads and checks every entry whole; with `remove`, what failed is removed."""
        from clinfer.cache import inventory

        behind.settle()
        return inventory.verify(self, remove=remove)

    def info(self) -> StoreInfo:
        """The directory in numbers; reads the header of each entry."""
        from clinfer.cache import inventory

        behind.settle()
        return inventory.info(self)

    def pin(self, record: KeyRecord) -> bool:
        """Exempts an entry from eviction and pruning; False where that cannot be written."""
        if self.readonly:
            return False
        try:
            behind.settle(record.digest)
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
        """Removes entries unused for `age` seconds, then the least recently used until the rest
        takes at most `limit` bytes. Pinned entries neither go nor count. A read-only store is left
        as it is."""
        if self.readonly:
            return Removed(0, 0)
        behind.settle()
        removed = self.folder.prune(limit=limit, age=age)
        self._counters.evicted(removed.entries)
        return removed

    def clear(self, *, keep_pinned: bool = False) -> Removed:
        """Removes all entries and memos. A read-only store is left as it is."""
        if self.readonly:
            return Removed(0, 0)
        behind.settle()
        return self.folder.clear(keep_pinned=keep_pinned)

    def refusal(self) -> Miss | None:
        """Why the directory is not used at all, None where it is."""
        try:
            self.folder.check()
        except UntrustedDirectoryError as error:
            return Miss(Reason.REFUSED, str(error))
        except OSError as error:
            closed = closed_to_this_user(self.directory) or str(error)
            detail = f"the cache directory '{self.directory}' cannot be examined: {closed}"
            return Miss(Reason.UNREADABLE, detail)
        return None

    def trial(self) -> Miss | None:
        """Why nothing at all can be written, found by writing; None where something can."""
        record = KeyRecord.make("trial", [("process", os.getpid())])
        path = self.folder.memo(record.digest)
        written = self._write(path, lambda: pieces(record, {}, page_aligned=()))
        if isinstance(written, Miss):
            return written
        self.remove_file(path)
        return None

    def remove_file(self, path: Path) -> bool:
        """Removes a file of the store; returns whether it is gone by this call."""
        if self.readonly:
            return False
        try:
            path.unlink()
        except OSError:
            return False
        return True

    def _read(self, path: Path, record: KeyRecord) -> Entry | Miss:
        refusal = self.refusal()
        if refusal is not None:
            self._report(refusal)
            return refusal
        try:
            return read(path, expect_record=record, allow_shared=self.allow_shared, thorough=False)
        except EntryError as error:
            closed = closed_to_this_user(path) if error.reason is Reason.UNREADABLE else None
            miss = Miss(error.reason, f"{path}: {closed or error}")
        except (OSError, MemoryError) as error:
            miss = Miss(Reason.UNREADABLE, f"{path}: {error}")
        if miss.reason in (Reason.DAMAGED, Reason.FOREIGN):
            self.remove_file(path)
        if miss.reason is not Reason.ABSENT:
            self._report(miss)
        return miss

    def _touch(self, path: Path) -> None:
        if self.readonly:
            return
        with suppress(OSError):
            if abs(path.stat().st_mtime - time.time()) > self._touch_interval:
                os.utime(path)

    def _put(
        self, record: KeyRecord, payload: int, parts: Parts, prepared: bool = False
    ) -> Miss | None:
        """Stores what `parts` gives; `payload` is its size in bytes, padding left out or not."""
        written = self._checked_write(record, payload, parts, prepared)
        if isinstance(written, Miss):
            self._counters.unstored(written.reason)
            if written.detail:
                self._report(written)
            return written
        self._counters.stored(written)
        self._make_room(written)
        return None

    def _checked_write(
        self, record: KeyRecord, payload: int, parts: Parts, prepared: bool
    ) -> int | Miss:
        if self.readonly:
            return Miss(Reason.READ_ONLY, "the store is read-only")
        if self.size_limit is not None and payload > self.size_limit:
            detail = (
                f"{payload} bytes are more than the limit of '{self.directory}', "
                f"{self.size_limit}; CLINFER_CACHE_SIZE sets another"
            )
            return Miss(Reason.TOO_LARGE, detail)
        return self._write(self.folder.entry(record.digest), parts, prepared)

    def _write(self, path: Path, parts: Parts, prepared: bool = False) -> int | Miss:
        """The bytes written, or why not."""

        def attempt() -> int:
            temporary = self.folder.prepared() if prepared else self.folder.prepare(path)
            return write_atomic(path, temporary, parts(), readable=self.folder.readable)

        try:
            try:
                return attempt()
            except FileNotFoundError:
                # The directory may be removed at any moment; then it is made once more.
                if prepared:
                    return Miss(Reason.UNWRITABLE, "")
            return attempt()
        except UntrustedDirectoryError as error:
            return Miss(Reason.REFUSED, str(error))
        except OSError as error:
            return Miss(write_fault(error), f"{path} cannot be written: {error}")
        except MemoryError:
            return Miss(Reason.UNWRITABLE, f"{path} cannot be written: not enough memory")

    def _make_room(self, written: int) -> None:
        """Keeps the directory below the size limit, by its own count between scans."""
        if self.size_limit is None:
            return
        with self._lock:
            self._added += written
            known = self._size is not None and self._size + self._added <= self.size_limit
            if known and self._added <= self.size_limit * _SCAN_AFTER:
                return
            removed = self.folder.prune(limit=self.size_limit, age=None, share=_EVICT_TO)
            self._counters.evicted(removed.entries)
            self._size = removed.left
            self._added = 0

    def _report(self, miss: Miss) -> None:
        """Logs a fault: the first of each reason as a warning, the rest for debugging."""
        report(miss, loud=miss.reason not in self._reported)
        self._reported.add(miss.reason)


def _directory(text: str | Path) -> Path:
    path = Path(text)
    if "\0" in str(path):
        raise PropertyError(f"a cache directory cannot be named {str(path)!r}")
    if "://" in str(text):
        raise PropertyError(
            f"a cache directory lies on this machine, found {str(text)!r}: set CACHE_STORE (or "
            "CLINFER_CACHE_STORE) to a URL, and CACHE_DIR to a local directory"
        )
    with suppress(RuntimeError):  # '~user' of an unknown user stays as it is
        path = path.expanduser()
    return path.absolute()
