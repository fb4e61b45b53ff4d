"""What users say about an input or output: the tensor on their side, and the model's side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinfer.api.shapes import Layout, PartialShape
from clinfer.api.tensor import Tensor
from clinfer.api.types import Type
from clinfer.boundary import entry
from clinfer.errors import InputError
from clinfer.ports import Port
from clinfer.preprocess.layouts import as_layout
from clinfer.preprocess.lists import PostProcessSteps, PreProcessSteps, member, whole
from clinfer.preprocess.names import ColorFormat

_OTHER_SHAPE = "the shape is given by set_shape or set_from, or by set_spatial_...: by one of them"


class InputModelInfo:
    """What the model's input means."""

    def __init__(self) -> None:
        self.layout = Layout()

    @entry("set_layout")
    def set_layout(self, layout: Any) -> InputModelInfo:
        """The layout of the model's input, 'NCHW'."""
        self.layout = as_layout(layout)
        return self


class OutputModelInfo:
    """What the model's output means."""

    def __init__(self) -> None:
        self.layout = Layout()

    @entry("set_layout")
    def set_layout(self, layout: Any) -> OutputModelInfo:
        """The layout of the model's output, 'NCHW'."""
        self.layout = as_layout(layout)
        return self


class OutputTensorInfo:
    """The tensor that users get."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.dtype: str | None = None

    @entry("set_element_type")
    def set_element_type(self, type: Any) -> OutputTensorInfo:
        """Its element type; by default the model's."""
        self.dtype = _static(type)
        return self

    @entry("set_layout")
    def set_layout(self, layout: Any) -> OutputTensorInfo:
        """Its layout; by default the model's."""
        self.layout = as_layout(layout)
        return self


class InputTensorInfo:
    """The tensor that users give; for a picture in planes, the picture."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.dtype: str | None = None
        self.shape: PartialShape | None = None
        self.spatial: tuple[int, int] | None = None
        """Height and width, -1 for any; None: the model's."""
        self.color = ColorFormat.UNDEFINED
        self.sub_names: tuple[str, ...] = ()

    @entry("set_element_type")
    def set_element_type(self, type: Any) -> InputTensorInfo:
        """Its element type; by default the model's."""
        self.dtype = _static(type)
        return self

    @entry("set_layout")
    def set_layout(self, layout: Any) -> InputTensorInfo:
        """Its layout; by default the model's, and 'NHWC' where there is a colour format."""
        self.layout = as_layout(layout)
        return self

    @entry("set_shape")
    def set_shape(self, shape: Any) -> InputTensorInfo:
        """Its shape, a list or a `PartialShape`; by default made of the model's."""
        if self.spatial is not None:
            raise InputError(f"set_shape: {_OTHER_SHAPE}")
        self.shape = PartialShape(shape)
        return self

    def set_spatial_dynamic_shape(self) -> InputTensorInfo:
        """Height and width are any; a resize then follows, most often."""
        return self._spatial(-1, -1)

    @entry("set_spatial_static_shape")
    def set_spatial_static_shape(self, height: int, width: int) -> InputTensorInfo:
        """Height and width are these."""
        where = "set_spatial_static_shape"
        return self._spatial(whole(height, where), whole(width, where))

    def _spatial(self, height: int, width: int) -> InputTensorInfo:
        if self.shape is not None:
            raise InputError(f"set_spatial_...: {_OTHER_SHAPE}")
        self.spatial = (height, width)
        return self

    @entry("set_from", runtime_tensor="tensor")
    def set_from(self, tensor: Any) -> InputTensorInfo:
        """Its shape and element type are those of a `Tensor` or array."""
        given = tensor if isinstance(tensor, Tensor) else np.asarray(tensor)
        dtype = given.element_type if isinstance(given, Tensor) else Type(given.dtype)
        return self.set_shape(list(given.shape)).set_element_type(dtype)

    @entry("set_color_format", format="color_format")
    def set_color_format(
        self, color_format: ColorFormat, sub_names: Sequence[str] = ()
    ) -> InputTensorInfo:
        """What its channels are; a picture in planes becomes several inputs.

        Input 'image' in two planes becomes 'image/y' and 'image/uv', in three 'image/y', 'image/u'
        and 'image/v'; `sub_names` are other endings.
        """
        self.color = member(ColorFormat, color_format, "set_color_format")
        if not np.iterable(sub_names):
            raise InputError(f"set_color_format: names expected, found {sub_names!r}")
        names = (sub_names,) if isinstance(sub_names, str) else tuple(map(str, sub_names))
        planes = len(PLANES.get(self.color, "_"))
        if names and (len(names) != planes or len(set(names)) != planes or planes == 1):
            raise InputError(
                f"set_color_format: {self.color.words} has {planes} planes, found the names "
                f"{list(names)}"
            )
        self.sub_names = names or PLANES.get(self.color, ())
        return self

    def set_memory_type(self, memory_type: str) -> InputTensorInfo:
        """Where the tensor lies: in the host's memory. Raises `InputError` for anything else."""
        if memory_type:
            raise InputError(
                f"set_memory_type: {memory_type!r} is memory of another device; tensors are arrays "
                "of the host, which are read in place where the device can"
            )
        return self


PLANES: dict[ColorFormat, tuple[str, ...]] = {
    ColorFormat.NV12_TWO_PLANES: ("y", "uv"),
    ColorFormat.I420_THREE_PLANES: ("y", "u", "v"),
}
"""The names of the planes of formats that have several."""


class InputInfo:
    """One input of the model."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self._tensor = InputTensorInfo()
        self._steps = PreProcessSteps()
        self._model = InputModelInfo()

    def tensor(self) -> InputTensorInfo:
        """What users give."""
        return self._tensor

    def preprocess(self) -> PreProcessSteps:
        """What is done to it."""
        return self._steps

    def model(self) -> InputModelInfo:
        """What the model takes."""
        return self._model


class OutputInfo:
    """One output of the model."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self._tensor = OutputTensorInfo()
        self._steps = PostProcessSteps()
        self._model = OutputModelInfo()

    def tensor(self) -> OutputTensorInfo:
        """What users get."""
        return self._tensor

    def postprocess(self) -> PostProcessSteps:
        """What is done before."""
        return self._steps

    def model(self) -> OutputModelInfo:
        """What the model gives."""
        return self._model


def _static(given: Any) -> str:
    found = Type(given)
    if found.is_dynamic() or found.dtype == "string":
        raise InputError(f"set_element_type: a type of numbers expected, found {found.to_string()}")
    return found.dtype
