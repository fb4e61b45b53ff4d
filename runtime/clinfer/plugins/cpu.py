"""The CPU plugin: whole compiled models in the cache, exported and imported as blobs.

A blob is a container (`clinfer.cache.entry`) of kind 'model' with the sections

    plan       the plan as JSON
    weights    the packed weights, page-aligned, used in place
    binaries   program binaries one after another
    index      JSON: the length of each binary
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.cache.entry import Entry, read, to_bytes
from clinfer.cache.record import FieldValue, KeyRecord
from clinfer.errors import BlobError, BuildError, CompileRequiredError
from clinfer.log import Log
from clinfer.plugins.base import Loaded, Plugin, Request, Source
from clinfer.plugins.compiler import (
    content_record,
    device_fields,
    draft_model,
    finished,
    recall_generator,
)
from clinfer.properties import CACHE_MODE, COMPILATION_NUM_THREADS

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.lock import Described
    from clinfer.device.programs import BuiltProgram
    from clinfer.lowering.content import Draft
    from clinfer.lowering.plan import Plan
    from clinfer.operators.extensions import Extensions
    from clinfer.plugins.seed import Seed
    from clinfer.plugins.tuning import Look

BLOB_FORMAT = 2
_LOG = Log("clinfer.plugins")


class CpuPlugin(Plugin):
    """Full model export and import."""

    name = "CPU"
    export_import = True

    def compile(self, source: Source, request: Request) -> Loaded:
        """From the cache; on a miss one of several waiting processes builds, the rest import."""
        from clinfer.cache.stats import Miss

        cache = request.cache
        if cache is not None and cache.writable is not None:
            recall_generator(cache.writable)
        record = model_record(source, request.device, request.properties)
        if cache is None or source.digest is None:
            return _build(source, request, record)
        found = cache.lookup(record)
        loaded = None if isinstance(found, Miss) else _import(found, request, source.extensions)
        if loaded is not None:
            return loaded
        if not cache.mode.compiles:
            miss = found if isinstance(found, Miss) else None
            raise CompileRequiredError(cache.explain(record, "the compiled model", miss))
        with ExitStack() as held:
            held.enter_context(cache.building(record))
            entry = cache.get(record, again=True)
            loaded = None if entry is None else _import(entry, request, source.extensions)
            if loaded is not None:
                return loaded
            return self._renewed(source, request, held)

    def renew(self, source: Source, request: Request) -> Loaded:
        return self._renewed(source, request, None)

    def _renewed(self, source: Source, request: Request, held: ExitStack | None) -> Loaded:
        record = model_record(source, request.device, request.properties)
        start = time.perf_counter()
        loaded = _build(source, request, record)
        if request.cache is not None and source.digest is not None and source.unchanged():
            seconds = time.perf_counter() - start
            request.cache.put_made(
                record, lambda: _sections(loaded.plan, _binaries(loaded)), seconds, held
            )
        return loaded

    def needs(
        self, source: Source, device: Described, properties: Mapping[str, Any], look: Look
    ) -> list[tuple[str, KeyRecord]]:
        return [("the compiled model", model_record(source, device, properties))]

    def flaw(self, entry: Entry, look: Look | None = None) -> str:
        from clinfer.lowering.plan_io import load as load_plan

        try:
            _split(entry, load_plan(entry.section("plan"), entry.section("weights")))
        except BlobError as error:
            return str(error)
        return ""

    def probe(self, entry: Entry, device: Device) -> None:
        _parts(entry, Request(device, {}, None), lazily=False)

    def whole(self, plan: Plan, binaries: Sequence[bytes]) -> dict[str, Any]:
        return _sections(plan, binaries)

    def export(self, loaded: Loaded, device: Device) -> bytes:
        assert loaded.record is not None
        return to_bytes(loaded.record, _sections(loaded.plan, _binaries(loaded)))

    def load_blob(self, blob: bytes | memoryview | Path, request: Request) -> Loaded:
        """Raises `BlobError` for a damaged blob or one of another device, driver or format."""
        entry = read(blob, expect_kind="model", thorough=False)
        expected: dict[str, FieldValue] = {"format": BLOB_FORMAT, **device_fields(request.device)}
        entry.record.require(expected, "the blob")
        try:
            return _from_entry(entry, request, request.extensions)
        except BuildError as error:
            raise BlobError(f"the driver refused a program of the blob: {error}") from error


def model_record(source: Source, device: Described, properties: Mapping[str, Any]) -> KeyRecord:
    """The key of a compiled model: content, shapes, properties, generator, device, driver."""
    return content_record("model", BLOB_FORMAT, source, device, properties)


def _import(entry: Entry, request: Request, extensions: Extensions | None) -> Loaded | None:
    """The model in a cache entry; None, and the entry taken back, where it is of no use."""
    assert request.cache is not None
    try:
        return _from_entry(entry, request, extensions)
    except (BlobError, BuildError) as error:
        request.cache.reject(entry, str(error))
        return None


def _build(source: Source, request: Request, record: KeyRecord) -> Loaded:
    """The model compiled: from its graph, with the programs of a seed where there is one.

    What is built runs beside what is made of the weights, as far as it can.
    """
    from clinfer.device.programs import prepare
    from clinfer.plugins.seed import Seed

    seed = Seed.of(request.device, request.properties[CACHE_MODE])
    if seed is None:
        prepare(request.device, request.properties[COMPILATION_NUM_THREADS])
    with request.watch("plan", 1) as shown:
        known = None if seed is None else seed.draft(source, request)
        found = None if known is None else _known(known, seed, source, request)
        plan, ready = found or _finished(
            draft_model(source.read(), request.device, request.look), seed, request
        )
        shown.step("plan")
    try:
        return _with_programs(plan, ready, source, request, record)
    except BuildError as error:
        if not any(ready):
            raise
        _LOG.warning("the programs of the seed '%s' are not used: %s", seed and seed.folder, error)
        return _with_programs(plan, [None] * len(ready), source, request, record)


def _known(
    draft: Draft, seed: Seed | None, source: Source, request: Request
) -> tuple[Plan, Sequence[BuiltProgram | None]] | None:
    """As `_finished`; None where the model's files have changed, or the draft is not whole."""
    try:
        found = _finished(draft, seed, request)
    except BlobError as error:
        _LOG.warning("a plan of the seed '%s' is not used: %s", seed and seed.folder, error)
        return None
    return found if source.unchanged() else None


