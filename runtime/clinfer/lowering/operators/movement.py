"""Operators that move elements without computing: concatenation, padding, tiling, ranges."""

from __future__ import annotations

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.lowering.context import Lowering
from clinfer.lowering.storage import Unlowerable, View, device_dtype
from clinfer.lowering.table import lowers
from clinfer.passes.query import sizes
from clinfer_kernels.dims import Dim
from clinfer_kernels.specs import IotaSpec, PadSpec, RandomSpec
from clinfer_kernels.types import bits_type


@lowers("Concat")
def concat(ctx: Lowering, node: Node) -> None:
    """Each input goes to its part of the output; one that was written there needs no copy."""
    device_dtype(node.output)
    for value, part in zip(node.inputs, ctx.concat_parts(node), strict=True):
        assert value is not None
        source = ctx.view(value)
        if source.storage is not part.storage or source.tensor != part.tensor:
            ctx.copy(source, part, node.describe())
    ctx.bind(node.output, ctx.concat_target(node))


@lowers("Pad")
def pad(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    pads = node.attrs.get("pads")
    if pads is None:
        pads = sizes(node.input(1))
    if pads is None:
        raise Unlowerable("the pads are not known when the model is compiled")
    axes = node.attrs.get("axes")
    if axes is None and node.input(3) is not None:
        axes = _constant_list(ctx, node, 3, "axes")
    rank = source.tensor.rank
    begins: list[Dim] = [0] * rank
    named = list(range(rank)) if axes is None else [int(a) % rank for a in axes]
    for position, axis in enumerate(named):
        begins[axis] = pads[position]
    ins = [source]
    fill = node.input(2)
    mode = node.attrs.get("mode", "constant")
    if mode == "constant":
        if fill is not None:
            ins.append(_scalar(ctx, fill))
        elif node.attrs.get("value"):
            content = np.asarray(node.attrs["value"], dtype=source.dtype)
            ins.append(ctx.view(ctx.graph.constant(content)))
    target = ctx.output(node.output)
    ctx.launch(PadSpec, ins, [target], node.describe(), mode=mode, begins=tuple(begins))
    ctx.bind(node.output, target)


@lowers("Range")
def range_(ctx: Lowering, node: Node) -> None:
    """start + i * step; the output's size is known from the shapes."""
    start = _scalar(ctx, node.required(0))
    step = _scalar(ctx, node.required(2))
    target = ctx.output(node.output)
    ctx.launch(IotaSpec, [start, step], [target], node.describe(), axis=0)
    ctx.bind(node.output, target)


@lowers("clinfer.Random")
def random(ctx: Lowering, node: Node) -> None:
    """The sizes are those of the output: a host step alone reads them."""
    ins = [ctx.contiguous(ctx.required(node, index)) for index in (0, 1)]
    target = ctx.own_buffer(node.output)
    ctx.launch(RandomSpec, ins, [target], node.describe(), kind=str(node.attrs["kind"]))
    ctx.bind(node.output, target)


@lowers("Tile")
def tile(ctx: Lowering, node: Node) -> None:
    """Reads [n0, n1, ...] as [1, n0, 1, n1, ...] repeated to [r0, n0, r1, n1, ...]."""
    source = ctx.required(node, 0)
    shape = node.output.known_shape
    spread: list[Dim] = []
    full: list[Dim] = []
    for size, wanted in zip(source.shape, shape, strict=True):
        if size == 0:
            raise Unlowerable("an empty tensor is tiled")
        spread += [1, size]
        full += [wanted // size, size]
    view = source.reshape(spread) or ctx.contiguous(source).reshape(spread)
    assert view is not None
    made = ctx.temp(source.dtype, full)
    ctx.copy(view.broadcast(full), made, node.describe())
    ctx.bind(node.output, made)


def _scalar(ctx: Lowering, value: Value) -> View:
    view = ctx.view(value).reshape(())
    if view is None:
        raise Unlowerable(f"'{value.name}' should be a scalar")
    return view


def _constant_list(ctx: Lowering, node: Node, index: int, what: str) -> list[int]:
    array = ctx.constant_array(node.input(index))
    if array is None:
        raise Unlowerable(f"the {what} are not known when the model is compiled")
    return [int(x) for x in array.reshape(-1)]


@lowers("BitCast")
def bit_cast(ctx: Lowering, node: Node) -> None:
    """The same bits as another type of their size."""
    source = ctx.required(node, 0)
    made, bits = device_dtype(node.output), bits_type(source.dtype)
    if bits_type(made) != bits:
        raise Unlowerable(f"{source.dtype} and {made} have elements of different sizes")
    target = ctx.output(node.output)
    taken, put = (View(v.storage, v.tensor._replace(dtype=bits)) for v in (source, target))
    ctx.copy(taken, put, node.describe())
    ctx.bind(node.output, target)
