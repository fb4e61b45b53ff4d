"""`clinfer warm`: fills a cache ahead of deployment."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer import config
from clinfer.cli import common, pictures, shapes
from clinfer.cli.caches import cache_arguments
from clinfer.cli.output import complain, emit_json, progress, table
from clinfer.errors import ClinferError, DeviceError, PropertyError

if TYPE_CHECKING:
    from clinfer.core import Core
    from clinfer.device.ocloc import OclocDevice
    from clinfer.plugins.warm import Warmed

TUNING_SECONDS = 60.0
_SHOWN_FACTS = 4


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL... --device --cache-dir --store --shape --jobs --shard --timeout --tune ..."""
    from clinfer.cache.claims import LEASE_SECONDS
    from clinfer.device.sources import SECONDS_PER_PROGRAM

    common.model_argument(parser, many=True)
    common.locked_device_argument(parser)
    cache_arguments(parser)
    common.store_argument(parser)
    shapes.shape_argument(parser)
    pictures.arguments(parser)
    common.cpu_target_argument(parser)
    parser.add_argument(
        "--jobs",
        type=common.positive_count,
        metavar="N",
        help="programs built at a time; default: CLINFER_COMPILE_JOBS, else a job per core",
    )
    divided = parser.add_mutually_exclusive_group()
    divided.add_argument(
        "--fleet",
        action="store_true",
        help="share the work with every other process that fills the same store: what one makes "
        "the others do not; each ends when the store is complete",
    )
    divided.add_argument(
        "--shard",
        type=parse_shard,
        metavar="I/N",
        help="only part I, from 0, of N of the models; default: JOB_COMPLETION_INDEX and "
        "JOB_COMPLETIONS where they are set",
    )
    parser.add_argument(
        "--lease",
        type=common.positive_seconds,
        default=LEASE_SECONDS,
        metavar="SECONDS",
        help="in a fleet: how long a worker without a sign of life keeps what it was making; "
        f"default: {LEASE_SECONDS:g}",
    )
    parser.add_argument(
        "--timeout",
        type=common.positive_seconds,
        default=SECONDS_PER_PROGRAM,
        metavar="SECONDS",
        help=f"how long one program may take to build; default: {SECONDS_PER_PROGRAM:g}",
    )
    parser.add_argument(
        "--tune",
        type=common.positive_seconds,
        nargs="?",
        const=TUNING_SECONDS,
        metavar="SECONDS",
        help="first measure the kernel candidates of models without tuning data, that long each; "
        f"default: {TUNING_SECONDS:g}",
    )


def run(options: argparse.Namespace) -> int:
    """Compiles each model; one that fails is reported and does not stop the others."""
    core = common.core(options)
    _check_cache(core)
    _check_fleet(core, options)
    names = _part(options)
    warmed: list[Warmed] = []
    for target in options.cpu_target or [_locked_target(options)]:
        if target is not None:
            core.set_property({"CPU_TARGET": target})
        for item in _warm(core, names, options):
            item.name += f" ({target})" if options.cpu_target else ""
            warmed.append(item)
    return _report(options, warmed, _unpushed(core))


def _warm(core: Core, names: list[str], options: argparse.Namespace) -> list[Warmed]:
    """What became of each model for the CPU_TARGET in force."""
    device = _device(core, options)
    change = (options.shape, pictures.preparation(options))
    models = {name: partial(shapes.reshaped, core, Path(name), *change) for name in names}
    settings = {} if options.jobs is None else {"COMPILATION_NUM_THREADS": options.jobs}
    watch = partial(progress, quiet=options.json)
    try:
        untuned = {} if options.tune is None else _tune(core, names, device, options)
        lease = options.lease if options.fleet else None
        warmed = core.warm(models, device, watch, options.timeout, settings, lease)
    except KeyboardInterrupt:
        print("clinfer: what was built is stored; the same command goes on there", file=sys.stderr)
        raise
    for item in warmed:
        item.errors += untuned.get(item.name, [])
    return warmed


def _locked_target(options: argparse.Namespace) -> str | None:
    """The CPU_TARGET of the lock file; None where there is no such file."""
    if getattr(options, "offline", None) is not None:
        return None
    locked = common.locked_device(options)
    return None if locked is None else locked.info.cpu_target


def _tune(
    core: Core, names: list[str], device: str | OclocDevice, options: argparse.Namespace
) -> dict[str, list[str]]:
    """Tunes the models that have no tuning data yet; what went wrong, by the model's name."""
    if not isinstance(device, str):
        raise DeviceError(f"--tune: {device.info.full_name} is not here, nothing can be measured")
    results = {name: _tune_one(core, name, device, options) for name in names}
    return {name: [f"not tuned: {error}"] for name, error in results.items() if error}


