"""Layers: one writable store over read-only ones and a remote one, used as the cache mode says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from clinfer import config
from clinfer.cache import behind
from clinfer.cache.entry import PAGE_ALIGNED, Entry, payload_bytes, to_bytes
from clinfer.cache.folder import UntrustedDirectoryError
from clinfer.cache.locks import LOCK_TIMEOUT, build_lock
from clinfer.cache.record import KeyRecord
from clinfer.cache.stats import Counters, Miss, Reason, Stats, report
from clinfer.cache.store import Store
from clinfer.cache.told import LOG, tell_lookup, tell_stored
from clinfer.errors import BuildError, PropertyError

if TYPE_CHECKING:
    from clinfer.cache.entry import SectionData
    from clinfer.cache.inventory import Nearest
    from clinfer.cache.remote import RemoteStore


_NEAREST_TOLD = 3


class CacheMode(str, Enum):
    """What a cache may be used for."""

    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    CACHE_ONLY = "cache-only"
    OFF = "off"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, text: str) -> CacheMode:
        """The mode of that name. Raises PropertyError for any other text."""
        try:
            return cls(text.strip().lower())
        except ValueError:
            known = ", ".join(mode.value for mode in cls)
            raise PropertyError(f"CACHE_MODE: expected one of {known}, found {text!r}") from None

    @property
    def reads(self) -> bool:
        """Entries are looked up."""
        return self is not CacheMode.OFF

    @property
    def writes(self) -> bool:
        """What was built is stored."""
        return self is CacheMode.READ_WRITE

    @property
    def compiles(self) -> bool:
        """A miss is built; otherwise the caller raises CompileRequiredError."""
        return self is not CacheMode.CACHE_ONLY


class Layer(Protocol):
    """What is searched: a store, a pack."""

    @property
    def directory(self) -> Path:
        """Where it lies."""

    def peek(self, record: KeyRecord) -> Entry | Miss:
        """The entry of that key, checked, or why there is none. Never raises."""

    def nearest(self, record: KeyRecord) -> Nearest | None:
        """The key of the same kind nearest to `record`, which itself is passed over."""


class Layers:
    """Stores searched in order, the writable one first; what is put goes to the writable one.

    `remote` is asked last; what it has is copied into the writable store, and what is put is pushed
    there too. Each may be missing: without any, each look-up is a miss. Statistics count a look-up
    once, whatever the number of stores.
    """

    def __init__(
        self,
        writable: Store | None = None,
        readonly: Sequence[Layer] = (),
        *,
        remote: RemoteStore | None = None,
        mode: CacheMode = CacheMode.READ_WRITE,
    ) -> None:
        self.writable = writable
        self.readonly = tuple(readonly)
        self.remote = remote
        self.mode = mode
        self._counters = Counters()
        self._nearest_told = 0

    @classmethod
    def open(
        cls,
        directory: str | Path | None = None,
        *,
        path: Sequence[str | Path] | None = None,
        store: str | None = None,
        mode: CacheMode | str | None = None,
        size_limit: int | None = None,
        allow_shared: bool | None = None,
    ) -> Layers:
        """Layers as properties say; what is None comes from the environment variables.

        `directory` is the writable one ('' or unset: none), `path` the read-only ones, which may be
        packs too, `store` the remote one's URL ('' or unset: none), `size_limit` is in bytes (0: no
        limit). Opens nothing. Raises PropertyError for a value that cannot be understood.
        """
        if mode is None:
            mode = config.CACHE_MODE.get()
        chosen = mode if isinstance(mode, CacheMode) else CacheMode.parse(mode)
        folder = config.CACHE_DIR.get() if directory is None else directory
        below = config.CACHE_PATH.get() if path is None else path
        limit = config.CACHE_SIZE.get() if size_limit is None else size_limit
        writable = None
        if folder:
            writable = Store(
                folder,
                readonly=not chosen.writes,
                size_limit=limit or None,
                allow_shared=allow_shared,
            )
        layers = [_read_only(item, allow_shared) for item in below]
        url = config.CACHE_STORE.get() if store is None else store
        return cls(writable, layers, remote=_remote(url), mode=chosen)

    @property
    def stores(self) -> tuple[Layer, ...]:
        """All stores in the order they are searched."""
        return self.readonly if self.writable is None else (self.writable, *self.readonly)

    @property
    def observers(self) -> tuple[Layer, ...]:
        """The same stores, opened so that looking changes nothing, not even a damaged entry."""
        if self.writable is None:
            return self.readonly
        shared = self.writable.allow_shared
        return Store(self.writable.directory, readonly=True, allow_shared=shared), *self.readonly

    @property
    def stats(self) -> Stats:
        """What happened in this process so far, each look-up counted once."""
        behind.settle()
        own = self._counters.snapshot()
        if self.writable is None:
            return own
        written = self.writable.stats
        return own._replace(
            stored=written.stored,
            unstored=written.unstored,
            evicted=written.evicted,
            bytes_written=written.bytes_written,
        )

    def get(self, record: KeyRecord, *, again: bool = False) -> Entry | None:
        """The entry of that key from the first store that has it, or None. Never raises.

        `again`: this look-up was made before and another process may have answered it since; it is
        counted only if it succeeds.
        """
        found = self.lookup(record, again=again)
        return found if isinstance(found, Entry) else None

    def lookup(self, record: KeyRecord, *, again: bool = False) -> Entry | Miss:
        """As `get`, but says why there is no entry: the first reason other than 'absent'."""
        found = self._find(record)
        if isinstance(found, Miss) and not again:
            found = self._fetch(record, found)
        if isinstance(found, Entry):
            self._counters.hit(found.nbytes, found.build_seconds)
        elif not again:
            self._counters.miss(found.reason)
        if LOG.shows_debug and (isinstance(found, Entry) or not again):
            self._tell(record, found)
        return found

    def recall(self, record: KeyRecord) -> Entry | None:
        """As `get`, for what a compilation can do without: neither hit nor miss is counted."""
        found = self._find(record)
        if isinstance(found, Miss):
            found = self._fetch(record, found)
        if LOG.shows_debug:
            tell_lookup(record, found)
        return found if isinstance(found, Entry) else None

    def put(
        self,
        record: KeyRecord,
        sections: Mapping[str, SectionData],
        *,
        seconds: float = 0.0,
        page_aligned: Collection[str] = PAGE_ALIGNED,
        prepared: bool = False,
    ) -> bool:
        """Stores an entry as `Store.put` does, and remotely, where the mode allows.

        Returns whether it is in the writable store.
        """
        if not self.mode.writes:
            return False
        stored = False
        if self.writable is not None:
            stored = self.writable.put(
                record, sections, seconds=seconds, page_aligned=page_aligned, prepared=prepared
            )
            if stored and LOG.shows_debug:
                tell_stored(record, self.writable.directory, sections, seconds)
        self.push(record, sections, seconds=seconds, page_aligned=page_aligned)
        return stored

    def push(
        self,
        record: KeyRecord,
        sections: Mapping[str, SectionData],
        *,
        seconds: float = 0.0,
        page_aligned: Collection[str] = PAGE_ALIGNED,
    ) -> Miss | None:
        """Stores an entry in the remote store alone, if there is one; None, or why not."""
        if self.remote is None:
            return None
        data = to_bytes(record, sections, seconds=seconds, page_aligned=page_aligned)
        return self.remote.push(record, data)

    def put_made(
        self,
        record: KeyRecord,
        make: Callable[[], Mapping[str, SectionData]],
        seconds: float,
        held: ExitStack | None = None,
    ) -> None:
        """Stores what `make` gives; a `BuildError` of it is counted and costs the entry only.

        With `held` a large entry is stored behind the caller (`clinfer.cache.behind`), what `held`
        holds, a build lock, until then. The content must not change any more. Its folders are made
        here: whoever removes the directory after this call does not find it made again.
        """
        if not self.mode.writes:
            return
        try:
            sections = make()
        except BuildError as error:
            if self.writable is not None:
                self.writable.forgo(record, str(error))
            return
        if held is None or payload_bytes(sections) < behind.FROM_BYTES:
            self.put(record, sections, seconds=seconds)
            return
        lock = held.pop_all()
        prepared = self.writable is not None and self.writable.prepare(record)

        def store() -> None:
            with lock:
                self.put(record, sections, seconds=seconds, prepared=prepared)

        behind.run(record.digest, store)

    def reject(self, entry: Entry, detail: str) -> Miss:
        """Takes back a hit that was of no use, and removes the entry from the writable store.

        Returns what the look-up has become.
        """
        self._counters.rejected(entry.nbytes, entry.build_seconds)
        if self.writable is not None:
            self.writable.discard(entry.record)
        miss = Miss(Reason.REJECTED, f"{entry.record.digest}: {detail}")
        report(miss, loud=True)
        return miss

    @contextmanager
    def building(self, record: KeyRecord, timeout: float = LOCK_TIMEOUT) -> Iterator[bool]:
        """Waits up to `timeout` seconds for other processes that build the same entry.

        Yields whether the lock is held; look the entry up `again` inside, for the process waited
        for may have stored it. Without a lock the caller builds all the same.
        """
        path = None
        if self.writable is not None and self.mode.writes:
            path = self.writable.folder.lock(record.digest)
            try:
                self.writable.folder.prepare(path)
            except (OSError, UntrustedDirectoryError):
                path = None
        if path is None:
            yield False
            return
        with build_lock(path, timeout) as held:
            yield held

    def holds(self, record: KeyRecord) -> bool:
        """Whether a store, the remote one left out, has the entry, intact. Not counted."""
        return any(isinstance(store.peek(record), Entry) for store in self.stores)

    def find(self, record: KeyRecord) -> Entry | None:
        """The entry of that key from any store but the remote one. Not counted."""
        found = self._find(record)
        return found if isinstance(found, Entry) else None

    def nearest(self, record: KeyRecord) -> Nearest | None:
        """The key nearest to `record` in any store."""
        found = [store.nearest(record) for store in self.stores]
        known = [item for item in found if item is not None]
        return min(known, key=lambda item: item.distance, default=None)

    def explain(self, record: KeyRecord, what: str, miss: Miss | None = None) -> str:
        """Why `what` is missing, for people: the reason, and how the nearest key differs.

        `miss` is what `lookup` gave; without it the entry is looked up again, uncounted.
        """
        found = miss or self._find(record)
        if isinstance(found, Entry):
            return f"{what} is in the cache"
        from clinfer.cache.inventory import explanation

        nearest = self.nearest(record) if self.mode.reads else None
        return explanation(what, found, record.kind, nearest)

    def _tell(self, record: KeyRecord, found: Entry | Miss) -> None:
        """Logs a look-up; the nearest keys of the first misses only, which takes reading all."""
        shown = isinstance(found, Miss) and self._nearest_told < _NEAREST_TOLD
        self._nearest_told += shown
        tell_lookup(record, found, self.nearest if shown else None)

    def _find(self, record: KeyRecord) -> Entry | Miss:
        if not self.mode.reads:
            return Miss(Reason.OFF, "the cache is switched off")
        worst = Miss(Reason.ABSENT, f"no entry {record.digest[:12]} in {self._places()}")
        for store in self.stores:
            found = store.peek(record)
            if isinstance(found, Entry):
                return found
            if worst.reason is Reason.ABSENT and found.reason is not Reason.ABSENT:
                worst = found
        return worst

    def _fetch(self, record: KeyRecord, miss: Miss) -> Entry | Miss:
        """The entry from the remote store, kept in the writable one; `miss` is why it is needed."""
        if self.remote is None or not self.mode.reads:
            return miss
        behind.settle(record.digest)
        found = self.remote.fetch(record)
        if isinstance(found, Miss):
            return found if miss.reason is Reason.ABSENT else miss
        if self.writable is not None and self.mode.writes:
            self.writable.adopt(found)
        return found.entry

    def _places(self) -> str:
        places = [f"'{store.directory}'" for store in self.stores]
        if self.remote is not None:
            places.append(f"'{self.remote.place}'")
        return ", ".join(places) or "the cache, which has no directory"


def _read_only(path: str | Path, allow_shared: bool | None) -> Layer:
    """The layer at a path: a pack, or a directory that is a store or may become one."""
    place = Path(path)
    with suppress(OSError, ValueError):
        if place.is_file() or (place / "oci-layout").is_file():
            from clinfer.cache.pack import PackLayer

            return PackLayer(place)
    return Store(path, readonly=True, allow_shared=allow_shared)


def _remote(url: str | None) -> RemoteStore | None:
    if not url:
        return None
    from clinfer.cache.remote import RemoteStore

    return RemoteStore(url)
