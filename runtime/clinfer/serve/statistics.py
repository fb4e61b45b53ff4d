"""The statistics extension of the protocol, from what is counted for Prometheus.

Source of the names: Triton's documentation of the extension. `compute_input` is what reading a
request takes here, `compute_output` what writing its answer takes; there is no cache of answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clinfer.serve.metrics import Histogram
from clinfer.serve.models import Version

_NONE = Histogram(())


def statistics(versions: Iterable[Version]) -> dict[str, Any]:
    """A row for each version since it was first loaded; times in nanoseconds."""
    return {"model_stats": [_row(version) for version in versions]}


def _row(version: Version) -> dict[str, Any]:
    counts, stages = version.counts, version.counts.stages
    return {
        "name": version.name,
        "version": str(version.number),
        "last_inference": counts.last,
        "inference_count": int(counts.samples.total),
        "execution_count": counts.samples.count,
        "inference_stats": {
            "success": _duration(stages["total"], counts.failed),
            "fail": _duration(counts.failed),
            "queue": _duration(stages["queue"]),
            "compute_input": _duration(stages["decode"]),
            "compute_infer": _duration(stages["run"]),
            "compute_output": _duration(stages["encode"]),
            "cache_hit": _duration(_NONE),
            "cache_miss": _duration(_NONE),
        },
        "batch_stats": [],
    }


def _duration(times: Histogram, less: Histogram = _NONE) -> dict[str, int]:
    return {
        "count": times.count - less.count,
        "ns": max(0, round(1e9 * (times.total - less.total))),
    }