def _finished(
    draft: Draft, seed: Seed | None, request: Request
) -> tuple[Plan, Sequence[BuiltProgram | None]]:
    """The plan with its constants, and those of its programs that the seed has."""
    from clinfer.device.programs import prepare

    wanted = draft.plan.programs
    ready = [None] * len(wanted) if seed is None else seed.load_all(wanted, request.device)
    if seed is not None and None in ready:
        prepare(request.device, request.properties[COMPILATION_NUM_THREADS], ready.count(None))
    return finished(draft, request.device), ready


def _with_programs(
    plan: Plan,
    ready: Sequence[BuiltProgram | None],
    source: Source,
    request: Request,
    record: KeyRecord,
) -> Loaded:
    """The plan on its device; the programs that are not ready are built."""
    from clinfer.device.executor import LoadedPlan
    from clinfer.plugins.programs import build_and_store

    missing = [p for p, r in zip(plan.programs, ready, strict=True) if r is None]
    built = build_and_store(missing, request._replace(cache=None)) if missing else []
    rest = iter(built)
    programs = [next(rest) if program is None else program for program in ready]
    executable = LoadedPlan(request.device, plan, programs, source.extensions)
    return Loaded(plan, executable, False, record, builds=len(built))


def _binaries(loaded: Loaded) -> list[bytes]:
    return [program.binary() for program in loaded.executable.programs]


def _sections(plan: Plan, binaries: Sequence[bytes]) -> dict[str, Any]:
    from clinfer.lowering.plan_dump import dump

    text, weights = dump(plan)
    return {
        "plan": text,
        "index": json.dumps([len(b) for b in binaries]).encode(),
        "binaries": binaries,
        "weights": weights,
    }


def _from_entry(entry: Entry, request: Request, extensions: Extensions | None) -> Loaded:
    """The model in an entry.

    The driver gets only the programs that it has to run; the player calls the others' functions
    itself. Raises `BlobError`, `BuildError`, `ExtensionError` where a Python function is missing.
    """
    from clinfer.device.executor import LoadedPlan

    plan, programs = _parts(entry, request, lazily=True)
    executable = LoadedPlan(request.device, plan, programs, extensions)
    return Loaded(plan, executable, True, entry.record)


def _parts(entry: Entry, request: Request, lazily: bool) -> tuple[Plan, list[BuiltProgram]]:
    """The plan and programs in an entry; `lazily`, the driver hears of those it has to run only."""
    from clinfer.device.programs import SourceProgram, load
    from clinfer.lowering.plan_io import load as load_plan

    plan = load_plan(entry.section("plan"), entry.section("weights"))
    binaries = _split(entry, plan)
    programs = [
        load(
            request.device,
            SourceProgram(p.source, p.options, p.entry, p.local_size),
            binary,
            lazily,
        )
        for p, binary in zip(plan.programs, binaries, strict=True)
    ]
    return plan, programs


def _split(entry: Entry, plan: Plan) -> list[bytes]:
    try:
        lengths = json.loads(bytes(entry.section("index")))
    except (ValueError, RecursionError) as error:
        raise BlobError(f"the index of binaries is not JSON: {error}") from error
    data = entry.section("binaries")
    if not isinstance(lengths, list) or any(type(n) is not int or n < 0 for n in lengths):
        raise BlobError("the index of binaries is not a list of lengths")
    if len(lengths) != len(plan.programs) or sum(lengths) != len(data):
        raise BlobError(f"{len(lengths)} binaries for {len(plan.programs)} programs")
    binaries: list[bytes] = []
    start = 0
    for length in lengths:
        binaries.append(bytes(data[start : start + length]))
        start += length
    return binaries
