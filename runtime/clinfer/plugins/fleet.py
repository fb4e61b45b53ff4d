"""Filling one remote store by several workers, on as many machines: each thing is made once.

Every worker is told of all models and ends when all that they need is in the store, whoever made
it. What is to be made - a plan, a program, a compiled model - is claimed first (`cache.claims`) and
given back when it is in the store. What another has claimed comes again later: then it is there, or
its maker has died and it is made here. So nothing but the entries themselves says what is done.

Where a plugin keeps whole models, the programs of one lie in the store as parts until the model
does, and workers without a model of their own build those of the others'. The last worker that ends
removes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from clinfer.cache.entry import Entry
from clinfer.cache.record import KeyRecord
from clinfer.cache.remote import PARTS, RemoteStore
from clinfer.cache.stats import Reason
from clinfer.errors import BuildError, CacheError, ClinferError
from clinfer.plugins.base import Plugin, Request, Source, Watch
from clinfer.plugins.compiler import draft_model, program_record
from clinfer.plugins.warm import Warmed, warm_models, warm_programs, writable
from clinfer.plugins.warm_builds import Builder, Keep, Memos

if TYPE_CHECKING:
    from clinfer.cache.claims import Claims
    from clinfer.cache.layers import Layers
    from clinfer.lowering.plan import Program
    from clinfer.plugins.tuning import Look


def warm_fleet(
    plugin: Plugin,
    models: Mapping[str, Callable[[], Source]],
    request: Request,
    watch: Watch,
    seconds: float,
    lease: float,
) -> list[Warmed]:
    """As `warm`, as one of the workers that fill the cache's remote store together.

    A worker that shows no sign of life for `lease` seconds is taken for dead. Raises `CacheError`
    where there is no remote store, or it cannot be read, written and listed.
    """
    cache = writable(request)
    if cache.remote is None:
        raise CacheError("a fleet shares a remote store: name one, CACHE_STORE (--store URL)")
    with cache.remote.claims(lease) as claims:
        builder = FleetBuilder(request, cache, watch, seconds, claims)
        if plugin.export_import:
            parts = SharedMemos(builder)
            builder.key = parts.record
            outcomes = warm_models(plugin, models, builder, parts)
        else:
            outcomes = warm_programs(plugin, models, builder)
        claims.leave()
        if claims.is_last() and not any(outcome.errors for outcome in outcomes):
            claims.clear([PARTS])
    return outcomes


class FleetBuilder(Builder):
    """Makes what no other worker has made or claimed, and sees to it that the store has it.

    `key` gives the key under which others find a program.
    """

    def __init__(
        self, request: Request, cache: Layers, watch: Watch, seconds: float, claims: Claims
    ) -> None:
        super().__init__(request, cache, watch, seconds)
        assert cache.remote is not None
        self.remote: RemoteStore = cache.remote
        self.claims = claims
        self.key: Callable[[Program], KeyRecord] = partial(program_record, device=request.device)
        self._failed: dict[str, ClinferError] = {}
        self._asked: set[str] = set()

    def build_all(
        self, what: str, programs: Mapping[str, Program], keep: Keep
    ) -> dict[str, bytes | ClinferError]:
        """As of any builder; waits for what others have claimed."""
        results: dict[str, bytes | ClinferError] = {}
        left = dict(programs)
        while left:
            results |= self.build(what, left, keep)
            left = {d: p for d, p in left.items() if d not in results and not self._is_there(p)}
            if left:
                self.claims.wait()
        return results

    def help(self, source: Source, record: KeyRecord, memos: Memos) -> int:
        """Builds those of another worker's model that it has not come to; how many."""
        if record.digest not in self.drafts:
            plan = draft_model(source.read(), self.request.device, self.request.look).plan
            self.drafts[record.digest] = {program.digest: program for program in plan.programs}
        left = self.drafts[record.digest]
        there = memos.found(left.values())
        left = {digest: program for digest, program in left.items() if digest not in there}
        results = self.build("help", left, memos.keep)
        return sum(isinstance(result, bytes) for result in results.values())

    def rest(self) -> None:
        self.claims.wait()

    def wants(self, program: Program) -> bool:
        """Whether it is claimed here now: neither there, nor failed, nor another's."""
        return (
            program.digest not in self._failed
            and not self._is_there(program)
            and self._claimed(self.key(program), partial(self._is_there, program))
        )

    def usable(self, record: KeyRecord, plugin: Plugin, look: Look | None = None) -> Entry | None:
        """The store's entry, read whole; one that is of no use goes, one only here goes there."""
        if record.digest in self._asked and not self.remote.holds(record):
            return None
        self._asked.add(record.digest)
        found = self.remote.peek(record)
        if isinstance(found, Entry) and not plugin.flaw(found, look):
            return found
        if isinstance(found, Entry) or found.reason is not Reason.ABSENT:
            self.remote.discard(record)
        own = self.cache.find(record)
        if own is None or plugin.flaw(own, look):
            return None
        self._push(record, own.sections, own.build_seconds)
        return own

    def has(self, record: KeyRecord, plugin: Plugin) -> bool:
        """As of any builder; what was missing before need only be there."""
        if record.digest in self._asked:
            return self.remote.holds(record)
        return super().has(record, plugin)

    @contextmanager
    def making(self, record: KeyRecord) -> Iterator[bool]:
        if not self._claimed(record, partial(self.remote.holds, record)):
            yield False
            return
        try:
            yield True
        finally:
            self.claims.release(record.digest)

    def store(self, record: KeyRecord, sections: Mapping[str, Any], seconds: float) -> None:
        """Raises `CacheError` where the remote store does not take the entry."""
        if self.cache.writable is not None:
            self.cache.writable.put(record, sections, seconds=seconds)
        self._push(record, sections, seconds)

    def discard(self, record: KeyRecord) -> None:
        super().discard(record)
        self.remote.discard(record)

    def push_part(self, record: KeyRecord, sections: Mapping[str, Any]) -> None:
        """As `store`, in the remote store alone."""
        self._push(record, sections, 0.0)

    def _push(self, record: KeyRecord, sections: Mapping[str, Any], seconds: float) -> None:
        fault = self.cache.push(record, sections, seconds=seconds)
        if fault is not None:
            raise CacheError(f"the fleet's store did not take the entry: {fault.detail}")

    def build(
        self, what: str, programs: Mapping[str, Program], keep: Keep
    ) -> dict[str, bytes | ClinferError]:
        """As of any builder, for those that are neither there nor claimed by others."""

        def kept(program: Program, binary: bytes, seconds: float) -> None:
            try:
                keep(program, binary, seconds)
            finally:
                self.claims.release(self.key(program).digest)

        failed = {d: self._failed[d] for d in programs if d in self._failed}
        results = super().build(what, programs, kept)
        for digest, result in results.items():
            if isinstance(result, ClinferError):
                self._failed[digest] = result
            if isinstance(result, BuildError):
                self.claims.release(self.key(programs[digest]).digest)
        return {**failed, **results}

    def _is_there(self, program: Program) -> bool:
        return self.remote.holds(self.key(program))

    def _claimed(self, record: KeyRecord, is_there: Callable[[], bool]) -> bool:
        """Whether it is claimed here now; another may have made it just before."""
        if not self.claims.take(record.digest):
            return False
        if not is_there():
            return True
        self.claims.release(record.digest)
        return False


class SharedMemos(Memos):
    """Binaries of models that are not finished, those that other workers have built among them."""

    def __init__(self, builder: FleetBuilder) -> None:
        super().__init__(builder)
        self._builder = builder

    def keep(self, program: Program, binary: bytes, seconds: float) -> None:
        super().keep(program, binary, seconds)
        self._builder.push_part(self.record(program), {"binary": binary})

    def recalled(self, record: KeyRecord) -> Entry | None:
        found = super().recalled(record)
        if found is None:
            shared = self._builder.remote.peek(record)
            found = shared if isinstance(shared, Entry) else None
        return found
