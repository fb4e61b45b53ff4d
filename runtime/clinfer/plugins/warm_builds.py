"""Building programs for a cache once each, and keeping what is finished of unfinished models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from clinfer.cache.record import PART, KeyRecord
from clinfer.device.programs import SourceProgram, build_binaries
from clinfer.errors import BuildError, CacheError, ClinferError
from clinfer.plugins.base import Plugin, Request, Source, Watch
from clinfer.plugins.compiler import program_record
from clinfer.plugins.seed import Seed
from clinfer.properties import COMPILATION_NUM_THREADS

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.cache.layers import Layers
    from clinfer.lowering.plan import Program
    from clinfer.plugins.tuning import Look


Keep = Callable[["Program", bytes, float], None]
"""Told of a binary, and the seconds that it took."""


class Builder:
    """Builds programs once each, and keeps them as they are finished."""

    def __init__(self, request: Request, cache: Layers, watch: Watch, seconds: float) -> None:
        self.request = request
        self.cache = cache
        self.watch = watch
        self._seconds = seconds
        self.spent: dict[str, float] = {}
        self.drafts: dict[str, dict[str, Program]] = {}
        """The programs of models that are not finished, by the digest of the model's key."""
        self._lock = Lock()

    def build(
        self,
        what: str,
        programs: Mapping[str, Program],
        keep: Keep,
    ) -> dict[str, bytes | ClinferError]:
        """A binary or an error per program that was built here, by digest.

        `keep` is told of each binary. Nothing is built for a cache that takes nothing.
        """
        wanted = list(programs.values())
        results: dict[str, bytes | ClinferError] = {}
        if wanted and (fault := self.fault()) is not None:
            return dict.fromkeys(programs, fault)
        with self.watch(what, len(wanted)) as shown:

            def done(index: int, result: bytes | BuildError, seconds: float) -> None:
                program = wanted[index]
                with self._lock:
                    results[program.digest] = result
                    self.spent[program.digest] = seconds
                    if isinstance(result, bytes):
                        try:
                            keep(program, result, seconds)
                        except ClinferError as error:
                            results[program.digest] = error
                    failed = isinstance(results[program.digest], ClinferError)
                    shown.step(f"{program.entry}{' failed' if failed else ''}")

            if wanted:
                sources = [
                    SourceProgram(p.source, p.options, p.entry, p.local_size) for p in wanted
                ]
                jobs = self.request.properties[COMPILATION_NUM_THREADS]
                build_binaries(
                    self.request.device,
                    sources,
                    done,
                    jobs,
                    self._seconds,
                    lambda index: self.wants(wanted[index]),
                )
        return results

    def build_all(
        self, what: str, programs: Mapping[str, Program], keep: Keep
    ) -> dict[str, bytes | ClinferError]:
        """As `build`; the rest are there, too, when it returns."""
        return self.build(what, programs, keep)

    def wants(self, program: Program) -> bool:
        """Whether a program is to be built here; asked in some thread, just before."""
        return True

    def usable(self, record: KeyRecord, plugin: Plugin, look: Look | None = None) -> Entry | None:
        """The entry of that key, where there is one without a flaw."""
        entry = self.cache.get(record)
        return None if entry is None or plugin.flaw(entry, look) else entry

    def has(self, record: KeyRecord, plugin: Plugin) -> bool:
        """Whether there is such an entry."""
        return self.usable(record, plugin) is not None

    @contextmanager
    def making(self, record: KeyRecord) -> Iterator[bool]:
        """Around the making of an entry; yields whether it is to be made here."""
        yield True

    def help(self, source: Source, record: KeyRecord, memos: Memos) -> int:
        """Builds programs of a model that is being made elsewhere; how many."""
        return 0

    def rest(self) -> None:
        """Called where all that is left is being made elsewhere."""

    def fault(self) -> CacheError | None:
        """Why the cache takes no entries; None where it does."""
        store = self.cache.writable
        miss = None if store is None else store.trial()
        if store is None or miss is None:
            return None
        text = f"'{store.directory}' takes no entries ({miss.reason}: {miss.detail})"
        return CacheError(f"{text}; nothing was built for it")

    def discard(self, record: KeyRecord) -> None:
        """Removes an entry that was stored here."""
        if self.cache.writable is not None:
            self.cache.writable.discard(record)

    def store(self, record: KeyRecord, sections: Mapping[str, Any], seconds: float) -> None:
        """Raises `CacheError` where the writable cache does not take the entry."""
        stored = self.cache.put(record, sections, seconds=seconds)
        if self.cache.writable is not None and not stored:
            counts = self.cache.writable.stats.unstored
            why = ", ".join(str(reason) for reason in counts)
            raise CacheError(f"'{self.cache.writable.directory}' did not take the entry: {why}")


class Memos:
    """Binaries of models that are not finished, in the writable store where there is one."""

    def __init__(self, builder: Builder) -> None:
        self._store = builder.cache.writable
        self._device = builder.request.device
        self._seed = Seed.of(self._device)
        self._binaries: dict[str, bytes] = {}
        self._records: dict[str, KeyRecord] = {}
        self._finished: set[str] = set()
        self._unfinished: list[frozenset[str]] = []

    def known(self, programs: Iterable[Program]) -> dict[str, bytes]:
        """A model's programs that are there already, or in the seed: binaries by digest."""
        wanted = list(programs)
        self._unfinished.append(frozenset(program.digest for program in wanted))
        return self.found(wanted)

    def found(self, programs: Iterable[Program]) -> dict[str, bytes]:
        """As `known`, for programs that no model waits for."""
        pairs = [(program.digest, self._binary(program)) for program in programs]
        return {digest: binary for digest, binary in pairs if binary is not None}

    def _binary(self, program: Program) -> bytes | None:
        if program.digest in self._binaries:
            return self._binaries[program.digest]
        entry = self.recalled(self.record(program))
        if entry is not None and "binary" in entry.sections:
            return bytes(entry.section("binary"))
        return None if self._seed is None else self._seed.binary(program)

    def recalled(self, record: KeyRecord) -> Entry | None:
        """The memo of a program, where there is one."""
        return None if self._store is None else self._store.recall(record)

    def keep(self, program: Program, binary: bytes, seconds: float) -> None:
        """Keeps one; where it cannot be stored, in memory, until the process ends."""
        self._binaries[program.digest] = binary
        if self._store is not None:
            self._store.remember(self.record(program), {"binary": binary})

    def used(self, digests: Iterable[str]) -> None:
        """The programs asked for last are in a stored model."""
        self._unfinished.pop()
        self._finished.update(digests)

    def put_off(self) -> None:
        """The model whose programs were asked for last is asked for again."""
        self._unfinished.pop()

    def drop(self) -> None:
        """Removes those whose models are all stored, and keeps the rest for the next attempt."""
        for digest in self._finished.difference(*self._unfinished):
            if self._store is not None:
                self._store.forget(self._records[digest])

    def record(self, program: Program) -> KeyRecord:
        """The key of a program as a part of a model."""
        if program.digest not in self._records:
            record = program_record(program, self._device)
            self._records[program.digest] = KeyRecord((("kind", PART), *record.fields[1:]))
        return self._records[program.digest]
