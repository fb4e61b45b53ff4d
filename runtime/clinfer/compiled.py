"""Compiled models, requests and the queue that runs several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from clinfer import feeds, properties
from clinfer.errors import ClinferError, InputError, PropertyError
from clinfer.feeds import Inputs
from clinfer.ports import Port
from clinfer_kernels.dims import Dim

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from clinfer.device.discover import Device
    from clinfer.device.executor import Session
    from clinfer.device.profile import StepTime
    from clinfer.lowering.plan import HostStep, Plan, PlanPort
    from clinfer.plugins.base import Loaded, Plugin

Array = np.ndarray[Any, Any]
Key = str | int | Port


class Results(Mapping[Key, Any]):
    """A request's results, found by output, by name or by index; iterates over the outputs."""

    def __init__(self, ports: Sequence[Port], values: Sequence[Any]) -> None:
        self._ports = tuple(ports)
        self._values = list(values)

    def __getitem__(self, key: Key) -> Any:
        return self._values[feeds.index_of(self._ports, key, "output")]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._ports)

    def __len__(self) -> int:
        return len(self._ports)

    def names(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(port.name for port in self._ports)

    def to_dict(self) -> dict[str, Any]:
        """The results by name."""
        return dict(zip(self.names(), self._values, strict=True))

    def to_tuple(self) -> tuple[Any, ...]:
        """The results in the outputs' order."""
        return tuple(self._values)

    def __repr__(self) -> str:
        return f"Results({', '.join(self.names())})"


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
        return self._loaded.executable.most_streams

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
        return self._loaded.executable.session(profiling, self._streams())

    def __repr__(self) -> str:
        names = f"{', '.join(p.name for p in self.inputs)} -> {', '.join(self._names())}"
        return f"CompiledModel({self._device.info.name}: {names})"

    def _names(self) -> list[str]:
        return [p.name for p in self.outputs]


class InferRequest:
    """One inference at a time, with buffers of its own; requests of a model run side by side."""

    def __init__(self, model: CompiledModel) -> None:
        self.model = model
        self._session = model._session()
        self._inputs: dict[int, Any] = {}
        self._results: Results | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._pending: Future[Results] | None = None
        self._callback: Callable[[Any], None] | None = None
        self._turn = Lock()
        self.userdata: Any = None

    def infer(self, inputs: Inputs = None) -> Results:
        """Runs and returns the results. Inputs set before stay where none is given.

        Of several threads that call it one runs after the other.
        """
        with self._turn:
            self._require_idle()
            self._take(inputs)
            return self._run()

    def start_async(self, inputs: Inputs = None, userdata: Any = None) -> None:
        """Starts a run in the background; `wait` gives its end, and its error where it fails."""
        self._require_idle()
        self._take(inputs)
        if self._worker is None:
            from concurrent.futures import ThreadPoolExecutor

            self._worker = ThreadPoolExecutor(1, "clinfer-request")
        self.userdata = userdata
        self._pending = self._worker.submit(self._run_and_call)

    def wait(self, timeout_ms: float | None = None) -> bool:
        """Waits for the run started last; False where `timeout_ms` milliseconds were not enough."""
        if self._pending is None:
            return True
        try:
            self._pending.result(None if timeout_ms is None else timeout_ms / 1000)
        except TimeoutError:
            return False
        except BaseException as error:
            if type(error).__name__ == "TimeoutError" and not self._pending.done():
                return False
            self._pending = None
            raise
        self._pending = None
        return True

    def set_callback(self, callback: Callable[[Any], None], userdata: Any = None) -> None:
        """Calls `callback(userdata)` in the worker's thread after each background run."""
        self._callback = callback
        self.userdata = userdata

    def set_tensor(self, key: Key, value: Any) -> None:
        """Sets an input by name, index or port; checked at once as `InputError` says."""
        index = feeds.index_of(self.model.inputs, key, "input")
        self._inputs[index] = feeds.checked(self.model.inputs[index], value)

    def get_tensor(self, key: Key) -> Any:
        """An output of the last run, or an input that has been set."""
        for index, port in enumerate(self.model.inputs):
            if key in (port, port.name) and index in self._inputs:
                return self._inputs[index]
        return self.results[key]

    @property
    def results(self) -> Results:
        """The last run's results. Raises `ClinferError` before the first run."""
        self.wait()
        if self._results is None:
            raise ClinferError("the request has not run yet: call infer or start_async first")
        return self._results

    def _take(self, inputs: Inputs) -> None:
        for key, value in feeds.pairs(self.model.inputs, inputs):
            self.set_tensor(key, value)
        feeds.require_all(self.model.inputs, self._inputs)

    def _run(self) -> Results:
        values = [self._inputs[i] for i in range(len(self.model.inputs))]
        results = Results(self.model.outputs, self._session.run(values))
        self._results = results
        self.model._profile = self._session.profile
        return results

    def _run_and_call(self) -> Results:
        results = self._run()
        if self._callback is not None:
            self._callback(self.userdata)
        return results

    def _require_idle(self) -> None:
        if self._pending is not None and not self._pending.done():
            raise ClinferError("the request is still running: call wait() first")
        self._pending = None


class AsyncInferQueue:
    """Requests that run side by side: `start_async` takes the next idle one, `wait_all` ends."""

    def __init__(self, model: CompiledModel, jobs: int = 0) -> None:
        count = jobs or model.get_property(properties.OPTIMAL_NUMBER_OF_INFER_REQUESTS)
        if count < 1:
            raise InputError(
                f"a queue has 1 request or more, or 0 for the model's own; found {jobs}"
            )
        self._requests = [model.create_infer_request() for _ in range(count)]
        self._idle: SimpleQueue[InferRequest] = SimpleQueue()
        from concurrent.futures import ThreadPoolExecutor

        self._workers = ThreadPoolExecutor(count, "clinfer-queue")
        self._futures: list[Future[None]] = []
        self._callback: Callable[[InferRequest, Any], None] | None = None
        for request in self._requests:
            self._idle.put(request)

    def set_callback(self, callback: Callable[[InferRequest, Any], None]) -> None:
        """Calls `callback(request, userdata)` after each run, in the request's thread."""
        self._callback = callback

    def start_async(self, inputs: Inputs = None, userdata: Any = None) -> None:
        """Starts a run on the next idle request; waits for one where all are busy."""
        request = self._idle.get()
        self._futures = [f for f in self._futures if not f.done() or f.exception()]
        self._futures.append(self._workers.submit(self._run, request, inputs, userdata))

    def wait_all(self) -> None:
        """Waits for all runs; raises the first error there was."""
        futures, self._futures = self._futures, []
        for future in futures:
            future.result()

    def _run(self, request: InferRequest, inputs: Inputs, userdata: Any) -> None:
        try:
            request.infer(inputs)
            if self._callback is not None:
                self._callback(request, userdata)
        finally:
            self._idle.put(request)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[InferRequest]:
        return iter(self._requests)


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
