"""MULTI: each request runs on a device that is free, the first in the list before the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer import forks, properties
from clinfer.virtual.base import Group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clinfer.compiled import CompiledModel
    from clinfer.device.asked import Asked
    from clinfer.device.profile import StepTime
    from clinfer.plugins.base import Session
    from clinfer.virtual.parts import Part, Recipe


def make(asked: Asked, recipe: Recipe, parts: Sequence[Part]) -> Pool:
    """The model on every one of the devices. Raises what the first to fail raises."""
    return Pool([recipe.model(part) for part in parts], asked.counts)


class _Slot(NamedTuple):
    """Room for a request on a device; the lower `rank` is taken first."""

    rank: int
    session: Session


class Pool(Group):
    """So many slots on each device, its streams where the name has no number.

    A run takes a free slot, waits where there is none, and is of that one device.
    """

    def __init__(self, models: Sequence[CompiledModel], counts: Sequence[int]) -> None:
        self._models = list(models)
        self._counts = [n or m._streams() for m, n in zip(models, counts, strict=True)]
        self._free = [
            _Slot(rank, model._session())
            for rank, (model, count) in enumerate(zip(self._models, self._counts, strict=True))
            for _ in range(count)
        ]
        self._all = list(self._free)
        self._changed = Condition()
        forks.inherit(self)

    def after_fork(self) -> None:
        """In a forked child: no run is under way, and nobody waits."""
        self._free, self._changed = list(self._all), Condition()

    @property
    def main(self) -> CompiledModel:
        return self._models[0]

    @property
    def members(self) -> Sequence[CompiledModel]:
        return self._models

    def requests(self) -> int:
        return len(self._all)

    def readable(self) -> Mapping[str, Callable[[], Any]]:
        return {properties.NUM_STREAMS: self.requests}

    def session(self) -> Session:
        return _AnySlot(self)

    @property
    def first(self) -> Session:
        """A session to check inputs with: sizes that fit on one device fit on all."""
        return self._all[0].session

    @contextmanager
    def taken(self) -> Iterator[Session]:
        """A free slot's session, for the time of a block; waits for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            slot = min(self._free, key=lambda free: free.rank)
            self._free.remove(slot)
        try:
            yield slot.session
        finally:
            with self._changed:
                self._free.append(slot)
                self._changed.notify()


class _AnySlot:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.profile: tuple[StepTime, ...] = ()

    def check(self, inputs: Sequence[Any]) -> None:
        self._pool.first.check(inputs)

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        with self._pool.taken() as session:
            results = session.run(inputs, into)
            self.profile = session.profile
        return results
