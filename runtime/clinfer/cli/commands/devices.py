"""`clinfer devices`: what OpenCL offers here."""

from __future__ import annotations

import argparse

from clinfer.cli.output import emit_json, size_text, table

HELP = "list the OpenCL devices and what they can do"


def arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(options: argparse.Namespace) -> int:
    """Prints a row per device."""
    from clinfer.core import Core
    from clinfer.device.discover import list_devices

    core = Core()
    rows = []
    for info in list_devices():
        rows.append(
            {
                "device": info.name,
                "name": info.full_name,
                "platform": info.platform,
                "driver": info.driver_version,
                "units": info.compute_units,
                "memory": size_text(info.global_mem),
                "capabilities": " ".join(core.get_property(info.name, "OPTIMIZATION_CAPABILITIES")),
            }
        )
    if options.json:
        emit_json(rows)
    else:
        table(rows, list(rows[0]))
    return 0
