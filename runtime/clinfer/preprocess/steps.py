"""The steps: each writes ONNX nodes behind the tensor of a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clinfer import dtypes
from clinfer.api.shapes import Layout
from clinfer.api.types import Type
from clinfer.errors import InputError, ShapeError
from clinfer.graph.ir import Value
from clinfer.ports import Port
from clinfer.preprocess.layouts import axis_of, made, order_between, permuted, squeezed
from clinfer.preprocess.names import PaddingMode, ResizeAlgorithm
from clinfer.preprocess.stage import Stage

END = int(np.iinfo(np.int64).max)
"""Beyond the end of any axis."""

_ROUNDED = ("uint8", "int8", "uint16", "int16")
_PILLOW = {"antialias": 1, "exclude_outside": 1}
# Of ResizeAlgorithm: Resize's attributes.
_RESIZE: dict[ResizeAlgorithm, dict[str, Any]] = {
    ResizeAlgorithm.RESIZE_LINEAR: {"mode": "linear"},
    ResizeAlgorithm.RESIZE_CUBIC: {"mode": "cubic"},
    ResizeAlgorithm.RESIZE_NEAREST: {"mode": "nearest", "nearest_mode": "round_prefer_floor"},
    ResizeAlgorithm.RESIZE_BILINEAR_PILLOW: {
        "mode": "linear",
        "antialias": 1,
        "exclude_outside": 1,
    },
    ResizeAlgorithm.RESIZE_BICUBIC_PILLOW: {
        "mode": "cubic",
        "cubic_coeff_a": -0.5,
        "antialias": 1,
        "exclude_outside": 1,
    },
}


def arithmetic(stage: Stage, op: str, values: Sequence[float]) -> None:
    """Sub or Div by one value, or by one for each channel."""
    dtype = Type.named(stage.tensor.dtype or "")
    if not dtype.real:
        raise InputError(
            f"floats expected, found {dtype.to_string()}: put convert_element_type before it"
        )
    content = np.array(values, dtypes.to_numpy(dtype.dtype))
    if len(values) > 1:
        axis = axis_of(stage.layout, "C", len(stage.shape))
        size = stage.shape[axis]
        if isinstance(size, int) and size != len(values):
            raise InputError(
                f"{len(values)} values for {size} channels (layout {stage.layout}): give one value "
                f"or {size}"
            )
        content = content.reshape([-1 if a == axis else 1 for a in range(len(stage.shape))])
    stage.put(stage.writer.emit(op, stage.tensor, content))


def convert_element_type(stage: Stage, dtype: str | None) -> None:
    """To `dtype`, by default the one that is wanted."""
    to = dtype or stage.wanted.dtype
    stage.tensors = [
        value if value.dtype == to else stage.writer.emit("Cast", value, to=dtypes.BY_NAME[to].onnx)
        for value in stage.tensors
    ]


def convert_layout(stage: Stage, layout: Layout) -> None:
    """To `layout`, by default the one that is wanted; axes that are missing come first."""
    after = stage.wanted.layout if layout.empty else layout
    value, before = stage.tensor, stage.layout
    kept = squeezed(after, before)
    if kept is not None:
        count = len(after._names) - len(kept)
        missing = [name for name in after._names if name not in before._names]
        value = stage.writer.emit("Unsqueeze", value, np.arange(count))
        before = made([*missing, *before._names])
    rank = len(stage.shape) if kept is None else len(after._names)
    order = order_between(before, after, rank)
    if order:
        value = stage.writer.emit("Transpose", value, perm=order)
    stage.put(value, before if after.empty else after)


def transpose(stage: Stage, order: Sequence[int]) -> None:
    """Axis i of the result is axis order[i]."""
    if len(order) != len(stage.shape):
        raise InputError(f"{len(stage.shape)} dimensions expected, found the order {list(order)}")
    layout = permuted(stage.layout, order)
    stage.put(stage.writer.emit("Transpose", stage.tensor, perm=list(order)), layout)


def resize(stage: Stage, algorithm: ResizeAlgorithm, size: Sequence[int] | None) -> None:
    """To a height and width, by default the model's."""
    rank = len(stage.shape)
    axes = [axis_of(stage.layout, name, rank) for name in "HW"]
    wanted = list(_model_size(stage)) if size is None else list(size)
    stage.put(_resized(stage, algorithm, axes, wanted))


