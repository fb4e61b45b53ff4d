"""Conversions of colours.

YCbCr becomes RGB by ITU-R BT.601 with Y from 16 to 235, RGB becomes grey by the same standard's
luma: the numbers of OpenVINO and OpenCV.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from clinfer import dtypes
from clinfer.errors import InputError, listed
from clinfer.graph.ir import Value
from clinfer.preprocess.layouts import axis_of, names_of
from clinfer.preprocess.names import ColorFormat
from clinfer.preprocess.stage import Stage
from clinfer.preprocess.steps import END, sliced

_LUMA, _BLACK, _NEUTRAL, _WHITE = 1.164, 16, 128, 255
_OF_U = (0.0, -0.391, 2.018)  # what U adds to red, green, blue
_OF_V = (1.596, -0.813, 0.0)
_GREY = (0.299, 0.587, 0.114)
_CHANNELS_LAST = [0, 2, 3, 1]
_THREE = np.array([3])


def convert(stage: Stage, to: ColorFormat) -> None:
    """Makes the stage's tensors one of colour `to`. Raises `InputError` where there is no way."""
    if stage.color is to:
        return
    ways = _WAYS.get(stage.color, {})
    if to not in ways:
        known = listed(way.words for way in ways) or (
            "nothing: say what it is with tensor().set_color_format"
        )
        raise InputError(f"{stage.color.words} does not become {to.words}; it can become {known}")
    ways[to](stage)
    stage.color = to


def _reverse(stage: Stage) -> None:
    _channels(stage, -1, -END, -1)


def _without_last(stage: Stage) -> None:
    _channels(stage, 0, -1, 1)


def _without_last_reversed(stage: Stage) -> None:
    _channels(stage, -2, -END, -1)


def _channels(stage: Stage, start: int, end: int, step: int) -> None:
    axis = axis_of(stage.layout, "C", len(stage.shape))
    stage.put(sliced(stage, stage.tensor, axis, start, end, step))


def _grey(weights: tuple[float, ...]) -> Callable[[Stage], None]:
    """The channels, weighted; integers are rounded, halves to the even one."""

    def apply(stage: Stage) -> None:
        axis, rank = axis_of(stage.layout, "C", len(stage.shape)), len(stage.shape)
        if stage.shape[axis] != len(weights):
            raise InputError(
                f"{len(weights)} channels expected, found {stage.shape[axis]} (layout "
                f"{stage.layout})"
            )
        shape = [-1 if a == axis else 1 for a in range(rank)]
        value, dtype = _floats(stage, stage.tensor)
        content = np.array(weights, dtypes.to_numpy(value.dtype or "")).reshape(shape)
        value = stage.writer.emit("Mul", value, content)
        value = stage.writer.emit("ReduceSum", value, np.array([axis]), keepdims=1)
        stage.put(_back(stage, value, dtype))

    return apply


def _from_yuv(backwards: bool) -> Callable[[Stage], None]:
    """RGB, or `backwards` BGR, of luma at full and chroma at half the size.

    The colours are computed as planes: kernels work along the rows of pixels.
    """
    step = -1 if backwards else 1

    def apply(stage: Stage) -> None:
        emit = stage.writer.emit
        luma, *chroma = _planes(stage)
        luma, dtype = _floats(stage, luma)
        of_u, of_v = (_floats(stage, plane)[0] for plane in chroma)

        def number(value: Any) -> np.ndarray[Any, Any]:
            return np.array(value, dtypes.to_numpy(luma.dtype or ""))

        def colored(plane: Value, gains: tuple[float, ...]) -> Value:
            by_color = number(gains[::step]).reshape(3, 1, 1)
            return emit("Mul", emit("Sub", plane, number(_NEUTRAL)), by_color)

        doubled = emit(
            "Resize",
            emit("Add", colored(of_u, _OF_U), colored(of_v, _OF_V)),
            np.zeros(0, np.float32),
            np.array([2, 2], np.float32),
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
            axes=[2, 3],
        )
        bright = emit("Mul", emit("Sub", luma, number(_BLACK)), number(_LUMA))
        made = emit("Clip", emit("Add", doubled, bright), number(0), number(_WHITE))
        stage.put(emit("Transpose", _back(stage, made, dtype), perm=_CHANNELS_LAST))

    return apply


def _only_luma(stage: Stage) -> None:
    stage.put(_luma_and_rest(stage)[0])


