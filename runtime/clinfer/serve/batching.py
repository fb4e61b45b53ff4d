"""One queue for a model's requests, from which instances take what they can run as one.

Everything but the runs happens in the event loop's thread, so nothing is locked. An instance that
is idle takes what waits, at once where `delay` is 0: batches then grow by themselves, as requests
arrive while a run is on. Method: dynamic batching as Triton documents it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np

from clinfer.errors import InputError
from clinfer.serve.refusals import TIMEOUT, UNAVAILABLE, RefusedError

Arrays = Sequence[Any]
Run = Callable[[Arrays], Arrays]
"""Inputs to outputs, each in its ports' order."""


class Rules(NamedTuple):
    """`max_batch` 0: no limit. Without `gathers` each request is a run of its own."""

    max_batch: int = 0
    gathers: bool = False
    delay: float = 0.0
    max_queue: int = 128


class Watch(Protocol):
    """Told of what happens to requests; seconds."""

    def ran(self, samples: int, requests: int, waited: Sequence[float], seconds: float) -> None:
        """A run of one or several requests has ended."""


class _Item:
    """A request in the queue: `key` is equal for those that may run as one."""

    __slots__ = ("arrived", "future", "inputs", "key", "samples")

    def __init__(self, inputs: Arrays, gathers: bool, future: asyncio.Future[Arrays]) -> None:
        self.inputs = inputs
        self.future = future
        self.arrived = perf_counter()
        self.samples = len(inputs[0]) if inputs and np.ndim(inputs[0]) else 1
        self.key = tuple(a.shape[1:] for a in inputs) if gathers else ()


class Scheduler:
    """A model's queue and its instances, one thread each; `submit` in the event loop's thread."""

    def __init__(self, runs: Sequence[Run], rules: Rules, watch: Watch, name: str) -> None:
        self._rules = rules
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Item] = deque()
        self._idle = [_Instance(run, f"{name}-{n}", self._ended) for n, run in enumerate(runs)]
        self._busy = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._queue)

    async def submit(self, inputs: Arrays, seconds: float) -> Arrays:
        """The outputs of a request. Raises `RefusedError` where the queue is full or time is over.

        A caller that is cancelled leaves the queue; a run that is on is not stopped.
        """
        if self._closing:
            raise RefusedError(UNAVAILABLE, "the model is being unloaded")
        if len(self._queue) >= self._rules.max_queue:
            self._queue = deque(i for i in self._queue if not i.future.done())
            if len(self._queue) >= self._rules.max_queue:
                raise RefusedError(
                    UNAVAILABLE, f"{len(self._queue)} requests are waiting, the most that may"
                )
        item = _Item(inputs, self._rules.gathers, self._loop.create_future())
        self._require_samples(item)
        self._queue.append(item)
        self._pump()
        timer = self._loop.call_later(seconds, _expire, item.future, seconds)
        try:
            return await item.future
        finally:
            timer.cancel()
            item.future.cancel()

    def _require_samples(self, item: _Item) -> None:
        most = self._rules.max_batch
        if not most:
            return
        if item.samples > most or item.samples < 1:
            raise InputError(f"{item.samples} samples in a request, 1 to {most} may be")
        if any(np.ndim(array) == 0 or len(array) != item.samples for array in item.inputs):
            raise InputError("the inputs' first sizes differ; each is the number of samples")

    async def close(self) -> None:
        """Takes nothing more; ends when what waits has been run, and the threads with it."""
        self._closing = True
        while self._queue or self._busy:
            await asyncio.sleep(0.01)
        for instance in self._idle:
            instance.end()
        self._idle = []

    def _pump(self) -> None:
        while self._idle and self._queue:
            head = self._queue[0]
            if head.future.done():
                self._queue.popleft()
                continue
            chosen = self._chosen(head)
            left = head.arrived + self._rules.delay - perf_counter()
            full = sum(item.samples for item in chosen) >= self._rules.max_batch
            if self._rules.gathers and left > 0 and not full and not self._closing:
                if self._timer is None:
                    self._timer = self._loop.call_later(left, self._due)
                return
            taken = set(map(id, chosen))
            self._queue = deque(item for item in self._queue if id(item) not in taken)
            self._busy += 1
            self._idle.pop().give(chosen)

    def _due(self) -> None:
        self._timer = None
        self._pump()

    def _chosen(self, head: _Item) -> list[_Item]:
        """The oldest request, and those behind it that may run with it, up to the limit."""
        if not self._rules.gathers:
            return [head]
        chosen: list[_Item] = []
        samples = 0
        for item in self._queue:
            fits = item.key == head.key and samples + item.samples <= self._rules.max_batch
            if fits and not item.future.done():
                chosen.append(item)
                samples += item.samples
        return chosen

    def _ended(self, instance: _Instance, items: list[_Item], ended: _Ended) -> None:
        """In an instance's thread."""
        self._loop.call_soon_threadsafe(self._deliver, instance, items, ended)

    def _deliver(self, instance: _Instance, items: list[_Item], ended: _Ended) -> None:
        self._busy -= 1
        self._idle.append(instance)
        for item, outcome in zip(items, ended.outcomes, strict=True):
            if item.future.done():
                continue
            if isinstance(outcome, BaseException):
                item.future.set_exception(outcome)
            else:
                item.future.set_result(outcome)
        waited = [ended.began - item.arrived for item in items]
        samples = sum(item.samples for item in items)
        self._watch.ran(samples, len(items), waited, ended.seconds)
        self._pump()


class _Ended(NamedTuple):
    outcomes: list[Arrays | BaseException]
    began: float
    seconds: float


class _Instance:
    """A thread that runs batches, one after the other."""

    def __init__(self, run: Run, name: str, ended: Callable[..., None]) -> None:
        self._run = run
        self._tell = ended
        self._given: SimpleQueue[list[_Item] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"clinfer-serve-{name}", daemon=True)
        self._thread.start()

    def give(self, items: list[_Item]) -> None:
        self._given.put(items)

    def end(self) -> None:
        self._given.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (items := self._given.get()) is not None:
            began = perf_counter()
            outcomes = self._outcomes(items)
            self._tell(self, items, _Ended(outcomes, began, perf_counter() - began))

    def _outcomes(self, items: list[_Item]) -> list[Arrays | BaseException]:
        """One run for all. Where it fails each runs by itself: the error is of one of them."""
        try:
            if len(items) == 1:
                return [self._run(items[0].inputs)]
            columns = zip(*(item.inputs for item in items), strict=True)
            whole = self._run([np.concatenate(column) for column in columns])
            ends = np.cumsum([item.samples for item in items])
            return [
                [output[end - item.samples : end] for output in whole]
                for item, end in zip(items, ends, strict=True)
            ]
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [self._outcomes([item])[0] for item in items]


def _expire(future: asyncio.Future[Arrays], seconds: float) -> None:
    if not future.done():
        future.set_exception(RefusedError(TIMEOUT, f"no answer within {seconds:g} s"))
