"""`clinfer bench -report_type`: what was measured as CSV files, a row per measurement or kernel."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinfer.cli.common import writing


def write_reports(report: dict[str, Any], folder: Path) -> list[str]:
    """The files written: benchmark_report.csv, and with kernels one of their average times.

    Raises `ClinferError` naming the folder where it cannot be written.
    """
    common = {"model": report["model"], "device": report["device"]}
    rows = [{**common, **_flat(row)} for row in report["measurements"]]
    files = {"benchmark_report.csv": rows}
    if "kernels" in report:
        files["benchmark_average_counters_report.csv"] = report["kernels"]
    with writing("-report_folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / name, rows) for name, rows in files.items()]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A measurement with a column for each latency: 'latency_median_ms' ..."""
    latency = {f"latency_{name}_ms": ms for name, ms in row["latency_ms"].items()}
    return {**{name: value for name, value in row.items() if name != "latency_ms"}, **latency}


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)
