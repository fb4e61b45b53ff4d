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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.cache.entry import Entry, read, to_bytes
from clinfer.cache.record import FieldValue, KeyRecord
from clinfer.errors import BlobError, BuildError, CompileRequiredError
from clinfer.plugins.base import Loaded, Plugin, Request, Source
from clinfer.plugins.compiler import compile_fields, device_fields, plan_model, recall_generator
from clinfer.properties import COMPILATION_NUM_THREADS

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.lock import Described
    from clinfer.lowering.plan import Plan
    from clinfer.plugins.tuning import Look

BLOB_FORMAT = 2


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
        loaded = None if isinstance(found, Miss) else _import(found, request)
        if loaded is not None:
            return loaded
        if not cache.mode.compiles:
            miss = found if isinstance(found, Miss) else None
            raise CompileRequiredError(cache.explain(record, "the compiled model", miss))
        with cache.building(record):
            entry = cache.get(record, again=True)
            loaded = None if entry is None else _import(entry, request)
            if loaded is not None:
                return loaded
            return self.renew(source, request)

    def renew(self, source: Source, request: Request) -> Loaded:
        record = model_record(source, request.device, request.properties)
        start = time.perf_counter()
        loaded = _build(source, request, record)
        if request.cache is not None and source.digest is not None and source.unchanged():
            seconds = time.perf_counter() - start
            request.cache.put_made(
                record, lambda: _sections(loaded.plan, _binaries(loaded)), seconds
            )
        return loaded

    def needs(
        self, source: Source, device: Described, properties: Mapping[str, Any], look: Look
    ) -> list[tuple[str, KeyRecord]]:
        return [("the compiled model", model_record(source, device, properties))]

    def flaw(self, entry: Entry) -> str:
        from clinfer.lowering.plan_io import load as load_plan

        try:
            _split(entry, load_plan(entry.section("plan"), entry.section("weights")))
        except BlobError as error:
            return str(error)
        return ""

    def probe(self, entry: Entry, device: Device) -> None:
        _from_entry(entry, Request(device, {}, None), lazily=False)

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
            return _from_entry(entry, request)
        except BuildError as error:
            raise BlobError(f"the driver refused a program of the blob: {error}") from error


def model_record(source: Source, device: Described, properties: Mapping[str, Any]) -> KeyRecord:
    """The key of a compiled model: content, shapes, properties, generator, device, driver."""
    fields: dict[str, FieldValue] = {
        "format": BLOB_FORMAT,
        "model": source.digest or "",
        "shapes": source.shapes,
        **compile_fields(device, properties),
        **device_fields(device),
    }
    return KeyRecord.make("model", list(fields.items()))


def _import(entry: Entry, request: Request) -> Loaded | None:
    """The model in a cache entry; None, and the entry taken back, where it is of no use."""
    assert request.cache is not None
    try:
        return _from_entry(entry, request)
    except (BlobError, BuildError) as error:
        request.cache.reject(entry, str(error))
        return None


def _build(source: Source, request: Request, record: KeyRecord) -> Loaded:
    from clinfer.device.executor import LoadedPlan
    from clinfer.device.programs import prepare
    from clinfer.plugins.gpu import build_and_store

    prepare(request.device, request.properties[COMPILATION_NUM_THREADS])
    plan = plan_model(source.read(), request.device, request.look)
    without_store = Request(request.device, request.properties, None)
    programs = build_and_store(plan.programs, without_store) if plan.programs else []
    executable = LoadedPlan(request.device, plan, programs)
    return Loaded(plan, executable, False, record, builds=len(programs))


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


def _from_entry(entry: Entry, request: Request, lazily: bool = True) -> Loaded:
    """The model in an entry; `lazily`, the driver gets only the programs that it has to run.

    The player calls the others' functions itself. Raises `BlobError` and `BuildError`.
    """
    from clinfer.device.executor import LoadedPlan
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
    return Loaded(plan, LoadedPlan(request.device, plan, programs), True, entry.record)


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
