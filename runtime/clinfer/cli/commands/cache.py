"""`clinfer cache`: what a cache directory holds, whether it is intact, and emptying it."""

from __future__ import annotations

import argparse
from typing import Any

from clinfer import config
from clinfer.cli.output import emit_json, size_text, table
from clinfer.errors import PropertyError

HELP = "list, verify or clear a cache directory"


def arguments(parser: argparse.ArgumentParser) -> None:
    """list | verify | clear, --cache-dir."""
    parser.add_argument("action", choices=sorted(_ACTIONS))
    parser.add_argument("--cache-dir", metavar="DIR", help="default: CLINFER_CACHE_DIR")


def run(options: argparse.Namespace) -> int:
    """Runs one action on one directory."""
    from clinfer.cache.store import Store

    directory = options.cache_dir or config.CACHE_DIR.get()
    if not directory:
        raise PropertyError("which cache? give --cache-dir DIR or set CLINFER_CACHE_DIR")
    return _ACTIONS[options.action](Store(directory), options.json)


def _list(store: Any, as_json: bool) -> int:
    rows = [
        {
            "entry": info.digest[:12],
            "kind": info.record.kind,
            "what": str(info.record.get("entry") or str(info.record.get("model"))[:12]),
            "device": str(info.record.get("device") or ""),
            "size": info.size,
        }
        for info in store.entries()
    ]
    if as_json:
        emit_json(rows)
        return 0
    for row in rows:
        row["size"] = size_text(int(str(row["size"])))
    if rows:
        table(rows, list(rows[0]))
    print(f"{len(rows)} entries in {store.directory}")
    return 0


def _verify(store: Any, as_json: bool) -> int:
    problems = list(store.verify())
    rows = [{"entry": p.digest[:12], "reason": str(p.reason), "detail": p.detail} for p in problems]
    if as_json:
        emit_json({"problems": rows})
    else:
        if rows:
            table(rows, list(rows[0]))
        print(f"{len(rows)} damaged entries in {store.directory}")
    return 1 if rows else 0


def _clear(store: Any, as_json: bool) -> int:
    removed = store.clear()
    if as_json:
        emit_json({"removed": str(removed)})
    else:
        print(f"removed {removed} from {store.directory}")
    return 0


_ACTIONS = {"list": _list, "verify": _verify, "clear": _clear}
