"""Filling a cache: models are compiled into it and nothing is loaded or run here.

Programs are built in worker processes, whatever the driver, and what is built is stored as soon as
it is finished. So a model that cannot be read, a kernel that does not build and a compiler that
crashes or hangs cost themselves only, and interrupted work goes on where it was.

Where a plugin keeps programs, a program's entry is final. Where it keeps whole models, the programs
of an unfinished model are kept as memos, and go when the models that need them are stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

    `planned`: an entry was made for the cache of its plan, alone or with its programs. `elsewhere`:
    another worker of the fleet has made what was missing.
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
    elsewhere: bool = False

    @property
    def result(self) -> str:
        """'failed', 'warmed', 'warmed elsewhere', or 'was warm' where nothing had to be built."""
        if self.errors:
            return "failed"
        if self.built or self.planned:
            return "warmed"
        return "warmed elsewhere" if self.elsewhere else "was warm"


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
    cache = writable(request)
    builder = Builder(request, cache, watch, seconds)
    if plugin.export_import:
        outcomes = warm_models(plugin, models, builder, Memos(builder))
    else:
        outcomes = warm_programs(plugin, models, builder)
    _tell_evicted(outcomes, cache)
    return outcomes


def writable(request: Request) -> Layers:
    """The request's cache. Raises `CacheError` where nothing is stored in it."""
    if request.cache is None or not request.cache.mode.writes:
        raise CacheError("the cache is not written to: CACHE_MODE must be 'read-write'")
    return request.cache


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


class Elsewhere:
    """What an attempt gives where another worker of the fleet is making this."""


def in_turn(
    names: Iterable[str], attempt: Callable[[str], Any], builder: Builder
) -> Iterator[tuple[str, Any]]:
    """What an attempt at each gives; what is made elsewhere is attempted again after the others."""
    waiting = list(names)
    while waiting:
        again = []
        for name in waiting:
            found = attempt(name)
            if isinstance(found, Elsewhere):
                again.append(name)
            else:
                yield name, found
        if again == waiting:
            builder.rest()
        waiting = again


@dataclass
class _Model:
    """A model whose programs are warmed: where it comes from, what became of it, what it needs."""

    give: Callable[[], Source]
    outcome: Warmed
    programs: dict[str, Program] = field(default_factory=dict)


def warm_programs(
    plugin: Plugin, models: Mapping[str, Callable[[], Source]], builder: Builder
) -> list[Warmed]:
    """Plans every model, then builds what any of them lacks.

    Models with programs that do not build are planned anew without them, as a compilation does.
    """
    found = {name: _Model(give, Warmed(name)) for name, give in models.items()}
    device = builder.request.device
    results: dict[str, bytes | ClinferError] = {}
    lacked: set[str] = set()
    refused: frozenset[str] = frozenset()

    def keep(program: Program, binary: bytes, seconds: float) -> None:
        builder.store(program_record(program, device), {"binary": binary}, seconds)

    unplanned = list(found)
    while unplanned:
        missing: dict[str, Program] = {}
        work = partial(_plan_model, plugin, builder, refused)
        attempts = in_turn(unplanned, lambda name: work(found[name]), builder)  # noqa: B023
        with builder.watch("plan", len(unplanned)) as shown:
            for name, records in attempts:
                for digest, record in records.items():
                    is_new = digest not in missing and digest not in results
                    if is_new and not builder.has(record, plugin):
                        missing[digest] = found[name].programs[digest]
                shown.step(name)
        lacked |= missing.keys()
        results |= builder.build_all("build", missing, keep)
        bad = {digest for digest, made in results.items() if isinstance(made, BuildError)}
        unplanned = [name for name, m in found.items() if (bad - refused) & m.programs.keys()]
        refused |= bad
    counted: set[str] = set()
    for model in found.values():
        outcome, programs = model.outcome, model.programs
        new = [digest for digest in programs if digest in results and digest not in counted]
        counted.update(new)
        outcome.built = sum(isinstance(results[digest], bytes) for digest in new)
        outcome.seconds += sum(builder.spent.get(digest, 0.0) for digest in new)
        outcome.elsewhere |= any(d in lacked and d not in results for d in programs)
        if any(isinstance(results.get(digest), BuildError) for digest in programs):
            _discard_plans(outcome, builder)
        errors = _errors(programs, results)
        outcome.errors += [error for error in errors if error not in outcome.errors]
    return [model.outcome for model in found.values()]


def _plan_model(
    plugin: Plugin, builder: Builder, refused: frozenset[str], model: _Model
) -> dict[str, KeyRecord] | Elsewhere:
    """The keys of the programs that the model needs without those refused, by their digests."""
    outcome, device = model.outcome, builder.request.device
    start = time.perf_counter()
    _discard_plans(outcome, builder)
    outcome.records = []
    made = _attempt(partial(_plan, plugin, model.give, builder, outcome, refused))
    outcome.seconds += time.perf_counter() - start
    if isinstance(made, Elsewhere):
        return made
    model.programs = {}
    if isinstance(made, str):
        outcome.errors.append(made)
    else:
        model.programs = {program.digest: program for program in made}
    records = {d: program_record(program, device) for d, program in model.programs.items()}
    outcome.programs = len(records)
    outcome.records += records.values()
    return records


