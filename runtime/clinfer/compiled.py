"""Compiled models: ready to run on one device, from several threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

from clinfer import feeds, properties
from clinfer.errors import ClinferError, InputError, PropertyError
from clinfer.feeds import Inputs
from clinfer.inference import InferRequest, Key, Results
from clinfer.ports import Port
from clinfer_kernels.dims import Dim

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.executor import Session
    from clinfer.device.profile import StepTime
    from clinfer.lowering.plan import HostStep, Plan, PlanPort
    from clinfer.plugins.base import Loaded, Plugin


class CompiledModel:
    """A model ready to run on one device. Safe to use from several threads."""

    def __init__(
        self,
        loaded: Loaded,
        plugin: Plugin,
        device: Device,
        settings: Mapping[str, Any],
    ) -> None:
        self._loaded = loaded
        self._plugin = plugin
        self._device = device
        self._settings = dict(settings)
        if not loaded.executable.keeps_to(self._threads):
            raise PropertyError(
                f"{properties.INFERENCE_NUM_THREADS}: expected 0, all cores, because "
                f"{device.info.full_name} runs this model through its driver's own threads; found "
                f"{self._threads}. Leave it out, or give the process fewer cores (taskset)"
            )
        self._idle: SimpleQueue[InferRequest] = SimpleQueue()
        self._profile: tuple[StepTime, ...] = ()
        self.inputs = tuple(_port(p) for p in loaded.plan.inputs)
        self.outputs = tuple(_port(p) for p in loaded.plan.outputs)

    def __call__(self, inputs: Inputs = None, *more: Any) -> Results:
        """One inference. Inputs: a dict by name, index or port; a list; or arrays in order.

        Raises `InputError` for an unknown or missing input, a wrong shape or dtype.
        """
        if more:
            inputs = [inputs, *more]
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self.create_infer_request()
        try:
            return request.infer(inputs)
        finally:
            self._idle.put(request)

    def input(self, key: Key = 0) -> Port:
        """An input by name or index."""
        return self.inputs[feeds.index_of(self.inputs, key, "input")]

    def output(self, key: Key = 0) -> Port:
        """An output by name or index."""
        return self.outputs[feeds.index_of(self.outputs, key, "output")]

    def create_infer_request(self) -> InferRequest:
        """A request with its own buffers and queue."""
        return InferRequest(self)

    def export_model(self, file: BinaryIO | None = None) -> bytes | None:
        """The compiled model as a blob; written to `file` where one is given.

        Raises `DeviceError` on a device without EXPORT_IMPORT, `InputError` for a file that
        cannot be written to.
        """
        if file is not None and not hasattr(file, "write"):
            raise InputError(
                f"export_model writes to a file opened with open(path, 'wb'); found {file!r}"
            )
        blob = self._plugin.export(self._loaded, self._device)
        if file is None:
            return blob
        file.write(blob)
        return None

    def get_property(self, name: str) -> Any:
        """A property's value for this compiled model. Raises `PropertyError` for others."""
        known: dict[str, Callable[[], Any]] = {
            properties.LOADED_FROM_CACHE: lambda: self._loaded.loaded_from_cache,
            properties.EXECUTION_DEVICES: lambda: [self._device.info.name],
            properties.OPTIMAL_NUMBER_OF_INFER_REQUESTS: self._streams,
            properties.NUM_STREAMS: self._streams,
            properties.FULL_DEVICE_NAME: lambda: self._device.info.full_name,
            properties.SUPPORTED_PROPERTIES: lambda: [*{**known, **self._settings}],
        }
        if name in known:
            return known[name]()
        if name in self._settings:
            return self._settings[name]
        raise properties.unknown_to_read(name)

    def set_property(self, values: Mapping[str, Any]) -> None:
        """A compiled model's properties are fixed. Always raises `PropertyError`."""
        raise PropertyError(f"{', '.join(values)}: set properties before compile_model")

    @property
    def device(self) -> Device:
        """The device it runs on."""
        return self._device

    @property
    def plan(self) -> Plan:
        """What the device does for one inference."""
        return self._loaded.plan

    @property
    def host_steps(self) -> tuple[HostStep, ...]:
        """The operators without a kernel, each with the reason."""
        return tuple(self._loaded.plan.host_steps)

    @property
    def programs_built(self) -> int:
        """How many programs had to be built from source for this compiled model."""
        return self._loaded.builds

    def release_memory(self) -> None:
        """Gives back the buffers of requests that are idle."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait()

    def _streams(self) -> int:
        """How many requests run side by side; each has that share of a CPU's cores."""
        streams = self._settings.get(properties.NUM_STREAMS, "AUTO")
        if streams != "AUTO":
            return int(streams)
        if self._settings.get(properties.PERFORMANCE_HINT) != "THROUGHPUT":
            return 1
        return self._loaded.executable.most_streams(self._threads)

    @property
    def profiling_info(self) -> tuple[StepTime, ...]:
        """The steps of the last inference with their times; needs the property PERF_COUNT.

        Raises `PropertyError` where PERF_COUNT is off, `ClinferError` before the first inference.
        """
        if not self._settings.get(properties.PERF_COUNT):
            raise PropertyError("profiling_info needs compile_model with PERF_COUNT set to True")
        if not self._profile:
            raise ClinferError("nothing has run yet: call the model or a request first")
        return self._profile

    def _session(self) -> Session:
        profiling = bool(self._settings.get(properties.PERF_COUNT))
        return self._loaded.executable.session(profiling, self._streams(), self._threads)

    @property
    def _threads(self) -> int:
        return int(self._settings.get(properties.INFERENCE_NUM_THREADS, 0))

    def __repr__(self) -> str:
        names = f"{', '.join(p.name for p in self.inputs)} -> {', '.join(self._names())}"
        return f"CompiledModel({self._device.info.name}: {names})"

    def _names(self) -> list[str]:
        return [p.name for p in self.outputs]


def _port(port: PlanPort) -> Port:
    shape = None if port.shape is None else tuple(_dimension(d) for d in port.shape)
    return Port(port.name, shape, port.dtype)


def _dimension(dim: Dim) -> int | str | None:
    """A size, a named dimension's name, or None for an unnamed or computed one."""
    if isinstance(dim, int):
        return dim
    from clinfer.lowering.binding import symbol_name

    name = symbol_name(dim)
    return None if name is None or "." in name else name
