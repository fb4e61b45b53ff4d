"""`clinfer tune`: measures the kernel candidates of models on a device, and keeps the choices."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.cli import common, pictures, shapes
from clinfer.cli.caches import remembering_arguments
from clinfer.cli.output import complain, emit_json, progress, table
from clinfer.errors import ClinferError, PropertyError

if TYPE_CHECKING:
    from clinfer.core import Core
    from clinfer.plugins.tune import Tuned
    from clinfer.plugins.tuning import Timing

DEFAULT_SECONDS = 60.0
_SHOWN = 12


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL... --device --cache-dir --store --shape --input --seconds."""
    common.model_argument(parser, many=True)
    common.device_argument(parser)
    remembering_arguments(parser)
    common.store_argument(parser)
    shapes.shape_argument(parser)
    pictures.arguments(parser)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="what to measure with; default: random values, named sizes as 1",
    )
    parser.add_argument(
        "--seconds",
        type=common.positive_seconds,
        default=DEFAULT_SECONDS,
        help=f"time to measure per model; default: {DEFAULT_SECONDS:g}",
    )


def run(options: argparse.Namespace) -> int:
    """Tunes each model; one that fails is reported and does not stop the others."""
    core = common.core(options)
    if not core.get_property("CACHE_DIR") and not core.get_property("CACHE_STORE"):
        raise PropertyError("no cache to keep the choices in: give --cache-dir DIR")
    rows = [_tune(core, path, options.device, options) for path in dict.fromkeys(options.model)]
    failed = [row for row in rows if "error" in row]
    if options.json:
        emit_json({"models": rows, "failed": len(failed)})
    else:
        for row in rows:
            if "error" not in row:
                _print(row)
    for row in failed:
        complain(f"{row['model']}: {row['error']}")
    return 1 if failed else 0


def _tune(core: Core, path: Path, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """What became of a model as plain data, with 'error' where it failed."""
    row: dict[str, Any] = {"model": str(path)}
    try:
        model = core.read_model(path)
        shapes.reshape(model, options.shape, pictures.preparation(options))
        inputs = common.inputs_for(model.inputs, options.input, common.planned(model, device))
        watch = partial(progress, quiet=options.json)
        found = core.tune(model, device, inputs, watch, options.seconds)
    except ClinferError as error:
        return {**row, "error": str(error)}
    assert found is not None
    return {**row, **describe(found)}


def describe(found: Tuned) -> dict[str, Any]:
    """Plain data: times in ms of an inference's kernels, and each problem's candidates."""
    return {
        "untuned_ms": found.untuned * 1e3,
        "tuned_ms": found.tuned * 1e3,
        "changed": found.changed,
        "problems": [_problem(timing) for timing in found.problems],
        "notes": list(found.notes),
    }


def _problem(timing: Timing) -> dict[str, Any]:
    known = timing.seconds[timing.default]
    best = timing.seconds[timing.chosen]
    return {
        "problem": timing.name,
        "default": timing.candidates[timing.default],
        "chosen": timing.candidates[timing.chosen],
        "default_ms": None if known is None else known * 1e3,
        "chosen_ms": None if best is None else best * 1e3,
        "all_ms": [None if s is None else s * 1e3 for s in timing.seconds],
    }


def _print(row: dict[str, Any]) -> None:
    count = len(row["problems"])
    print(
        f"{row['model']}: kernels {row['untuned_ms']:.3f} ms untuned, {row['tuned_ms']:.3f} ms "
        f"tuned; {row['changed']} of {count} choices changed"
    )
    changed = [item for item in row["problems"] if item["chosen"] != item["default"]]
    changed.sort(key=lambda item: item["chosen_ms"] - item["default_ms"])
    if changed:
        table(changed[:_SHOWN], ["problem", "default_ms", "chosen_ms", "chosen"])
    for note in row["notes"]:
        print(f"  {note}")
