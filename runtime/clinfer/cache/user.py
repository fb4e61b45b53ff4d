"""The cache of those who name none: the user's own folder, and how much it may hold."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from clinfer import config
from clinfer.errors import CacheError

_SHARE = 10  # of the file system, one part in so many


def default_directory() -> Path:
    """The platform's folder for a user's caches; ~/.cache/clinfer on Linux. Nothing is made.

    Raises `CacheError` where no home folder is known.
    """
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("clinfer", appauthor=False))
    if not folder.is_absolute():
        raise CacheError(
            f"there is no folder for a user's cache (found '{folder}'): set HOME, or "
            "CLINFER_CACHE_DIR, to a folder by its full path"
        )
    return folder


def usable_directory() -> Path:
    """`default_directory`, where it is there or can be made. Raises `CacheError` elsewhere."""
    folder = default_directory()
    there = _nearest(folder)
    if there == folder and folder.is_dir():
        return folder  # what may be done in it, the store finds out
    if not there.is_dir():
        raise CacheError(f"'{folder}' cannot be made: '{there}' is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise CacheError(f"'{folder}' cannot be made: '{there}' cannot be written")
    return folder


def _nearest(path: Path) -> Path:
    """The path, or the nearest above it that exists."""
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def default_size(directory: Path) -> int:
    """Bytes that a cache nobody asked for may take; 0: no limit.

    CLINFER_CACHE_SIZE; where it is not set its default, but at most a tenth of the file system.
    """
    limit = config.CACHE_SIZE.get()
    if config.CACHE_SIZE.is_set:
        return limit
    with suppress(OSError):
        limit = min(limit, shutil.disk_usage(_nearest(directory)).total // _SHARE)
    return limit
