"""Packs: entries of one or several caches, devices and vendors, with a signed index.

A pack is a file (`clinfer.cache.packfile`), an OCI image layout (`clinfer.cache.oci`) or a cache
directory, with or without a sealed index. `Pack.open` decides whom to believe before it looks at
anything else; a pack then gives entries as a store does.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from clinfer.cache import behind, inventory
from clinfer.cache.entry import Container, Entry, read_container, read_header
from clinfer.cache.header import EntryError
from clinfer.cache.index import LIMITS, Index, IndexEntry, Limits, index_of
from clinfer.cache.inventory import Nearest, Problem
from clinfer.cache.oci import LAYOUT_FILE, open_layout
from clinfer.cache.packfile import PackFile, checked, open_file
from clinfer.cache.policy import Trust
from clinfer.cache.record import KeyRecord
from clinfer.cache.sealed import INDEX_FILE, Sealed, read_sealed
from clinfer.cache.signing import PublicKey
from clinfer.cache.stats import Miss, Reason
from clinfer.cache.store import Store
from clinfer.errors import CacheError, ClinferError, UntrustedError


class Carrier(Protocol):
    """What a pack's entries are read from."""

    def container(self, entry: IndexEntry) -> Container:
        """The entry, checked against its row of the index. Raises EntryError."""

    def close(self) -> None:
        """Nothing is read any more."""


class Pack:
    """An open pack. Use `Pack.open`, close it or use it in a `with` statement.

    `directory` is where it lies, `signers` the trusted keys that signed it (none where that was
    waived, or for a plain directory), `signed_by` the ids of all keys that are said to have.
    """

    def __init__(
        self,
        directory: Path,
        index: Index,
        carrier: Carrier,
        *,
        sealed: Sealed | None = None,
        signers: tuple[PublicKey, ...] = (),
        trust: Trust | None = None,
    ) -> None:
        self.directory = directory
        self.index = index
        self.signers = signers
        self._carrier = carrier
        self._sealed = sealed
        self._trust = trust

    @classmethod
    def open(cls, path: str | Path, trust: Trust | None = None, limits: Limits = LIMITS) -> Pack:
        """The pack at `path`: a file, an OCI layout's directory or a cache directory.

        `trust` None: as the environment says. A plain cache directory is believed like any cache:
        if only this user and root can write it, and no keys are asked for. Raises UntrustedError,
        and CacheError where there is no pack or it is damaged.
        """
        chosen = Trust.load() if trust is None else trust
        place = Path(path).absolute()
        if not place.is_dir():
            return _open_file(place, chosen, limits)
        if _has(place, LAYOUT_FILE):
            return _open_layout(place, chosen, limits)
        if _has(place, INDEX_FILE):
            return _open_signed_directory(place, chosen, limits)
        return _open_directory(place, chosen)

    @property
    def signed_by(self) -> tuple[str, ...]:
        """The ids of the keys the index is said to be signed with, trusted or not."""
        given = () if self._sealed is None else self._sealed.signatures
        return tuple(signature.key.id for signature in given)

    def fetch(self, record: KeyRecord) -> Container | Miss:
        """The entry of that key with its bytes, checked, or why there is none."""
        entry = self.index.find(record)
        if entry is None:
            return Miss(Reason.ABSENT, f"no entry {record.digest[:12]} in '{self.directory}'")
        try:
            return self._carrier.container(entry)
        except EntryError as error:
            return Miss(error.reason, f"{self.directory}, entry {entry.digest[:12]}: {error}")

    def peek(self, record: KeyRecord) -> Entry | Miss:
        """The entry of that key, checked, or why there is none. Never raises."""
        found = self.fetch(record)
        return found if isinstance(found, Miss) else found.entry

    def nearest(self, record: KeyRecord) -> Nearest | None:
        """The key of the same kind nearest to `record`, which itself is passed over."""
        records = (entry.record for entry in self.index.entries)
        return inventory.nearest_of(records, record, self.directory)

    def verify(self) -> list[Problem]:
        """Reads and checks every entry whole."""
        problems = []
        for entry in self.index.entries:
            found = self.fetch(entry.record)
            if isinstance(found, Miss):
                problems.append(Problem(entry.digest, found.reason, found.detail, removed=False))
        return problems

    def remember(self) -> None:
        """Notes the serial number, so that no older pack of this name and key is accepted again.

        Raises CacheError where that cannot be written.
        """
        if self._sealed is not None and self._trust is not None:
            self._trust.remember(self.index, self._sealed, self.signers)

    def close(self) -> None:
        """Closes the pack's file."""
        self._carrier.close()

    def __enter__(self) -> Pack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class PackLayer:
    """A pack as a read-only layer of a cache, opened when it is first asked; never raises."""

    def __init__(self, path: str | Path) -> None:
        self.directory = Path(path).absolute()
        self._opened: Pack | Miss | None = None

    def peek(self, record: KeyRecord) -> Entry | Miss:
        """As `Pack.peek`; a pack that cannot be opened is a miss with its reason."""
        pack = self._open()
        return pack if isinstance(pack, Miss) else pack.peek(record)

    def nearest(self, record: KeyRecord) -> Nearest | None:
        """As `Pack.nearest`."""
        pack = self._open()
        return None if isinstance(pack, Miss) else pack.nearest(record)

    def _open(self) -> Pack | Miss:
        if self._opened is None:
            try:
                self._opened = Pack.open(self.directory)
            except UntrustedError as error:
                self._opened = Miss(Reason.UNTRUSTED, str(error))
            except ClinferError as error:
                self._opened = Miss(Reason.UNREADABLE, str(error))
        return self._opened


