"""How fast a compiled model runs: requests side by side, for a time or a number of inferences."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel

_WARM_UP = 3  # runs of each request, of which the first binds the sizes
_POINTS = {"min": 0, "median": 50, "p90": 90, "p99": 99, "max": 100}


class Effort(NamedTuple):
    """How long to measure: until the time is over and all of the inferences are done.

    None stands for no such limit; with neither nothing is measured.
    """

    seconds: float | None
    iterations: int | None

    def goes_on(self, since: float, number: int) -> bool:
        """Whether inference `number`, from 0, is still to be made."""
        early = self.seconds is not None and time.perf_counter() - since < self.seconds
        return early or (self.iterations is not None and number < self.iterations)


class Measured(NamedTuple):
    """Inferences made, the seconds they took together, and the ms of each."""

    requests: int
    iterations: int
    seconds: float
    latency_ms: dict[str, float]

    @property
    def per_second(self) -> float:
        """Inferences a second, of all requests together."""
        return self.iterations / self.seconds


def measure(
    compiled: CompiledModel,
    feeds: Sequence[dict[str, Any]],
    requests: int,
    effort: Effort,
) -> Measured:
    """Runs the model with that many requests side by side; `feeds` are used in turn.

    Each request is a thread's own and starts its next inference when the last is done, so that a
    latency includes waiting for the device.
    """
    from concurrent.futures import ThreadPoolExecutor

    made = [compiled.create_infer_request() for _ in range(requests)]
    for request in made:
        for feed in (*feeds, *[feeds[0]] * (_WARM_UP - len(feeds))):
            request.infer(feed)
    numbers = count()
    start = time.perf_counter()

    def work(request: Any) -> list[float]:
        times: list[float] = []
        while effort.goes_on(start, number := next(numbers)):
            begin = time.perf_counter()
            request.infer(feeds[number % len(feeds)])
            times.append((time.perf_counter() - begin) * 1e3)
        return times

    if requests == 1:
        times = work(made[0])
    else:
        with ThreadPoolExecutor(requests) as pool:
            times = [ms for part in pool.map(work, made) for ms in part]
    seconds = time.perf_counter() - start
    latency = {name: float(np.percentile(times, point)) for name, point in _POINTS.items()}
    latency["average"] = float(np.mean(times))
    return Measured(requests, len(times), seconds, latency)
