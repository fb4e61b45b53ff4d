"""The commands and their arguments. A command is a module with HELP, `arguments` and `run`."""

from __future__ import annotations

import argparse
from importlib import import_module

from clinfer import __version__

COMMANDS = (
    "devices",
    "run",
    "compile",
    "warm",
    "tune",
    "verify",
    "pack",
    "unpack",
    "cache",
    "bench",
    "explain",
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `run` of its result is the command's function."""
    parser = argparse.ArgumentParser(
        prog="clinfer",
        description="Runs ONNX models on any OpenCL device.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clinfer {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"clinfer.cli.commands.{name}")
        command = commands.add_parser(
            name, help=module.HELP, description=module.HELP, allow_abbrev=False
        )
        module.arguments(command)
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.set_defaults(run=module.run)
    return parser
