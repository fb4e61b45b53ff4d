"""Boxes and regions: suppression of those that overlap, pooling of what lies in them."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.plan import Check
from clinfer.lowering.storage import device_dtype
from clinfer.lowering.table import lowers
from clinfer_kernels.specs import MaxRoiPoolSpec, RoiAlignSpec, SuppressSpec


@lowers("clinfer.Suppress")
def suppress(ctx: Lowering, node: Node) -> None:
    ins = [ctx.whole(ctx.required(node, index)) for index in range(5)]
    target = ctx.own_buffer(node.output)
    ctx.launch(
        SuppressSpec,
        ins,
        [target],
        node.describe(),
        centred=bool(node.attrs["centred"]),
        limited=bool(node.attrs["limited"]),
    )
    ctx.bind(node.output, target)


@lowers("RoiAlign")
def roi_align(ctx: Lowering, node: Node) -> None:
    device_dtype(node.output)
    ins = [ctx.whole(ctx.required(node, index)) for index in range(3)]
    target = ctx.own_buffer(node.output)
    half = "half_pixel" if node.version >= 16 else "output_half_pixel"
    ctx.launch(
        RoiAlignSpec,
        ins,
        [target],
        node.describe(),
        checks=[Check(f"{node.describe()}: a region's image", 0, ins[0].shape[0])],
        scale=float(node.attrs.get("spatial_scale", 1.0)),
        samples=int(node.attrs.get("sampling_ratio", 0)),
        half=node.attrs.get("coordinate_transformation_mode", half) == "half_pixel",
        largest=node.attrs.get("mode", "avg") == "max",
    )
    ctx.bind(node.output, target)


@lowers("MaxRoiPool")
def max_roi_pool(ctx: Lowering, node: Node) -> None:
    device_dtype(node.output)
    ins = [ctx.whole(ctx.required(node, index)) for index in range(2)]
    target = ctx.own_buffer(node.output)
    ctx.launch(
        MaxRoiPoolSpec,
        ins,
        [target],
        node.describe(),
        checks=[Check(f"{node.describe()}: a region's image", 0, ins[0].shape[0])],
        scale=float(node.attrs.get("spatial_scale", 1.0)),
    )
    ctx.bind(node.output, target)
