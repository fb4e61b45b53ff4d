"""`clinfer bench --profile`: time per kernel, and a trace that Perfetto opens."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from clinfer.cli.output import table

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.device.profile import StepTime

_RUNS = 10


def profile(compiled: CompiledModel, inputs: dict[str, Any], name: str, file: Path) -> list[Any]:
    """Rows per kernel by the median run, the slowest first; `file` gets the last run's trace."""
    from clinfer.device.profile import trace

    runs = []
    for _ in range(_RUNS):
        compiled(inputs)
        runs.append(compiled.profiling_info)
    steps = [
        replace(first, seconds=median(step.seconds for step in (first, *others)))
        for first, *others in zip(*runs, strict=True)
    ]
    file.write_text(json.dumps(trace(compiled.profiling_info, name)), encoding="utf-8")
    groups: dict[str, list[StepTime]] = defaultdict(list)
    for step in steps:
        groups[step.kernel or f"host: {step.label}"].append(step)
    total = sum(step.seconds for step in steps)
    rows = [_row(kernel, members, total) for kernel, members in groups.items()]
    return sorted(rows, key=lambda row: -row["ms"])


def show(rows: list[Any], file: Path) -> None:
    """The table for people."""
    table(rows, ["kernel", "launches", "ms", "share", "GFLOP/s", "GB/s", "slowest"])
    print(f"trace: {file} (open it in ui.perfetto.dev)")


def _row(kernel: str, steps: list[StepTime], total: float) -> dict[str, Any]:
    seconds = sum(step.seconds for step in steps)
    slowest = max(steps, key=lambda step: step.seconds)
    return {
        "kernel": kernel,
        "launches": len(steps),
        "ms": seconds * 1e3,
        "share": f"{seconds / total:.1%}" if total else "-",
        "GFLOP/s": sum(step.flops for step in steps) / seconds / 1e9 if seconds else 0.0,
        "GB/s": sum(step.nbytes for step in steps) / seconds / 1e9 if seconds else 0.0,
        "slowest": f"{slowest.label} ({slowest.seconds * 1e3:.3g} ms)",
    }
