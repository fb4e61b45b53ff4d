"""Claims: of several machines that fill one remote store, one makes an entry and the others do not.

    URL/workers/WORKER          a number that its worker writes anew, one more each time
    URL/claims/NAME.WORKER      the worker is making what is called so

A worker marks, then looks: it has the claim if nobody else's mark is there. Of two, each of which
looks after it has marked, at least one sees the other, so never do both have it; whoever sees
another takes its mark back, the one with the smaller name after having waited for the other to do
so. That takes a store whose listings show what was written before (S3, GCS, Azure, folders), and
neither locks nor clocks that agree. (L. Lamport, A new solution of Dijkstra's concurrent
programming problem, 1974, has the marks that are written before one looks.)

A worker is dead to another that has seen its number unchanged for the time of a lease, by its own
clock; its marks count no more. One that was only slow makes an entry a second time, equal to the
first. Whatever dies leaves marks and a number, which mean nothing after a lease.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from threading import Event, Lock, Thread
from types import TracebackType
from typing import TypeVar

from clinfer.cache.stats import Reason
from clinfer.cache.transfer import Objects, TransferError
from clinfer.errors import CacheError

T = TypeVar("T")

LEASE_SECONDS = 30.0
_BEATS = 6  # numbers written in the time of a lease
_LOOKS = 10
_PAUSE = 0.05
_ATTEMPTS = 3
_NAME_BYTES = 8
_NUMBER_BYTES = 20


class Claims:
    """One worker's claims in a store, in a `with` statement. Any thread may use it.

    `lease` is in seconds. Raises CacheError where the store takes or gives no answer, three times.
    """

    def __init__(
        self,
        objects: Objects,
        lease: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._lease = lease
        self._clock = clock
        self._lock = Lock()
        self._seen: dict[str, tuple[bytes, float]] = {}  # numbers, and since when unchanged
        self._held: set[str] = set()
        self._ended = Event()
        self._number = 0
        self.worker = os.urandom(_NAME_BYTES).hex()

    def __enter__(self) -> Claims:
        self._attempt(self._beat)
        Thread(target=self._beats, name="clinfer-fleet", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def take(self, name: str) -> bool:
        """Claims a name; False where another worker that lives has it."""
        if self._holders(name):
            return False
        mark = self._mark(name)
        with self._lock:
            self._held.add(name)
        self._attempt(lambda: self._objects.write(mark, b""))
        for _ in range(_LOOKS):
            others = self._holders(name)
            if not others:
                return True
            if min(others) < self.worker:
                break
            time.sleep(_PAUSE)
        self.release(name)
        return False

    def release(self, name: str) -> None:
        """Gives a claim back."""
        self._attempt(lambda: self._objects.remove(self._mark(name)))
        with self._lock:
            self._held.discard(name)

    def leave(self) -> None:
        """Gives back all claims; others see this worker no more. As far as that can be done."""
        self._ended.set()
        with suppress(TransferError):
            for name in list(self._held):
                self._objects.remove(self._mark(name))
            self._objects.remove(f"workers/{self.worker}")

    def wait(self) -> None:
        """A moment, for others to go on."""
        time.sleep(min(1.0, self._lease / _BEATS))

    def is_last(self) -> bool:
        """Whether no other worker lives, as far as is known; of workers that leave one hears so."""
        names = self._attempt(lambda: self._objects.names("workers"))
        return not self._living(names)

    def clear(self, folders: Iterable[str]) -> None:
        """Removes what dead workers have left, and those folders; for the last that lives."""

        def clean() -> None:
            for folder in ("workers", "claims", *folders):
                self._objects.remove_all(folder)

        self._attempt(clean)

    def _mark(self, name: str) -> str:
        return f"claims/{name}.{self.worker}"

    def _holders(self, name: str) -> list[str]:
        """The other workers that live and have marked a name; marks of dead ones are removed."""
        marks = self._attempt(lambda: self._objects.names("claims"))
        pairs = [mark.rpartition(".") for mark in marks]
        workers = [worker for marked, _, worker in pairs if marked == name]
        living = self._living(workers)
        for worker in set(workers).difference(living, [self.worker]):
            self._attempt(partial(self._objects.remove, f"claims/{name}.{worker}"))
        return living

    def _living(self, workers: Iterable[str]) -> list[str]:
        others = (worker for worker in workers if worker != self.worker)
        return [worker for worker in others if self._attempt(partial(self._lives, worker))]

    def _lives(self, worker: str) -> bool:
        """Whether a worker's number is there, and has changed within a lease."""
        try:
            number = bytes(self._objects.read(f"workers/{worker}", _NUMBER_BYTES))
        except TransferError as error:
            if error.reason is Reason.ABSENT:
                return False
            raise
        now = self._clock()
        with self._lock:
            before, since = self._seen.get(worker, (b"", now))
            if before != number:
                since = now
            self._seen[worker] = (number, since)
        return now - since <= self._lease

    def _beat(self) -> None:
        self._number += 1
        self._objects.write(f"workers/{self.worker}", str(self._number).encode())

    def _beats(self) -> None:
        """Writes the number, and looks at those of others, until the claims end."""
        while not self._ended.wait(self._lease / _BEATS):
            with suppress(TransferError):
                self._beat()
                if self._ended.is_set():  # the store is slow: what was removed is there again
                    self._objects.remove(f"workers/{self.worker}")
                    return
                for worker in self._objects.names("workers"):
                    self._lives(worker)

    def _attempt(self, call: Callable[[], T], left: int = _ATTEMPTS) -> T:
        """What the call gives; a fault that may pass costs another attempt."""
        try:
            return call()
        except TransferError as error:
            if left <= 1 or not error.lasting:
                raise CacheError(f"the fleet's store {self._objects.place}: {error}") from None
        time.sleep(1.0)
        return self._attempt(call, left - 1)
