"""Operators that only change how memory is read: no kernel, unless a reshape needs a dense copy."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.storage import Unlowerable, View
from clinfer.lowering.table import lowers
from clinfer_kernels.broadcasts import repeated
from clinfer_kernels.dims import Dim

_FAR = 1 << 20  # a step whose multiples may be beyond the kernels' 'int'


@lowers("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    shape = node.output.known_shape
    view = source.reshape(shape)
    if view is None:
        view = ctx.contiguous(source).reshape(shape)
    assert view is not None
    ctx.bind(node.output, view)


@lowers("Transpose")
def transpose(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    perm = node.attrs.get("perm") or list(reversed(range(source.tensor.rank)))
    ctx.bind(node.output, source.permute(perm))


@lowers("Expand")
def expand(ctx: Lowering, node: Node) -> None:
    ctx.bind(node.output, ctx.required(node, 0).broadcast(node.output.known_shape))


@lowers("Slice")
def slice_(ctx: Lowering, node: Node) -> None:
    """Element i of a sliced axis is element start + i * step of the source."""
    if "steps" not in node.attrs:
        raise Unlowerable("where it starts is computed from data")
    source = ctx.required(node, 0)
    strides: list[Dim] = list(source.tensor.strides)
    offset = source.tensor.offset
    for axis, start, step in zip(
        node.attrs["axes"], node.attrs["starts"], node.attrs["steps"], strict=True
    ):
        offset = offset + start * source.tensor.strides[axis]
        strides[axis] = source.tensor.strides[axis] * step
        if abs(step) >= _FAR:  # most such slices have one place, and then no stride at all
            strides[axis] = repeated(strides[axis], node.output.known_shape[axis], 0)
    tensor = source.tensor._replace(
        shape=node.output.known_shape, strides=tuple(strides), offset=offset
    )
    ctx.bind(node.output, View(source.storage, tensor))
