"""The GPU plugin: program binaries in the cache, one entry per program, shared by all models."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from clinfer.cache.record import FieldValue, KeyRecord
from clinfer.errors import BlobError, BuildError, CompileRequiredError
from clinfer.plugins.base import Loaded, Plugin, Request, Source
from clinfer.plugins.compiler import device_fields, draft_model, plan_model
from clinfer.properties import COMPILATION_NUM_THREADS

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.cache.layers import Layers
    from clinfer.device.discover import Device
    from clinfer.device.lock import Described
    from clinfer.device.programs import BuiltProgram
    from clinfer.lowering.plan import Program
    from clinfer.plugins.tuning import Look

PROGRAM_FORMAT = 1


class GpuPlugin(Plugin):
    """Kernel caching; whole models are neither exported nor imported."""

    name = "GPU"
    export_import = False

    def compile(self, source: Source, request: Request) -> Loaded:
        from clinfer.device.executor import LoadedPlan

        plan = plan_model(source.read(), request.device, request.look)
        programs, built = load_or_build(plan.programs, request)
        executable = LoadedPlan(request.device, plan, programs)
        return Loaded(plan, executable, loaded_from_cache=False, builds=built)

    def renew(self, source: Source, request: Request) -> Loaded:
        return self.compile(source, request)

    def needs(
        self, source: Source, device: Described, properties: Mapping[str, Any], look: Look
    ) -> list[tuple[str, KeyRecord]]:
        programs = draft_model(source.read(), device, look).plan.programs
        return [(f"program '{p.entry}'", program_record(p, device)) for p in programs]

    def flaw(self, entry: Entry) -> str:
        try:
            return "" if len(entry.section("binary")) else "the binary is empty"
        except BlobError as error:
            return str(error)

    def probe(self, entry: Entry, device: Device) -> None:
        from clinfer.device.programs import probe

        probe(device, str(entry.record.get("entry")), bytes(entry.section("binary")))


def program_record(program: Program, device: Described) -> KeyRecord:
    """The key of one program's binary."""
    fields: dict[str, FieldValue] = {
        "format": PROGRAM_FORMAT,
        "entry": program.entry,
        "source": program.digest,
        "options": program.options,
        **device_fields(device),
    }
    return KeyRecord.make("program", list(fields.items()))


def load_or_build(programs: Sequence[Program], request: Request) -> tuple[list[BuiltProgram], int]:
    """The programs, from the cache where they are there; and how many had to be built.

    A binary that the driver refuses is a miss: the program is built from its source. Of several
    processes that lack the same program first, one builds and the others then load.
    """
    found = {i: _load(program, request) for i, program in enumerate(programs)}
    missing = [i for i, program in found.items() if program is None]
    if not missing:
        return [program for program in found.values() if program is not None], 0
    _forbid_in_cache_only([programs[i] for i in missing], request)
    with _building(programs[missing[0]], request):
        found.update({i: _load(programs[i], request, again=True) for i in missing})
        missing = [i for i in missing if found[i] is None]
        built = build_and_store([programs[i] for i in missing], request) if missing else []
    found.update(zip(missing, built, strict=True))
    return [program for program in found.values() if program is not None], len(missing)


def _building(program: Program, request: Request) -> AbstractContextManager[Any]:
    """Waits for other processes that build this program."""
    if request.cache is None:
        return nullcontext()
    return request.cache.building(program_record(program, request.device))


def _load(program: Program, request: Request, again: bool = False) -> BuiltProgram | None:
    from clinfer.device.programs import SourceProgram, load

    if request.cache is None:
        return None
    record = program_record(program, request.device)
    entry = request.cache.get(record, again=again)
    if entry is None:
        return None
    source = SourceProgram(program.source, program.options, program.entry, program.local_size)
    try:
        return load(request.device, source, bytes(entry.section("binary")))
    except (BlobError, BuildError) as error:
        request.cache.reject(entry, str(error))
        return None


def build_and_store(programs: Sequence[Program], request: Request) -> list[BuiltProgram]:
    """Builds programs from source in parallel and keeps their binaries."""
    from clinfer.device.programs import SourceProgram, build

    sources = [SourceProgram(p.source, p.options, p.entry, p.local_size) for p in programs]
    start = time.perf_counter()
    built = build(request.device, sources, jobs=request.properties[COMPILATION_NUM_THREADS])
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


def _forbid_in_cache_only(programs: Sequence[Program], request: Request) -> None:
    cache = request.cache
    if cache is None or cache.mode.compiles:
        return
    record = program_record(programs[0], request.device)
    said = cache.explain(record, f"program '{programs[0].entry}'")
    more = len(programs) - 1
    if more:
        said += f"\nand {more} more programs of the model; 'clinfer explain --cache' lists all"
    raise CompileRequiredError(said)
