"""The GPU plugin: program binaries in the cache, one entry per program, shared by all models.

A model's plan is an entry of its own (`clinfer.plugins.plans`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clinfer.cache.packing import programs_of
from clinfer.device.failures import driver_errors
from clinfer.errors import BlobError, BuildError
from clinfer.log import Log
from clinfer.lowering.plan import without_weights
from clinfer.mapping import is_mapped
from clinfer.plugins import plans
from clinfer.plugins.base import Loaded, Plugin, Request, Source
from clinfer.plugins.compiler import draft_model, program_record
from clinfer.plugins.programs import load_or_build

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.cache.record import KeyRecord
    from clinfer.device.discover import Device
    from clinfer.device.lock import Described
    from clinfer.lowering.plan import Plan
    from clinfer.plugins.tuning import Look

_LOG = Log("clinfer.plugins")


class GpuPlugin(Plugin):
    """Kernel caching; whole models are neither exported nor imported."""

    name = "GPU"
    export_import = False

    def compile(self, source: Source, request: Request) -> Loaded:
        plan = plans.known(source, request)
        if plan is not None:
            return self._from(plan, source, request)
        with plans.building(source, request) as held:
            plan = plans.known(source, request, again=True)
            if plan is None:
                return self._renewed(source, request, held)
        return self._from(plan, source, request)

    def _from(self, plan: Plan, source: Source, request: Request) -> Loaded:
        plan, weights = _placed(plan, request.device)
        if not source.unchanged():  # weights that were read from the model's files may be of either
            return self.renew(source, request)
        return _loaded(plan, weights, source, request)

    def renew(self, source: Source, request: Request) -> Loaded:
        return self._renewed(source, request, ExitStack())

    def _renewed(self, source: Source, request: Request, held: ExitStack) -> Loaded:
        """Compiled from the model; `held` holds the plan's build lock until it is stored."""
        refused: frozenset[str] = frozenset()
        while True:
            start = time.perf_counter()
            with request.watch("plan", 1) as shown:
                made = plans.make(source, request.device, request.look, refused)
                shown.step("plan")
            seconds = time.perf_counter() - start
            plan, weights = _placed(made.plan, request.device)
            try:
                loaded = _loaded(plan, weights, source, request)
            except BuildError as error:
                is_same = error.digest in refused  # no other way: the plan has it all the same
                if is_same or not error.digest:
                    raise
                refused |= {error.digest}
                _LOG.warning("%s; the next schedule takes its place", error)
                continue
            plans.store(source, request, made, seconds, held)
            return loaded

    def needs(
        self, source: Source, device: Described, properties: Mapping[str, Any], look: Look
    ) -> list[tuple[str, KeyRecord]]:
        record = plans.plan_record(source, device, properties)
        kept = look(record)
        if kept is not None and not plans.flaw(kept, look):
            # What a compilation takes; its driver may have refused what lowering takes first.
            programs = programs_of(kept)
        else:
            programs = draft_model(source.read(), device, look).plan.programs
        each = ((f"program '{p.entry}'", program_record(p, device)) for p in programs)
        return [("the model's plan", record), *each]

    def flaw(self, entry: Entry, look: Look | None = None) -> str:
        if entry.record.kind == plans.KIND:
            return plans.flaw(entry, look)
        try:
            return "" if len(entry.section("binary")) else "the binary is empty"
        except BlobError as error:
            return str(error)

    def probe(self, entry: Entry, device: Device) -> None:
        from clinfer.device.programs import probe

        probe(device, str(entry.record.get("entry")), bytes(entry.section("binary")))


def _placed(plan: Plan, device: Device) -> tuple[Plan, dict[int, Any] | None]:
    """The plan with nothing in a file that may change, and its weights where they are copied."""
    if plans.copies_weights(device):
        from clinfer.device.weights import placed

        with driver_errors(device.info):
            return without_weights(plan), placed(device, plan)
    constants = tuple(c.copy() if is_mapped(c) else c for c in plan.constants)
    return replace(plan, constants=constants), None


def _loaded(plan: Plan, weights: dict[int, Any] | None, source: Source, request: Request) -> Loaded:
    from clinfer.device.executor import LoadedPlan

    programs, built = load_or_build(plan.programs, request)
    executable = LoadedPlan(request.device, plan, programs, source.extensions, weights)
    return Loaded(plan, executable, loaded_from_cache=False, builds=built)
