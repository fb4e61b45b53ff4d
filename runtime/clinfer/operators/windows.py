"""Windows that slide over spatial axes: convolutions, pools, patches; samples at given places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer.operators import Operator, plain
from clinfer.operators.relations import (
    Size,
    attribute,
    dim,
    like,
    multiple,
    not_below,
    one,
    rank,
    shaped,
    size,
    times,
)
from clinfer.operators.values import NATURAL, POSITIVE, SWITCH, Expected, words
from clinfer_kernels.dims import product

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call
    from clinfer.operators import Relation

_WINDOW: dict[str, Expected] = {
    "auto_pad": words("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", ""),
    "kernel_shape": POSITIVE,
    "strides": POSITIVE,
    "dilations": POSITIVE,
    "pads": NATURAL,
}
_CONV = {**_WINDOW, "group": POSITIVE}
_POOL = {**_WINDOW, "ceil_mode": SWITCH, "count_include_pad": SWITCH, "storage_order": SWITCH}
_GROUP = attribute("group", 1)
_LENGTHS = {"strides": 1, "dilations": 1, "pads": 2, "output_padding": 1, "kernel_shape": 1}


def _windows(data: int = 0, weights: int | None = None) -> Relation:
    """Attributes have an element for each spatial axis of the data (pads two)."""

    def check(call: Call) -> None:
        spatial = call.rank(data) - 2
        if spatial < 1:
            raise call.error(f"input {data}: at least 3 dimensions expected, found {spatial + 2}")
        for name, each in _LENGTHS.items():
            given = call.attr(name)
            if not given and (weights is not None or name != "kernel_shape"):
                continue
            if len(given or ()) != each * spatial:
                raise call.error(
                    f"{each * spatial} numbers in '{name}' expected for {spatial} spatial axes, "
                    f"found {len(given or ())}"
                )
        if weights is not None:
            _kernel(call, weights, spatial)

    return check


def _kernel(call: Call, weights: int, spatial: int) -> None:
    shape = call.shape(weights)
    if len(shape) != spatial + 2:
        raise call.error(f"input {weights}: {spatial + 2} dimensions expected, found {len(shape)}")
    for number, stated in enumerate(call.attr("kernel_shape") or ()):
        call.equal(shape[number + 2], stated, f"axis {number + 2} of the weights and kernel_shape")
    for own in shape[2:]:
        call.at_most(1, own, "one tap and the sizes of the kernel")


def _pads_in_kernel(call: Call) -> None:
    """No window of a pool lies in the padding as a whole."""
    kernel, pads = call.attr("kernel_shape") or [], call.attr("pads") or []
    steps = call.attr("dilations") or [1] * len(kernel)
    for number, pad in enumerate(pads):
        axis = number % len(kernel)
        reach = (kernel[axis] - 1) * steps[axis] + 1
        if pad >= reach:
            raise call.error(f"pads below the window's size {reach} expected, found {pad}")


def _has_elements(call: Call) -> None:
    """An image with a greatest element."""
    for number, own in enumerate(call.shape(0)[2:], 2):
        call.at_most(1, own, f"one element and the size of axis {number}")


def _output_shape(call: Call) -> None:
    given = call.attr("output_shape")
    if given and len(given) not in (call.rank(0) - 2, call.rank(0)):
        raise call.error(f"'output_shape' of {call.rank(0) - 2} sizes expected, found {given}")


def _of_channels(index: int, channels: Size) -> Relation:
    """A scale or zero point: one for all, or one for each channel."""

    def check(call: Call) -> None:
        if call.has(index) and call.rank(index) > 0:
            shaped(index, channels, fits=True)(call)

    return check


def _grid(call: Call) -> None:
    spatial = call.rank(0) - 2
    if call.rank(1) != spatial + 2:
        raise call.error(f"a grid of {spatial + 2} dimensions expected, found {call.rank(1)}")
    call.equal(size(call, 1, 0), size(call, 0, 0), "the batches of the grid and of the data")
    call.equal(size(call, 1, -1), spatial, "the coordinates of a place and the spatial axes")
    for number, there in enumerate(call.shape(0)[2:], start=2):
        call.at_most(1, there, f"one element and the size of axis {number}")


def _patches(call: Call) -> None:
    """As many numbers in each list as spatial axes (pads: two for each)."""
    spatial = call.shape(1)[0]
    call.equal(spatial, call.shape(2)[0], "the axes of image_shape and block_shape")
    for name, each in (("strides", 1), ("dilations", 1), ("pads", 2)):
        given = call.attr(name)
        if given:
            call.equal(len(given), spatial * each, f"the numbers of '{name}' and spatial axes")


def _deformed(index: int, each: int) -> Relation:
    """Offsets (two for each tap in an image) or masks [N, offset groups * taps * ..., out...]."""

    def check(call: Call) -> None:
        if not call.has(index):
            return
        taps = product(call.shape(1)[2:])
        spatial = call.rank(0) - 2
        groups = int(call.attr("offset_group", 1)) * (spatial if each > 1 else 1)
        call.equal(size(call, index, 0), size(call, 0, 0), f"the batches of inputs {index} and 0")
        call.equal(size(call, index, 1), taps * groups, f"axis 1 of input {index} and the taps")

    return check


_OUTPUTS = dim(1, 0)  # channels of a convolution's result
_QUANTISED = dim(3, 0)

OPERATORS = (
    *plain("GlobalAveragePool"),
    Operator("GlobalMaxPool", relations=(_has_elements,)),
    Operator("GlobalLpPool", {"p": POSITIVE}),
    Operator(
        "Conv", _CONV, (_windows(0, 1), multiple(_OUTPUTS, _GROUP), shaped(2, _OUTPUTS)), least=1
    ),
    Operator(
        "ConvInteger",
        _CONV,
        (_windows(0, 1), multiple(_OUTPUTS, _GROUP), one(2), _of_channels(3, _OUTPUTS)),
        least=1,
    ),
    Operator(
        "QLinearConv",
        _CONV,
        (
            _windows(0, 3),
            multiple(_QUANTISED, _GROUP),
            one(1, 2, 6, 7),
            _of_channels(4, _QUANTISED),
            _of_channels(5, _QUANTISED),
            shaped(8, _QUANTISED),
        ),
        least=1,
    ),
    Operator(
        "ConvTranspose",
        {**_CONV, "output_padding": NATURAL, "output_shape": NATURAL},
        (
            _windows(0, 1),
            _output_shape,
            multiple(dim(0, 1), _GROUP),
            lambda c: c.equal(size(c, 1, 0), size(c, 0, 1), "the channels of weights and data"),
            shaped(2, times(dim(1, 1), _GROUP)),
        ),
    ),
    Operator(
        "DeformConv",
        {**_CONV, "offset_group": POSITIVE},
        (
            _windows(0, 1),
            multiple(_OUTPUTS, _GROUP),
            _deformed(2, 2),
            shaped(3, _OUTPUTS),
            _deformed(4, 1),
        ),
    ),
    Operator(
        "CausalConvWithState",
        {"activation": words("none", "silu", "swish")},
        (
            rank(0, 3),
            shaped(1, dim(0, 1), 1, None),
            shaped(2, dim(0, 1)),
            shaped(3, dim(0, 0), dim(0, 1), Size("the taps but one", lambda c: size(c, 1, 2) - 1)),
        ),
    ),
    *(
        Operator(kind, {**_POOL, "p": POSITIVE}, (_windows(), _pads_in_kernel))
        for kind in ("MaxPool", "AveragePool", "LpPool")
    ),
    Operator("MaxUnpool", _WINDOW, (_windows(), like(1, 0))),
    Operator(
        "Col2Im",
        _WINDOW,
        (rank(0, 3), rank(1, 1), rank(2, 1), not_below(1), not_below(2, 1), _patches),
    ),
    Operator(
        "GridSample",
        {
            "mode": words("linear", "nearest", "cubic", "bilinear", "bicubic"),
            "padding_mode": words("zeros", "border", "reflection"),
            "align_corners": SWITCH,
        },
        (rank(0, least=3), _grid),
    ),
    Operator("MaxRoiPool", {"pooled_shape": POSITIVE}, (rank(0, 4), shaped(1, None, 5))),
    Operator(
        "RoiAlign",
        {
            "mode": words("avg", "max"),
            "coordinate_transformation_mode": words("half_pixel", "output_half_pixel"),
            "output_height": POSITIVE,
            "output_width": POSITIVE,
            "sampling_ratio": NATURAL,
        },
        (rank(0, 4), shaped(1, None, 4), shaped(2, dim(1, 0))),
    ),
)
