"""`clinfer verify`: proves that a cache or pack covers models on a device; runs nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.cli import common, pictures, shapes
from clinfer.cli.caches import cache_arguments
from clinfer.cli.output import complain, emit_json, table
from clinfer.errors import ClinferError, PropertyError, UntrustedError

if TYPE_CHECKING:
    from clinfer.cache.coverage import Source
    from clinfer.cache.pack import Pack
    from clinfer.cache.remote import RemoteStore
    from clinfer.core import Core
    from clinfer.device.lock import LockedDevice

EXIT_CODES = {"complete": 0, "failed": 1, "incomplete": 3, "incompatible": 4, "untrusted": 5}
_SEVERITY = ("complete", "incomplete", "incompatible", "untrusted", "failed")
_SHOWN_FIELDS = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL... --device --device-lock --cache-dir --store --pack --trust ... --shape."""
    parser.epilog = (
        "exit codes: 0 complete; 1 a model cannot be checked; 3 entries are missing or damaged; "
        "4 they are there, but for another device, driver or release; 5 not trusted"
    )
    common.model_argument(parser, many=True)
    common.locked_device_argument(parser)
    cache_arguments(parser)
    common.store_argument(parser)
    parser.add_argument(
        "--pack",
        action="append",
        default=[],
        type=Path,
        metavar="PACK",
        help="a pack, OCI layout or signed directory to look into, repeatable",
    )
    common.trust_arguments(parser)
    shapes.shape_argument(parser)
    pictures.arguments(parser)
    common.cpu_target_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Prints each gap with its reason. The exit code is that of the worst model."""
    core = common.core(options)
    locked = common.locked_device(options)
    if locked is not None and options.cpu_target not in ([], [locked.info.cpu_target]):
        raise PropertyError(
            f"--cpu-target {','.join(options.cpu_target)}: the lock file names "
            f"{locked.info.cpu_target or 'a machine'}; leave the option out"
        )
    device = locked or str(options.device)
    with ExitStack() as opened:
        sources: list[Source] = [
            *map(opened.enter_context, _packs(options)),
            *_remote(options, core),
        ]
        rows = [
            _check(core, path, device, sources, options, target)
            for target in options.cpu_target or [None]
            for path in options.model
        ]
    verdict = max((row["verdict"] for row in rows), key=_SEVERITY.index)
    if options.json:
        emit_json({"verdict": verdict, "models": rows})
    else:
        _print(rows)
    for row in rows:
        if row["verdict"] == "failed":
            complain(f"{row['model']}: {row['error']}")
    return EXIT_CODES[verdict]


def _packs(options: argparse.Namespace) -> list[Pack]:
    """Raises `UntrustedError` for a pack that no trusted key has signed."""
    if not options.pack:
        return []
    from clinfer.cache.pack import Pack

    trust = common.trust(options)
    return [Pack.open(path, trust) for path in options.pack]


def _remote(options: argparse.Namespace, core: Core) -> list[RemoteStore]:
    """The remote store, where one is named, in place of the Core's: it believes whom packs do."""
    url = core.get_property("CACHE_STORE")
    if not url:
        return []
    from clinfer.cache.remote import RemoteStore

    core.set_property({"CACHE_STORE": ""})
    return [RemoteStore(url, trust=common.trust(options))]


def _check(
    core: Core,
    path: Path,
    device: str | LockedDevice,
    sources: Sequence[Source],
    options: argparse.Namespace,
    target: str | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {"model": str(path) if target is None else f"{path} ({target})"}
    settings = None if target is None else {"CPU_TARGET": target}
    try:
        change = (options.shape, pictures.preparation(options))
        model = shapes.reshaped(core, path, *change)
        found = core.coverage(model, device, settings, sources)
    except UntrustedError:
        raise
    except ClinferError as error:
        return {**row, "verdict": "failed", "error": str(error), "gaps": []}
    return {**row, **found.to_json()}


def _print(rows: list[dict[str, Any]]) -> None:
    table(rows, ["model", "verdict", "needed", "missing"])
    for row in rows:
        for gap in row["gaps"]:
            print(f"{row['model']}: {gap['what']}: {gap['reason']}: {gap['detail']}")
            if gap["verdict"] == "incompatible":
                print("  it is there with other fields:")
                for name, (here, there) in gap["differs"].items():
                    print(f"    {name}: needed {here!r}, there is {there!r}")
            elif gap["differs"]:
                names = [*gap["differs"]][:_SHOWN_FIELDS]
                more = ", ..." if len(gap["differs"]) > len(names) else ""
                print(f"  the nearest entry differs in {', '.join(names)}{more}")
