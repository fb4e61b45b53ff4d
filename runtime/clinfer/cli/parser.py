"""The commands and their arguments. A command is a module with `arguments` and `run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from importlib import import_module
from typing import NoReturn

from clinfer.cli.output import UsageExit
from clinfer.version import __version__

COMMANDS = {
    "devices": "list the OpenCL devices and what they can do",
    "run": "run a model on inputs from .npy or .npz files, or pictures",
    "compile": "compile a model into a file that import_model reads without compiling",
    "warm": "compile models into a cache directory, so that their first start compiles nothing",
    "tune": "measure the kernel candidates of models on a device; the cache keeps the choices",
    "verify": "prove that a cache or pack holds all that models need on a device",
    "check": "say whether models compile for a device, and which nodes would run on the host",
    "pack": "put cache entries into one signed file or an OCI image layout",
    "unpack": "copy the entries of a signed pack into a cache directory",
    "cache": "list, check, prune, clear or compare cache directories and packs",
    "batch": "run a model on every row of Parquet or Arrow files, or on a folder of pictures",
    "bench": "measure a model's latency, throughput and load time",
    "serve": "serve a folder of models over REST and gRPC (Open Inference Protocol)",
    "report": "print what a bug report needs: versions, devices, drivers, the cache",
    "completion": "print a script that completes the command line in a shell",
    "explain": "list a model's kernels, fused groups and host steps on a device",
}
"""What each does."""


class _Parser(argparse.ArgumentParser):
    """Ends with `UsageExit`, which has the message."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise UsageExit(message)


def make_parser(wanted: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of the command line; `run` of its result is the command's function.

    Only the `wanted` commands are loaded and have arguments.
    """
    parser = _Parser(
        prog="clinfer",
        description="Runs ONNX models on any OpenCL device.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clinfer {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name not in wanted:
            continue
        module = import_module(f"clinfer.cli.commands.{name}")
        module.arguments(command)
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.set_defaults(run=module.run)
    return parser
