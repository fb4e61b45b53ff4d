"""The seed layer: program binaries that an installed package brings, below every cache directory.

The package `clinfer_seed` holds nothing but a cache directory: its entries are those of any other,
found by the same keys, read-only, and checked as they are read. It is found where Python finds
modules, and never imported.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clinfer import config
from clinfer.cache.store import Store

PACKAGE = "clinfer_seed"
FACTS = "seed.json"
"""What the package says of itself, for people; no look-up believes it."""


def find() -> Path | None:
    """The folder of the installed seed; None where there is none, or CLINFER_SEED=0."""
    if not config.SEED.get():
        return None
    try:
        spec = find_spec(PACKAGE)
    except (ImportError, ValueError):  # a module of that name that is no package
        return None
    places = None if spec is None else spec.submodule_search_locations
    return next((Path(place) for place in places or ()), None)


def open_seed() -> Store | None:
    """The installed seed as a store; None where there is none."""
    folder = find()
    return None if folder is None else open_store(folder)


def open_store(folder: Path) -> Store:
    """The seed as a store. Whoever could change it could change clinfer's own code, or it is
    refused as any cache directory that others can write."""
    return Store(folder, readonly=True, allow_shared=True if _is_as_code(folder) else None)


def facts(folder: Path) -> dict[str, Any]:
    """What the seed says of itself: 'clinfer', 'generator', 'platform', 'targets' and so on."""
    try:
        found = json.loads((folder / FACTS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_as_code(folder: Path) -> bool:
    """Whether the folder has the owner, group and writers of the folder that clinfer lies in."""
    try:
        seed, code = folder.stat(), Path(__file__).parent.stat()
    except OSError:
        return False
    return (seed.st_uid, seed.st_gid, seed.st_mode & 0o022) == (
        code.st_uid,
        code.st_gid,
        code.st_mode & 0o022,
    )