def _resized(stage: Stage, algorithm: ResizeAlgorithm, axes: list[int], size: list[int]) -> Value:
    emit, none = stage.writer.emit, np.zeros(0, np.float32)
    attrs = {**_RESIZE[algorithm], "coordinate_transformation_mode": "half_pixel"}
    value, dtype = stage.tensor, stage.tensor.dtype or ""
    if "antialias" not in attrs or dtype not in _ROUNDED:
        return emit("Resize", value, none, none, _int64(size), axes=axes, **attrs)
    # As Pillow: widths first, and what that makes is of the picture's type too. In floats, for
    # which there are kernels.
    limits = np.iinfo(dtypes.to_numpy(dtype))
    least, most = (np.array(end, np.float32) for end in (limits.min, limits.max))
    value = emit("Cast", value, to=dtypes.BY_NAME["float32"].onnx)
    for axis, wanted in reversed(list(zip(axes, size, strict=True))):
        made = emit("Resize", value, none, none, _int64([wanted]), axes=[axis], **attrs)
        value = emit("Clip", emit("Round", made), least, most)
    return emit("Cast", value, to=dtypes.BY_NAME[dtype].onnx)


def _model_size(stage: Stage) -> list[int]:
    layout, shape = stage.wanted.layout, stage.wanted.port.shape
    if shape is None:
        raise InputError("the model's input has no known rank: give the height and width")
    found = []
    for name in "HW":
        size = shape[axis_of(layout, name, len(shape))]
        if not isinstance(size, int):
            raise InputError(
                f"the model's {name} is dynamic (shape {shape.to_string()}): give the height and "
                "width, or the model a fixed size with reshape"
            )
        found.append(size)
    return found


def crop(stage: Stage, begin: Sequence[int], end: Sequence[int]) -> None:
    """The part from `begin` to `end` of every axis; numbers below 0 count from its end."""
    if not len(begin) == len(end) == len(stage.shape):
        raise InputError(
            f"a begin and an end for each of {len(stage.shape)} dimensions expected, found "
            f"{list(begin)} and {list(end)}"
        )
    stage.put(stage.writer.emit("Slice", stage.tensor, _int64(begin), _int64(end)))


def pad(
    stage: Stage, begin: Sequence[int], end: Sequence[int], value: float, mode: PaddingMode
) -> None:
    """Adds so many elements before and behind each axis; below 0 takes them away."""
    dtype = Type.named(stage.tensor.dtype or "")
    if not len(begin) == len(end) == len(stage.shape):
        raise InputError(
            f"two numbers for each of {len(stage.shape)} dimensions expected, found {list(begin)} "
            f"and {list(end)}"
        )
    if not dtype.real:
        raise InputError(
            f"floats expected, found {dtype.to_string()}: put convert_element_type before it"
        )
    if mode is PaddingMode.SYMMETRIC:
        stage.put(_mirrored(stage, begin, end))
        return
    inputs: list[Any] = [stage.tensor, _int64([*begin, *end])]
    if mode is PaddingMode.CONSTANT:
        inputs.append(np.array(value, dtypes.to_numpy(dtype.dtype)))
    stage.put(stage.writer.emit("Pad", *inputs, mode=mode.name.lower()))


def _mirrored(stage: Stage, begin: Sequence[int], end: Sequence[int]) -> Value:
    """ONNX's Pad does not repeat the edge: the mirrored parts are cut out and put beside it."""
    value = stage.tensor
    for axis, (before, behind) in enumerate(zip(begin, end, strict=True)):
        size = stage.shape[axis]
        most = size if isinstance(size, int) else END
        if not (0 <= before <= most and 0 <= behind <= most):
            raise ShapeError(
                f"axis {axis} of size {size}: a symmetric padding of 0 to that expected, found "
                f"{before} and {behind}"
            )
        parts = [value]
        if before:
            parts.insert(0, sliced(stage, value, axis, before - 1, -END, -1))
        if behind:
            parts.append(sliced(stage, value, axis, -1, -behind - 1, -1))
        if len(parts) > 1:
            value = stage.writer.emit("Concat", *parts, axis=axis)
    return value


def sliced(stage: Stage, value: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
    """A part of one axis."""
    numbers = [_int64([n]) for n in (start, end, axis, step)]
    return stage.writer.emit("Slice", value, *numbers)


def reverse_channels(stage: Stage) -> None:
    """RGB to BGR and back."""
    axis = axis_of(stage.layout, "C", len(stage.shape))
    stage.put(sliced(stage, stage.tensor, axis, -1, -END, -1))


def custom(stage: Stage, operation: Callable[[Port], Any]) -> None:
    """What `operation` makes for the tensor: an onnx GraphProto or ModelProto."""
    value = stage.tensor
    sizes = [d if isinstance(d, int) else None for d in value.shape or ()]
    port = Port(value.name, None if value.shape is None else tuple(sizes), value.dtype or "unknown")
    try:
        made = operation(port)
    except Exception as error:  # the function is the user's
        raise InputError(f"the function has raised {type(error).__name__}: {error}") from error
    stage.put(stage.writer.include(made, value))


def _int64(numbers: Sequence[int]) -> np.ndarray[Any, Any]:
    return np.array([int(n) for n in numbers], np.int64)
