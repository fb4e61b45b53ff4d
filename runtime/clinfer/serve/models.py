"""The models that a server has: loading, unloading, and which version a request gets."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timezone
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.errors import ClinferError
from clinfer.serve.batching import Rules, Scheduler
from clinfer.serve.loading import Loaded, load
from clinfer.serve.logs import LOG
from clinfer.serve.metrics import Metrics
from clinfer.serve.refusals import (
    INVALID,
    NOT_FOUND,
    UNAVAILABLE,
    UNLOADABLE,
    RefusedError,
    words_of,
)
from clinfer.serve.repository import ModelConfig, Repository
from clinfer.serve.settings import Settings
from clinfer.serve.tensors import metadata

if TYPE_CHECKING:
    from clinfer.core import Core

_ERRORS_KEPT = 20
_TRIES, _BETWEEN = 50, 0.02
"""How often, and after how many seconds, it is asked whether a closed model is let go of."""


class Failure(NamedTuple):
    """An error for the status page."""

    when: str
    where: str
    what: str


class Version:
    """A version of a model that is served. Nothing leads back to it, so it goes when unloaded."""

    def __init__(
        self, name: str, number: int, config: ModelConfig, loaded: Loaded, models: Models
    ) -> None:
        self.name = name
        self.number = number
        self.config = config
        self.loaded = loaded
        self.counts = models.metrics.of(name, number)
        self.coverage: str | None = None  # what the status page has found out
        most = config.max_queue or models.settings.max_queue
        rules = Rules(config.max_batch, config.gathers, config.delay, most)
        self.scheduler = Scheduler(loaded.runs, rules, self.counts, f"{name}-{number}")


class _Entry:
    """What is known of a name in the repository; `reason` says why it is not ready."""

    def __init__(self) -> None:
        self.versions: dict[int, Version] = {}
        self.loading = False
        self.reason = "not loaded"


class Models:
    """All of a server's models. Its methods belong to the event loop's thread."""

    def __init__(
        self, repository: Repository, core: Core, settings: Settings, metrics: Metrics
    ) -> None:
        self.repository = repository
        self.core = core
        self.settings = settings
        self.metrics = metrics
        self.failures: deque[Failure] = deque(maxlen=_ERRORS_KEPT)
        self.is_ready = False
        self._entries: dict[str, _Entry] = {}
        self._turn = asyncio.Lock()  # of loading and unloading
        metrics.watch(core, self.versions)

    async def load_all(self, names: Sequence[str]) -> list[str]:
        """Loads what is to be there from the start; the server is ready then. Gives what failed."""
        wanted = list(names or self.repository.names())
        failed = [name for name in wanted if not await self._loads(name)]
        self.is_ready = not failed or self.settings.keep_going
        return failed

    async def _loads(self, name: str) -> bool:
        try:
            await self.load(name)
        except ClinferError:
            return False
        return True

    async def load(self, name: str) -> None:
        """Loads a model, or loads it anew: the old versions serve until the new ones are ready.

        What waits for them is still run. Raises `RefusedError` with the reason where that fails;
        the old versions then stay.
        """
        async with self._turn:
            try:
                self.repository.folder(name)
            except RefusedError as error:
                self.failed(f"loading {name}", error)
                raise
            entry = self._entries.setdefault(name, _Entry())
            entry.loading = True
            start = perf_counter()
            try:
                config, loaded = await asyncio.to_thread(self._load, name)
            except Exception as error:
                entry.reason = self._words(error)
                self.failed(f"loading {name}", error)
                raise RefusedError(UNLOADABLE, f"model '{name}': {entry.reason}") from error
            finally:
                entry.loading = False
            old = entry.versions
            entry.versions = {n: Version(name, n, config, new, self) for n, new in loaded.items()}
            entry.reason = ""
            for number, version in entry.versions.items():
                LOG.info(
                    "loaded",
                    extra={
                        "model": name,
                        "version": number,
                        "device": [m.device.info.name for m in version.loaded.compiled],
                        "from_cache": all(m.programs_built == 0 for m in version.loaded.compiled),
                        "load_seconds": round(version.loaded.seconds, 4),
                        "seconds": round(perf_counter() - start, 4),
                    },
                )
            await self._close(old, keep=entry.versions)

    def _load(self, name: str) -> tuple[ModelConfig, dict[int, Loaded]]:
        config = self.repository.config(name)
        files = self.repository.files(name, config)
        device = self.settings.device
        return config, {n: load(self.core, path, config, device) for n, path in files.items()}

    async def unload(self, name: str) -> None:
        """Takes a model away; what waits for it is still run. Raises `RefusedError`."""
        async with self._turn:
            entry = self._entries.get(name)
            if entry is None:
                raise RefusedError(NOT_FOUND, f"no model {name!r} is loaded")
            old, entry.versions, entry.reason = entry.versions, {}, "unloaded"
            await self._close(old)
            LOG.info("unloaded", extra={"model": name})

    async def _close(self, old: dict[int, Version], keep: dict[int, Version] | None = None) -> None:
        """Ends versions; the files that their weights are mapped from are closed afterwards.

        A loaded plan has references to itself, so that is for the collector to do, once the last
        requests have let go of the model.
        """
        held: list[weakref.ref[Any]] = []
        while old:
            number, version = old.popitem()
            await version.scheduler.close()
            if number not in (keep or {}):
                self.metrics.forget(version.name, number)
            held += map(weakref.ref, version.loaded.compiled)
            del version
        for _ in range(_TRIES):
            if all(model() is None for model in held):
                break
            await asyncio.sleep(_BETWEEN)
        await asyncio.to_thread(gc.collect)

    async def close(self) -> None:
        """Runs what waits, and ends the instances."""
        self.is_ready = False
        await asyncio.gather(*(version.scheduler.close() for version in self.versions()))

    def versions(self) -> list[Version]:
        """All that are served."""
        return [v for entry in list(self._entries.values()) for v in entry.versions.values()]

    def find(self, name: str, version: str = "") -> Version:
        """The version of that number, or without one the newest. Raises `RefusedError`."""
        entry = self._entries.get(name)
        if entry is None:
            self.repository.folder(name)
            raise RefusedError(UNAVAILABLE, f"model '{name}' is not loaded")
        if not entry.versions:
            reason = "is being loaded" if entry.loading else f"is not ready: {entry.reason}"
            raise RefusedError(UNAVAILABLE, f"model '{name}' {reason}")
        if not version:
            return entry.versions[max(entry.versions)]
        if not (version.isascii() and version.isdecimal() and len(version) < 20):
            raise RefusedError(INVALID, f"expected the number of a version, found {version!r}")
        if int(version) not in entry.versions:
            raise RefusedError(
                NOT_FOUND, f"model '{name}' has the versions {[*entry.versions]}, not {version}"
            )
        return entry.versions[int(version)]

    def chosen(self, name: str | None, version: str) -> list[Version]:
        """All versions that are served; with a name, or a version too, those. Raises as `find`."""
        if not name:
            return self.versions()
        found = self.find(name, version)
        return [found] if version else list(self._entries[name].versions.values())

    def metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """The protocol's metadata of a model. Raises `RefusedError`."""
        found = self.find(name, version)
        return {
            "name": name,
            "versions": [str(number) for number in self._entries[name].versions],
            "platform": "onnx_clinfer",
            "inputs": [metadata(port) for port in found.loaded.inputs],
            "outputs": [metadata(port) for port in found.loaded.outputs],
        }

    def index(self, ready: bool = False) -> list[dict[str, str]]:
        """The repository extension's list; with `ready` only what can be asked."""
        rows = []
        for name in sorted({*self.repository.names(), *self._entries}):
            entry = self._entries.get(name, _Entry())
            for number in entry.versions:
                row = {"name": name, "version": str(number), "state": "READY", "reason": ""}
                rows.append(row)
            if not entry.versions and not ready:
                state = "LOADING" if entry.loading else "UNAVAILABLE"
                row = {"name": name, "version": "", "state": state, "reason": entry.reason}
                rows.append(row)
        return rows

    def _words(self, error: BaseException) -> str:
        """What clients are told: of files no more than their place in the repository."""
        return words_of(error).replace(f"{self.repository.root}/", "")

    def failed(self, where: str, error: BaseException, **more: Any) -> None:
        """Logs an error, with its traceback where it is no message of clinfer's, and keeps it."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.failures.appendleft(Failure(now, where, self._words(error)))
        known = isinstance(error, ClinferError)
        extra = {"where": where, "error": str(error), "kind": type(error).__name__, **more}
        LOG.error("failed", extra=extra, exc_info=None if known else error)
