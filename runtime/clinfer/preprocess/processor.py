"""`PrePostProcessor`: the steps of all inputs and outputs, made a part of the model by `build`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from clinfer.boundary import entry
from clinfer.errors import ClinferError, InputError, ShapeError
from clinfer.graph.fragments import Fragment, Writer
from clinfer.graph.model import Model
from clinfer.ports import Port, index_of
from clinfer.preprocess.infos import InputInfo, OutputInfo
from clinfer.preprocess.inputs import Entry, entered, sizes
from clinfer.preprocess.lists import PostProcessSteps, PreProcessSteps
from clinfer.preprocess.names import ColorFormat
from clinfer.preprocess.stage import Stage, Step, Wanted, apply, description, tensor_text

Info = TypeVar("Info", InputInfo, OutputInfo)
_TO_MODELS = (ColorFormat.UNDEFINED, ColorFormat.RGB, ColorFormat.BGR, ColorFormat.GRAY)


class PrePostProcessor:
    """Collects what is to be done to a model's inputs and outputs; `build` does it.

    `print` shows each step with the tensor before and after it.
    """

    @entry("PrePostProcessor")
    def __init__(self, model: Model) -> None:
        """Raises `InputError` for what is no model that `read_model` has returned."""
        if not isinstance(model, Model):
            raise InputError(
                f"PrePostProcessor takes what read_model returns, found {type(model).__name__}"
            )
        self._model = model
        self._inputs = [InputInfo(port) for port in model.inputs]
        self._outputs = [OutputInfo(port) for port in model.outputs]
        self._built = False

    @entry("input", tensor_name="key", input_index="key")
    def input(self, key: Any = None) -> InputInfo:
        """An input by name, index or port, or the only one. Raises `InputError`."""
        return _found(self._inputs, key, "input")

    @entry("output", tensor_name="key", output_index="key")
    def output(self, key: Any = None) -> OutputInfo:
        """An output by name, index or port, or the only one. Raises `InputError`."""
        return _found(self._outputs, key, "output")

    @entry("build")
    def build(self) -> Model:
        """Makes the steps a part of the model, and returns it.

        Inputs and outputs keep their names; their types and shapes become those of the tensors
        that users give and get. Raises `InputError` or `ShapeError`, naming the input and the step,
        for what does not fit; the model then stays as it was.
        """
        self._refresh()
        made = self._model.clone()
        for info in self._inputs:
            front = _Input(info, made).fragment()
            if front is not None:
                made.attach(front)
        for output, port in zip(self._outputs, made.outputs, strict=False):
            back = _Output(output, port, made).fragment()
            if back is not None:
                made.attach(back)
        self._model.take(made)
        self._built = True
        return self._model

    def _refresh(self) -> None:
        """Shapes may have changed since the first look. Raises `InputError` where more has."""
        if self._built:
            raise InputError("the steps are in the model already: make another PrePostProcessor")
        sides: tuple[tuple[Sequence[InputInfo | OutputInfo], Sequence[Port]], ...] = (
            (self._inputs, self._model.inputs),
            (self._outputs, self._model.outputs),
        )
        for infos, ports in sides:
            known = [(info.port.name, info.port.dtype) for info in infos]
            if known != [(port.name, port.dtype) for port in ports[: len(infos)]]:
                raise InputError("the model has other inputs now: make another PrePostProcessor")
            for info, port in zip(infos, ports, strict=False):
                info.port = port

    def __str__(self) -> str:
        lines: list[str] = []
        try:
            self._refresh()
            for info in self._inputs:
                _Input(info, self._model).describe(lines)
            for output in self._outputs:
                _Output(output, output.port, self._model).describe(lines)
        except ClinferError as error:
            lines.append(f"Error occurred: {error}")
        return "".join(f"{line}\n" for line in lines)


class _Input:
    """The steps of one input."""

    def __init__(self, info: InputInfo, model: Model) -> None:
        self._info = info
        self._place = f"input '{info.port.name}'"
        self._after = _free(f"{info.port.name}/prepared", model)
        try:
            self._entry: Entry = entered(info)
        except ClinferError as error:
            raise type(error)(f"{self._place}: {error}") from error

    def fragment(self) -> Fragment | None:
        """What makes the model's input; None where there is nothing to do."""
        stage = self._stage()
        port = self._info.port
        self._run(stage, None)
        self._check(stage)
        news = self._entry.inputs
        if not stage.writer.nodes and news == ((port.name, port.dtype, _sizes(port)),):
            return None
        stage.writer.emit("Identity", stage.tensor, into=self._after)
        renamed = ((port.name, self._after),)
        return Fragment(((port.name, news),), (), renamed, tuple(stage.writer.nodes), ())

    def _stage(self) -> Stage:
        entry, writer = self._entry, Writer(self._after)
        port = self._info.port
        tensors = [writer.tensor(*tensor) for tensor in entry.tensors()]
        wanted = Wanted(port.dtype, entry.model_layout, port)
        return Stage(writer, tensors, entry.layout, wanted, self._info.tensor().color)

    def _run(self, stage: Stage, lines: list[str] | None) -> None:
        steps = self._info.preprocess().steps
        _head(lines, "Pre-processing steps", steps)
        apply(steps, stage, self._place, lines)
        rest = _implicit(stage)
        _head(lines, "Implicit pre-processing steps", rest)
        apply(rest, stage, self._place, lines)

    def _check(self, stage: Stage) -> None:
        """Raises where what the steps make is not what the model takes."""
        stage.tensor  # noqa: B018 - it raises for planes
        if stage.color not in _TO_MODELS:
            raise InputError(
                f"{self._place}: a model takes RGB, BGR or GRAY, found {stage.color.words}: add "
                "convert_color"
            )
        port, shape = self._info.port, stage.tensor.shape
        if port.shape is None or shape is None:
            return
        fits = len(shape) == len(port.shape) and all(
            not isinstance(size, int) or port.partial_shape[axis].compatible(size)
            for axis, size in enumerate(shape)
        )
        if not fits:
            raise ShapeError(
                f"{self._place}: the steps make {tensor_text(stage.tensor, stage.layout)}, the "
                f"model takes {port.partial_shape}: add a resize, a crop or convert_layout, or "
                "give the model another shape with reshape"
            )

    def describe(self, lines: list[str]) -> None:
        """Adds a text for `print`; none where there is nothing to do."""
        stage, entry, port = self._stage(), self._entry, self._info.port
        explicit = bool(self._info.preprocess().steps) or not entry.model_layout.empty
        if not explicit and entry.inputs == ((port.name, port.dtype, _sizes(port)),):
            return
        color = "" if stage.color is ColorFormat.UNDEFINED else f" (color {stage.color.words})"
        lines.append(f'Input "{port.name}"{color}:')
        if len(stage.tensors) == 1:
            lines.append(f"    User's input tensor: {tensor_text(stage.tensor, stage.layout)}")
        else:
            lines.append(f"    {len(stage.tensors)} user's tensors expected for each plane:")
            lines.extend(
                f"       {number}: {value.name} {tensor_text(value, stage.layout)}"
                for number, value in enumerate(stage.tensors)
            )
        wanted = description(str(port.partial_shape), entry.model_layout, port.dtype)
        lines.append(f"    Model's expected tensor: {wanted}")
        self._run(stage, lines)


