"""Convolution, pooling and interpolation."""

from __future__ import annotations

from typing import Any

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering, Unlowerable, device_dtype
from clinfer.lowering.epilogue import epilogue, own_inputs
from clinfer.lowering.table import lowers
from clinfer_kernels.expr import identity
from clinfer_kernels.specs import ConvSpec, PointwiseSpec, PoolSpec, ResizeSpec


@lowers("clinfer.Conv", "clinfer.ConvTranspose")
def conv(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    weights = ctx.required(node, 1)
    device_dtype(node.output)
    shape = node.output.known_shape
    fused = epilogue(ctx, node, shape, source.dtype)
    target = ctx.output(node.output)
    ctx.launch(
        ConvSpec,
        [source, weights, *fused.operands],
        [target],
        node.describe(),
        kernel=tuple(node.attrs["kernel"]),
        strides=tuple(node.attrs["strides"]),
        pads=tuple(node.attrs["pads"]),
        dilations=tuple(node.attrs["dilations"]),
        groups=node.attrs["group"],
        constant_w=weights.storage.kind == "const",
        epilogue=fused.expr,
        transposed=node.op == "ConvTranspose",
    )
    ctx.bind(node.output, target)


@lowers("clinfer.Pool")
def pool(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    fused = epilogue(ctx, node, node.output.known_shape, source.dtype)
    values = [v for v in node.outputs if v is not None]
    targets = [ctx.output(v) for v in values]
    ctx.launch(
        PoolSpec,
        [source, *fused.operands],
        targets,
        node.describe(),
        kind=node.attrs["kind"],
        kernel=tuple(node.attrs["kernel"]),
        strides=tuple(node.attrs["strides"]),
        pads=tuple(node.attrs["pads"]),
        dilations=tuple(node.attrs["dilations"]),
        count_include_pad=bool(node.attrs.get("count_include_pad", 0)),
        epilogue=fused.expr,
        p=node.attrs.get("p", 2),
        column_major=bool(node.attrs.get("storage_order", 0)),
    )
    for value, target in zip(values, targets, strict=True):
        ctx.bind(value, target)


@lowers("Resize", "Upsample")
def resize(ctx: Lowering, node: Node) -> None:
    """Sizes come from the output's shape; scales given as constants are used as ONNX says."""
    source = ctx.required(node, 0)
    shape = node.output.known_shape
    options = _resize_options(node)
    scales = _scales(ctx, node, source.tensor.rank)
    axes = tuple(
        i
        for i, (n, m) in enumerate(zip(source.shape, shape, strict=True))
        if n != m or scales[i] not in (None, 1.0)
    )
    fused = epilogue(ctx, node, shape, source.dtype)
    target = ctx.output(node.output)
    if not axes:
        ins = [source, *fused.operands]
        expr = fused.expr if node.attrs.get("epilogue") else identity(source.dtype)
        ctx.launch(PointwiseSpec, ins, [target], node.describe(), expr=expr)
    else:
        ctx.launch(
            ResizeSpec,
            [source, *fused.operands],
            [target],
            node.describe(),
            axes=axes,
            scales=tuple(scales[i] for i in axes),
            epilogue=fused.expr,
            **options,
        )
    ctx.bind(node.output, target)


def _resize_options(node: Node) -> dict[str, Any]:
    attrs = node.attrs
    if attrs.get("antialias"):
        raise Unlowerable("Resize with antialias has no kernel")
    if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unlowerable("Resize with keep_aspect_ratio_policy has no kernel")
    if node.op == "Upsample":
        return {
            "mode": attrs.get("mode", "nearest"),
            "coordinates": "asymmetric",
            "rounding": "floor",
            "cubic_a": -0.75,
            "exclude_outside": False,
            "extrapolation": 0.0,
        }
    return {
        "mode": attrs.get("mode", "nearest"),
        "coordinates": attrs.get("coordinate_transformation_mode", "half_pixel"),
        "rounding": attrs.get("nearest_mode", "round_prefer_floor"),
        "cubic_a": float(attrs.get("cubic_coeff_a", -0.75)),
        "exclude_outside": bool(attrs.get("exclude_outside", 0)),
        "extrapolation": float(attrs.get("extrapolation_value", 0.0)),
    }


def _scales(ctx: Lowering, node: Node, rank: int) -> list[float | None]:
    """The model's scale factors per axis; None where it gives sizes, or gives them at run time."""
    given = node.attrs.get("scales")
    if given is None:
        own = own_inputs(node)
        index = {"Upsample": 1}.get(node.op, 2 if len(own) > 2 else 1)
        array = ctx.constant_array(own[index]) if len(own) > index else None
        given = None if array is None or array.size == 0 else array.tolist()
    if given is None:
        return [None] * rank
    axes = node.attrs.get("axes") or list(range(rank))
    scales: list[float | None] = [None] * rank
    for axis, scale in zip(axes, given, strict=True):
        scales[axis] = float(scale)
    return scales
