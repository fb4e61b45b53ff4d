"""`clinfer warm`: fills a cache ahead of deployment."""

from __future__ import annotations

import argparse
import time
from typing import Any

from clinfer.cli import common
from clinfer.cli.output import emit_json, progress, table
from clinfer.errors import ClinferError, PropertyError

HELP = "compile models into a cache directory, so that their first start compiles nothing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL... --device --cache-dir --shape."""
    common.model_argument(parser, many=True)
    common.device_argument(parser)
    common.shape_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Compiles each model; one that fails is reported and does not stop the others."""
    core = common.core(options)
    if not core.get_property("CACHE_DIR"):
        raise PropertyError("no cache to fill: give --cache-dir DIR or set CLINFER_CACHE_DIR")
    rows = []
    with progress("warm", len(options.model), quiet=options.json) as done:
        for path in options.model:
            rows.append(_warm(core, path, options))
            done.step(f"{path}: {rows[-1]['result']}")
    failed = [row for row in rows if row["error"]]
    if options.json:
        emit_json({"models": rows, "failed": len(failed)})
    else:
        table(rows, ["model", "result", "programs", "built", "seconds"])
        for row in failed:
            print(f"{row['model']}: {row['error']}")
    return 1 if failed else 0


def _warm(core: Any, path: Any, options: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    row = {"model": str(path), "result": "failed", "programs": 0, "built": 0, "error": ""}
    try:
        model = common.reshaped(core, path, options.shape)
        compiled = core.compile_model(model, options.device)
    except ClinferError as error:
        row["error"] = str(error)
    else:
        cached = compiled.get_property("LOADED_FROM_CACHE") or compiled.programs_built == 0
        row["result"] = "was warm" if cached else "warmed"
        row["programs"] = len(compiled.plan.programs)
        row["built"] = compiled.programs_built
    return {**row, "seconds": round(time.perf_counter() - start, 3)}