class _Output:
    """The steps of one output; `port` is that of the model whose inputs are prepared."""

    def __init__(self, info: OutputInfo, port: Port, model: Model) -> None:
        self._info = info
        self._port = port
        self._place = f"output '{port.name}'"
        self._after = _free(f"{port.name}/raw", model)
        self._shape = model._graph.outputs[port.index].shape

    def fragment(self) -> Fragment | None:
        """What makes the user's output; None where there is nothing to do."""
        stage = self._stage()
        self._run(stage, None)
        if not stage.writer.nodes:
            return None
        name = self._port.name
        stage.writer.emit("Identity", stage.tensor, into=name)
        return Fragment((), (name,), ((name, self._after),), (), tuple(stage.writer.nodes))

    def _stage(self) -> Stage:
        writer, tensor = Writer(self._after), self._info.tensor()
        value = writer.tensor(self._after, self._port.dtype, self._shape)
        wanted = Wanted(tensor.dtype or self._port.dtype, tensor.layout, self._port)
        return Stage(writer, [value], self._info.model().layout, wanted)

    def _run(self, stage: Stage, lines: list[str] | None) -> None:
        steps = self._info.postprocess().steps
        _head(lines, "Post-processing steps", steps)
        apply(steps, stage, self._place, lines)
        keep = self._info.tensor().dtype is None  # then any type is right
        rest = _implicit(stage, PostProcessSteps(), keep)
        _head(lines, "Post-processing implicit steps", rest)
        apply(rest, stage, self._place, lines)

    def describe(self, lines: list[str]) -> None:
        """Adds a text for `print`; none where there is nothing to do."""
        stage = self._stage()
        given = tensor_text(stage.tensor, stage.layout)
        found: list[str] = []
        self._run(stage, found)
        if found:
            lines.append(f'Output "{self._port.name}":')
            lines.append(f"    Model's data tensor: {given}")
            lines.extend(found)
            lines.append(f"    User's output tensor: {tensor_text(stage.tensor, stage.layout)}")


def _implicit(
    stage: Stage,
    steps: PreProcessSteps | PostProcessSteps | None = None,
    keep_dtype: bool = False,
) -> list[Step]:
    """What is done without being asked for: the element type and the layout that are wanted."""
    found = PreProcessSteps() if steps is None else steps
    wanted = stage.wanted
    if stage.tensors[0].dtype != wanted.dtype and not keep_dtype:
        found.convert_element_type(wanted.dtype)
    if not wanted.layout.empty and wanted.layout != stage.layout:
        found.convert_layout(wanted.layout)
    return found.steps


def _head(lines: list[str] | None, words: str, steps: Sequence[Step]) -> None:
    if lines is not None and steps:
        lines.append(f"    {words} ({len(steps)}):")


def _found(infos: Sequence[Info], key: Any, what: str) -> Info:
    if key is None:
        if len(infos) != 1:
            raise InputError(f"the model has {len(infos)} {what}s: say which, {what}(name)")
        return infos[0]
    return infos[index_of([info.port for info in infos], key, what)]


def _free(name: str, model: Model) -> str:
    """A name that no tensor of the model has, nor begins with."""
    taken = {value.name for value in model._graph.values()}
    number, found = 1, name
    while found in taken or any(other.startswith(f"{found}/") for other in taken):
        number += 1
        found = f"{name}{number}"
    return found


def _sizes(port: Port) -> tuple[Any, ...] | None:
    return None if port.shape is None else sizes(port.partial_shape)
