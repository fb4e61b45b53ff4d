"""The caches that GPU drivers keep of their own, in folders of CACHE_DIR.

A driver may finish compiling after clinfer has its binary: NVIDIA's is PTX, of which the driver
makes machine code and keeps that in a cache of its own, by default below the user's home, which a
container forgets. So where a cache is written, drivers keep theirs beside it:

    CACHE_DIR/drivers/nvidia/   CUDA_CACHE_PATH
    CACHE_DIR/drivers/intel/    NEO_CACHE_DIR
    CACHE_DIR/drivers/mesa/     MESA_SHADER_CACHE_DIR

Drivers read these variables when they are loaded, once in a process: the first CACHE_DIR counts.
A variable that is set stays as it is. Other libraries of the process, and the processes that it
starts, see them too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clinfer import forks
from clinfer.cache.folder import DRIVERS, UntrustedDirectoryError
from clinfer.device import vendors
from clinfer.log import Log

if TYPE_CHECKING:
    from clinfer.cache.store import Store

_LOG = Log("clinfer.device")
VARIABLES = {
    "CUDA_CACHE_PATH": "nvidia",
    "NEO_CACHE_DIR": "intel",
    "MESA_SHADER_CACHE_DIR": "mesa",
}
_lock = forks.new_lock()


def keep_in(store: Store) -> None:
    """Lets drivers keep their caches in a store's directory, if nobody else can write there.

    Nothing happens where no driver but pyopencl's own can be found. Never raises.
    """
    if not vendors.may_have_others():
        return
    with _lock:
        unset = {name: place for name, place in VARIABLES.items() if not os.environ.get(name)}
        if not unset or store.refusal() is not None:
            return
        for name, place in unset.items():
            folder = store.directory / DRIVERS / place
            if _made(store, folder):
                os.environ[name] = str(folder)


def _made(store: Store, folder: Path) -> bool:
    """Whether the folder is there: not every driver makes it."""
    try:
        store.folder.prepare(folder / "any")
    except (OSError, UntrustedDirectoryError) as error:  # the driver keeps its own place
        _LOG.debug("drivers keep their caches elsewhere: %s", error)
        return False
    return True