def _tune_one(core: Core, name: str, device: str, options: argparse.Namespace) -> str:
    """What went wrong, '' where nothing did."""
    try:
        model = core.read_model(name)
        shapes.reshape(model, options.shape, pictures.preparation(options))
        inputs = common.inputs_for(model.inputs, [], common.planned(model, device))
        watch = partial(progress, quiet=options.json)
        core.tune(model, device, inputs, watch, options.tune, again=False)
    except ClinferError as error:
        return str(error)
    return ""


def parse_shard(text: str) -> tuple[int, int]:
    """'2/5' -> (2, 5), the third of five parts; raises argparse's error for another form."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N - 1, found {text!r}")
    return int(index), int(count)


def _check_cache(core: Core) -> None:
    url = core.get_property("CACHE_STORE")
    if not core.get_property("CACHE_DIR") and not url:
        raise PropertyError(
            "no cache to fill: give --cache-dir DIR or --store URL, or set CLINFER_CACHE_DIR"
        )
    if url:
        from clinfer.cache.remote import RemoteStore

        RemoteStore(url).connect()


def _check_fleet(core: Core, options: argparse.Namespace) -> None:
    if options.fleet and not core.get_property("CACHE_STORE"):
        raise PropertyError("--fleet: give the store that is filled together, --store URL")
    if options.fleet and options.tune is not None:
        raise PropertyError(
            "--fleet with --tune: each worker would measure all models; tune on one machine first"
        )


def _part(options: argparse.Namespace) -> list[str]:
    """The models of this shard; all where there are no shards, of a fleet the largest first."""
    from clinfer.plugins.warm import shard

    index, count = (0, 1) if options.fleet else options.shard or _job()
    if count == 1 and not options.fleet:
        return list(dict.fromkeys(str(path) for path in options.model))
    return shard([(str(path), _size(path)) for path in options.model], index, count)


def _job() -> tuple[int, int]:
    """The shard an indexed Job of Kubernetes gives to this process."""
    index = config.JOB_COMPLETION_INDEX.get()
    count = config.JOB_COMPLETIONS.get()
    if index is None:
        return 0, 1
    if count is None or index >= count:
        raise PropertyError(
            f"JOB_COMPLETION_INDEX is {index}: JOB_COMPLETIONS must be the number of parts, found "
            f"{count}; or give --shard"
        )
    return index, count


def _size(path: Path) -> int:
    """Bytes; 0 for a model that is not there, which is told when its turn comes."""
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def _device(core: Core, options: argparse.Namespace) -> str | OclocDevice:
    """The device's name; with a lock file that of the one here that is the locked one.

    For a GPU that ocloc compiles for, the device of the lock file.
    """
    offline: OclocDevice | None = getattr(options, "offline", None)
    if offline is not None:
        return offline
    locked = common.locked_device(options)
    if locked is None:
        return str(options.device)
    from clinfer.device.discover import list_devices, open_device
    from clinfer.device.lock import differences

    target = core.get_property("CPU_TARGET")
    here = [open_device(info.name, target).info for info in list_devices()]
    found = [(differences(locked.info, info), info.name) for info in here]
    nearest, name = min(found, key=lambda pair: len(pair[0]))
    if nearest:
        raise DeviceError(
            f"the locked device is not here; the nearest, {name}, differs in {_facts(nearest)}"
        )
    return name


def _facts(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Facts as the lock file and the device here have them: the first few, of sets what differs."""
    texts = [
        f"{fact}: locked {_fact(locked, here)}, here {_fact(here, locked)}"
        for fact, (locked, here) in differing.items()
    ]
    more = len(texts) - _SHOWN_FACTS
    return "; ".join(texts[:_SHOWN_FACTS]) + (f"; and {more} more facts" if more > 0 else "")


def _fact(value: Any, other: Any) -> str:
    if not isinstance(value, frozenset):
        return repr(value)
    return f"also {', '.join(sorted(value - other))}" if value - other else "nothing else"


def _report(options: argparse.Namespace, warmed: list[Warmed], unpushed: dict[str, int]) -> int:
    rows = [_row(item) for item in warmed]
    failed = [item for item in warmed if item.errors]
    if options.json:
        emit_json({"models": rows, "failed": len(failed), "unpushed": unpushed})
    elif not rows:
        print("no model falls to this part")
    else:
        table(rows, ["model", "result", "programs", "built", "seconds"])
    for item in failed:
        for error in item.errors:
            complain(f"{item.name}: {error}")
    for reason, count in unpushed.items():
        complain(f"{count} entries were not pushed to the remote store: {reason}")
    return 1 if failed or unpushed else 0


def _row(item: Warmed) -> dict[str, Any]:
    return {
        "model": item.name,
        "result": item.result,
        "programs": item.programs,
        "built": item.built,
        "error": "\n".join(item.errors),
        "seconds": round(item.seconds, 3),
    }


def _unpushed(core: Core) -> dict[str, int]:
    """How many entries the remote store did not take, by reason."""
    found: Counter[str] = Counter()
    for statistics in core.cache_statistics():
        found.update((statistics["remote"] or {}).get("unstored", {}))
    return dict(found)
