"""`Core`: reading, compiling and importing models, on devices and with caches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from clinfer import properties as props
from clinfer.boundary import entry, first_line
from clinfer.compiled import CompiledModel
from clinfer.core_cache import CoreCache
from clinfer.core_devices import unwatched
from clinfer.errors import InputError
from clinfer.models import ModelLike, Models
from clinfer.names import is_virtual, mode_of
from clinfer.settings import Settings
from clinfer.synonyms import with_synonyms

if TYPE_CHECKING:
    from clinfer.device.asked import Asked
    from clinfer.graph.model import Model
    from clinfer.operators.extensions import Extensions
    from clinfer.remote import RemoteContext
    from clinfer.version import Version


@with_synonyms
class Core(CoreCache):
    """The entry point: what OpenVINO's users know as `ov.Core`."""

    @entry("get_versions", device="device_name")
    def get_versions(self, device_name: str) -> dict[str, Version]:
        """The versions of clinfer and the device's driver, by the device's name."""
        from clinfer.version import Version, __version__

        info = self._device(device_name).info
        said = f"{info.platform}, driver {info.driver_version}, {info.device_version}"
        return {info.name: Version(__version__, said)}

    @entry("read_model")
    def read_model(
        self, model: ModelLike | BinaryIO, weights: Any = None, config: Any = None
    ) -> Model:
        """Reads an ONNX model from a path, bytes, an open file or a ModelProto.

        `weights` and `config` belong to OpenVINO's signature: an ONNX model says itself where its
        weights are. Raises `ModelError` naming the file or node where it is not a model that can
        be read, `InputError` for weights.
        """
        _require_no_weights(weights)
        self._settings.check(config)
        return self._models.read(model)

    @entry("create_context", device="device_name", properties="properties")
    def create_context(
        self, device_name: str, properties: Mapping[str, Any] | None = None
    ) -> RemoteContext:
        """A context for `compile_model`: OCL_CONTEXT or OCL_QUEUE, handles or pyopencl's objects.

        Without either the one that this Core has for the device. Raises `DeviceError`,
        `InputError`, `PropertyError`.
        """
        from clinfer.remote import RemoteContext

        return RemoteContext.of_properties(self._device(device_name), properties or {})

    @entry("get_default_context", device="device_name")
    def get_default_context(self, device_name: str) -> RemoteContext:
        """The context that this Core has for a device."""
        return self.create_context(device_name)

    @entry("add_extension", extension_path="extension")
    def add_extension(self, extension: Any) -> None:
        """Adds operators to those of ONNX: one of `clinfer.extension`, or a list of them.

        A `FunctionProto` or a function of onnxscript is an `OnnxFunction`. Models that are read
        from now on may use them; of two with one name the later one counts. Raises
        `ExtensionError` for what is no extension, or an operator that clinfer has itself.
        """
        from clinfer.operators.extensions import Extensions

        with self._lock:
            known = self._models.extensions or Extensions()
            self._models = Models(known.with_(extension))

    @entry("compile_model", device="device_name", properties="config")
    def compile_model(
        self,
        model: ModelLike,
        device_name: str | RemoteContext | None = "AUTO",
        config: Any = None,
        *,
        weights: Any = None,
    ) -> CompiledModel:
        """The model ready to run on a device; from the cache where CACHE_DIR has it.

        In the place of the device's name a `RemoteContext`: its buffers can be inputs and results.
        'AUTO', 'MULTI:GPU,CPU', 'HETERO:GPU,CPU' and 'BATCH:GPU(8)' are in docs/devices.md.

        Raises `ModelError`, `DeviceError`, `PropertyError`, `BuildError`, or with CACHE_MODE
        'cache-only' `CompileRequiredError`.
        """
        _require_no_weights(weights)
        if isinstance(device_name, (Mapping, tuple)) and config is None:
            device_name, config = "AUTO", device_name
        if isinstance(device_name, (str, type(None))) and is_virtual(device_name or "AUTO"):
            name, config = self._named(device_name or "AUTO", config)
            asked = self._asked(name)
            if asked.mode:
                return self._compile_virtual(model, asked, config)
            device_name = asked.devices[0]
        request = self._request(device_name, config)
        plugin = self._plugin(request.device)
        mode = request.properties[props.CACHE_MODE]
        source = self._models.source(model, request.cache, mode)
        loaded = plugin.compile(source, request)
        origin = self._models.origin(model, source)
        return CompiledModel(loaded, plugin, request.device, request.properties, origin)

    def _compile_virtual(self, model: ModelLike, asked: Asked, config: Any) -> CompiledModel:
        from clinfer.virtual.compiling import compile_virtual
        from clinfer.virtual.parts import Part, Recipe

        parts = []
        for device in asked.devices:
            settings = self._settings.effective(device, config)
            cache = self._settings.cache(settings)
            opened = partial(self._ready, device, settings[props.CPU_TARGET])
            parts.append(Part(device, settings, cache, opened, self._watch or unwatched()))
        cache = next((part.cache for part in parts if part.cache is not None), None)
        source, origin = self._models.kept(model, cache)
        return compile_virtual(asked, Recipe(source, origin), parts)

    @entry(
        "import_model",
        model_stream="blob",
        model_tensor="blob",
        user_stream="blob",
        device="device_name",
        properties="config",
    )
    def import_model(
        self,
        blob: Any,
        device_name: str | RemoteContext = "CPU",
        config: Any = None,
    ) -> CompiledModel:
        """A compiled model back from `export_model`'s bytes, a file object or a `Tensor` of them.

        Raises `BlobError` for a damaged blob or one of another device, driver or format, and
        `InputError` for what is neither bytes nor a file opened as 'rb'.
        """
        request = self._request(device_name, config)
        plugin = self._plugin(request.device)
        loaded = plugin.load_blob(_content(blob), request)
        return CompiledModel(loaded, plugin, request.device, request.properties)

    @entry("query_model", device="device_name", properties="config")
    def query_model(
        self, model: ModelLike, device_name: str = "AUTO", config: Any = None
    ) -> dict[str, str]:
        """The device that computes each node, by the name that it has in `get_ops()`.

        On one device 'HOST' is said of what has no kernel there; 'HETERO:GPU,CPU' says how it
        splits the model. Raises `ModelError` and `DeviceError`.
        """
        self._settings.check(config)
        read = self._models.given(model)
        nodes = read.graph().nodes
        if is_virtual(device_name) and mode_of(device_name) == "HETERO":
            from clinfer.virtual.placing import places

            devices = [self._device(name) for name in self._asked(device_name).devices]
            return dict(zip((n.label for n in nodes), places(read, devices), strict=True))
        from clinfer.plugins.compiler import host_nodes

        opened = self._device(device_name)
        settings = self._settings.effective(opened.info.name, config)
        opened = self._device(device_name, settings[props.CPU_TARGET])
        hosts = host_nodes(read, opened)
        return {n.label: "HOST" if n.describe() in hosts else opened.info.name for n in nodes}

    def __reduce__(self) -> tuple[Any, ...]:
        """A Core with the same properties; what it has opened belongs to this process."""
        return _core_with, (self._settings.to_send(), self._models.extensions)


