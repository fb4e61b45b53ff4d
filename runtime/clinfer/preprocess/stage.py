"""A tensor on its way through the steps, and what is known about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from clinfer.api.shapes import Layout
from clinfer.api.types import Type
from clinfer.errors import ClinferError, InputError
from clinfer.graph.fragments import Writer
from clinfer.graph.ir import Shape, Value
from clinfer.ports import Port
from clinfer.preprocess.names import ColorFormat


class Wanted(NamedTuple):
    """What a model's input, or the user of an output, takes; an empty layout: any."""

    dtype: str
    layout: Layout
    port: Port


@dataclass
class Stage:
    """Several `tensors` are the planes of a picture; steps but `convert_color` take one."""

    writer: Writer
    tensors: list[Value]
    layout: Layout
    wanted: Wanted
    color: ColorFormat = ColorFormat.UNDEFINED

    @property
    def tensor(self) -> Value:
        """The only tensor. Raises `InputError` where there are planes."""
        if len(self.tensors) != 1:
            raise InputError(
                f"the picture is {self.color.words}, {len(self.tensors)} tensors: make it one with "
                "convert_color first"
            )
        return self.tensors[0]

    @property
    def shape(self) -> Shape:
        """The only tensor's shape. Raises `InputError` where its rank is not known."""
        shape = self.tensor.shape
        if shape is None:
            raise InputError("the rank of the tensor is not known: give its shape with set_shape")
        return shape

    def put(self, tensor: Value, layout: Layout | None = None) -> None:
        """What a step has made."""
        self.tensors = [tensor]
        self.layout = self.layout if layout is None else layout

    def __str__(self) -> str:
        first = tensor_text(self.tensors[0], self.layout)
        return first if self.color is ColorFormat.UNDEFINED else f"{first}, {self.color.words}"


class Step(NamedTuple):
    """`apply` changes the stage it is given; `name` is for texts."""

    name: str
    apply: Callable[[Stage], None]


def apply(steps: Iterable[Step], stage: Stage, place: str, lines: list[str] | None = None) -> None:
    """Applies steps in order, noting in `lines` what each of them makes of what.

    Raises clinfer's errors, naming the place and the step.
    """
    for step in steps:
        before = str(stage)
        try:
            step.apply(stage)
        except ClinferError as error:
            raise type(error)(f"{place}, {step.name}: {error}") from error
        if lines is not None:
            lines.append(f"      {step.name}: ({before}) -> ({stage})")


def tensor_text(value: Value, layout: Layout) -> str:
    """'[1,?,?,3], [N,H,W,C], u8'."""
    sizes = ["?" if not isinstance(d, int) else str(d) for d in value.shape or ()]
    shape = "[...]" if value.shape is None else f"[{','.join(sizes)}]"
    return description(shape, layout, value.dtype or "unknown")


def description(shape: str, layout: Layout, dtype: str) -> str:
    """The same of its parts."""
    said = "<no layout>" if layout.empty else str(layout)
    return f"{shape}, {said}, {Type.named(dtype).to_string()}"
