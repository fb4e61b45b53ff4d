"""--extension: operators of one's own for a command, from a file of Python."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from clinfer.errors import ExtensionError

if TYPE_CHECKING:
    from clinfer.core import Core

NAME = "EXTENSIONS"


def extension_argument(parser: argparse.ArgumentParser, *more: str) -> None:
    """--extension; `more` are other words for it."""
    parser.add_argument(
        "--extension",
        *more,
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help=f"a file of Python that is run and whose {NAME} lists operators (docs/extensions.md)",
    )


def add_extensions(core: Core, files: list[Path]) -> None:
    """Runs the files and gives what they list to the Core.

    Raises `ExtensionError` where one cannot be run or lists nothing.
    """
    from runpy import run_path

    for file in files:
        try:
            found = run_path(str(file), run_name="clinfer_extension")
        except Exception as error:  # the file is the user's
            raise ExtensionError(
                f"--extension '{file}': {type(error).__name__}: {error}"
            ) from error
        if NAME not in found:
            raise ExtensionError(
                f"--extension '{file}' has no {NAME}; set it to a list of clinfer.extension's"
            )
        core.add_extension(found[NAME])
