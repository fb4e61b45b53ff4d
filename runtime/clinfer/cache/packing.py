"""From caches into packs and back.

`collect` names a cache's entries for `write_pack` or `write_layout`, `sources` adds the OpenCL C
their programs are made of, `unpack` copies a pack into a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clinfer.cache import behind, driver_files
from clinfer.cache.entry import Container, Entry, read_container, read_header, to_bytes
from clinfer.cache.header import EntryError
from clinfer.cache.index import IndexEntry
from clinfer.cache.pack import Pack
from clinfer.cache.packfile import Loaders
from clinfer.cache.record import FieldValue, KeyRecord
from clinfer.cache.stats import Miss, Reason
from clinfer.cache.store import Store
from clinfer.errors import CacheError, UntrustedError

if TYPE_CHECKING:
    from clinfer.lowering.plan import Program

SOURCE_FORMAT = 1
_PASSED_BY = (Reason.ABSENT, Reason.VERSION)  # evicted meanwhile; of a release that is gone


def collect(
    stores: Iterable[Store], wanted: Callable[[KeyRecord], bool] = lambda record: True
) -> Loaders:
    """The entries of caches whose key is `wanted`; of several with one key the first counts.

    Raises CacheError for a cache that is not used, and for an entry that cannot be.
    """
    behind.settle()
    found: dict[str, Callable[[], Container]] = {}
    for store in stores:
        refusal = store.refusal()
        if refusal is not None:
            raise CacheError(refusal.detail)
        for slot in store.folder.slots():
            record = _record(slot.path, store)
            if record is not None and slot.digest not in found and wanted(record):
                found[slot.digest] = partial(_load, slot.path, record, store.allow_shared)
    return found


def sources(programs: Iterable[Program]) -> Loaders:
    """An entry of kind 'source' for each program's text, shared by all devices it serves."""
    containers = [_source(program) for program in programs]
    return {c.entry.record.digest: partial(_same, c) for c in containers}


def programs_of(entry: Entry) -> tuple[Program, ...]:
    """The programs of a compiled model or a plan. Raises BlobError where it cannot be read."""
    from clinfer.lowering.plan_io import load

    return load(entry.section("plan"), entry.section("weights"), lambda _: None).programs


@dataclass(frozen=True)
class Unpacked:
    """How many entries were stored, how many were there already, and the bytes written."""

    stored: int
    kept: int
    nbytes: int


def unpack(
    pack: Pack,
    store: Store,
    *,
    pin: bool = False,
    done: Callable[[IndexEntry], None] = lambda entry: None,
) -> Unpacked:
    """Copies a pack's entries into a store; with `pin` they are exempt from eviction.

    `done` is told of each. Raises UntrustedError for an entry that is not the one signed,
    CacheError for a damaged one and where it cannot be stored; what was stored before stays.
    """
    pack.remember()
    stored = kept = nbytes = 0
    for entry in pack.index.entries:
        if _is_kept(entry, store):
            kept += 1
        else:
            _copy(pack, entry, store)
            stored += 1
            nbytes += entry.size
        if pin and entry.record.kind != driver_files.KIND and not store.pin(entry.record):
            raise CacheError(f"entry {entry.digest[:12]} cannot be pinned in '{store.directory}'")
        done(entry)
    return Unpacked(stored, kept, nbytes)


def _is_kept(entry: IndexEntry, store: Store) -> bool:
    """Whether the store has the entry, and need not be given it."""
    if entry.record.kind == driver_files.KIND:
        return driver_files.is_there(entry.record, store)
    present = store.peek(entry.record)
    return isinstance(present, Entry) and present.content == entry.content


def _copy(pack: Pack, entry: IndexEntry, store: Store) -> None:
    found = pack.fetch(entry.record)
    if isinstance(found, Miss):
        if found.reason in (Reason.UNTRUSTED, Reason.FOREIGN):
            raise UntrustedError(found.detail)
        raise CacheError(f"{found.detail} ({found.reason})")
    is_drivers = entry.record.kind == driver_files.KIND
    fault = driver_files.place(found, store) if is_drivers else store.adopt(found)
    if fault is not None:
        raise CacheError(
            f"entry {entry.digest[:12]} is not stored ({fault.reason}): {fault.detail}"
        )


def _record(path: Path, store: Store) -> KeyRecord | None:
    """The key of an entry's file; None for one that is no concern of this release."""
    try:
        return read_header(path, allow_shared=store.allow_shared).record
    except EntryError as error:
        if error.reason in _PASSED_BY:
            return None
        raise _unusable(path, error) from None


def _load(path: Path, record: KeyRecord, allow_shared: bool) -> Container:
    try:
        return read_container(path, expect_record=record, allow_shared=allow_shared)
    except EntryError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: EntryError) -> CacheError:
    return CacheError(
        f"the entry '{path}' cannot be packed ({error.reason}: {error}): "
        "'clinfer cache verify --remove' removes damaged ones, 'clinfer warm' builds them again"
    )


def _source(program: Program) -> Container:
    fields: dict[str, FieldValue] = {
        "format": SOURCE_FORMAT,
        "entry": program.entry,
        "source": program.digest,
        "options": program.options,
        "local_size": "x".join(map(str, program.local_size)),
    }
    record = KeyRecord.make("source", fields.items())
    return read_container(to_bytes(record, {"source": program.source.encode()}))


def _same(container: Container) -> Container:
    return container