def _require_no_weights(weights: Any) -> None:
    empty = hasattr(weights, "__len__") and not len(weights)  # OpenVINO's way to leave it out
    if weights is not None and not empty:
        raise InputError(
            "weights= belongs to OpenVINO's IR: an ONNX model holds its weights, or names the "
            "files beside it that do; leave it out"
        )


def _core_with(settings: Settings, extensions: Extensions | None = None) -> Core:
    core = Core()
    core._models = Models(extensions)
    core._settings = settings
    return core


def _content(blob: Any) -> bytes:
    """The bytes of a blob or of a file opened for reading them; nobody else can change them."""
    try:
        content = blob.read() if hasattr(blob, "read") else blob
    except Exception as error:  # the file object is the user's
        raise InputError(f"import_model cannot read the file: {first_line(error)}") from error
    if isinstance(content, memoryview):
        try:
            whole = content.obj
        except ValueError as error:
            raise InputError(f"import_model cannot read the memoryview: {error}") from None
        if isinstance(whole, bytes) and content.nbytes == len(whole) and content.c_contiguous:
            return whole
        return bytes(content)
    if isinstance(content, (bytes, bytearray)):
        return bytes(content)
    if hasattr(content, "element_type"):  # a Tensor
        return bytes(memoryview(content.data).cast("B"))
    raise InputError(
        "import_model takes a blob's bytes or a file opened with open(path, 'rb'); "
        f"found {type(blob).__name__}"
    )
