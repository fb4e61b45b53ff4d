"""A store at a URL below this machine's caches: what it has is copied, what is built is pushed.

    URL/entries/ab/abcd...      the same containers as in a cache directory, by the key's SHA-256
    URL/signatures/12/1234...   signatures of an entry, by its content: 96 bytes each
    URL/parts/34/3456...        programs of models that a fleet has not finished (`plugins.fleet`)

So a cache directory copied to a bucket is a remote store. Whatever arrives is checked like a file
of the cache, digests and key, before anything sees it; the URL itself is handed to nobody.

Who can write the store can run code in its readers. Entries must therefore be signed by a trusted
key; without named keys they are taken only from a folder that is private as a cache directory has
to be, and from anywhere else where CLINFER_ALLOW_UNSIGNED=1 says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clinfer import config, forks
from clinfer.cache.entry import Container, Entry, check_record, read_container
from clinfer.cache.header import MAX_HEADER_BYTES, EntryError, parse_header
from clinfer.cache.index import LIMITS, Limits
from clinfer.cache.policy import Trust
from clinfer.cache.record import PART, KeyRecord
from clinfer.cache.signing import ENTRY_PURPOSE, SIGNED_BYTES, Signature, SigningKey
from clinfer.cache.stats import Counters, Miss, Reason, Stats, report
from clinfer.cache.transfer import Objects, TransferError, too_long
from clinfer.cache.trust import distrust_directory
from clinfer.errors import CacheError, ClinferError, UntrustedError

if TYPE_CHECKING:
    from clinfer.cache.claims import Claims

Result = TypeVar("Result")

PARTS = "parts"
_MOST_FAILURES = 3
_PAUSE_SECONDS = 60.0
_MOST_SIGNATURES = 16


class RemoteStore:
    """Entries at a URL that fsspec knows. Any thread may use it; no call raises for a fault.

    `trust` and `key` (which signs what is pushed) None: as the environment says. After three calls
    in a row that got no answer the store is left alone for a minute. Raises PropertyError for text
    that is no URL.
    """

    def __init__(
        self,
        url: str,
        *,
        trust: Trust | None = None,
        key: SigningKey | None = None,
        timeout: float | None = None,
        limits: Limits = LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        seconds = config.CACHE_STORE_TIMEOUT.get() if timeout is None else timeout
        self._objects = Objects(url, seconds)
        self._given_trust = trust
        self._given_key = key
        self._limits = limits
        self._clock = clock
        self._counters = Counters()
        self._lock = forks.new_lock()
        self._failures = 0
        self._resume_at = 0.0
        self._unpushed: Miss | None = None
        self._reported: set[Reason] = set()

    @property
    def place(self) -> str:
        """The URL without user and password."""
        return self._objects.place

    @property
    def stats(self) -> Stats:
        """What happened in this process so far."""
        return self._counters.snapshot()

    def connect(self) -> None:
        """Raises CacheError where the store cannot be used at all: a package or key is missing."""
        self._objects.connect()
        _ = self._trust, self._key

    def fetch(self, record: KeyRecord) -> Container | Miss:
        """The entry of that key with its bytes, checked, or why there is none; counted."""
        found = self._attempt(lambda: self._fetch(record))
        if isinstance(found, Miss):
            self._counters.miss(found.reason)
            self._report(found)
        else:
            self._counters.hit(found.entry.nbytes, found.entry.build_seconds)
        return found

    def peek(self, record: KeyRecord) -> Entry | Miss:
        """As `fetch`, the entry alone and not counted."""
        found = self._attempt(lambda: self._fetch(record))
        return found if isinstance(found, Miss) else found.entry

    def holds(self, record: KeyRecord) -> bool:
        """Whether the entry is there, by its header and signature alone; not counted.

        An object appears whole, so that this is enough to know that another has stored it. Raises
        CacheError where the store does not answer.
        """
        name = _entry_name(record)

        def look() -> int:
            self._refuse_unsigned()
            return self._announced(self._objects.start(name, MAX_HEADER_BYTES), record)

        found = self._attempt(look)
        if isinstance(found, Miss) and found.reason is Reason.UNREADABLE:
            raise CacheError(f"the remote store cannot be asked: {found.detail}")
        return not isinstance(found, Miss)

    def discard(self, record: KeyRecord) -> None:
        """Removes an entry, as far as that can be done."""
        self._attempt(lambda: self._objects.remove(_entry_name(record)))

    def claims(self, lease: float) -> Claims:
        """This process's claims in the store, as one of the workers that fill it."""
        from clinfer.cache.claims import Claims

        return Claims(self._objects, lease)

    def nearest(self, record: KeyRecord) -> None:
        """Nothing: what is in a remote store is not listed."""

    def push(self, record: KeyRecord, data: bytes) -> Miss | None:
        """Stores an entry's container, signed where there is a key; None, or why not; counted."""
        fault = self._unpushed or self._attempt(lambda: self._push(record, data))
        if fault is None:
            self._counters.stored(len(data))
            return None
        if fault.reason is Reason.READ_ONLY:
            self._unpushed = fault
        self._counters.unstored(fault.reason)
        self._report(fault)
        return fault

    @cached_property
    def _trust(self) -> Trust:
        return Trust.load() if self._given_trust is None else self._given_trust

    @cached_property
    def _key(self) -> SigningKey | None:
        if self._given_key is not None:
            return self._given_key
        path = config.SIGN_KEY.get()
        return None if path is None else SigningKey.load(path)

    @cached_property
    def _folder(self) -> Path | None:
        """The folder of a store on this machine, None for any other."""
        return self._objects.local_folder()

    def _unsigned_doubt(self) -> str | None:
        """Why entries without a signature are not taken; None where they are.

        Asked anew each time: a folder may change hands.
        """
        if self._trust.allow_unsigned:
            return None
        waive = "name public keys (CLINFER_TRUST), or take them unsigned (CLINFER_ALLOW_UNSIGNED=1)"
        if self._trust.keys:
            return "entries without a signature are not taken where trusted keys are named"
        if self._folder is None:
            mine = self._objects.is_memory()
            return None if mine else f"entries of {self.place} could be anybody's: {waive}"
        doubt = distrust_directory(self._folder)
        return None if doubt is None else f"{doubt}; or {waive}"

    def _fetch(self, record: KeyRecord) -> Container:
        self._refuse_unsigned()
        name = _entry_name(record)
        with self._objects.incoming(name, self._limits.entry) as incoming:
            # Only now the folder surely exists, and cannot become another's any more.
            self._refuse_unsigned()
            size = self._announced(incoming.start(MAX_HEADER_BYTES), record)
            data = incoming.whole(size)
        return read_container(data, expect_record=record)

    def _announced(self, start: bytes, record: KeyRecord) -> int:
        """How many bytes the entry has that begins so, once it is sure that it may be read.

        The header's digest, which is what is signed, fixes every byte of the entry.
        """
        header = parse_header(start, None, record)
        check_record(header.record, record)
        if header.file_bytes > self._limits.entry:
            raise too_long(header.file_bytes, self._limits.entry)
        if self._trust.keys and not self._trust.allow_unsigned:
            content = header.digest.hex()
            self._trust.check_entry(content, self._signatures(content))
        return header.file_bytes

    def _refuse_unsigned(self) -> None:
        """Raises UntrustedError where no entry would be taken, signed or not."""
        doubt = None if self._trust.keys else self._unsigned_doubt()
        if doubt is not None:
            raise UntrustedError(doubt)

    def _signatures(self, content: str) -> list[Signature]:
        try:
            data = self._objects.read(_signature_name(content), _MOST_SIGNATURES * SIGNED_BYTES)
        except TransferError as error:
            if error.reason is Reason.ABSENT:
                return []
            raise
        whole = range(0, data.nbytes - SIGNED_BYTES + 1, SIGNED_BYTES)
        return [Signature.decode(bytes(data[at : at + SIGNED_BYTES])) for at in whole]

    def _push(self, record: KeyRecord, data: bytes) -> Miss | None:
        content = parse_header(data[:MAX_HEADER_BYTES], len(data)).digest
        if self._key is not None:
            # Before the entry, so that nobody finds an entry that is not signed yet.
            signed = self._key.sign(ENTRY_PURPOSE, content).encode()
            self._objects.write(_signature_name(content.hex()), signed)
        elif self._unsigned_doubt() is not None:
            return Miss(
                Reason.READ_ONLY,
                f"nothing is pushed to {self.place} without a signature: name a private key "
                "(CLINFER_SIGN_KEY)",
            )
        self._objects.write(_entry_name(record), data)
        return None

    def _attempt(self, call: Callable[[], Result]) -> Result | Miss:
        """The call's result, or the miss its failure is. Opens and closes the circuit."""
        with self._lock:
            waiting = self._resume_at - self._clock()
        if waiting > 0:
            detail = f"{self.place} did not answer and is not asked for {waiting:.0f} s"
            return Miss(Reason.UNREADABLE, detail)
        try:
            result = call()
        except TransferError as error:
            self._answered(not error.lasting)
            return Miss(error.reason, f"{self.place}: {error}")
        except EntryError as error:
            return Miss(error.reason, f"{self.place}: {error}")
        except UntrustedError as error:
            return Miss(Reason.UNTRUSTED, f"{self.place}: {error}")
        except (ClinferError, OSError, MemoryError, ImportError) as error:
            return Miss(Reason.UNREADABLE, f"{self.place}: {error}")
        self._answered(True)
        return result

    def _answered(self, yes: bool) -> None:
        with self._lock:
            self._failures = 0 if yes else self._failures + 1
            if self._failures >= _MOST_FAILURES:
                self._resume_at = self._clock() + _PAUSE_SECONDS

    def _report(self, miss: Miss) -> None:
        if miss.reason is not Reason.ABSENT:
            report(miss, loud=miss.reason not in self._reported)
            self._reported.add(miss.reason)


def _entry_name(record: KeyRecord) -> str:
    """Where an entry lies. Parts are no entries: they make up a model that is not finished yet."""
    folder = PARTS if record.kind == PART else "entries"
    return f"{folder}/{record.digest[:2]}/{record.digest}"


def _signature_name(content: str) -> str:
    return f"signatures/{content[:2]}/{content}"
