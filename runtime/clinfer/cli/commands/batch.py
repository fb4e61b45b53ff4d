"""`clinfer batch`: a model over every row of files, into Parquet."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from clinfer.batch import job
from clinfer.cli import common, pictures, shapes
from clinfer.cli.caches import remembering_arguments
from clinfer.cli.output import emit_json, pace_text
from clinfer.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL SOURCE TARGET --column --output --workers --device --cache-dir ..."""
    common.model_argument(parser)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=Path,
        help="a Parquet or Arrow file, or a folder of such, or of pictures",
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        type=Path,
        help="a folder for the results; a run that was stopped goes on there",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="INPUT=COLUMN",
        help="the column of an input, where its name is another; repeatable",
    )
    parser.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="OUTPUT[=COLUMN]",
        help="an output that is wanted, and its column's name; repeatable (default: all)",
    )
    parser.add_argument(
        "--drop", action="store_true", help="write the results only, not the source's columns"
    )
    parser.add_argument(
        "--rows",
        type=common.positive_count,
        default=64,
        metavar="N",
        help="rows of one inference at most (default: 64)",
    )
    parser.add_argument(
        "--workers",
        choices=("here", "ray"),
        default="here",
        help="this process, or the Ray cluster that RAY_ADDRESS names (else one on this machine)",
    )
    parser.add_argument(
        "--device", metavar="DEVICE", help="default: what the scheduler assigns, else CPU"
    )
    remembering_arguments(parser)
    shapes.shape_argument(parser)
    pictures.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Runs every row; tells rows per second, and how many were set aside."""
    core = common.core(options)
    change = (options.shape, pictures.preparation(options))
    model = shapes.reshaped(core, options.model, *change)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "columns": dict(_pair(text, "--column") for text in options.column),
        "outputs": dict(_pair(text, "--output", True) for text in options.output) or None,
        "device": options.device,
        "config": {"CACHE_DIR": core.get_property("CACHE_DIR")},
        "batch_rows": options.rows,
        "keep": not options.drop,
    }
    workers = None if options.workers == "here" else options.workers
    report = job.run(
        options.source, model, options.target, workers=workers, progress=_shown(), **settings
    )
    seconds = time.perf_counter() - start
    if options.json:
        emit_json({**report._asdict(), "seconds": seconds, "target": str(options.target)})
        return 0
    print(
        f"{report.rows} rows in {options.target}, {report.pieces} pieces in {seconds:.1f} s"
        + (f", {report.resumed} were there" if report.resumed else "")
    )
    if report.rejected:
        print(f"{report.rejected} rows set aside in {options.target / 'rejected-*.parquet'}")
    return 0


def _pair(text: str, argument: str, alone: bool = False) -> tuple[str, str]:
    """'A=B' as A and B; 'A' means itself where that may stand `alone`."""
    name, sign, other = text.partition("=")
    if not name or (sign and not other) or not (sign or alone):
        raise InputError(f"{argument}: expected NAME=COLUMN; found '{text}'")
    return name, other or name


def _shown() -> job.Progress | None:
    """One line on a terminal, written anew after each piece."""
    if not sys.stderr.isatty():
        return None
    start = time.perf_counter()

    def show(done: int, total: int) -> None:
        end = "\n" if done >= total else ""
        pace = pace_text(done, total, time.perf_counter() - start)
        print(f"\r\x1b[K{done}/{total} rows{pace}", end=end, file=sys.stderr, flush=True)

    return show