def _planes(stage: Stage) -> tuple[Value, Value, Value]:
    """Luma [N, 1, H, W], and U and V [N, 1, H / 2, W / 2]."""
    luma, rest = _luma_and_rest(stage)
    if stage.color is ColorFormat.I420_SINGLE_PLANE:
        # A row holds two rows of a plane: [N, H / 2, 2, W / 2] becomes [N, 2, H / 2, W / 2].
        emit = stage.writer.emit
        rows = emit("Reshape", emit("Squeeze", rest[0], np.array([3])), np.array([0, 0, 2, -1]))
        planes = emit("Reshape", rows, np.array([0, 2, -1, 0]))
        return _planar(stage, luma), sliced(stage, planes, 1, 0, 1), sliced(stage, planes, 1, 1, 2)
    if stage.color is ColorFormat.NV12_SINGLE_PLANE:
        rows = stage.writer.emit("Squeeze", rest[0], np.array([3]))
        rest = [stage.writer.emit("Reshape", rows, np.array([0, 0, -1, 2]))]
    if len(rest) == 1:
        rest = [sliced(stage, rest[0], 3, 0, 1), sliced(stage, rest[0], 3, 1, 2)]
    return _planar(stage, luma), _planar(stage, rest[0]), _planar(stage, rest[1])


def _planar(stage: Stage, plane: Value) -> Value:
    """[N, H, W, 1] as [N, 1, H, W]."""
    return stage.writer.emit(
        "Unsqueeze", stage.writer.emit("Squeeze", plane, np.array([3])), np.array([1])
    )


def _luma_and_rest(stage: Stage) -> tuple[Value, list[Value]]:
    """Luma [N, H, W, 1], and what else the picture has: planes, or the rows below the luma."""
    emit, first = stage.writer.emit, stage.tensors[0]
    if len(first.shape or ()) != 4 or names_of(stage.layout, 4) != tuple("NHWC"):
        raise InputError(
            f"a picture {stage.color.words} of layout [N,H,W,C] expected, found {stage}"
        )
    if len(stage.tensors) > 1:
        return first, stage.tensors[1:]
    # Rows of a picture of height H: H of luma, H / 2 of chroma.
    height = emit("Div", emit("Mul", emit("Shape", first, start=1, end=2), np.array([2])), _THREE)
    axis = np.array([1])
    luma = emit("Slice", first, np.array([0]), height, axis)
    return luma, [emit("Slice", first, height, np.array([END]), axis)]


def _floats(stage: Stage, value: Value) -> tuple[Value, str]:
    """The tensor as floats, and its element type before."""
    dtype = value.dtype or ""
    if dtype.startswith(("float", "bfloat")):
        return value, dtype
    return stage.writer.emit("Cast", value, to=dtypes.BY_NAME["float32"].onnx), dtype


def _back(stage: Stage, value: Value, dtype: str) -> Value:
    """Floats as the element type before, rounded."""
    if value.dtype == dtype:
        return value
    rounded = stage.writer.emit("Round", value)
    return stage.writer.emit("Cast", rounded, to=dtypes.BY_NAME[dtype].onnx)


_YUV: Mapping[ColorFormat, Callable[[Stage], None]] = {
    ColorFormat.RGB: _from_yuv(backwards=False),
    ColorFormat.BGR: _from_yuv(backwards=True),
    ColorFormat.GRAY: _only_luma,
}
_WAYS: Mapping[ColorFormat, Mapping[ColorFormat, Callable[[Stage], None]]] = {
    ColorFormat.NV12_SINGLE_PLANE: _YUV,
    ColorFormat.NV12_TWO_PLANES: _YUV,
    ColorFormat.I420_SINGLE_PLANE: _YUV,
    ColorFormat.I420_THREE_PLANES: _YUV,
    ColorFormat.RGB: {ColorFormat.BGR: _reverse, ColorFormat.GRAY: _grey(_GREY)},
    ColorFormat.BGR: {ColorFormat.RGB: _reverse, ColorFormat.GRAY: _grey(_GREY[::-1])},
    ColorFormat.RGBX: {ColorFormat.RGB: _without_last, ColorFormat.BGR: _without_last_reversed},
    ColorFormat.BGRX: {ColorFormat.BGR: _without_last, ColorFormat.RGB: _without_last_reversed},
}
