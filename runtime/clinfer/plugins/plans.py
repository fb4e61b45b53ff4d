"""Lowered plans as cache entries of the GPU plugin; docs/cache.md says why, and what is in them.

A container of kind 'plan' with the sections

    plan       the plan as JSON; a constant may be a place in a file of the model
    weights    the other constants, page-aligned, used in place or uploaded from there
    tuning     JSON: [the key of the tuning data that were looked up, or null; their digest, or '']
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.cache.record import KeyRecord
from clinfer.errors import BlobError, CacheError, CompileRequiredError, ModelError
from clinfer.plugins.compiler import content_record, plan_model, recall_generator

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.device.lock import Described
    from clinfer.lowering.plan import Array, Plan
    from clinfer.lowering.plan_dump import Place
    from clinfer.plugins.base import Files, Request, Source
    from clinfer.plugins.tuning import Look

FORMAT = 1
KIND = "plan"


class Looked(NamedTuple):
    """The tuning data that lowering asked for: their key, and the digest of what there was."""

    record: KeyRecord | None = None
    content: str = ""


class Made(NamedTuple):
    """A plan that was lowered here, and the tuning data it follows from."""

    plan: Plan
    looked: Looked


def plan_record(source: Source, device: Described, properties: Mapping[str, Any]) -> KeyRecord:
    """The key of a model's plan: content, shapes, properties, generator, target, device."""
    return content_record(KIND, FORMAT, source, device, properties)


def copies_weights(device: Described) -> bool:
    """Whether weights are copied to the device, so that nothing keeps those of the host."""
    return not (device.info.shares_host_memory or device.info.plays)


def make(
    source: Source, device: Described, look: Look | None, refused: frozenset[str] = frozenset()
) -> Made:
    """The plan, lowered from the model. Where weights are copied, some lie in its files yet.

    Programs of the digests `refused` the driver did not build: other schedules take their place.
    """
    looked = [Looked()]

    def noted(record: KeyRecord) -> Entry | None:
        assert look is not None
        found = look(record)
        looked[0] = Looked(record, "" if found is None else found.content)
        return found

    in_place = copies_weights(device)
    plan = plan_model(source.read(), device, None if look is None else noted, in_place, refused)
    return Made(plan, looked[0])


def known(source: Source, request: Request, again: bool = False) -> Plan | None:
    """The plan from the cache; None where there is none that is of use.

    `again`: it was looked up before, and may have been stored since. Weights may lie in files of
    the model: they are to be copied before anything else is done.
    Raises `CompileRequiredError` where the cache is all that may be used.
    """
    cache = request.cache
    if cache is None or source.digest is None:
        return None
    from clinfer.cache.stats import Miss

    if cache.writable is not None:
        recall_generator(cache.writable)
    record = plan_record(source, request.device, request.properties)
    found = cache.lookup(record, again=again)
    if not isinstance(found, Miss):
        try:
            return load(found, source.files, cache.recall)
        except (BlobError, ModelError) as error:
            cache.reject(found, str(error))
    if not cache.mode.compiles:
        miss = found if isinstance(found, Miss) else None
        raise CompileRequiredError(cache.explain(record, "the model's plan", miss))
    return None


def building(source: Source, request: Request) -> ExitStack:
    """Waits for others that make the same plan; holds its build lock, where there is a cache."""
    held = ExitStack()
    if request.cache is not None and source.digest is not None:
        record = plan_record(source, request.device, request.properties)
        held.enter_context(request.cache.building(record))
    return held


def store(source: Source, request: Request, made: Made, seconds: float, held: ExitStack) -> None:
    """Keeps a plan, if the model's files are still those that were digested.

    What `held` holds is held until it is stored (`Layers.put_made`).
    """
    if request.cache is not None and source.digest is not None and source.unchanged():
        record = plan_record(source, request.device, request.properties)
        content = partial(sections, made, source.files)
        request.cache.put_made(record, content, seconds, held)


def sections(made: Made, files: Files | None) -> dict[str, Any]:
    """An entry's content; weights that lie in `files` are named, not kept."""
    from clinfer.lowering.plan_dump import dump

    record, content = made.looked
    text, weights = dump(made.plan, places(files, whole=True))
    named = [None if record is None else record.to_json(), content]
    return {"plan": text, "tuning": json.dumps(named).encode(), "weights": weights}


def load(entry: Entry, files: Files | None, look: Look) -> Plan:
    """The plan in an entry.

    Raises `BlobError` for one of another form, or made with other tuning data than there are now,
    `ModelError` where a file of the model is not as it was digested.
    """
    from clinfer.lowering.plan_io import load as load_plan
    from clinfer.lowering.plan_io import no_files

    _require_same_tuning(entry, look)
    content = no_files if files is None else files.content
    return load_plan(entry.section("plan"), entry.section("weights"), content)


def flaw(entry: Entry, look: Look | None) -> str:
    """What is wrong with an entry, '' where nothing is; of the model's files nothing is read."""
    from clinfer.lowering.plan_io import load as load_plan

    try:
        if look is not None:
            _require_same_tuning(entry, look)
        load_plan(entry.section("plan"), entry.section("weights"), lambda _: None)
    except BlobError as error:
        return str(error)
    return ""


def _require_same_tuning(entry: Entry, look: Look) -> None:
    then = looked(entry)
    if then.record is None:
        return
    found = look(then.record)
    if then.content != ("" if found is None else found.content):
        raise BlobError("the plan was made with other tuning data than there are now")


def looked(entry: Entry) -> Looked:
    """The tuning data that an entry names. Raises `BlobError` where it names something else."""
    from clinfer.plugins.tuning import KIND as TUNING

    try:
        text, content = json.loads(bytes(entry.section("tuning")))
        record = None if text is None else KeyRecord.from_json(text)
    except (ValueError, TypeError, AttributeError, RecursionError, CacheError) as error:
        raise BlobError(f"the plan's tuning data are not named: {error!r}") from error
    if not isinstance(content, str) or (record is not None and record.kind != TUNING):
        raise BlobError("the plan names something else than tuning data")
    return Looked(record, content)


def places(files: Files | None, whole: bool = False) -> Callable[[Array], Place | None]:
    """Where an array lies in the files, as they were read into memory; `whole`: without gaps."""
    held = [] if files is None else files.read()
    ranges = [
        (number, _address(content), content.nbytes)
        for number, content in enumerate(held)
        if content is not None and content.nbytes
    ]

    def place(array: Array) -> Place | None:
        strides = array.strides
        if not array.nbytes or not array.dtype.isnative or min(strides, default=0) < 0:
            return None
        if whole and not array.flags.c_contiguous:
            return None
        start = _address(array)
        reach = sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True))
        end = start + reach + array.itemsize
        for number, first, nbytes in ranges:
            if first <= start and end <= first + nbytes:
                return number, start - first
        return None

    return place


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
