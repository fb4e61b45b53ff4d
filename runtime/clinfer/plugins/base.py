"""The plugin contract: what a kind of device does with models. Core asks, it tests for no name.

A plugin turns a graph into a `Loaded` (a plan with programs on a device). How it uses the cache is
its own: the GPU plugin keeps program binaries, the CPU plugin whole compiled models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.cache.layers import Layers
from clinfer.cache.record import KeyRecord
from clinfer.errors import DeviceError

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.device.discover import Device
    from clinfer.device.executor import LoadedPlan
    from clinfer.device.lock import Described
    from clinfer.graph.model import Model
    from clinfer.lowering.plan import Plan
    from clinfer.plugins.tuning import Look


class Source(NamedTuple):
    """What is to be compiled: `read` gives the model when it is needed, `digest` names its content.

    `digest` is None where no cache is in use, or the content cannot be known for sure. `shapes`
    names a reshape of the inputs ('' for none), which is part of what is compiled. `unchanged` asks
    again whether the files are those that were digested, before they are stored under the digest.
    """

    read: Callable[[], Model]
    digest: str | None
    shapes: str = ""
    unchanged: Callable[[], bool] = lambda: True


class Loaded(NamedTuple):
    """A compiled model on its device; `builds` counts the programs that were compiled for it."""

    plan: Plan
    executable: LoadedPlan
    loaded_from_cache: bool
    record: KeyRecord | None = None
    builds: int = 0


class Request(NamedTuple):
    """A compile_model call: the device, checked properties, and the cache in use (or None)."""

    device: Device
    properties: Mapping[str, Any]
    cache: Layers | None

    @property
    def look(self) -> Look | None:
        """Gives tuning data from the cache, where there is one."""
        return None if self.cache is None else self.cache.recall


class Plugin(ABC):
    """One kind of device."""

    name: str
    export_import: bool

    def capabilities(self, device: Device) -> tuple[str, ...]:
        """What OPTIMIZATION_CAPABILITIES reports."""
        found = ["FP32"]
        if device.target.fp16:
            found.append("FP16")
        if device.target.fp64:
            found.append("FP64")
        if self.export_import:
            found.append("EXPORT_IMPORT")
        return tuple(found)

    @abstractmethod
    def compile(self, source: Source, request: Request) -> Loaded:
        """The model on the device, from the cache where it is there."""

    @abstractmethod
    def needs(
        self, source: Source, device: Described, properties: Mapping[str, Any], look: Look
    ) -> list[tuple[str, KeyRecord]]:
        """The entries that `compile` looks up, each with a word for people; opens no device.

        `look` gives the tuning data that `compile` would find.
        """

    @abstractmethod
    def renew(self, source: Source, request: Request) -> Loaded:
        """As `compile`, but what depends on tuning data is made anew and replaces what is there."""

    @abstractmethod
    def flaw(self, entry: Entry) -> str:
        """What is wrong with an intact entry, as far as that shows without its driver, or ''."""

    @abstractmethod
    def probe(self, entry: Entry, device: Device) -> None:
        """Gives what an entry holds to the driver. Raises `BuildError` or `BlobError`."""

    def whole(self, plan: Plan, binaries: Sequence[bytes]) -> dict[str, Any]:
        """The sections of a compiled model's entry, for a plugin with `export_import`."""
        raise NotImplementedError(self.name)

    def export(self, loaded: Loaded, device: Device) -> bytes:
        """The compiled model as a blob."""
        raise DeviceError(self._no_export(device))

    def load_blob(self, blob: bytes | memoryview | Path, request: Request) -> Loaded:
        """The compiled model a blob holds."""
        raise DeviceError(self._no_export(request.device))

    def _no_export(self, device: Device) -> str:
        return (
            f"{device.info.name} keeps program binaries, not whole models, and so can neither "
            "export nor import one: set CACHE_DIR there, or use CPU ('EXPORT_IMPORT' in "
            "OPTIMIZATION_CAPABILITIES tells beforehand)"
        )
