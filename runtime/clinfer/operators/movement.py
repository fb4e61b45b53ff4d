"""Operators that make, rearrange or repeat elements without computing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer.operators import Operator, plain
from clinfer.operators.relations import (
    Size,
    axes,
    axis,
    dim,
    elements,
    known,
    multiple,
    not_below,
    one,
    rank,
    same_length,
)
from clinfer.operators.values import NATURAL, POSITIVE, SOME_DTYPE, TEXT, at_least, words
from clinfer_kernels.dims import product

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call

_BLOCKS = {"blocksize": POSITIVE, "mode": words("DCR", "CRD")}
_BLOCK = Size("'blocksize'", lambda call: int(call.attr("blocksize", 1)))
_SQUARE = Size("'blocksize' squared", lambda call: int(call.attr("blocksize", 1)) ** 2)
_INTERPOLATION = {
    "mode": words("nearest", "linear", "cubic", "bilinear"),
    "coordinate_transformation_mode": words(
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    ),
    "nearest_mode": words("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "keep_aspect_ratio_policy": words("stretch", "not_larger", "not_smaller"),
}


def _flatten(call: Call) -> None:
    place, rank_of = int(call.attr("axis", 1)), call.rank(0)
    if not -rank_of <= place <= rank_of:
        raise call.error(f"axis {place} expected in [-{rank_of}, {rank_of}]")


def _reshape(call: Call) -> None:
    """With `allowzero` a 0 is a size, and nothing can be left over for -1."""
    wanted = known(call, 1) if call.has(1) else None
    if wanted and call.attr("allowzero", 0) and 0 in wanted and -1 in wanted:
        raise call.error(f"the shape {wanted} has both a 0 that is taken as it is and a -1")


def _steps(call: Call) -> None:
    steps = known(call, 4) if call.has(4) else None
    if steps is not None and 0 in steps:
        raise call.error(f"steps other than 0 expected, found {steps}")


def _pads(call: Call) -> None:
    """Two pads, at the begin and at the end, for each axis."""
    count = product(call.shape(3)) if call.has(3) else call.rank(0)
    elements(1, lambda c: 2 * count, f"two for each of {count} axes")(call)


def _resize(call: Call) -> None:
    """As many sizes or scales as axes; scales above 0."""
    count = len(call.attr("axes") or call.shape(0))
    for index in (2, 3):
        elements(index, lambda c: count, f"the {count} axes that are resized")(call)
    scales = call.value(2).const if call.has(2) else None
    if scales is not None and not ((scales > 0) & (scales < 2**31)).all():
        raise call.error(f"scales above 0 expected, found {scales.ravel().tolist()}")


def _split(call: Call) -> None:
    count, found = call.attr("num_outputs"), len(call.node.outputs)
    if count is not None and int(count) != found:
        raise call.error(f"{count} outputs, as 'num_outputs' says, expected, found {found}")


def _affine(call: Call) -> None:
    """theta [N, spatial, spatial + 1] for a size [N, C, spatial...]."""
    theta, count, wanted = call.shape(0), product(call.shape(1)), call.content(1)
    call.equal(theta[1] + 2, count, "axis 1 of theta and 2, and the elements of 'size',")
    call.equal(theta[2], theta[1] + 1, "axis 2 of theta, and axis 1 and 1,")
    if wanted is not None and wanted.size:
        call.equal(theta[0], wanted.ravel()[0], "axis 0 of theta and the first of 'size'")


def _tile(call: Call) -> None:
    elements(1, lambda c: c.rank(0), "the input's dimensions")(call)


OPERATORS = (
    *plain("Concat Shape Size"),
    Operator("Constant", {"value_string": TEXT, "value_strings": TEXT}),
    Operator("ConstantOfShape", relations=(rank(0, 1), not_below(0))),
    Operator("DepthToSpace", _BLOCKS, (rank(0, 4), multiple(dim(0, 1), _SQUARE))),
    Operator("Expand", relations=(rank(1, 1), not_below(1))),
    Operator("EyeLike", {"dtype": SOME_DTYPE}, (rank(0, 2),)),
    Operator("Flatten", relations=(_flatten,)),
    Operator(
        "Pad",
        {"mode": words("constant", "reflect", "edge", "wrap")},
        (rank(1, 1), one(2), axes(index=3), _pads),
    ),
    Operator("Range", relations=(one(0, 1, 2),)),
    Operator("Reshape", relations=(rank(1, 1), not_below(1, -1), _reshape)),
    Operator("Resize", _INTERPOLATION, (axes(), not_below(3), _resize)),
    Operator("Upsample", {"mode": _INTERPOLATION["mode"]}),
    Operator(
        "Slice",
        relations=(rank(1, 1), rank(2, 1), same_length(1, 2, 3, 4), axes(index=3), _steps),
    ),
    Operator(
        "SpaceToDepth",
        _BLOCKS,
        (rank(0, 4), multiple(dim(0, 2), _BLOCK), multiple(dim(0, 3), _BLOCK)),
    ),
    Operator("Split", {"num_outputs": POSITIVE}, (axis(), rank(1, 1), not_below(1), _split)),
    Operator("Squeeze", relations=(axes(index=1, once=False),)),
    Operator("Tile", relations=(rank(1, 1), not_below(1), _tile)),
    Operator("Transpose", {"perm": NATURAL}),
    Operator("Trilu", relations=(rank(0, least=2), one(1))),
    Operator("Unsqueeze"),  # its shape rule looks at the axes, which are the result's
    Operator("CenterCropPad", relations=(axes(), not_below(1))),
    Operator("AffineGrid", {"align_corners": at_least(0)}, (rank(0, 3), not_below(1), _affine)),
)
