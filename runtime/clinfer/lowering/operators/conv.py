"""Convolution, pooling and interpolation."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering, Unlowerable, device_dtype
from clinfer.lowering.epilogue import epilogue
from clinfer.lowering.table import lowers
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


@lowers("Resize")
def resize(ctx: Lowering, node: Node) -> None:
    """Sizes come from the output's shape; `scales` are the model's factors for `axes`."""
    attrs = node.attrs
    if "scales" not in attrs:
        raise Unlowerable("this form of Resize has no kernel")
    source = ctx.required(node, 0)
    shape = node.output.known_shape
    given = dict(zip(attrs["axes"], attrs["scales"], strict=True))
    sizes = enumerate(zip(source.shape, shape, strict=True))
    axes = tuple(i for i, (n, m) in sizes if n != m or given.get(i, 1.0) != 1.0)
    fused = epilogue(ctx, node, shape, source.dtype)
    target = ctx.output(node.output)
    ins = [source, *fused.operands]
    if not axes:
        ctx.launch(PointwiseSpec, ins, [target], node.describe(), expr=fused.expr)
    else:
        ctx.launch(
            ResizeSpec,
            ins,
            [target],
            node.describe(),
            axes=axes,
            scales=tuple(given.get(i) for i in axes),
            mode=attrs["mode"],
            coordinates=attrs["coordinate_transformation_mode"],
            rounding=attrs["nearest_mode"],
            cubic_a=float(attrs["cubic_coeff_a"]),
            exclude_outside=bool(attrs["exclude_outside"]),
            extrapolation=float(attrs["extrapolation_value"]),
            epilogue=fused.expr,
        )
    ctx.bind(node.output, target)
