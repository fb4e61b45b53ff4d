"""What Prometheus is told. Labels hold names of loaded models only: clients cannot make more."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import time_ns
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from clinfer.core import Core
    from clinfer.serve.models import Version

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("decode", "queue", "run", "encode", "total")
_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_SAMPLES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_MODEL = ("model", "version")


class Histogram:
    """How many values are up to each of `ends` and above the one before, and their sum.

    A list and a search: prometheus_client's own takes a lock and a walk for each value, which in a
    request of a millisecond were a twentieth of it. Each is written by the event loop's thread.
    """

    __slots__ = ("_ends", "_numbers", "total")

    def __init__(self, ends: Sequence[float]) -> None:
        self._ends = ends
        self._numbers = [0] * (len(ends) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._numbers[bisect_left(self._ends, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self._numbers)

    def parts(self) -> list[tuple[str, int]]:
        """Each part's upper end, and how many are in it."""
        ends = [*map(floatToGoString, self._ends), "+Inf"]
        return list(zip(ends, list(self._numbers), strict=True))

    def tell(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Adds it to a family of Prometheus', whose buckets hold all below their end."""
        found, below = [], 0
        for end, number in self.parts():
            below += number
            found.append((end, below))
        family.add_metric(labels, found, self.total)


class Counts:
    """What is counted of a version; it stays where that is loaded anew (`batching.Watch`)."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.stages = {stage: Histogram(_SECONDS) for stage in STAGES}
        self.samples = Histogram(_SAMPLES)
        self.joined = Histogram(_SAMPLES)
        self.failed = Histogram(())  # requests, seconds; they are in "total" too
        self.last = 0  # when a run ended, milliseconds since 1970

    def ran(self, samples: int, requests: int, waited: Sequence[float], seconds: float) -> None:
        """Counts a run."""
        self.last = time_ns() // 1_000_000
        self.samples.observe(samples)
        self.joined.observe(requests)
        self.stages["run"].observe(seconds)
        for wait in waited:
            self.stages["queue"].observe(wait)

    def observe(self, stage: str, seconds: float) -> None:
        """Counts the time of a stage of a request."""
        self.stages[stage].observe(seconds)

    def ended(self, protocol: str, code: str, seconds: float) -> None:
        """Counts a request that is over."""
        self.requests[protocol, code] += 1
        self.stages["total"].observe(seconds)
        if code != "OK":
            self.failed.observe(seconds)


class Metrics:
    """The server's own registry, so that several servers may be in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._counts: dict[tuple[str, str], Counts] = {}

    def watch(self, core: Core, versions: Callable[[], Sequence[Version]]) -> None:
        """Adds what is asked of the cache and of the loaded models when somebody looks."""
        self.registry.register(_Looked(core, versions, self._counts))

    def of(self, model: str, number: int) -> Counts:
        """The counts of a version."""
        return self._counts.setdefault((model, str(number)), Counts())

    def forget(self, model: str, number: int) -> None:
        """Drops the counts of a version that is not served any more."""
        self._counts.pop((model, str(number)), None)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Looked:
    """A collector of prometheus_client: numbers that are asked for when somebody looks."""

    def __init__(
        self,
        core: Core,
        versions: Callable[[], Sequence[Version]],
        counts: dict[tuple[str, str], Counts],
    ) -> None:
        self._core = core
        self._versions = versions
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        yield from _of_requests(self._counts.copy())
        yield from _of_models(self._versions())
        yield from _of_caches(self._core.cache_statistics())


def _of_requests(found: dict[tuple[str, str], Counts]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "clinfer_requests",
        "Inference requests by protocol and the protocol's code",
        labels=(*_MODEL, "protocol", "code"),
    )
    seconds = HistogramMetricFamily(
        "clinfer_request_seconds", "Time of inference requests by stage", labels=(*_MODEL, "stage")
    )
    samples = HistogramMetricFamily("clinfer_batch_samples", "Samples in a run", labels=_MODEL)
    joined = HistogramMetricFamily("clinfer_batch_requests", "Requests in a run", labels=_MODEL)
    for named, counts in found.items():
        for how, number in counts.requests.copy().items():
            requests.add_metric((*named, *how), number)
        for stage, histogram in counts.stages.items():
            histogram.tell(seconds, (*named, stage))
        counts.samples.tell(samples, named)
        counts.joined.tell(joined, named)
    yield from (requests, seconds, samples, joined)


def _of_models(versions: Iterable[Version]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("clinfer_queue_requests", "Requests that wait", labels=_MODEL)
    weights = GaugeMetricFamily(
        "clinfer_model_weight_bytes", "Bytes of a model's weights", labels=(*_MODEL, "device")
    )
    load = GaugeMetricFamily(
        "clinfer_model_load_seconds", "How long loading or compiling took", labels=_MODEL
    )
    built = GaugeMetricFamily(
        "clinfer_model_programs_built", "Programs that were not in the cache", labels=_MODEL
    )
    memory = GaugeMetricFamily(
        "clinfer_device_memory_bytes", "A device's global memory in all", labels=("device",)
    )
    for version in versions:
        named = (version.name, str(version.number))
        waiting.add_metric(named, version.scheduler.waiting)
        load.add_metric(named, version.loaded.seconds)
        built.add_metric(named, sum(model.programs_built for model in version.loaded.compiled))
        for model in version.loaded.compiled:
            info = model.device.info
            weights.add_metric(
                (*named, info.name), sum(int(c.nbytes) for c in model.plan.constants)
            )
            memory.add_metric((info.name,), info.global_mem)
    yield from (waiting, weights, load, built, memory)


def _of_caches(caches: Iterable[Any]) -> Iterator[Metric]:
    hits = CounterMetricFamily("clinfer_cache_hits", "Entries found", labels=("cache",))
    misses = CounterMetricFamily(
        "clinfer_cache_misses", "Look-ups without result", labels=("cache", "reason")
    )
    for counts in caches:
        cache = str(counts["directory"] or counts["store"] or "CLINFER_CACHE_PATH")
        hits.add_metric((cache,), counts["hits"])
        for reason, number in counts["misses"].items():
            misses.add_metric((cache, reason), number)
    yield from (hits, misses)
