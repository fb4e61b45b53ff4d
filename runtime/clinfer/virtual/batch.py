"""BATCH: requests of one sample wait for each other a little, and run as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Condition
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer import forks, properties
from clinfer.device.results import own
from clinfer.errors import ModelError, ShapeError, UnsupportedError
from clinfer.runs import performing
from clinfer.virtual.base import Group
from clinfer.virtual.samples import require_samples
from clinfer.virtual.signature import Fitting, signature_of
from clinfer_kernels.dims import sym

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.device.asked import Asked
    from clinfer.device.profile import StepTime
    from clinfer.graph.model import Model
    from clinfer.lowering.plan import Plan
    from clinfer.plugins.base import Session
    from clinfer.virtual.parts import Part, Recipe

_SAMPLES = "samples~"
_DEFAULT = 8
"""Requests that run as one where the name has no number."""


def make(asked: Asked, recipe: Recipe, parts: Sequence[Part]) -> Gatherer:
    """The model for any number of samples. Raises `UnsupportedError` where it sees several."""
    model = recipe.source.read()
    batched = for_any_samples(model)
    whole = recipe.source
    source = whole._replace(read=lambda: batched, shapes=batched.shape_changes)
    compiled = recipe._replace(source=source).model(parts[0])
    return Gatherer(compiled, signature_of(model.graph()), asked.counts[0] or _DEFAULT)


def for_any_samples(model: Model) -> Model:
    """The model with one symbol as the first size of every input.

    Raises `UnsupportedError` naming what would see several samples.
    """
    shapes: dict[str, list[Any]] = {}
    known = dict(model.requested())
    for port in model.inputs:
        shape = known.get(port.name)
        if not shape or (isinstance(shape[0], int) and shape[0] != 1):
            found = "any rank" if shape is None else f"the shape {list(shape)}"
            raise UnsupportedError(
                f"BATCH: input '{port.name}': expected one sample, or any number, along its first "
                f"axis, found {found}; compile the model for the device itself, without BATCH"
            )
        shapes[port.name] = [_SAMPLES, *shape[1:]]
    changed = model.clone()
    try:
        changed.reshape(shapes)
    except (ShapeError, ModelError) as error:
        raise UnsupportedError(
            f"BATCH: the model is for one sample at a time: {error}; export it with a free batch, "
            "or compile it for the device itself, without BATCH"
        ) from error
    require_samples(changed.graph(), sym(_SAMPLES))
    return changed


class _Request:
    """One request of a batch: what it runs on and what came out."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self.inputs = inputs
        self.results: list[Any] | None = None
        self.error: Exception | None = None
        self.profile: tuple[StepTime, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.results is not None or self.error is not None


class _Batch:
    """Requests that are to run together; `is_closed` takes no more, `is_run` by one of them."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.requests: list[_Request] = []
        self.is_closed = False
        self.is_run = False


class Gatherer(Group):
    """Requests of the same sizes run as one: when there are `most`, or the first has waited enough.

    One of the waiting threads runs them, so there is no thread that could be left behind.
    """

    def __init__(self, model: CompiledModel, signature: Plan, most: int) -> None:
        self._model = model
        self._signature = signature
        self._most = most
        self._seconds = int(model._settings[properties.AUTO_BATCH_TIMEOUT]) / 1000
        self._open: dict[tuple[Any, ...], _Batch] = {}
        self._changed = Condition()
        forks.inherit(self)

    def after_fork(self) -> None:
        """In a forked child: whoever waits does so in the parent."""
        self._open, self._changed = {}, Condition()

    @property
    def main(self) -> CompiledModel:
        return self._model

    @property
    def members(self) -> Sequence[CompiledModel]:
        return (self._model,)

    @property
    def signature(self) -> Plan:
        return self._signature

    def requests(self) -> int:
        return self._most

    def readable(self) -> Mapping[str, Callable[[], Any]]:
        return {properties.OPTIMAL_BATCH_SIZE: lambda: self._most}

    def session(self) -> Session:
        return _Sample(self)

    def run(self, inputs: Sequence[Any], shapes: tuple[Any, ...]) -> _Request:
        """The request when it is done, by itself where it is not of one sample."""
        request = _Request(inputs)
        if any(shape[0] != 1 for shape in shapes):
            self._compute([request])
            return request
        batch = self._join(request, shapes)
        try:
            while not self._wait(batch, request, shapes):
                self._run(batch)
        except BaseException:
            with self._changed:  # the others go on without it
                if request in batch.requests:
                    batch.requests.remove(request)
            raise
        return request

    def _join(self, request: _Request, shapes: tuple[Any, ...]) -> _Batch:
        with self._changed:
            if shapes not in self._open:
                self._open[shapes] = _Batch(monotonic() + self._seconds)
            batch = self._open[shapes]
            batch.requests.append(request)
            if len(batch.requests) >= self._most:
                self._close(batch, shapes)
            return batch

    def _close(self, batch: _Batch, shapes: tuple[Any, ...]) -> None:
        batch.is_closed = True
        if self._open.get(shapes) is batch:
            del self._open[shapes]
        self._changed.notify_all()

    def _wait(self, batch: _Batch, request: _Request, shapes: tuple[Any, ...]) -> bool:
        """True when the request is done; False when this thread is to run the batch."""
        with self._changed:
            while not request.is_done:
                if batch.is_closed and not batch.is_run:
                    batch.is_run = True
                    return False
                left = None if batch.is_closed else batch.deadline - monotonic()
                if left is not None and left <= 0:
                    self._close(batch, shapes)
                else:
                    self._changed.wait(left)
            return True

    def _run(self, batch: _Batch) -> None:
        """Runs the requests; interrupted, it leaves that to another thread."""
        requests = list(batch.requests)
        try:
            with performing(None):  # it is not of one request, which may be cancelled
                self._compute(requests)
        finally:
            with self._changed:
                batch.is_run = all(request.is_done for request in requests)
                self._changed.notify_all()

    def _compute(self, requests: Sequence[_Request]) -> None:
        """One run for all. Where it fails each runs by itself: the error is of one of them."""
        try:
            self._at_once(requests)
        except Exception as error:
            if len(requests) == 1:
                requests[0].error = error
                return
            for request in requests:
                self._compute([request])

    def _at_once(self, requests: Sequence[_Request]) -> None:
        columns = list(zip(*(request.inputs for request in requests), strict=True))
        alone = len(requests) == 1
        inputs = [c[0] if alone else np.concatenate(c) for c in columns]
        try:
            session = self._model._idle.pop()
        except IndexError:
            session = self._model._session()
        try:
            results = session.run(inputs)
        finally:
            self._model._idle.append(session)
        for number, request in enumerate(requests):
            request.profile = session.profile
            request.results = results if alone else [own(r[number : number + 1]) for r in results]


class _Sample:
    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer = gatherer
        self._fitting = Fitting(gatherer.signature)
        self.profile: tuple[StepTime, ...] = ()

    def check(self, inputs: Sequence[Any]) -> None:
        self._fitting.require(inputs)

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        request = self._gatherer.run(inputs, self._fitting.require(inputs))
        if request.error is not None:
            raise request.error
        self.profile = request.profile
        assert request.results is not None
        return request.results
