"""Remote stores in memory, one of them failing as a test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from cache_helpers import noise, program_record
from fsspec.implementations.memory import MemoryFileSystem
from pack_helpers import KEY

from clinfer.cache import CacheMode, Layers, Miss, Store, to_bytes
from clinfer.cache.policy import Trust
from clinfer.cache.remote import RemoteStore

BINARY = {"binary": noise(1000)}
ENTRY = to_bytes(program_record(), BINARY)
TRUSTING = Trust((KEY.public,))


class Faulty(MemoryFileSystem):
    """Memory that fails as a test says; its own protocol, so that it counts as far away."""

    protocol = "faulty"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    fault: Callable[[str], None] = staticmethod(lambda what: None)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://"))

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        type(self).fault("read" if "r" in mode else "write")
        return super()._open(path, mode, **more)


def failing(error: Exception, only: str = "") -> None:
    def fault(what: str) -> None:
        if only in ("", what):
            raise error

    Faulty.fault = staticmethod(fault)


def remote(url: str = "memory://store", **settings: Any) -> RemoteStore:
    return RemoteStore(url, **{"timeout": 120.0, **settings})


def far(**settings: Any) -> RemoteStore:
    """A store far away, taken without signatures."""
    return remote("faulty://store", **{"trust": Trust(allow_unsigned=True), **settings})


def layers(directory: Path, store: RemoteStore, mode: CacheMode = CacheMode.READ_WRITE) -> Layers:
    return Layers(Store(directory, readonly=not mode.writes), remote=store, mode=mode)


def missed(store: RemoteStore, number: int = 0) -> Miss:
    found = store.fetch(program_record(number))
    assert isinstance(found, Miss)
    return found


def reset() -> None:
    """Forgets what the stores in memory hold, and how one of them fails."""
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    Faulty.fault = staticmethod(lambda what: None)
    for kind in (MemoryFileSystem, Faulty):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]
