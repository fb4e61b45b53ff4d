"""`clinfer check`: reads and lowers models, builds nothing; says what would run on the host."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.cli import common, shapes
from clinfer.cli.output import emit_json, table
from clinfer.errors import ClinferError

if TYPE_CHECKING:
    from clinfer.core import Core
    from clinfer.device.lock import Described

FAILED = 1
ON_HOST = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL... --device --device-lock --shape --allow-host-steps."""
    parser.epilog = (
        "exit codes: 0 all runs on the device; 1 a model cannot be compiled; 3 host steps"
    )
    common.model_argument(parser, many=True)
    common.locked_device_argument(parser)
    shapes.shape_argument(parser)
    parser.add_argument(
        "--allow-host-steps", action="store_true", help="list them, with exit code 0 all the same"
    )


def run(options: argparse.Namespace) -> int:
    """A row per model, a line per host step. The exit code is that of the worst model."""
    from clinfer.device.discover import open_device

    core = common.core(options)
    target = core.get_property("CPU_TARGET")
    device = common.locked_device(options) or open_device(options.device, target)
    rows = [_check(core, path, device, options.shape) for path in options.model]
    if options.json:
        emit_json(rows)
    else:
        _print(rows)
    if any(row["result"] == "failed" for row in rows):
        return FAILED
    on_host = any(row["host_steps"] for row in rows)
    return ON_HOST if on_host and not options.allow_host_steps else 0


def _check(
    core: Core, path: Path, device: Described, asked: list[tuple[str, Any]]
) -> dict[str, Any]:
    from clinfer.plugins.compiler import draft_model

    row: dict[str, Any] = {"model": str(path), "result": "device", "host_steps": [], "error": ""}
    try:
        model = core.read_model(path)
        shapes.reshape(model, asked)
        steps = list(draft_model(model, device).plan.host_steps)
    except ClinferError as error:
        return {**row, "result": "failed", "error": str(error)}
    if steps:
        row["result"] = "host steps"
        row["host_steps"] = [{"computes": step.label, "reason": step.reason} for step in steps]
    return row


def _print(rows: list[dict[str, Any]]) -> None:
    shown = [{**row, "host steps": len(row["host_steps"])} for row in rows]
    table(shown, ["model", "result", "host steps"])
    for row in rows:
        if row["error"]:
            print(f"{row['model']}: {row['error']}")
        for step in row["host_steps"]:
            print(f"{row['model']}: {step['computes']}: {step['reason']}")
