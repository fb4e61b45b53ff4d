"""One queue for a model's requests, from which instances take what they can run as one.

Requests are put in by the event loop's thread. An instance that has ended a run takes the next by
itself, at once where `delay` is 0: batches then grow by themselves, as requests arrive while a run
is on. Method: dynamic batching as Triton documents it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
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

    __slots__ = ("arrived", "deadline", "future", "inputs", "key", "samples", "seconds")

    def __init__(
        self, inputs: Arrays, gathers: bool, future: asyncio.Future[Arrays], seconds: float
    ) -> None:
        self.inputs = inputs
        self.future = future
        self.arrived = perf_counter()
        self.seconds = seconds
        self.deadline = self.arrived + seconds
        self.samples = len(inputs[0]) if inputs and inputs[0].ndim else 1
        self.key = tuple(a.shape[1:] for a in inputs) if gathers else ()


class Scheduler:
    """A model's queue and its instances, one thread each; `submit` in the event loop's thread."""

    def __init__(self, runs: Sequence[Run], rules: Rules, watch: Watch, name: str) -> None:
        self._rules = rules
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()  # of the four below
        self._queue: deque[_Item] = deque()
        self._idle = [_Instance(run, f"{name}-{n}", self._next) for n, run in enumerate(runs)]
        self._busy = 0
        self._ended: list[tuple[list[_Item], _Ended]] = []  # what the loop has not been told of
        self._open: set[_Item] = set()
        self._giving: asyncio.Handle | None = None
        self._delay: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.is_closing = False

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._queue)

    async def submit(self, inputs: Arrays, seconds: float) -> Arrays:
        """The outputs of a request. Raises `RefusedError` where the queue is full or time is over.

        A caller that is cancelled leaves the queue; a run that is on is not stopped.
        """
        if self.is_closing:
            raise RefusedError(UNAVAILABLE, "the model is being unloaded")
        item = _Item(inputs, self._rules.gathers, self._loop.create_future(), seconds)
        self._require_samples(item)
        with self._lock:
            self._require_room()
            self._queue.append(item)
            if not self._rules.gathers:
                self._give()
        if self._rules.gathers and self._giving is None:  # with all that this turn of the loop has
            self._giving = self._loop.call_soon(self._due)
        self._open.add(item)
        self._expire_at(item.deadline)
        try:
            return await item.future
        finally:
            self._open.discard(item)
            item.future.cancel()

    def _require_samples(self, item: _Item) -> None:
        most = self._rules.max_batch
        if not most:
            return
        if item.samples > most or item.samples < 1:
            raise InputError(f"{item.samples} samples in a request, 1 to {most} may be")
        if any(array.ndim == 0 or len(array) != item.samples for array in item.inputs):
            raise InputError("the inputs' first sizes differ; each is the number of samples")

    def _require_room(self) -> None:
        most = self._rules.max_queue
        if len(self._queue) >= most:
            self._queue = deque(item for item in self._queue if not item.future.done())
        if len(self._queue) >= most:
            raise RefusedError(
                UNAVAILABLE, f"{len(self._queue)} requests are waiting, the most that may"
            )

    async def close(self) -> None:
        """Takes nothing more; ends when what waits has been run, and the threads with it."""
        self.is_closing = True
        self._due()
        while self._queue or self._busy or self._ended:
            await asyncio.sleep(0.01)
        for instance in self._idle:
            instance.end()
        self._idle = []
        if self._expiry is not None:
            self._expiry.cancel()

    # --- what the next run is of; with the lock -----------------------------------------------

    def _give(self) -> None:
        """Hands what waits to instances that are idle. In the loop's thread."""
        while self._idle and (items := self._taken()):
            self._busy += 1
            self._idle.pop().give(items)

    def _taken(self) -> list[_Item]:
        """What is to be run next, out of the queue; nothing where that waits for more."""
        queue = self._queue
        while queue and queue[0].future.done():
            queue.popleft()
        if not queue:
            return []
        if not self._rules.gathers:
            return [queue.popleft()]
        chosen = self._chosen(queue[0])
        left = queue[0].arrived + self._rules.delay - perf_counter()
        full = sum(item.samples for item in chosen) >= self._rules.max_batch
        if left > 0 and not full and not self.is_closing:
            if self._delay is None:
                self._loop.call_soon_threadsafe(self._due_in, left)
            return []
        taken = set(chosen)
        self._queue = deque(item for item in queue if item not in taken)
        return chosen

    def _chosen(self, head: _Item) -> list[_Item]:
        """The oldest request, and those behind it that may run with it, up to the limit."""
        chosen: list[_Item] = []
        samples = 0
        for item in self._queue:
            fits = item.key == head.key and samples + item.samples <= self._rules.max_batch
            if fits and not item.future.done():
                chosen.append(item)
                samples += item.samples
                if samples == self._rules.max_batch:
                    break
        return chosen

    def _next(self, instance: _Instance, items: list[_Item], ended: _Ended) -> list[_Item]:
        """Takes what an instance has run, and gives it the next. In the instance's thread.

        It does not wait for the loop, which has the requests of others to read meanwhile.
        """
        with self._lock:
            is_told = bool(self._ended)
            self._ended.append((items, ended))
            following = self._taken()
            if not following:
                self._busy -= 1
                self._idle.append(instance)
        if not is_told:
            self._loop.call_soon_threadsafe(self._deliver)
        return following

    # --- in the loop's thread -----------------------------------------------------------------

    def _due_in(self, seconds: float) -> None:
        if self._delay is None:
            self._delay = self._loop.call_later(seconds, self._due)

    def _due(self) -> None:
        self._giving = None
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        with self._lock:
            self._give()

    def _deliver(self) -> None:
        with self._lock:
            runs, self._ended = self._ended, []
        for items, ended in runs:
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

    def _expire_at(self, deadline: float) -> None:
        """One timer for all requests: at most the earliest deadline is waited for."""
        when = self._loop.time() + max(0.0, deadline - perf_counter())
        if self._expiry is not None:
            if self._expiry.when() <= when:
                return
            self._expiry.cancel()
        self._expiry = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        now = perf_counter()
        for item in self._open:
            if item.deadline <= now and not item.future.done():
                said = f"no answer within {item.seconds:g} s"
                item.future.set_exception(RefusedError(TIMEOUT, said))
        left = [item.deadline for item in self._open if not item.future.done()]
        if left:
            self._expire_at(min(left))


class _Ended(NamedTuple):
    outcomes: list[Arrays | BaseException]
    began: float
    seconds: float


class _Instance:
    """A thread that runs batches, one after the other; `following` gives the next of a batch."""

    def __init__(
        self,
        run: Run,
        name: str,
        following: Callable[[_Instance, list[_Item], _Ended], list[_Item]],
    ) -> None:
        self._run = run
        self._following = following
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
            while items:
                items = self._ran(items)

    def _ran(self, items: list[_Item]) -> list[_Item]:
        """Runs a batch; gives the next. Nothing of a batch stays in the thread that waits."""
        began = perf_counter()
        outcomes = self._outcomes(items)
        return self._following(self, items, _Ended(outcomes, began, perf_counter() - began))

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
