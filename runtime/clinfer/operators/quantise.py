"""Quantisation: scales and zero points of a tensor, of an axis, of blocks, of rows or columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer.operators import Operator, plain
from clinfer.operators.relations import elements, one, same, spread_to
from clinfer.operators.values import NATURAL, SOME_DTYPE, SWITCH
from clinfer_kernels.dims import ceildiv, product

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call
    from clinfer.operators import Relation

_VALUES = {
    "block_size": NATURAL,
    "output_dtype": SOME_DTYPE,
    "precision": SOME_DTYPE,
    "saturate": SWITCH,
}


def _scale(call: Call) -> None:
    """One for all, one for each element of an axis, or one for each block along an axis."""
    data, scale = call.shape(0), call.shape(1)
    if not scale or (all(d == 1 for d in scale) and len(scale) == 1):
        return
    axis, block = call.axis("axis", 1, len(data)), int(call.attr("block_size", 0))
    if block:
        parts = (*data[:axis], ceildiv(data[axis], block), *data[axis + 1 :])
        same(call, 1, parts, "the blocks of the data")
        return
    if len(scale) != 1:
        raise call.error(
            f"a scale of one dimension expected without 'block_size', found {len(scale)}"
        )
    call.fits(scale[0], data[axis], f"the elements of the scale and axis {axis} of the data")


def _zero(call: Call) -> None:
    """As many zero points as scales."""
    if not call.has(2):
        return
    if call.rank(1) == 1 == call.rank(2):
        call.equal(call.shape(2)[0], call.shape(1)[0], "the numbers of zero points and of scales")
    elif call.rank(1) < 2 and call.rank(2) < 2:
        one(1, 2)(call)
    else:
        same(call, 2, call.shape(1), "the scale")


def _of_rows(index: int, matrix: int) -> Relation:
    """Of the tensor or of each row of a matrix [..., M, K]: a scalar, [M] or [..., M, 1]."""

    def check(call: Call) -> None:
        if call.has(index) and call.rank(index) > 0:
            shape = call.shape(matrix)
            rows = shape[-2:-1] or (1,)
            target = rows if call.rank(index) == 1 else (*shape[:-1], 1)
            spread_to(call, index, target, f"the rows of input {matrix}")

    return check


def _of_columns(index: int, matrix: int) -> Relation:
    """Of the tensor or of each column of a matrix [..., K, N]: a scalar, [N] or [..., 1, N]."""

    def check(call: Call) -> None:
        if call.has(index) and call.rank(index) > 0:
            shape = call.shape(matrix)
            columns = shape[-1:] if len(shape) > 1 else (1,)
            target = columns if call.rank(index) == 1 else (*shape[:-2], 1, *columns)
            spread_to(call, index, target, f"the columns of input {matrix}")

    return check


def _paired(zero: int, scale: int) -> Relation:
    """As many zero points as scales; one element has any rank."""

    def check(call: Call) -> None:
        count = product(call.shape(scale))
        elements(zero, lambda c: count, f"those of its scale, input {scale}")(call)

    return check


OPERATORS = (
    *plain("DynamicQuantizeLinear"),
    Operator("QuantizeLinear", _VALUES, (_scale, _zero)),
    Operator("DequantizeLinear", _VALUES, (_scale, _zero)),
    Operator("MatMulInteger", relations=(_of_rows(2, 0), _of_columns(3, 1))),
    Operator(
        "QLinearMatMul",
        relations=(
            *(_of_rows(index, 0) for index in (1, 2, 6, 7)),
            *(_of_columns(index, 3) for index in (4, 5)),
            *(_paired(index, index - 1) for index in (2, 5, 7)),
        ),
    ),
)
