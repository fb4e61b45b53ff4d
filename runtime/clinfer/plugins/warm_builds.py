"""Building programs for a cache once each, and keeping what is finished of unfinished models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from clinfer.cache.record import KeyRecord
from clinfer.device.programs import SourceProgram, build_binaries
from clinfer.errors import BuildError, CacheError, ClinferError
from clinfer.plugins.base import Request, Watch
from clinfer.plugins.compiler import program_record
from clinfer.plugins.seed import Seed
from clinfer.properties import COMPILATION_NUM_THREADS

if TYPE_CHECKING:
    from clinfer.cache.layers import Layers
    from clinfer.lowering.plan import Program


class Builder:
    """Builds programs once each, and keeps them as they are finished."""

    def __init__(self, request: Request, cache: Layers, watch: Watch, seconds: float) -> None:
        self.request = request
        self.cache = cache
        self.watch = watch
        self._seconds = seconds
        self.spent: dict[str, float] = {}
        self._lock = Lock()

    def build(
        self,
        what: str,
        programs: Mapping[str, Program],
        keep: Callable[[Program, bytes, float], None],
    ) -> dict[str, bytes | ClinferError]:
        """A binary or an error per program, by digest. `keep` is told of each binary.

        Nothing is built for a cache that takes nothing.
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
                build_binaries(self.request.device, sources, done, jobs, self._seconds)
        return results

    def fault(self) -> CacheError | None:
        """Why the cache takes no entries; None where it does."""
        store = self.cache.writable
        miss = None if store is None else store.trial()
        if store is None or miss is None:
            return None
        text = f"'{store.directory}' takes no entries ({miss.reason}: {miss.detail})"
        return CacheError(f"{text}; nothing was built for it")

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
        found: dict[str, bytes] = {}
        wanted = list(programs)
        self._unfinished.append(frozenset(program.digest for program in wanted))
        for program in wanted:
            record = self._record(program)
            if program.digest in self._binaries:
                found[program.digest] = self._binaries[program.digest]
            elif self._store is not None:
                entry = self._store.recall(record)
                if entry is not None and "binary" in entry.sections:
                    found[program.digest] = bytes(entry.section("binary"))
            if program.digest not in found and self._seed is not None:
                binary = self._seed.binary(program)
                if binary is not None:
                    found[program.digest] = binary
        return found

    def keep(self, program: Program, binary: bytes, seconds: float) -> None:
        """Keeps one; where it cannot be stored, in memory, until the process ends."""
        self._binaries[program.digest] = binary
        if self._store is not None:
            self._store.remember(self._record(program), {"binary": binary})

    def used(self, digests: Iterable[str]) -> None:
        """The programs asked for last are in a stored model."""
        self._unfinished.pop()
        self._finished.update(digests)

    def drop(self) -> None:
        """Removes those whose models are all stored, and keeps the rest for the next attempt."""
        for digest in self._finished.difference(*self._unfinished):
            if self._store is not None:
                self._store.forget(self._records[digest])

    def _record(self, program: Program) -> KeyRecord:
        if program.digest not in self._records:
            record = program_record(program, self._device)
            self._records[program.digest] = KeyRecord((("kind", "part"), *record.fields[1:]))
        return self._records[program.digest]
