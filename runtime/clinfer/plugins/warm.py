"""Filling a cache: models are compiled into it and nothing is loaded or run here.

Programs are built in worker processes, whatever the driver, and what is built is stored as soon as
it is finished. So a model that cannot be read, a kernel that does not build and a compiler that
crashes or hangs cost themselves only, and interrupted work goes on where it was.

Where a plugin keeps programs, a program's entry is final. Where it keeps whole models, the programs
of an unfinished model are kept as memos, and go when the models that need them are stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from clinfer.cache.record import KeyRecord
from clinfer.device.programs import SourceProgram, build_binaries
from clinfer.errors import BuildError, CacheError, ClinferError, ModelError
from clinfer.plugins.base import Plugin, Request, Source
from clinfer.plugins.compiler import plan_model
from clinfer.plugins.gpu import program_record
from clinfer.properties import COMPILATION_NUM_THREADS

if TYPE_CHECKING:
    from clinfer.cache.layers import Layers
    from clinfer.lowering.plan import Plan, Program


class Step(Protocol):
    """Told of each finished piece of work."""

    def step(self, label: str) -> None:
        """One more piece is done."""


Watch = Callable[[str, int], "AbstractContextManager[Step]"]
"""Opened for each batch of work: what it is, and how many pieces."""


@dataclass
class Warmed:
    """What became of a model: how many programs it has, how many were built, and what failed.

    `seconds` are those of planning and of the builds that no model before it needed.
    """

    name: str
    programs: int = 0
    built: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)

    @property
    def result(self) -> str:
        """'failed', 'warmed', or 'was warm' where nothing had to be built."""
        if self.errors:
            return "failed"
        return "warmed" if self.built else "was warm"


def warm(
    plugin: Plugin,
    models: Mapping[str, Callable[[], Source]],
    request: Request,
    watch: Watch,
    seconds: float,
) -> list[Warmed]:
    """Compiles each model into `request.cache`; a build may take that many seconds.

    `models` gives each by name when its turn comes. Raises `CacheError` where the cache takes no
    entries at all, `DeviceError` where no worker process can be started.
    """
    cache = request.cache
    if cache is None or not cache.mode.writes:
        raise CacheError("the cache is not written to: CACHE_MODE must be 'read-write'")
    work = _warm_models if plugin.export_import else _warm_programs
    return work(plugin, models, _Builder(request, cache, watch, seconds))


class _Builder:
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
        """A binary or an error per program, by digest. `keep` is told of each binary."""
        wanted = list(programs.values())
        results: dict[str, bytes | ClinferError] = {}
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

    def store(self, record: KeyRecord, sections: Mapping[str, Any], seconds: float) -> None:
        """Raises `CacheError` where the writable cache does not take the entry."""
        stored = self.cache.put(record, sections, seconds=seconds)
        if self.cache.writable is not None and not stored:
            counts = self.cache.writable.stats.unstored
            why = ", ".join(str(reason) for reason in counts)
            raise CacheError(f"'{self.cache.writable.directory}' did not take the entry: {why}")


def _warm_programs(
    plugin: Plugin, models: Mapping[str, Callable[[], Source]], builder: _Builder
) -> list[Warmed]:
    """Plans every model, then builds what any of them lacks."""
    outcomes = []
    plans: list[dict[str, Program]] = []
    missing: dict[str, Program] = {}
    device = builder.request.device
    with builder.watch("plan", len(models)) as shown:
        for name, source in models.items():
            start = time.perf_counter()
            plan = _attempt(partial(_plan, source, builder))
            outcome = Warmed(name, seconds=time.perf_counter() - start)
            programs = {}
            if isinstance(plan, str):
                outcome.errors.append(plan)
            else:
                programs = {program.digest: program for program in plan.programs}
            outcome.programs = len(programs)
            lacking = {
                digest: program
                for digest, program in programs.items()
                if digest not in missing and not _is_kept(plugin, program, builder)
            }
            missing.update(lacking)
            outcomes.append(outcome)
            plans.append(programs)
            shown.step(name)

    def keep(program: Program, binary: bytes, seconds: float) -> None:
        builder.store(program_record(program, device), {"binary": binary}, seconds)

    results = builder.build("build", missing, keep)
    counted: set[str] = set()
    for outcome, programs in zip(outcomes, plans, strict=True):
        new = [digest for digest in programs if digest in results and digest not in counted]
        counted.update(new)
        outcome.built = sum(isinstance(results[digest], bytes) for digest in new)
        outcome.seconds += sum(builder.spent[digest] for digest in new)
        outcome.errors += _errors(programs, results)
    return outcomes


def _plan(source: Callable[[], Source], builder: _Builder) -> Plan:
    return plan_model(source().read(), builder.request.device, builder.request.look)


def _is_kept(plugin: Plugin, program: Program, builder: _Builder) -> bool:
    entry = builder.cache.get(program_record(program, builder.request.device))
    return entry is not None and not plugin.flaw(entry)


def _warm_models(
    plugin: Plugin, models: Mapping[str, Callable[[], Source]], builder: _Builder
) -> list[Warmed]:
    """One model after the other; programs they share are built once."""
    outcomes = []
    memos = _Memos(builder)
    try:
        for name, source in models.items():
            start = time.perf_counter()
            outcome = Warmed(name)
            problem = _attempt(partial(_warm_model, plugin, source, builder, memos, outcome))
            if isinstance(problem, str):
                outcome.errors.append(problem)
            outcome.seconds = time.perf_counter() - start
            outcomes.append(outcome)
    finally:
        memos.drop()
    return outcomes


def _warm_model(
    plugin: Plugin,
    give: Callable[[], Source],
    builder: _Builder,
    memos: _Memos,
    outcome: Warmed,
) -> None:
    source = give()
    request = builder.request
    if source.digest is None:
        source.read()  # says what is wrong with a file that cannot be read
        raise ModelError("the model's files have changed since it was read; warm it again")
    look = builder.cache.recall
    ((_, record),) = plugin.needs(source, request.device, request.properties, look)
    with builder.cache.building(record):
        entry = builder.cache.get(record)
        if entry is not None and not plugin.flaw(entry):
            return
        start = time.perf_counter()
        plan = plan_model(source.read(), request.device, request.look)
        programs = {program.digest: program for program in plan.programs}
        outcome.programs = len(programs)
        binaries = memos.known(programs.values())
        missing = {d: p for d, p in programs.items() if d not in binaries}
        results = builder.build(outcome.name, missing, memos.keep)
        outcome.built = sum(isinstance(result, bytes) for result in results.values())
        outcome.errors += _errors(programs, results)
        if outcome.errors:
            return
        binaries |= {d: result for d, result in results.items() if isinstance(result, bytes)}
        if not source.unchanged():
            raise ModelError("the model's files changed while it was compiled; warm it again")
        sections = plugin.whole(plan, [binaries[program.digest] for program in plan.programs])
        builder.store(record, sections, time.perf_counter() - start)
        outcome.built = max(outcome.built, 1)
        memos.used(programs)


class _Memos:
    """Binaries of models that are not finished, in the writable store where there is one."""

    def __init__(self, builder: _Builder) -> None:
        self._store = builder.cache.writable
        self._device = builder.request.device
        self._binaries: dict[str, bytes] = {}
        self._records: dict[str, KeyRecord] = {}
        self._finished: set[str] = set()
        self._unfinished: list[frozenset[str]] = []

    def known(self, programs: Iterable[Program]) -> dict[str, bytes]:
        """The binaries that are there already of a model's programs, by the program's digest."""
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
            self._records[program.digest] = replace(
                record, fields=(("kind", "part"), *record.fields[1:])
            )
        return self._records[program.digest]


def _errors(
    programs: Mapping[str, Program], results: Mapping[str, bytes | ClinferError]
) -> list[str]:
    """What went wrong with a model's programs; one kernel's message is in it once."""
    found = [results.get(digest) for digest in programs]
    return list(dict.fromkeys(str(result) for result in found if isinstance(result, ClinferError)))


def _attempt(work: Callable[[], Any]) -> Any:
    """The result of work on one model, or a sentence on why there is none.

    Also a mistake in clinfer itself must not cost the other models.
    """
    try:
        return work()
    except ClinferError as error:
        return str(error)
    except Exception as error:
        import logging

        logging.getLogger("clinfer").debug("warm", exc_info=True)
        return f"internal error: {type(error).__name__}: {error}"


def shard(models: Sequence[tuple[str, int]], index: int, count: int) -> list[str]:
    """The names that part `index` (from 0) of `count` works on.

    `models` are names and sizes. The largest are dealt first, in turn, so that every process that
    sees the same files finds the same parts, whatever the order they are named in.
    """
    ordered = sorted({*models}, key=lambda model: (-model[1], model[0]))
    return [name for name, _ in ordered[index::count]]
