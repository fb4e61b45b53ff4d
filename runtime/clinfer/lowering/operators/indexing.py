"""Gather and scatter."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering, Unlowerable, device_dtype
from clinfer.lowering.table import lowers
from clinfer_kernels.specs import GatherSpec, ScatterSpec

_GATHERS = {"Gather": "axis", "GatherElements": "elements", "GatherND": "nd"}
_SCATTERS = {"ScatterElements": "elements", "Scatter": "elements", "ScatterND": "nd"}


@lowers(*_GATHERS)
def gather(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    indices = ctx.required(node, 1)
    device_dtype(node.output)
    if indices.dtype not in ("int32", "int64"):
        raise Unlowerable(f"indices of dtype {indices.dtype}")
    axis = node.attrs.get("axis", 0) % max(source.tensor.rank, 1)
    target = ctx.output(node.output)
    ctx.launch(
        GatherSpec,
        [source, indices],
        [target],
        node.describe(),
        kind=_GATHERS[node.op],
        axis=axis,
        batch_dims=node.attrs.get("batch_dims", 0),
    )
    ctx.bind(node.output, target)


@lowers(*_SCATTERS)
def scatter(ctx: Lowering, node: Node) -> None:
    data = ctx.required(node, 0)
    target = ctx.output(node.output)
    ctx.launch(
        ScatterSpec,
        [data, ctx.required(node, 1), ctx.required(node, 2)],
        [target],
        node.describe(),
        kind=_SCATTERS[node.op],
        axis=node.attrs.get("axis", 0) % max(data.tensor.rank, 1),
        reduction=node.attrs.get("reduction", "none"),
    )
    ctx.bind(node.output, target)
