"""`clinfer warm`: fills a cache ahead of deployment."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from clinfer.cli import common
from clinfer.cli.output import emit_json, progress, table
from clinfer.errors import ClinferError, PropertyError

if TYPE_CHECKING:
    from clinfer.core import Core

HELP = "compile models into a cache directory, so that their first start compiles nothing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL... --device --cache-dir --store --shape."""
    common.model_argument(parser, many=True)
    common.device_argument(parser)
    common.store_argument(parser)
    common.shape_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Compiles each model; one that fails is reported and does not stop the others."""
    core = common.core(options)
    url = core.get_property("CACHE_STORE")
    if not core.get_property("CACHE_DIR") and not url:
        raise PropertyError(
            "no cache to fill: give --cache-dir DIR or --store URL, or set CLINFER_CACHE_DIR"
        )
    if url:
        from clinfer.cache.remote import RemoteStore

        RemoteStore(url).connect()
    rows = []
    with progress("warm", len(options.model), quiet=options.json) as done:
        for path in options.model:
            rows.append(_warm(core, path, options))
            done.step(f"{path}: {rows[-1]['result']}")
    failed = [row for row in rows if row["error"]]
    unpushed = _unpushed(core)
    if options.json:
        emit_json({"models": rows, "failed": len(failed), "unpushed": unpushed})
    else:
        table(rows, ["model", "result", "programs", "built", "seconds"])
        for row in failed:
            print(f"{row['model']}: {row['error']}")
        for reason, count in unpushed.items():
            print(f"{count} entries were not pushed to the remote store: {reason}")
    return 1 if failed or unpushed else 0


def _unpushed(core: Core) -> dict[str, int]:
    """How many entries the remote store did not take, by reason."""
    found: Counter[str] = Counter()
    for statistics in core.cache_statistics():
        found.update((statistics["remote"] or {}).get("unstored", {}))
    return dict(found)


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
