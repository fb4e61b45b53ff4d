"""Programs from the cache, an entry each, shared by all models; or built, and kept there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from clinfer.cache.locks import LOCK_TIMEOUT
from clinfer.errors import BlobError, BuildError, CompileRequiredError
from clinfer.plugins.base import Request
from clinfer.plugins.compiler import program_record
from clinfer.properties import CACHE_MODE, COMPILATION_NUM_THREADS

if TYPE_CHECKING:
    from clinfer.cache.layers import Layers
    from clinfer.cache.stats import Miss
    from clinfer.device.discover import Device
    from clinfer.device.programs import BuiltProgram
    from clinfer.lowering.plan import Program


def load_or_build(programs: Sequence[Program], request: Request) -> tuple[list[BuiltProgram], int]:
    """The programs, from the cache or the seed where they are there; and how many were built.

    A binary that the driver refuses is a miss: the program is built from its source, once it is
    needed. Of several processes that lack the same program, one builds and the others then load.
    """
    misses: dict[str, Miss] = {}
    found = {i: _load(program, request, misses) for i, program in enumerate(programs)}
    missing = [i for i, program in found.items() if program is None]
    if not missing:
        return [program for program in found.values() if program is not None], 0
    _forbid_in_cache_only([programs[i] for i in missing], request, misses)
    with _building([programs[i] for i in missing], request):
        found.update({i: _load(programs[i], request, misses, again=True) for i in missing})
        missing = [i for i in missing if found[i] is None]
        found.update(zip(missing, _seeded([programs[i] for i in missing], request), strict=True))
        missing = [i for i in missing if found[i] is None]
        built = build_and_store([programs[i] for i in missing], request) if missing else []
    found.update(zip(missing, built, strict=True))
    return [program for program in found.values() if program is not None], len(missing)


def _seeded(programs: Sequence[Program], request: Request) -> list[BuiltProgram | None]:
    """Programs of the seed layer; the cache keeps them too, so that it is whole by itself."""
    from clinfer.plugins.seed import Seed

    seed = Seed.of(request.device, request.properties[CACHE_MODE])
    if seed is None:
        return [None] * len(programs)
    loaded = seed.load_all(programs, request.device)
    if request.cache is not None:
        for program, ready in zip(programs, loaded, strict=True):
            if ready is not None:
                _store([program], [ready], request.cache, request.device, 0.0)
    return loaded


def _building(programs: Sequence[Program], request: Request) -> AbstractContextManager[Any]:
    """Waits for other processes that build one of these programs.

    Locks are taken in the order of their keys, so that no two processes wait for each other, and
    all of them within the time for one.
    """
    held = ExitStack()
    if request.cache is None:
        return held
    records = {
        record.digest: record for record in (program_record(p, request.device) for p in programs)
    }
    until = time.monotonic() + LOCK_TIMEOUT
    try:
        for digest in sorted(records):
            left = max(0.0, until - time.monotonic())
            held.enter_context(request.cache.building(records[digest], left))
    except BaseException:
        held.close()
        raise
    return held


def _load(
    program: Program, request: Request, misses: dict[str, Miss], again: bool = False
) -> BuiltProgram | None:
    """The program from the cache; of one that cannot be used the miss is noted by digest.

    The driver gets the binary when a run's sizes first need it: of a product's schedules most runs
    need one. Where nothing may be compiled then, it gets it now.
    """
    from clinfer.device.programs import SourceProgram, load

    cache = request.cache
    if cache is None:
        return None
    record = program_record(program, request.device)
    entry = cache.get(record, again=again)
    if entry is None:
        return None
    source = SourceProgram(program.source, program.options, program.entry, program.local_size)

    def remake(error: BuildError) -> BuiltProgram:
        cache.reject(entry, str(error))
        with _building([program], request):
            (built,) = build_and_store([program], request)
        return built

    waits = cache.mode.compiles
    try:
        binary = bytes(entry.section("binary"))
        return load(request.device, source, binary, remake=remake if waits else None)
    except (BlobError, BuildError) as error:
        misses[program.digest] = cache.reject(entry, str(error))
        return None


def build_and_store(programs: Sequence[Program], request: Request) -> list[BuiltProgram]:
    """Builds programs from source in parallel and keeps their binaries."""
    from clinfer.device.programs import SourceProgram, build

    sources = [SourceProgram(p.source, p.options, p.entry, p.local_size) for p in programs]
    start = time.perf_counter()
    jobs = request.properties[COMPILATION_NUM_THREADS]
    with request.watch("build", len(sources)) as shown:
        built = build(request.device, sources, jobs, shown.step)
    seconds = (time.perf_counter() - start) / len(programs)
    if request.cache is not None:
        _store(programs, built, request.cache, request.device, seconds)
    return built


def _store(
    programs: Sequence[Program],
    built: Sequence[BuiltProgram],
    cache: Layers,
    device: Device,
    seconds: float,
) -> None:
    for program, ready in zip(programs, built, strict=True):
        record = program_record(program, device)
        cache.put_made(record, partial(_sections, ready), seconds)


def _sections(ready: BuiltProgram) -> dict[str, bytes]:
    return {"binary": ready.binary()}


def _forbid_in_cache_only(
    programs: Sequence[Program], request: Request, misses: Mapping[str, Miss]
) -> None:
    cache = request.cache
    if cache is None or cache.mode.compiles:
        return
    record = program_record(programs[0], request.device)
    miss = misses.get(programs[0].digest)
    said = cache.explain(record, f"program '{programs[0].entry}'", miss)
    more = len(programs) - 1
    if more:
        said += f"\nand {more} more programs of the model; 'clinfer explain --cache' lists all"
    raise CompileRequiredError(said)
