"""`clinfer completion`: a script that completes the command line in a shell."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

from clinfer.cli.output import emit_json
from clinfer.errors import ClinferError, PropertyError, listed

_FOLDER = "DIR"


def arguments(parser: argparse.ArgumentParser) -> None:
    """SHELL."""
    parser.add_argument("shell", metavar="SHELL", help="bash, zsh, fish, tcsh or powershell")


def run(options: argparse.Namespace) -> int:
    """Prints the script."""
    from clinfer.cli.parser import make_parser

    shtab = _shtab()
    if options.shell not in shtab.SUPPORTED_SHELLS:
        known = listed(shtab.SUPPORTED_SHELLS)
        raise PropertyError(f"no completion for the shell {options.shell!r}; there is: {known}")
    parser = make_parser()
    _mark_paths(parser, shtab)
    script = shtab.complete(parser, options.shell)
    if options.json:
        emit_json({"shell": options.shell, "script": script})
    else:
        print(script)
    return 0


def _shtab() -> ModuleType:
    try:
        import shtab
    except ImportError as error:
        raise ClinferError(
            "completion is made by the package shtab: pip install clinfer[cli]"
        ) from error
    found: ModuleType = shtab
    return found


def _mark_paths(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Says of each argument whether files or folders complete it; of all commands below, too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark_paths(command, shtab)
        elif action.metavar == _FOLDER:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.type is Path or action.dest == "place":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
