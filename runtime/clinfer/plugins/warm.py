"""Filling a cache: models are compiled into it and nothing is loaded or run here.

Programs are built in worker processes, whatever the driver, and what is built is stored as soon as
it is finished. So a model that cannot be read, a kernel that does not build and a compiler that
crashes or hangs cost themselves only, and interrupted work goes on where it was.

Where a plugin keeps programs, a program's entry is final. Where it keeps whole models, the programs
of an unfinished model are kept as memos, and go when the models that need them are stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from clinfer.cache.packing import programs_of
from clinfer.errors import BuildError, CacheError, ClinferError, ModelError
from clinfer.plugins import plans
from clinfer.plugins.base import Plugin, Request, Source, Watch
from clinfer.plugins.compiler import plan_model, program_record
from clinfer.plugins.warm_builds import Builder, Memos

if TYPE_CHECKING:
    from clinfer.cache.layers import Layers
    from clinfer.cache.record import KeyRecord
    from clinfer.lowering.plan import Program


@dataclass
class Warmed:
    """What became of a model: how many programs it has, how many were built, and what failed.

    `planned`: a plan was made for the cache, where plans are entries of their own.
    `seconds` are those of planning and of the builds that no model before it needed; `records` are
    the keys of its entries.
    """

    name: str
    programs: int = 0
    built: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    records: list[KeyRecord] = field(default_factory=list)
    planned: bool = False

    @property
    def result(self) -> str:
        """'failed', 'warmed', or 'was warm' where nothing had to be built."""
        if self.errors:
            return "failed"
        return "warmed" if self.built or self.planned else "was warm"


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
    outcomes = work(plugin, models, Builder(request, cache, watch, seconds))
    _tell_evicted(outcomes, cache)
    return outcomes


def _tell_evicted(outcomes: Sequence[Warmed], cache: Layers) -> None:
    """An error for each model whose entries had to make room for later ones."""
    store = cache.writable
    if store is None or not store.stats.evicted:
        return
    for outcome in outcomes:
        gone = sum(not cache.holds(record) for record in outcome.records)
        if gone and not outcome.errors:
            outcome.errors.append(
                f"{gone} of its {len(outcome.records)} entries had to make room for later ones: "
                f"'{store.directory}' takes at most {store.size_limit} bytes (CLINFER_CACHE_SIZE)"
            )


@dataclass
class _Model:
    """A model whose programs are warmed: where it comes from, what became of it, what it needs."""

    give: Callable[[], Source]
    outcome: Warmed
    programs: dict[str, Program] = field(default_factory=dict)


def _warm_programs(
    plugin: Plugin, models: Mapping[str, Callable[[], Source]], builder: Builder
) -> list[Warmed]:
    """Plans every model, then builds what any of them lacks.

    Models with programs that do not build are planned anew without them, as a compilation does.
    """
    found = [_Model(give, Warmed(name)) for name, give in models.items()]
    device = builder.request.device
    results: dict[str, bytes | ClinferError] = {}
    refused: frozenset[str] = frozenset()

    def keep(program: Program, binary: bytes, seconds: float) -> None:
        builder.store(program_record(program, device), {"binary": binary}, seconds)

    unplanned = found
    while unplanned:
        missing: dict[str, Program] = {}
        with builder.watch("plan", len(unplanned)) as shown:
            for model in unplanned:
                _plan_model(plugin, model, builder, refused)
                for digest, program in model.programs.items():
                    is_new = digest not in missing and digest not in results
                    if is_new and not _is_kept(plugin, program, builder):
                        missing[digest] = program
                shown.step(model.outcome.name)
        results |= builder.build("build", missing, keep)
        bad = {digest for digest, made in results.items() if isinstance(made, BuildError)}
        unplanned = [m for m in found if (bad - refused) & m.programs.keys()]
        refused |= bad
    counted: set[str] = set()
    for model in found:
        outcome, programs = model.outcome, model.programs
        new = [digest for digest in programs if digest in results and digest not in counted]
        counted.update(new)
        outcome.built = sum(isinstance(results[digest], bytes) for digest in new)
        outcome.seconds += sum(builder.spent.get(digest, 0.0) for digest in new)
        if any(isinstance(results.get(digest), BuildError) for digest in programs):
            _discard_plans(outcome, builder)
        errors = _errors(programs, results)
        outcome.errors += [error for error in errors if error not in outcome.errors]
    return [model.outcome for model in found]


def _plan_model(plugin: Plugin, model: _Model, builder: Builder, refused: frozenset[str]) -> None:
    """The programs that the model needs without those refused, and their keys."""
    outcome, device = model.outcome, builder.request.device
    start = time.perf_counter()
    _discard_plans(outcome, builder)
    outcome.records = []
    found = _attempt(partial(_plan, plugin, model.give, builder, outcome, refused))
    outcome.seconds += time.perf_counter() - start
    model.programs = {}
    if isinstance(found, str):
        outcome.errors.append(found)
    else:
        model.programs = {program.digest: program for program in found}
    outcome.programs = len(model.programs)
    outcome.records += [program_record(program, device) for program in model.programs.values()]


def _discard_plans(outcome: Warmed, builder: Builder) -> None:
    """A plan whose programs do not build is not to be found: the next attempt plans anew."""
    for record in outcome.records:
        if record.kind == plans.KIND and builder.cache.writable is not None:
            builder.cache.writable.discard(record)


def _plan(
    plugin: Plugin,
    give: Callable[[], Source],
    builder: Builder,
    outcome: Warmed,
    refused: frozenset[str],
) -> Sequence[Program]:
    """A model's programs; its plan is in the cache then."""
    source, request, look = give(), builder.request, builder.cache.recall
    if source.digest is None:
        return plans.make(source, request.device, look, refused).plan.programs
    record = plans.plan_record(source, request.device, request.properties)
    entry = builder.cache.get(record)
    if entry is None or plugin.flaw(entry, look):
        start = time.perf_counter()
        made = plans.make(source, request.device, look, refused)
        if not source.unchanged():
            raise ModelError("the model's files changed while it was compiled; warm it again")
        fault = builder.fault()
        if fault is None:
            content = plans.sections(made, source.files)
            builder.store(record, content, time.perf_counter() - start)
            outcome.planned = True
        else:
            outcome.errors.append(str(fault))
        programs: Sequence[Program] = made.plan.programs
    else:
        programs = programs_of(entry)
    outcome.records.append(record)
    return programs


def _is_kept(plugin: Plugin, program: Program, builder: Builder) -> bool:
    entry = builder.cache.get(program_record(program, builder.request.device))
    return entry is not None and not plugin.flaw(entry)


def _warm_models(
    plugin: Plugin, models: Mapping[str, Callable[[], Source]], builder: Builder
) -> list[Warmed]:
    """One model after the other; programs they share are built once."""
    outcomes = []
    memos = Memos(builder)
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
    builder: Builder,
    memos: Memos,
    outcome: Warmed,
) -> None:
    source = give()
    request = builder.request
    if source.digest is None:
        source.read()  # says what is wrong with a file that cannot be read
        raise ModelError("the model's files have changed since it was read; warm it again")
    look = builder.cache.recall
    ((_, record),) = plugin.needs(source, request.device, request.properties, look)
    outcome.records = [record]
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
