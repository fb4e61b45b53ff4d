"""`clinfer devices`: what OpenCL offers here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer import config
from clinfer.cli.output import emit_json, size_text, table

if TYPE_CHECKING:
    from clinfer.device.discover import DeviceInfo


def arguments(parser: argparse.ArgumentParser) -> None:
    """--lock --device --cpu-target."""
    parser.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help="also write what keys and kernels take from the devices, for 'verify --device @FILE'",
    )
    parser.add_argument("--device", help="only this one; default: all")
    parser.add_argument(
        "--cpu-target",
        choices=config.CPU_TARGETS,
        help="what CPU devices are to compile for; default: CLINFER_CPU_TARGET, else this machine",
    )


def run(options: argparse.Namespace) -> int:
    """Prints a row per device."""
    from clinfer.core import Core
    from clinfer.device.lock import write_lock
    from clinfer.device.quirks import reason_of

    core = Core()
    found = _chosen(options.device, options.cpu_target or config.CPU_TARGET.get())
    if options.lock is not None:
        write_lock(options.lock, found)
    rows = [
        {
            "device": info.name,
            "name": info.full_name,
            "platform": info.platform,
            "driver": info.driver_version,
            "launched by": "player" if info.kind == "cpu" and info.plays else "queue",
            "units": info.compute_units,
            "memory": info.global_mem,
            "capabilities": core.get_property(info.name, "OPTIMIZATION_CAPABILITIES"),
            "seed": _seed(info),
        }
        for info in found
    ]
    if options.json:
        emit_json(rows)
        return 0
    table([_shown(row) for row in rows], [name for name in rows[0] if name != "seed"])
    for info in found:
        if info.kind == "cpu" and not info.plays:
            print(f"{info.name}: {reason_of(info.platform, info.platform_version)}")
    for row in rows:
        if row["seed"] is not None:
            print(_sentence(row["device"], row["seed"]))
    return 0


def _seed(info: DeviceInfo) -> dict[str, Any] | None:
    """The seed layer that a device takes programs from, as JSON."""
    from clinfer.device.lock import LockedDevice
    from clinfer.plugins.seed import Seed

    found = Seed.of(LockedDevice(info))
    return None if found is None else found.to_json()


def _sentence(device: str, seed: dict[str, Any]) -> str:
    here = "clinfer", "platform", "programs"
    release, platform, programs = (seed.get(name, "?") for name in here)
    return (
        f"seed of {device}: {seed['folder']}, {programs} programs by clinfer {release} for "
        f"{platform}; taken are those for {seed['target']}"
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    texts = {"memory": size_text(row["memory"]), "capabilities": " ".join(row["capabilities"])}
    return {**row, **texts}


def _chosen(name: str | None, cpu_target: str) -> list[DeviceInfo]:
    from clinfer.device.discover import list_devices, open_device

    if name is None and not cpu_target:
        return list_devices()
    names = [info.name for info in list_devices()] if name is None else [name]
    return [open_device(each, cpu_target).info for each in names]
