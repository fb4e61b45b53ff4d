"""What Prometheus is told. Labels hold names of loaded models only: clients cannot make more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from clinfer.core import Core
    from clinfer.serve.models import Version

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("decode", "queue", "run", "encode", "total")
_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MODEL = ("model", "version")


class Metrics:
    """The server's own registry, so that several servers may be in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        more: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "clinfer_requests",
            "Inference requests by protocol and the protocol's code",
            (*_MODEL, "protocol", "code"),
            **more,
        )
        self.seconds = Histogram(
            "clinfer_request_seconds",
            "Time of inference requests by stage",
            (*_MODEL, "stage"),
            buckets=_SECONDS,
            **more,
        )
        self.samples = Histogram(
            "clinfer_batch_samples", "Samples in a run", _MODEL, buckets=_SAMPLES, **more
        )
        self.joined = Histogram(
            "clinfer_batch_requests", "Requests in a run", _MODEL, buckets=_SAMPLES, **more
        )

    def watch(self, core: Core, versions: Callable[[], Sequence[Version]]) -> None:
        """Adds what is asked of the cache and of the loaded models when somebody looks."""
        self.registry.register(_Looked(core, versions))

    def forget(self, model: str, version: str) -> None:
        """Drops the series of a version that is not served any more."""
        for metric in (self.requests, self.seconds, self.samples, self.joined):
            metric.remove_by_labels({"model": model, "version": version})

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def counts(self, model: str, version: str, stage: str = "total") -> list[tuple[str, int]]:
        """A stage's histogram: each bucket's upper end in seconds, and how many are in it."""
        wanted = {"model": model, "version": version, "stage": stage}
        found, below = [], 0.0
        for sample in next(iter(self.seconds.collect())).samples:
            if sample.name.endswith("_bucket") and wanted.items() <= sample.labels.items():
                found.append((sample.labels["le"], int(sample.value - below)))
                below = sample.value
        return found


class _Looked:
    """A collector of prometheus_client: numbers that are asked for, not counted."""

    def __init__(self, core: Core, versions: Callable[[], Sequence[Version]]) -> None:
        self._core = core
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        yield from _of_models(self._versions())
        yield from _of_caches(self._core.cache_statistics())


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
