"""`InferenceSession`: ONNX Runtime's words over a compiled model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clinfer import forks, properties
from clinfer.dtypes import BY_NAME
from clinfer.errors import ClinferError, InputError, ShapeError, listed
from clinfer.graph.signature import SignedModel
from clinfer.log import Log
from clinfer.ort import errors
from clinfer.ort.binding import IOBinding
from clinfer.ort.errors import BadTypeError, InvalidArgument, as_status, translated
from clinfer.ort.feeds import Checks
from clinfer.ort.loading import compiled, opened
from clinfer.ort.nodes import ModelMetadata, NodeArg, as_written, is_plain, node_args
from clinfer.ort.options import RunOptions, SessionOptions
from clinfer.ort.profile import Profile
from clinfer.ort.providers import CPU, Placement, placement
from clinfer.ort.values import OrtValue
from clinfer.runs import Job, performing, workers

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from clinfer.compiled import CompiledModel
    from clinfer.ports import Port

_LOG = Log(__name__)

Callback = Callable[[list[Any], Any, str], None]


class InferenceSession:
    """A model ready to run. Safe to use from several threads."""

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(path_or_bytes, (str, os.PathLike, bytes)):
            raise BadTypeError(f"Unable to load from type '{type(path_or_bytes)}'")
        if not isinstance(sess_options, (SessionOptions, type(None))):
            raise BadTypeError(f"sess_options: SessionOptions expected, found {sess_options!r}")
        self._sess_options = SessionOptions() if sess_options is None else sess_options
        self._enable_fallback = bool(kwargs.get("enable_fallback", True))
        self._workers: ThreadPoolExecutor | None = None
        self._profile: Profile | None = None
        self._lock = forks.new_lock()
        forks.inherit(self)
        with translated():
            self._signed = opened(path_or_bytes, self._sess_options)
            self._place(placement(providers, provider_options))

    # -- running -----------------------------------------------------------------------------

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """The outputs of those names, of all where there are none, for the inputs by name."""
        _require_named(input_feed)
        chosen = self._chosen(output_names)
        _require_going_on(run_options)
        with translated():
            values = self._values(input_feed)
        return [values[index] for index in chosen]

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callback,
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """Runs in the background, then calls `callback(outputs, user_data, error)`.

        `error` is '' where all went well. The inputs must not change before that. A missing input
        raises at once.
        """
        _require_named(input_feed)
        self._checks.require(input_feed)
        self._pool().submit(
            self._called, callback, user_data, output_names, dict(input_feed), run_options
        )

    def run_with_iobinding(
        self, iobinding: IOBinding, run_options: RunOptions | None = None
    ) -> None:
        """Runs with what is bound; the results are in the binding and where it says."""
        if getattr(iobinding, "_session", None) is not self:
            raise errors.BadValueError("IOBinding must be used with the session that created it.")
        outputs = self.run(iobinding._wanted(), iobinding._inputs, run_options)
        iobinding._take(outputs)

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As `run`, with values in and out."""
        outputs = self.run(output_names, input_dict_ort_values, run_options)
        return [OrtValue(value) for value in outputs]

    def io_binding(self) -> IOBinding:
        """A new binding."""
        return IOBinding(self)

    # -- what there is -----------------------------------------------------------------------

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that need a value."""
        return self._described("inputs", self._model.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The outputs."""
        return self._described("outputs", self._model.outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """The inputs that have a value in the model; a run may give another one."""
        return self._described("overridable", ())

    def get_modelmeta(self) -> ModelMetadata:
        """What the model's file says of itself."""
        return ModelMetadata(self._signed.signature)

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._sess_options

    def get_providers(self) -> list[str]:
        """The provider it runs with; last the CPU's, as in ONNX Runtime."""
        return list(dict.fromkeys([self._placement.provider, CPU]))

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """The providers' options; `device_name` is where it runs."""
        found: dict[str, dict[str, str]] = {name: {} for name in self.get_providers()}
        device = self._model.get_property(properties.EXECUTION_DEVICES)[0]
        found[self._placement.provider] = {**self._placement.options, "device_name": device}
        return found

    def set_providers(
        self,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[Any, Any]] | None = None,
    ) -> None:
        """Compiles the model again, for another device."""
        with translated():
            self._place(placement(providers, provider_options))

    def enable_fallback(self) -> None:
        """Remembers it. Nothing falls back here: a device that fails raises `EPFail`."""
        self._enable_fallback = True

    def disable_fallback(self) -> None:
        """Remembers it; see `enable_fallback`."""
        self._enable_fallback = False

    def get_profiling_start_time_ns(self) -> int:
        """When profiling began, as `time.monotonic_ns` gives; 0 without it."""
        return 0 if self._profile is None else self._profile.start_ns

    def end_profiling(self) -> str:
        """Writes the steps of all runs to a file; its name, '' without `enable_profiling`."""
        if self._profile is None:
            return ""
        profile, self._profile = self._profile, None
        try:
            return profile.write()
        except OSError as error:
            raise errors.Fail(f"the profile cannot be written: {error}") from error

    def after_fork(self) -> None:
        """In a forked child: the threads of `run_async` are not there."""
        self._workers = None

    # -- private -----------------------------------------------------------------------------

    def _place(self, place: Placement) -> None:
        """Compiles for a place, and runs there from now on."""
        options = self._sess_options
        self._placement = place
        self._model = compiled(self._signed, options, place)
        self._checks = self._checks_of(self._model)
        self._outputs = {port.name: index for index, port in enumerate(self._model.outputs)}
        self._overridden: dict[frozenset[str], tuple[CompiledModel, Checks]] = {}
        self._arguments: dict[str, list[NodeArg]] = {}
        self._profile = None
        if options.enable_profiling:
            self._profile = Profile(options.profile_file_prefix, place.provider)

    def _values(self, input_feed: Mapping[str, Any]) -> tuple[Any, ...]:
        """All outputs for the feeds."""
        model, checks = self._model, self._checks
        unknown = [name for name in input_feed if name not in checks]
        if unknown:
            model, checks = self._overriding(unknown)
        feeds = checks.checked(input_feed)
        began = time.monotonic_ns() if self._profile is not None else 0
        try:
            results = model(feeds)
        except (InputError, ShapeError) as error:
            raise checks.explained(feeds) or as_status(error) from error
        if self._profile is not None:
            self._profile.add(model.profiling_info, began)
        return results.to_tuple()

    def _overriding(self, names: Sequence[str]) -> tuple[CompiledModel, Checks]:
        """The model with initialisers as inputs, compiled once for each set of them."""
        known = [argument.name for argument in self._signed.signature.overridable]
        for name in names:
            if name not in known:
                has = listed(map(repr, (port.name for port in self._model.inputs)))
                raise InvalidArgument(f"Invalid input name: {name}; the model has {has}")
        key = frozenset(names)
        with self._lock:
            if key not in self._overridden:
                signed = SignedModel(self._signed.with_inputs(dict.fromkeys(names)))
                model = compiled(signed, self._sess_options, self._placement)
                self._overridden[key] = model, self._checks_of(model)
            return self._overridden[key]

    def _described(self, which: str, ports: Sequence[Port]) -> list[NodeArg]:
        if which not in self._arguments:
            known = {port.name: port for port in ports}
            # Reading the file takes the time of loading onnx.
            plain = bool(ports) and all(is_plain(port, which == "inputs") for port in ports)
            arguments = as_written(ports) if plain else getattr(self._signed.signature, which)
            self._arguments[which] = node_args(arguments, known, self._sess_options._names)
        return self._arguments[which]

    def _checks_of(self, model: CompiledModel) -> Checks:
        types: dict[str, str] = {}
        if any(port.dtype not in BY_NAME for port in model.inputs):
            types = {argument.name: argument.type for argument in self._signed.signature.inputs}
        return Checks(model.inputs, types)

    def _takes(self, name: str) -> bool:
        """Whether there is an input or an overridable initialiser of that name."""
        return name in self._checks or any(
            argument.name == name for argument in self._signed.signature.overridable
        )

    def _output(self, name: str) -> int:
        """The position of an output. Raises `InvalidArgument`."""
        index = self._outputs.get(name)
        if index is None:
            raise InvalidArgument(
                f"Invalid output name:{name}; the model has {listed(map(repr, self._outputs))}"
            )
        return index

    def _chosen(self, names: Sequence[str] | None) -> list[int]:
        if names is not None and (isinstance(names, str) or not isinstance(names, Iterable)):
            raise BadTypeError(f"output_names: a list of names expected, found {names!r}")
        return [self._output(name) for name in names or self._outputs]

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._workers is None:
                count = self._model.get_property(properties.OPTIMAL_NUMBER_OF_INFER_REQUESTS)
                self._workers = workers(count, "clinfer-ort")
            return self._workers

    def _called(
        self,
        callback: Callback,
        user_data: Any,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None,
    ) -> None:
        """A run of `run_async`. What the callback raises is logged: nobody waits for it."""
        outputs: list[Any] = []
        message = ""
        try:
            with performing(Job([], user_data)):
                outputs = self.run(output_names, input_feed, run_options)
        except ClinferError as error:
            message = str(error)
        try:
            callback(outputs, user_data, message)
        except Exception as error:
            _LOG.warning("the callback of run_async failed: %s: %s", type(error).__name__, error)

    def __repr__(self) -> str:
        return f"InferenceSession({self._model!r})"


def _require_named(feeds: object) -> None:
    if not isinstance(feeds, Mapping):
        raise BadTypeError(f"input_feed: a dict of inputs by name expected, found {type(feeds)}")


def _require_going_on(options: RunOptions | None) -> None:
    if options is not None and not hasattr(options, "terminate"):
        raise BadTypeError(f"run_options: RunOptions expected, found {options!r}")
    if options is not None and options.terminate:
        raise errors.Fail("Exiting due to terminate flag being set to true.")
