"""The tensors that users give for an input: names, types, shapes and layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from clinfer.api.shapes import Dimension, Layout, PartialShape
from clinfer.errors import InputError
from clinfer.graph.fragments import NewInput
from clinfer.graph.ir import Shape
from clinfer.preprocess.infos import InputInfo
from clinfer.preprocess.layouts import axis_of, names_of, order_between, permuted, squeezed
from clinfer.preprocess.lists import PreProcessSteps
from clinfer.preprocess.names import ColorFormat
from clinfer_kernels.dims import sym


class Entry(NamedTuple):
    """What users give, one tensor or the planes of a picture, and the model's layout."""

    inputs: tuple[NewInput, ...]
    layout: Layout
    model_layout: Layout

    def tensors(self) -> Iterator[tuple[str, str, Shape | None]]:
        """Name, element type and shape of each; dynamic dimensions are symbols."""
        for name, dtype, found in self.inputs:
            if found is None:
                yield name, dtype, None
                continue
            dims = [
                size if isinstance(size, int) else sym(size if isinstance(size, str) else unnamed)
                for unnamed, size in ((f"{name}.{axis}", size) for axis, size in enumerate(found))
            ]
            yield name, dtype, tuple(dims)


def entered(info: InputInfo) -> Entry:
    """What users give, by what they have said; what they have not is taken from the model.

    Raises `InputError` where layouts and shapes do not fit each other.
    """
    tensor, port = info.tensor(), info.port
    shape = PartialShape.of_port(port)
    layout, model_layout = tensor.layout, info.model().layout
    if not model_layout.empty:
        names_of(model_layout, _rank(shape))
    if layout.empty and tensor.color is not ColorFormat.UNDEFINED:
        layout = Layout("NHWC")
    if model_layout.empty and not tensor.layout.empty:
        model_layout = _at_the_end(info.preprocess(), layout)
    if layout.empty or model_layout.empty or layout == model_layout:
        shape, found = _before(info.preprocess(), shape, model_layout)
        layout = found if layout.empty else layout
    else:
        shape = _relaid(shape, model_layout, layout)
    shape = _said(info, shape, layout)
    if not layout.empty:
        names_of(layout, _rank(shape))
    dtype = tensor.dtype or port.dtype
    names = [f"{port.name}/{name}" for name in tensor.sub_names] or [port.name]
    planes = [_plane(tensor.color, number, shape, layout) for number in range(len(names))]
    pairs = zip(names, planes, strict=True)
    inputs = tuple((n, dtype, None if _rank(p) is None else sizes(p)) for n, p in pairs)
    return Entry(inputs, layout, model_layout)


def sizes(shape: PartialShape) -> tuple[Any, ...]:
    """A shape as `Model.reshape` takes it, of plain values."""
    return tuple(map(_size, shape))


def _size(dim: Dimension) -> Any:
    if dim.is_static:
        return dim.min_length
    if dim.name is not None:
        return dim.name
    limits = (dim.min_length, None if dim.max_length == -1 else dim.max_length)
    return None if limits == (0, None) else limits


def _rank(shape: PartialShape) -> int | None:
    return None if shape.rank.is_dynamic else len(shape)


def _at_the_end(steps: PreProcessSteps, layout: Layout) -> Layout:
    """The layout that the steps make of one."""
    found = layout if steps.layout is None else steps.layout
    for order in steps.later_orders:
        found = permuted(found, order)
    return found


def _before(
    steps: PreProcessSteps, shape: PartialShape, layout: Layout
) -> tuple[PartialShape, Layout]:
    """The shape and layout of which transpositions by numbers make these."""
    if shape.rank.is_dynamic:
        return shape, layout
    dims = list(shape)
    for order in reversed(steps.orders):
        permuted(Layout(), order)
        if len(order) != len(dims):
            raise InputError(f"convert_layout: {list(order)} is no order of {len(dims)} dimensions")
        back = [order.index(axis) for axis in range(len(order))]
        dims = [dims[axis] for axis in back]
        layout = permuted(layout, back)
    return PartialShape(dims), layout


def _relaid(shape: PartialShape, model_layout: Layout, layout: Layout) -> PartialShape:
    """The model's shape in the order of the user's layout, without the axes that it lacks."""
    kept = squeezed(model_layout, layout)
    if kept is not None:
        model_layout = Layout(f"[{','.join(model_layout._names[axis] for axis in kept)}]")
        shape = shape if shape.rank.is_dynamic else PartialShape([shape[axis] for axis in kept])
    if shape.rank.is_dynamic:
        return shape
    order = order_between(model_layout, layout, len(shape))
    return PartialShape([shape[axis] for axis in order]) if order else shape


def _said(info: InputInfo, shape: PartialShape, layout: Layout) -> PartialShape:
    """The shape that the user has given, in whole or in part."""
    tensor = info.tensor()
    if tensor.shape is not None:
        return tensor.shape
    if tensor.spatial is None:
        return shape
    made = PartialShape(shape)
    for name, size in zip("HW", tensor.spatial, strict=True):
        made[axis_of(layout, name, len(made))] = size
    return made


# Of a colour format: for each plane the channels, and what height and width are multiplied by.
_HALF = (1, 2)
_PICTURES: dict[ColorFormat, tuple[tuple[int, tuple[int, int], tuple[int, int]], ...]] = {
    ColorFormat.RGB: ((3, (1, 1), (1, 1)),),
    ColorFormat.BGR: ((3, (1, 1), (1, 1)),),
    ColorFormat.RGBX: ((4, (1, 1), (1, 1)),),
    ColorFormat.BGRX: ((4, (1, 1), (1, 1)),),
    ColorFormat.NV12_SINGLE_PLANE: ((1, (3, 2), (1, 1)),),
    ColorFormat.I420_SINGLE_PLANE: ((1, (3, 2), (1, 1)),),
    ColorFormat.NV12_TWO_PLANES: ((1, (1, 1), (1, 1)), (2, _HALF, _HALF)),
    ColorFormat.I420_THREE_PLANES: ((1, (1, 1), (1, 1)), (1, _HALF, _HALF), (1, _HALF, _HALF)),
}


def _plane(color: ColorFormat, number: int, picture: PartialShape, layout: Layout) -> PartialShape:
    """The shape of a plane of a picture."""
    planes = _PICTURES.get(color)
    if planes is None or picture.rank.is_dynamic:
        return picture
    channels, height, width = planes[number]
    made = PartialShape(picture)
    made[axis_of(layout, "C", len(made))] = channels
    for name, (times, by) in (("H", height), ("W", width)):
        if times == by:
            continue
        axis = axis_of(layout, name, len(made))
        size = made[axis]
        if size.is_dynamic:
            made[axis] = -1
        elif size.min_length % 2:
            raise InputError(f"{color.words}: an even {name} expected, found {size} ({picture})")
        else:
            made[axis] = size.min_length * times // by
    return made
