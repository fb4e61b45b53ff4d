"""`Core`: devices, properties, reading, compiling and importing models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

from clinfer import properties
from clinfer.compiled import CompiledModel
from clinfer.errors import DeviceError, InputError, PropertyError
from clinfer.log import follow_environment
from clinfer.models import ModelLike, Models
from clinfer.settings import Settings

if TYPE_CHECKING:
    from onnx import ModelProto

    from clinfer.cache.coverage import Source as PackSource
    from clinfer.device.discover import Device
    from clinfer.device.lock import LockedDevice
    from clinfer.feeds import Inputs
    from clinfer.graph.model import Model
    from clinfer.plugins.base import Plugin, Request
    from clinfer.plugins.coverage import Coverage
    from clinfer.plugins.tune import Tuned
    from clinfer.plugins.warm import Warmed
    from clinfer.plugins.warm_builds import Watch


class Core:
    """The entry point: what OpenVINO's users know as `ov.Core`."""

    def __init__(self) -> None:
        """Raises `PropertyError` where CLINFER_LOG is not understood."""
        follow_environment()
        self._settings = Settings()
        self._devices: dict[str, Device] = {}
        self._models = Models()
        self._lock = Lock()

    # -- devices and properties --------------------------------------------------------------

    @property
    def available_devices(self) -> list[str]:
        """Names of the devices: 'CPU', 'GPU'; of several of a kind 'GPU.0', 'GPU.1' ...

        Raises `DeviceError` where no OpenCL platform is installed.
        """
        from clinfer.device.discover import list_devices

        return [info.name for info in list_devices()]

    def set_property(
        self, device: str | Mapping[str, Any], values: Mapping[str, Any] | None = None
    ) -> None:
        """Sets properties for all devices, or for one: `set_property("CPU", {"CACHE_DIR": "c"})`.

        Raises `PropertyError` for an unknown property or a value it does not take.
        """
        if isinstance(device, Mapping):
            self._settings.update(device)
        elif values is None:
            raise PropertyError("set_property takes a dict, or a device's name and a dict")
        else:
            self._settings.update(values, self._device(device).info.name)

    def get_property(self, device: str, name: str | None = None) -> Any:
        """A property of a device, or of the Core where only the property's name is given."""
        if name is None:
            known = device == properties.AVAILABLE_DEVICES
            return self.available_devices if known else self._settings.common(device)
        opened = self._device(device)
        plugin = self._plugin(opened)
        readable: dict[str, Callable[[], Any]] = {
            properties.FULL_DEVICE_NAME: lambda: opened.info.full_name,
            properties.OPTIMIZATION_CAPABILITIES: lambda: list(plugin.capabilities(opened)),
            properties.DEVICE_TYPE: lambda: opened.target.cls,
            properties.AVAILABLE_DEVICES: lambda: self.available_devices,
            properties.OPTIMAL_NUMBER_OF_INFER_REQUESTS: lambda: 1,
            properties.SUPPORTED_PROPERTIES: lambda: [
                *properties.SETTABLE,
                *properties.READABLE,
            ],
        }
        if name in readable:
            return readable[name]()
        settings = self._settings.effective(opened.info.name, None)
        if name in settings:
            return settings[name]
        raise properties.unknown_to_read(name)

    def cache_statistics(self) -> list[dict[str, Any]]:
        """What each cache in use did in this process: hits, misses by reason, bytes, seconds saved.

        The names are those of `clinfer.cache.Stats`, with 'directory' and 'store' (a URL); what the
        remote store did is apart, under 'remote'.
        """
        return self._settings.cache_statistics()

    # -- models --------------------------------------------------------------------------------

    def read_model(self, model: str | os.PathLike[str] | bytes | ModelProto) -> Model:
        """Reads an ONNX model from a path, bytes or a ModelProto.

        Raises `ModelError` naming the file or node where it is not a model that can be read.
        """
        return self._models.read(model)

    def compile_model(
        self,
        model: ModelLike,
        device: str = "AUTO",
        config: Mapping[str, Any] | None = None,
    ) -> CompiledModel:
        """The model ready to run on a device; from the cache where CACHE_DIR has it.

        Raises `ModelError`, `DeviceError`, `PropertyError`, `BuildError`, or with CACHE_MODE
        'cache-only' `CompileRequiredError`.
        """
        request = self._request(device, config)
        plugin = self._plugin(request.device)
        source = self._models.source(model, request.cache if plugin.export_import else None)
        loaded = plugin.compile(source, request)
        return CompiledModel(loaded, plugin, request.device, request.properties)

    def import_model(
        self,
        blob: bytes | BinaryIO,
        device: str = "CPU",
        config: Mapping[str, Any] | None = None,
    ) -> CompiledModel:
        """A compiled model back from `export_model`'s bytes or a file object.

        Raises `BlobError` for a damaged blob or one of another device, driver or format, and
        `InputError` for what is neither bytes nor a file opened as 'rb'.
        """
        request = self._request(device, config)
        plugin = self._plugin(request.device)
        loaded = plugin.load_blob(_content(blob), request)
        return CompiledModel(loaded, plugin, request.device, request.properties)

    def coverage(
        self,
        model: ModelLike,
        device: str | LockedDevice = "AUTO",
        config: Mapping[str, Any] | None = None,
        packs: Sequence[PackSource] = (),
    ) -> Coverage:
        """Which of the entries that `compile_model` looks up are in the caches, or in the packs.

        Nothing is opened, built, run or written. The device may come from a lock file. Raises
        `ModelError`, `DeviceError`, `PropertyError` (also where there is no cache to look into).
        """
        from clinfer.plugins import plugin_for
        from clinfer.plugins.coverage import prove

        described = self._device(device) if isinstance(device, str) else device
        settings = self._settings.effective(described.info.name, config)
        cache = self._settings.cache(settings)
        stores = [*packs]
        if cache is not None:
            stores += [*cache.observers, *([] if cache.remote is None else [cache.remote])]
        if not stores:
            raise PropertyError("there is no cache to look into: set CACHE_DIR or name a pack")
        plugin = plugin_for(described)
        source = (
            self._models.digested(model)
            if plugin.export_import
            else self._models.source(model, None)
        )
        return prove(plugin, source, described, settings, stores)

    def warm(
        self,
        models: Mapping[str, Callable[[], ModelLike]],
        device: str,
        watch: Watch,
        seconds: float,
        config: Mapping[str, Any] | None = None,
    ) -> list[Warmed]:
        """Compiles models, each given by name when its turn comes, into the cache in force.

        See `clinfer.plugins.warm`. Raises `CacheError` where nothing can be stored.
        """
        from clinfer.plugins.warm import warm

        request = self._request(device, config)
        plugin = self._plugin(request.device)
        cache = request.cache if plugin.export_import else None
        sources = {
            name: lambda give=give: self._models.source(give(), cache)
            for name, give in models.items()
        }
        return warm(plugin, sources, request, watch, seconds)

    def tune(
        self,
        model: ModelLike,
        device: str,
        inputs: Inputs,
        watch: Watch,
        seconds: float,
        config: Mapping[str, Any] | None = None,
        again: bool = True,
    ) -> Tuned | None:
        """Measures every kernel candidate in the model, about that long, and keeps the choices.

        `inputs` are as for an inference. The cache in force gets the timings and the model compiled
        with them; without `again` nothing is measured, and None returned, where they are there.
        Raises `CacheError` where nothing can be stored, `InputError`, `DeviceError`.
        """
        from clinfer.feeds import arranged
        from clinfer.plugins.tune import tune

        request = self._request(device, config)
        plugin = self._plugin(request.device)
        read = self._models.given(model)
        source = self._models.source(read, request.cache if plugin.export_import else None)
        arrays = arranged(read.inputs, inputs)
        return tune(plugin, source, request, arrays, watch, seconds, again)

    def query_model(self, model: ModelLike, device: str = "AUTO") -> dict[str, str]:
        """For each of the model's nodes the device that computes it; 'HOST' for host steps."""
        from clinfer.plugins.compiler import draft_model

        opened = self._device(device)
        read = self._models.given(model)
        hosts = {step.label for step in draft_model(read, opened).plan.host_steps}
        nodes = [node.describe() for node in read.graph().nodes]
        return {n: "HOST" if n in hosts else opened.info.name for n in nodes}

    # -- private -------------------------------------------------------------------------------

    def _device(self, name: str) -> Device:
        from clinfer.device.discover import open_device

        if not isinstance(name, str):
            raise DeviceError(
                f"expected the name of a device, say 'CPU' or 'GPU.1'; found {name!r}"
            )
        with self._lock:
            if name not in self._devices:
                self._devices[name] = open_device(name)
            return self._devices[name]

    @staticmethod
    def _plugin(device: Device) -> Plugin:
        from clinfer.plugins import plugin_for

        return plugin_for(device)

    def _request(self, device: str, config: Mapping[str, Any] | None) -> Request:
        from clinfer.plugins.base import Request

        opened = self._device(device)
        settings = self._settings.effective(opened.info.name, config)
        return Request(opened, settings, self._settings.cache(settings))


def _content(blob: object) -> bytes | memoryview:
    """The bytes of a blob or of a file opened for reading them."""
    content = blob.read() if hasattr(blob, "read") else blob
    if isinstance(content, bytearray) or (
        isinstance(content, memoryview) and not content.c_contiguous
    ):
        return bytes(content)
    if isinstance(content, (bytes, memoryview)):
        return content
    raise InputError(
        "import_model takes a blob's bytes or a file opened with open(path, 'rb'); "
        f"found {type(blob).__name__}"
    )
