"""`clinfer devices`: what OpenCL offers here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from clinfer.cli.output import emit_json, size_text, table

if TYPE_CHECKING:
    from clinfer.device.discover import DeviceInfo

HELP = "list the OpenCL devices and what they can do"


def arguments(parser: argparse.ArgumentParser) -> None:
    """--lock --device."""
    parser.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help="also write what keys and kernels take from the devices, for 'verify --device @FILE'",
    )
    parser.add_argument("--device", help="only this one; default: all")


def run(options: argparse.Namespace) -> int:
    """Prints a row per device."""
    from clinfer.core import Core
    from clinfer.device.lock import write_lock

    core = Core()
    found = _chosen(options.device)
    if options.lock is not None:
        write_lock(options.lock, found)
    rows = [
        {
            "device": info.name,
            "name": info.full_name,
            "platform": info.platform,
            "driver": info.driver_version,
            "units": info.compute_units,
            "memory": size_text(info.global_mem),
            "capabilities": " ".join(core.get_property(info.name, "OPTIMIZATION_CAPABILITIES")),
        }
        for info in found
    ]
    if options.json:
        emit_json(rows)
    else:
        table(rows, list(rows[0]))
    return 0


def _chosen(name: str | None) -> list[DeviceInfo]:
    from clinfer.device.discover import list_devices, open_device

    return list_devices() if name is None else [open_device(name).info]
