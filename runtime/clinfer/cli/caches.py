"""Which cache a command uses: the one it is told, else the user's own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from clinfer import config
from clinfer.cli.output import complain
from clinfer.errors import CacheError


def cache_arguments(parser: argparse.ArgumentParser) -> None:
    """--cache-dir of a command that has no cache of its own accord."""
    parser.add_argument("--cache-dir", metavar="DIR", help="CACHE_DIR to use")


def remembering_arguments(parser: argparse.ArgumentParser) -> None:
    """--cache-dir, --no-cache of a command that remembers without being told."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="CACHE_DIR to use; default: CLINFER_CACHE_DIR, else the user's cache folder",
    )
    which.add_argument(
        "--no-cache", action="store_true", help="compile everything anew, and keep nothing"
    )
    parser.set_defaults(remembers=True)


def cache_properties(arguments: argparse.Namespace) -> dict[str, Any]:
    """The properties that say which cache is used.

    Where the user's folder cannot be used, stderr says so and the command goes on without one.
    """
    if getattr(arguments, "no_cache", False):
        return {"CACHE_MODE": "off"}
    given = getattr(arguments, "cache_dir", None)
    if given is not None:
        return {"CACHE_DIR": given}
    remembers = getattr(arguments, "remembers", False)
    if not remembers or config.CACHE_DIR.get() or config.CACHE_MODE.get() == "off":
        return {}
    from clinfer.cache.user import default_size, usable_directory

    try:
        folder = usable_directory()
    except CacheError as error:
        complain(f"nothing is kept for the next time: {error}; --no-cache leaves this out")
        return {}
    return {"CACHE_DIR": str(folder), "CACHE_SIZE": default_size(folder)}


def chosen_cache(named: str | None) -> tuple[Path, int]:
    """The cache that a command on caches is about, and its size limit in bytes; 0: none.

    The one named, else CLINFER_CACHE_DIR, else the user's own. Raises `CacheError` where the user
    has no folder for caches.
    """
    from clinfer.cache.user import default_directory, default_size

    given = named or config.CACHE_DIR.get()
    if given:
        return Path(given), config.CACHE_SIZE.get()
    folder = default_directory()
    return folder, default_size(folder)
