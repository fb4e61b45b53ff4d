"""The lists of steps that users write: each method adds one and returns the list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any, TypeVar

import numpy as np

from clinfer.api.shapes import Layout
from clinfer.api.types import Type
from clinfer.boundary import entry
from clinfer.errors import InputError
from clinfer.preprocess import colors, steps
from clinfer.preprocess.layouts import as_layout
from clinfer.preprocess.names import ColorFormat, PaddingMode, ResizeAlgorithm
from clinfer.preprocess.stage import Step

_PADDED = {
    PaddingMode.REFLECT: "reflected from tensor",
    PaddingMode.SYMMETRIC: "symmetrically added from tensor",
}

S = TypeVar("S", bound="_Steps")


class _Steps:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def _then(self: S, name: str, function: Callable[..., None], *arguments: Any) -> S:
        self.steps.append(Step(name, lambda stage: function(stage, *arguments)))
        return self

    @entry("convert_element_type")
    def convert_element_type(self: S, type: Any = None) -> S:
        """To an element type; by default to the one at the end of the way.

        Floats become integers by dropping what is behind the point.
        """
        to = None if type is None else Type(type)
        dtype = None if to is None or to.is_dynamic() else to.dtype
        said = "dynamic" if to is None else to.to_string()
        return self._then(f"convert type ({said})", steps.convert_element_type, dtype)

    @entry("convert_layout", dims="dst_layout")
    def convert_layout(self: S, dst_layout: Any = None) -> S:
        """To a layout ('NCHW'), or to an order of the axes ([0, 3, 1, 2]).

        By default to the layout at the end of the way.
        """
        if isinstance(dst_layout, (list, tuple, np.ndarray)):
            order = [int(axis) for axis in dst_layout]
            self._moved(order)
            return self._then(f"convert layout {_numbers(order)}", steps.transpose, order)
        layout = Layout() if dst_layout is None else as_layout(dst_layout)
        self._laid(layout)
        return self._then(f"convert layout {layout}", steps.convert_layout, layout)

    @entry("custom")
    def custom(self: S, operation: Callable[..., Any]) -> S:
        """Nodes of one's own.

        `operation` gets the tensor as a `Port` and returns an onnx GraphProto of operator set 18,
        or a ModelProto, with one input and one output. It is called by `build`, and by `print`.
        """
        if not callable(operation):
            raise InputError(f"custom: a function expected, found {operation!r}")
        return self._then("custom", steps.custom, operation)

    def _moved(self, order: list[int]) -> None:
        """A transposition was added."""

    def _laid(self, layout: Layout) -> None:
        """A change to a layout was added."""


class PostProcessSteps(_Steps):
    """What is done to an output before the user gets it."""


class PreProcessSteps(_Steps):
    """What is done to an input before the model gets it."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[list[int]] = []
        """Of all transpositions by numbers."""
        self.later_orders: list[list[int]] = []
        """Of those behind the last change to a layout, which is `layout`."""
        self.layout: Layout | None = None

    def _moved(self, order: list[int]) -> None:
        self.orders.append(order)
        self.later_orders.append(order)

    def _laid(self, layout: Layout) -> None:
        self.later_orders.clear()
        self.layout = layout

    @entry("mean")
    def mean(self, value: float | Sequence[float]) -> PreProcessSteps:
        """Subtracts a value, or one for each channel (the layout then has a 'C')."""
        return self._arithmetic("mean", "Sub", value)

    @entry("scale")
    def scale(self, value: float | Sequence[float]) -> PreProcessSteps:
        """Divides by a value, or by one for each channel (the layout then has a 'C')."""
        return self._arithmetic("scale", "Div", value)

    def _arithmetic(self, name: str, op: str, value: Any) -> PreProcessSteps:
        values = [value] if np.ndim(value) == 0 else list(value)
        numbers = [_number(v, name) for v in values]
        if not numbers:
            raise InputError(f"{name}: a value, or one for each channel expected, found none")
        return self._then(f"{name} {_numbers(numbers)}", steps.arithmetic, op, numbers)

    @entry("resize", alg="algorithm", dst_height="height", dst_width="width")
    def resize(
        self, algorithm: ResizeAlgorithm, height: int | None = None, width: int | None = None
    ) -> PreProcessSteps:
        """To a height and width, by default those of the model's input."""
        size = None
        if height is not None or width is not None:
            size = [whole(height, "resize"), whole(width, "resize")]
            if min(size) < 1:
                raise InputError(f"resize: a height and width from 1 expected, found {size}")
        name = "resize to model width/height" if size is None else f"resize to {tuple(size)}"
        chosen = member(ResizeAlgorithm, algorithm, "resize")
        return self._then(name, steps.resize, chosen, size)

    @entry("crop")
    def crop(self, begin: Sequence[int], end: Sequence[int]) -> PreProcessSteps:
        """The part from `begin` to `end`, an index for each axis; below 0 from the end."""
        first, last = (_wholes(numbers, "crop") for numbers in (begin, end))
        name = f"Crop ({_spaced(first)},{_spaced(last)})"
        return self._then(name, steps.crop, first, last)

    @entry("pad", pads_begin="begin", pads_end="end")
    def pad(
        self, begin: Sequence[int], end: Sequence[int], value: Any, mode: PaddingMode
    ) -> PreProcessSteps:
        """Adds so many elements before and behind each axis; `value` counts for CONSTANT."""
        first, last = (_wholes(numbers, "pad") for numbers in (begin, end))
        number = _number(value[0] if np.ndim(value) == 1 and len(value) else value, "pad")
        chosen = member(PaddingMode, mode, "pad")
        said = _PADDED.get(chosen, f"with {_numbers([number])}")
        name = f"pad(begin {_numbers(first)}, end {_numbers(last)}, {said})"
        return self._then(name, steps.pad, first, last, number, chosen)

    @entry("convert_color", format="dst_format")
    def convert_color(self, dst_format: ColorFormat) -> PreProcessSteps:
        """To RGB, BGR or GRAY, from what `tensor().set_color_format` says."""
        to = member(ColorFormat, dst_format, "convert_color")
        name = f"convert color ({to.words})"
        return self._then(name, colors.convert, to)

    @entry("reverse_channels")
    def reverse_channels(self) -> PreProcessSteps:
        """The last channel first: RGB to BGR and back; the layout has a 'C'."""
        return self._then("reverse channels", steps.reverse_channels)


def member(kind: Any, given: Any, where: str) -> Any:
    """The member of an enumeration; OpenVINO's own members are taken too, by their names."""
    name = getattr(given, "name", given)
    found = kind.__members__.get(name) if isinstance(name, str) else None
    if found is None:
        raise InputError(
            f"{where}: a {kind.__name__} expected ({', '.join(kind.__members__)}), found {given!r}"
        )
    return found


def _number(given: Any, where: str) -> float:
    try:
        return float(given)
    except (TypeError, ValueError):
        raise InputError(f"{where}: a number expected, found {given!r}") from None


def whole(given: Any, where: str) -> int:
    """An integer. Raises `InputError` for anything else."""
    try:
        if not isinstance(given, bool):
            return index(given)
    except TypeError:
        pass
    raise InputError(f"{where}: a whole number expected, found {given!r}")


def _wholes(given: Any, where: str) -> list[int]:
    if not np.iterable(given):
        raise InputError(f"{where}: whole numbers expected, found {given!r}")
    return [whole(number, where) for number in given]


def _numbers(values: Sequence[float]) -> str:
    return f"({','.join(f'{v:g}' for v in values)})"


def _spaced(values: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, values))} ]"