def _has(place: Path, name: str) -> bool:
    with suppress(OSError, ValueError):
        return (place / name).is_file()
    return False


def is_pack(path: str | Path) -> bool:
    """Whether a pack lies there: a file, an OCI layout or a directory with a sealed index."""
    with suppress(OSError, ValueError):
        return Path(path).is_file() or any(_has(Path(path), n) for n in (LAYOUT_FILE, INDEX_FILE))
    return False


class _Folder:
    """Entries of a cache directory."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def container(self, entry: IndexEntry) -> Container:
        path = self._store.folder.entry(entry.digest)
        shared = self._store.allow_shared
        return checked(read_container(path, expect_record=entry.record, allow_shared=shared), entry)

    def close(self) -> None:
        pass


def _open_file(path: Path, trust: Trust, limits: Limits) -> Pack:
    file = open_file(path)
    try:
        sealed = read_sealed(file, limits)
        index, signers = trust.open_index(sealed, limits)
        carrier = PackFile(file, index, sealed.nbytes, limits)
    except OSError as error:
        file.close()
        raise CacheError(f"'{path}' cannot be read: {error}") from None
    except ClinferError as error:
        file.close()
        raise _placed(error, path) from None
    except BaseException:
        file.close()
        raise
    return Pack(path, index, carrier, sealed=sealed, signers=signers, trust=trust)


def _open_layout(path: Path, trust: Trust, limits: Limits) -> Pack:
    try:
        layout = open_layout(path, limits)
        try:
            index, signers = trust.open_index(layout.sealed, limits)
            layout.match(index)
        except BaseException:
            layout.close()
            raise
    except ClinferError as error:
        raise _placed(error, path) from None
    return Pack(path, index, layout, sealed=layout.sealed, signers=signers, trust=trust)


def _open_signed_directory(path: Path, trust: Trust, limits: Limits) -> Pack:
    try:
        with open_file(path / INDEX_FILE) as file:
            sealed = read_sealed(file, limits)
            if os.fstat(file.fileno()).st_size != sealed.nbytes:
                raise CacheError("bytes follow the sealed index")
        index, signers = trust.open_index(sealed, limits)
    except ClinferError as error:
        raise _placed(error, path) from None
    carrier = _Folder(Store(path, readonly=True))
    return Pack(path, index, carrier, sealed=sealed, signers=signers, trust=trust)


def _open_directory(path: Path, trust: Trust) -> Pack:
    store = Store(path, readonly=True)
    refusal = store.refusal()
    if not trust.allow_unsigned:
        if refusal is not None:
            raise UntrustedError(refusal.detail)
        if trust.keys:
            raise UntrustedError(
                f"'{path}' is a cache directory without a signed index, but keys are named: "
                "use a pack, or --allow-unsigned"
            )
    behind.settle()
    entries = []
    for slot in store.folder.slots():
        with suppress(EntryError):
            header = read_header(slot.path, allow_shared=True)
            if header.record.digest == slot.digest:
                content = header.digest.hex()
                entries.append(IndexEntry(header.record, content, header.file_bytes))
    return Pack(path, index_of("directory", 0, entries), _Folder(store), trust=trust)


def _placed(error: ClinferError, path: Path) -> ClinferError:
    """The error with the place it concerns."""
    kind = UntrustedError if isinstance(error, UntrustedError) else CacheError
    return kind(f"{path}: {error}")
