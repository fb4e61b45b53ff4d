"""Compiled models: ready to run on one device, from several threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from clinfer import feeds, properties
from clinfer.boundary import entry, first_line
from clinfer.errors import ClinferError, InputError, PropertyError
from clinfer.feeds import Feed, Inputs
from clinfer.inference import InferRequest
from clinfer.ports import Port, index_of
from clinfer.results import Key, Results
from clinfer.sizes import Bounds, name_in_file
from clinfer_kernels.dims import Dim

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.profile import StepTime
    from clinfer.lowering.plan import HostStep, Plan, PlanPort
    from clinfer.models import Origin
    from clinfer.plugins.base import Executable, Loaded, Plugin, Session
    from clinfer.remote import RemoteContext
    from clinfer.runtime_model import RuntimeModel
    from clinfer.transport import Reduced


class CompiledModel:
    """A model ready to run on one device. Safe to use from several threads."""

    def __init__(
        self,
        loaded: Loaded,
        plugin: Plugin,
        device: Device,
        settings: Mapping[str, Any],
        origin: Origin | None = None,
    ) -> None:
        self._loaded = loaded
        self._plugin = plugin
        self._device = device
        self._settings = {**settings, **loaded.compiled_with}
        if not loaded.executable.keeps_to(self._threads):
            raise PropertyError(
                f"{properties.INFERENCE_NUM_THREADS}: expected 0, all cores, because "
                f"{device.info.full_name} runs this model through its driver's own threads; found "
                f"{self._threads}. Leave it out, or give the process fewer cores (taskset)"
            )
        self._open(loaded.plan, origin)

    def _open(self, plan: Plan, origin: Origin | None) -> None:
        self._origin = origin
        self._idle: list[Session] = []
        self._profile: tuple[StepTime, ...] = ()
        bounds, owner = _bounds(plan), object()
        self.inputs = _ports(plan.inputs, "input", bounds, owner)
        self.outputs = _ports(plan.outputs, "output", bounds, owner)
        self._feed = Feed(self.inputs)

    def __call__(
        self,
        inputs: Inputs = None,
        *more: Any,
        share_inputs: bool = True,
        share_outputs: bool = False,
        decode_strings: bool = True,
        outputs: Inputs = None,
    ) -> Results:
        """One inference. Inputs: a dict by name, index or port; a list; or arrays in order.

        Arrays are read in place, and results are new arrays: to share or not changes nothing. With
        `decode_strings` False text comes as `bytes`. `outputs` are arrays that results are to be
        written to, given as inputs are; those are then the results.

        Raises `InputError` for an unknown or missing input, a wrong shape or dtype.
        """
        if more and not self._says_what_to_share(more):
            inputs = [inputs, *more]
        values = self._feed.arranged(inputs)
        into = None if outputs is None else feeds.targets(self.outputs, outputs)
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._session()
        try:
            results = self._run(session, values, into)
            if into:
                results.deliver(into)
        finally:
            self._idle.append(session)
        return results if decode_strings else results.encoded()

    def _says_what_to_share(self, more: tuple[Any, ...]) -> bool:
        """Whether what follows the inputs is OpenVINO's `share_inputs, share_outputs`."""
        flags = len(more) <= 2 and all(isinstance(item, bool) for item in more)
        return flags and len(self.inputs) != 1 + len(more)

    def infer_new_request(self, inputs: Inputs = None) -> Results:
        """One inference by a request of its own."""
        return self.create_infer_request().infer(inputs)

    def input(self, key: Key = 0) -> Port:
        """An input by name or index."""
        return self.inputs[index_of(self.inputs, key, "input")]

    def output(self, key: Key = 0) -> Port:
        """An output by name or index."""
        return self.outputs[index_of(self.outputs, key, "output")]

    @entry("create_infer_request")
    def create_infer_request(self) -> InferRequest:
        """A request with its own buffers and queue."""
        return InferRequest(self)

    @entry("export_model", model_stream="file", user_stream="file")
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
        try:
            file.write(blob)
        except Exception as error:  # the file object is the user's
            raise InputError(f"export_model cannot write the file: {first_line(error)}") from error
        return None

    def get_property(self, name: str) -> Any:
        """A property's value for this compiled model. Raises `PropertyError` for others."""
        known: dict[str, Callable[[], Any]] = {
            properties.LOADED_FROM_CACHE: lambda: self._loaded.loaded_from_cache,
            properties.EXECUTION_DEVICES: lambda: [self._device.info.name],
            properties.OPTIMAL_NUMBER_OF_INFER_REQUESTS: self._streams,
            properties.NUM_STREAMS: self._streams,
            properties.FULL_DEVICE_NAME: lambda: self._device.info.full_name,
            properties.NETWORK_NAME: lambda: self._name,
            properties.SUPPORTED_PROPERTIES: lambda: [*{**known, **self._settings}],
            **self._more(),
        }
        if not isinstance(name, str):
            raise PropertyError(f"expected the name of a property, found {name!r}")
        if name in known:
            return known[name]()
        if name in self._settings:
            return self._settings[name]
        raise properties.unknown_to_read(name)

    def _more(self) -> Mapping[str, Callable[[], Any]]:
        """What else can be read, or is read in another way."""
        return {}

    def set_property(self, values: Mapping[str, Any]) -> None:
        """A compiled model's properties are fixed. Always raises `PropertyError`."""
        raise PropertyError(
            f"{', '.join(properties.mapping(values))}: set properties before compile_model"
        )

    @property
    def device(self) -> Device:
        """The device it runs on."""
        return self._device

    def get_context(self) -> RemoteContext:
        """The OpenCL context that it was compiled for."""
        from clinfer.remote import RemoteContext

        return RemoteContext.of_device(self._device)

    @property
    def plan(self) -> Plan:
        """What the device does for one inference."""
        return self._loaded.plan

    @property
    def _plans(self) -> Sequence[Plan]:
        """What several devices do in turn; of one, its plan."""
        return [self.plan]

    @property
    def host_steps(self) -> tuple[HostStep, ...]:
        """The operators without a kernel, each with the reason."""
        return tuple(self._loaded.plan.host_steps)

    @property
    def programs_built(self) -> int:
        """How many programs had to be built from source for this compiled model, up to now."""
        return self._loaded.builds + self._loaded.executable.remade

    def release_memory(self) -> None:
        """Gives back the buffers of calls that have ended."""
        self._idle.clear()

    def _streams(self) -> int:
        """How many requests run side by side; each has that share of a CPU's cores."""
        streams = self._settings.get(properties.NUM_STREAMS, "AUTO")
        if streams != "AUTO":
            return int(streams)
        if self._settings.get(properties.PERFORMANCE_HINT) not in properties.THROUGHPUTS:
            return 1
        return self._executable.most_streams(self._threads)

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

    def _run(
        self, session: Session, values: Sequence[Any], into: Mapping[int, Any] | None = None
    ) -> Results:
        found = session.run(values, into)
        self._profile = session.profile
        return Results(self.outputs, found)

    def _session(self) -> Session:
        profiling = bool(self._settings.get(properties.PERF_COUNT))
        return self._executable.session(profiling, self._streams(), self._threads)

    @property
    def _executable(self) -> Executable:
        return self._loaded.executable

    @property
    def _where(self) -> str:
        """What it runs on, for people."""
        return f"{self.device.info.name}, {self.device.info.full_name}"

    @property
    def _name(self) -> str:
        """What it was compiled from: a file's name without its ending; '' where that is no file."""
        return "" if self._origin is None else self._origin.path.stem

    def get_runtime_model(self) -> RuntimeModel:
        """What runs: a node for each kernel launch and host step, in their order."""
        from clinfer.runtime_model import RuntimeModel

        return RuntimeModel(self)

    def query_state(self) -> list[Any]:
        """State that outlives a run: an ONNX model has none, so the list is empty."""
        return []

    def reset_state(self) -> None:
        """Forgets state from earlier runs, of which an ONNX model has none."""

    @property
    def _threads(self) -> int:
        return int(self._settings.get(properties.INFERENCE_NUM_THREADS, 0))

    def __reduce__(self) -> Reduced:
        """Sends it to another process; see `clinfer.transport`."""
        from clinfer.transport import reduced

        return reduced(self, self._origin)

    def __repr__(self) -> str:
        from clinfer.api.text import compiled_text

        return compiled_text(self)

    def _repr_html_(self) -> str:
        from clinfer.api.text import compiled_html

        return compiled_html(self)