def _discard_plans(outcome: Warmed, builder: Builder) -> None:
    """A plan whose programs do not build is not to be found: the next attempt plans anew."""
    for record in outcome.records:
        if record.kind == plans.KIND:
            builder.discard(record)


def _plan(
    plugin: Plugin,
    give: Callable[[], Source],
    builder: Builder,
    outcome: Warmed,
    refused: frozenset[str],
) -> Sequence[Program] | Elsewhere:
    """A model's programs; its plan is in the cache then."""
    source, request, look = give(), builder.request, builder.cache.recall
    if source.digest is None:
        return plans.make(source, request.device, look, refused).plan.programs
    record = plans.plan_record(source, request.device, request.properties)
    entry = builder.usable(record, plugin, look)
    programs: Sequence[Program] | None = None if entry is None else programs_of(entry)
    if programs is not None and not refused.isdisjoint(p.digest for p in programs):
        builder.discard(record)  # made elsewhere, by who did not know yet
        programs = None
    if programs is None:
        with builder.making(record) as is_mine:
            if not is_mine:
                outcome.elsewhere = True
                return Elsewhere()
            programs = _planned(source, record, builder, outcome, refused)
    outcome.records.append(record)
    return programs


def _planned(
    source: Source,
    record: KeyRecord,
    builder: Builder,
    outcome: Warmed,
    refused: frozenset[str],
) -> Sequence[Program]:
    start = time.perf_counter()
    made = plans.make(source, builder.request.device, builder.cache.recall, refused)
    if not source.unchanged():
        raise ModelError("the model's files changed while it was compiled; warm it again")
    fault = builder.fault()
    if fault is None:
        content = plans.sections(made, source.files)
        builder.store(record, content, time.perf_counter() - start)
        outcome.planned = True
    else:
        outcome.errors.append(str(fault))
    return made.plan.programs


def warm_models(
    plugin: Plugin, models: Mapping[str, Callable[[], Source]], builder: Builder, memos: Memos
) -> list[Warmed]:
    """One model after the other; programs they share are built once."""
    outcomes = {name: Warmed(name) for name in models}

    def warmed(name: str) -> Any:
        start = time.perf_counter()
        work = partial(_warm_model, plugin, models[name], builder, memos, outcomes[name])
        try:
            return _attempt(work)
        finally:
            outcomes[name].seconds += time.perf_counter() - start

    try:
        for name, problem in in_turn(models, warmed, builder):
            if isinstance(problem, str):
                outcomes[name].errors.append(problem)
    finally:
        memos.drop()
    return list(outcomes.values())


def _warm_model(
    plugin: Plugin,
    give: Callable[[], Source],
    builder: Builder,
    memos: Memos,
    outcome: Warmed,
) -> Elsewhere | None:
    source = give()
    request = builder.request
    if source.digest is None:
        source.read()  # says what is wrong with a file that cannot be read
        raise ModelError("the model's files have changed since it was read; warm it again")
    look = builder.cache.recall
    ((_, record),) = plugin.needs(source, request.device, request.properties, look)
    outcome.records = [record]
    with builder.cache.building(record):
        if builder.has(record, plugin):
            return None
        with builder.making(record) as is_mine:
            if is_mine and _make_model(plugin, source, record, builder, memos, outcome):
                return None
        outcome.elsewhere = True
        if not is_mine:
            outcome.built += builder.help(source, record, memos)
        return Elsewhere()


def _make_model(
    plugin: Plugin,
    source: Source,
    record: KeyRecord,
    builder: Builder,
    memos: Memos,
    outcome: Warmed,
) -> bool:
    """Whether the model is done with; not where another worker is building a program of it."""
    start = time.perf_counter()
    plan = None
    programs = builder.drafts.get(record.digest)
    if programs is None:
        plan = plan_model(source.read(), builder.request.device, builder.request.look)
        programs = {program.digest: program for program in plan.programs}
        builder.drafts[record.digest] = programs
    outcome.programs = len(programs)
    binaries = memos.known(programs.values())
    missing = {d: p for d, p in programs.items() if d not in binaries}
    results = builder.build(outcome.name, missing, memos.keep)
    outcome.built += sum(isinstance(result, bytes) for result in results.values())
    outcome.errors += _errors(programs, results)
    if outcome.errors:
        return True
    binaries |= {d: result for d, result in results.items() if isinstance(result, bytes)}
    binaries |= memos.found(p for d, p in missing.items() if d not in results)
    if len(binaries) < len(programs):
        memos.put_off()
        return False
    if plan is None:
        plan = plan_model(source.read(), builder.request.device, builder.request.look)
    if not source.unchanged():
        raise ModelError("the model's files changed while it was compiled; warm it again")
    sections = plugin.whole(plan, [binaries[program.digest] for program in plan.programs])
    builder.store(record, sections, time.perf_counter() - start)
    outcome.planned = True
    memos.used(programs)
    builder.drafts.pop(record.digest, None)
    return True


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
