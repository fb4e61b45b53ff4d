"""The plugin contract: what a kind of device does with models. Core asks, it tests for no name.

A plugin turns a graph into a `Loaded` (a plan with programs on a device). How it uses the cache is
its own: the GPU plugin keeps program binaries, the CPU plugin whole compiled models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from clinfer.cache.layers import Layers
from clinfer.cache.record import KeyRecord
from clinfer.errors import BlobError, DeviceError, PropertyError
from clinfer.properties import SETTABLE, parse

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.device.discover import Device
    from clinfer.device.executor import LoadedPlan
    from clinfer.device.lock import Described
    from clinfer.device.profile import StepTime
    from clinfer.graph.model import Model
    from clinfer.lowering.plan import Array, Plan
    from clinfer.operators.extensions import Extensions
    from clinfer.plugins.tuning import Look


class Step(Protocol):
    """Told of each finished piece of work."""

    def step(self, label: str) -> None:
        """One more piece is done; in some thread."""


Watch = Callable[[str, int], AbstractContextManager[Step]]
"""Opened for each batch of work: what it is, and how many pieces."""


class _Unseen:
    def step(self, label: str) -> None:
        pass


@contextmanager
def unwatched(title: str, total: int) -> Iterator[Step]:
    """The `Watch` of work that nobody waits for."""
    yield _Unseen()


class Files(Protocol):
    """The files that a digest was made of, numbered in its order: the model's own is 0."""

    def content(self, number: int) -> Array:
        """The bytes of one, as it was digested.

        Raises `IndexError` where there is none, `ModelError` where it is another by now.
        """

    def read(self) -> list[Array | None]:
        """The bytes that the model was read from, as they lie in memory; None: not read."""


class Source(NamedTuple):
    """What is to be compiled: `read` gives the model when it is needed, `digest` names its content.

    `digest` is None where no cache is in use, or the content cannot be known for sure. `shapes`
    names a reshape of the inputs ('' for none), which is part of what is compiled. `unchanged` asks
    again whether the files are those that were digested, before they are stored under the digest.
    `extensions` are the program's own operators that the model is read with. `files` are those of
    the digest, where weights can be read from them again.
    """

    read: Callable[[], Model]
    digest: str | None
    shapes: str = ""
    unchanged: Callable[[], bool] = lambda: True
    extensions: Extensions | None = None
    files: Files | None = None


class Session(Protocol):
    """Runs one request at a time, on a device or on several."""

    profile: tuple[StepTime, ...]
    """The steps of the last run with their times, where those are kept."""

    def check(self, inputs: Sequence[Any]) -> None:
        """Raises `InputError` and `ShapeError` as `run`, for what the inputs' sizes tell."""

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        """One inference: inputs by position, and the outputs in new arrays.

        `into` has arrays of the user's for results, by position: a session may fill one, which then
        is the result; into others results are copied afterwards.

        Raises `InputError`, `ShapeError`, and `DeviceError` where the driver fails.
        """


class Executable(Protocol):
    """What makes sessions: a plan that is loaded on a device."""

    def session(self, profiling: bool = False, streams: int = 1, threads: int = 0) -> Session:
        """A new one, for one of `streams` requests at a time on `threads` cores (0: all)."""

    def most_streams(self, threads: int = 0) -> int:
        """How many requests side by side give the most inferences per second."""

    def keeps_to(self, threads: int) -> bool:
        """Whether no more than so many cores (0: all) are used."""


class Loaded(NamedTuple):
    """A compiled model on its device; `builds` counts the programs that were compiled for it."""

    plan: Plan
    executable: LoadedPlan
    loaded_from_cache: bool
    record: KeyRecord | None = None
    builds: int = 0

    @property
    def compiled_with(self) -> dict[str, Any]:
        """The properties that it was compiled with, of those that change what is compiled.

        What the record says holds for an imported model, whatever is asked where it is imported.
        Raises `BlobError` for a value that no property has.
        """
        fields = {} if self.record is None else dict(self.record.fields)
        said = {name: fields.get(name.lower()) for name, p in SETTABLE.items() if p.compiles}
        try:
            return parse({name: value for name, value in said.items() if value is not None})
        except PropertyError as error:
            raise BlobError(f"the record of what was compiled is wrong: {error}") from error


class Request(NamedTuple):
    """A compile_model call: the device, checked properties, and the cache in use (or None).

    `watch` is told of what has to be planned and built. `extensions` are those of the Core.
    """

    device: Device
    properties: Mapping[str, Any]
    cache: Layers | None
    watch: Watch = unwatched
    extensions: Extensions | None = None

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
    def flaw(self, entry: Entry, look: Look | None = None) -> str:
        """What is wrong with an intact entry, as far as that shows without its driver, or ''.

        `look` gives the tuning data that there are, where an entry may be older than they.
        """

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