def _ports(
    ports: Sequence[PlanPort], kind: str, bounds: Mapping[Dim, Bounds], owner: object
) -> tuple[Port, ...]:
    made = []
    for index, port in enumerate(ports):
        shape = None if port.shape is None else tuple(_dimension(d) for d in port.shape)
        found = {axis: bounds[d] for axis, d in enumerate(port.shape or ()) if d in bounds}
        made.append(Port(port.name, shape, port.dtype, index, kind, found, owner))
    return tuple(made)


def _bounds(plan: Plan) -> dict[Dim, Bounds]:
    """The limits that `reshape` has set to dimensions of inputs."""
    found: dict[Dim, Bounds] = {}
    sizes = {size for port in plan.inputs for size in port.shape or () if not isinstance(size, int)}
    for left, right, _, relation in plan.constraints:
        if relation != "at most":
            continue
        if isinstance(left, int) and right in sizes:
            found[right] = (
                max(left, found.get(right, (0, None))[0]),
                found.get(right, (0, None))[1],
            )
        elif isinstance(right, int) and left in sizes:
            found[left] = (found.get(left, (0, None))[0], right)
    return found


def _dimension(dim: Dim) -> int | str | None:
    """A size, a named dimension's name, or None for an unnamed or computed one."""
    if isinstance(dim, int):
        return dim
    from clinfer.lowering.binding import symbol_name

    name = symbol_name(dim)
    return None if name is None or "." in name else name_in_file(name)
