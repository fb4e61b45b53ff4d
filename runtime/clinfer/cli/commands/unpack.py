"""`clinfer unpack`: a pack's entries into a cache, after their signature has been checked."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from clinfer import config
from clinfer.cli import common
from clinfer.cli.output import emit_json, progress, size_text
from clinfer.errors import PropertyError


def arguments(parser: argparse.ArgumentParser) -> None:
    """PACK --cache-dir --trust --allow-unsigned --allow-older --pin --limit."""
    parser.add_argument(
        "pack", type=Path, metavar="PACK", help="a pack file, OCI layout or cache directory"
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="default: CLINFER_CACHE_DIR")
    common.trust_arguments(parser)
    parser.add_argument("--pin", action="store_true", help="exempt the entries from eviction")
    parser.add_argument(
        "--limit",
        type=common.size_bytes,
        metavar="SIZE",
        help="take at most this much, say 2G; default: 256G",
    )


def run(options: argparse.Namespace) -> int:
    """Checks the index, then each entry as it is copied."""
    from clinfer.cache.index import LIMITS
    from clinfer.cache.pack import Pack
    from clinfer.cache.packing import unpack
    from clinfer.cache.store import Store

    directory = options.cache_dir or config.CACHE_DIR.get()
    if not directory:
        raise PropertyError("into which cache? give --cache-dir DIR or set CLINFER_CACHE_DIR")
    limits = LIMITS if options.limit is None else replace(LIMITS, total=options.limit)
    with Pack.open(options.pack, common.trust(options), limits) as pack:
        index = pack.index
        with progress("unpack", len(index.entries), quiet=options.json) as done:
            result = unpack(
                pack,
                Store(directory),
                pin=options.pin,
                done=lambda entry: done.step(f"{entry.record.kind} {entry.digest[:12]}"),
            )
        signers = [key.id for key in pack.signers]
    if options.json:
        emit_json(
            {
                "name": index.name,
                "serial": index.serial,
                "signed_by": signers,
                "stored": result.stored,
                "kept": result.kept,
                "bytes": result.nbytes,
            }
        )
    else:
        whose = f"signed by {', '.join(signers)}" if signers else "not signed"
        print(f"pack '{index.name}', serial {index.serial}, {whose}")
        print(
            f"{result.stored} entries stored ({size_text(result.nbytes)}), "
            f"{result.kept} were there already"
        )
    return 0
