"""`clinfer bench --profile`: time per kernel, and a trace that Perfetto opens."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from clinfer.cli.common import writing
from clinfer.cli.output import table

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.device.profile import StepTime
    from clinfer.plugins.peaks import Peaks

_RUNS = 10


def profile(
    compiled: CompiledModel, inputs: dict[str, Any], name: str, file: Path | None
) -> tuple[list[Any], Peaks]:
    """Rows per kernel by the median run, the slowest first, and the device's peaks in this run.

    `file` gets the last run's trace. Raises `ClinferError` where it cannot be written.
    """
    from clinfer.device.profile import trace
    from clinfer.plugins.peaks import Roofs

    roofs = Roofs(compiled.device)
    roofs.measure()
    runs = []
    for _ in range(_RUNS):
        compiled(inputs)
        runs.append(compiled.profiling_info)
    peaks = roofs.measure()
    steps = [
        replace(first, seconds=median(step.seconds for step in (first, *others)))
        for first, *others in zip(*runs, strict=True)
    ]
    if file is not None:
        with writing("--profile", file):
            file.write_text(json.dumps(trace(compiled.profiling_info, name)), encoding="utf-8")
    groups: dict[str, list[StepTime]] = defaultdict(list)
    for step in steps:
        groups[step.kernel or f"host: {step.label}"].append(step)
    total = sum(step.seconds for step in steps)
    rows = [_row(kernel, members, total, peaks) for kernel, members in groups.items()]
    return sorted(rows, key=lambda row: -row["ms"]), peaks


def show(rows: list[Any], peaks: dict[str, float], file: Path | None) -> None:
    """The table for people. What caches deliver may be more than the copy's 100 %."""
    shown = [_shown(row) for row in rows]
    table(shown, ["kernel", "launches", "ms", "share", "GFLOP/s", "GB/s", "of peak", "slowest"])
    print(
        f"peak: {peaks['gflops']:.0f} GFLOP/s in an FMA loop, {peaks['gigabytes']:.0f} GB/s in a "
        "copy (read and written), both in this run"
    )
    if file is not None:
        print(f"trace: {file} (open it in ui.perfetto.dev)")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row for people."""
    share, peak = row["share"], row["of peak"]
    return {
        **row,
        "share": "-" if share is None else f"{share:.1%}",
        "of peak": "-" if peak is None else f"{peak:.0%} {row['peak']}",
        "slowest": f"{row['slowest']} ({row['slowest_ms']:.3g} ms)",
    }


def _row(kernel: str, steps: list[StepTime], total: float, peaks: Peaks) -> dict[str, Any]:
    seconds = sum(step.seconds for step in steps)
    slowest = max(steps, key=lambda step: step.seconds)
    flops, nbytes = sum(step.flops for step in steps), sum(step.nbytes for step in steps)
    share, roof = peaks.share(flops, nbytes, seconds)
    return {
        "kernel": kernel,
        "launches": len(steps),
        "ms": seconds * 1e3,
        "share": seconds / total if total else None,
        "GFLOP/s": flops / seconds / 1e9 if seconds else 0.0,
        "GB/s": nbytes / seconds / 1e9 if seconds else 0.0,
        "of peak": share if steps[0].kernel else None,
        "peak": roof if steps[0].kernel else "",
        "slowest": slowest.label,
        "slowest_ms": slowest.seconds * 1e3,
    }
