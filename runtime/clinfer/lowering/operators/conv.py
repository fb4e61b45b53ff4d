"""Convolution, pooling and interpolation."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.epilogue import epilogue
from clinfer.lowering.storage import Unlowerable, View, device_dtype
from clinfer.lowering.table import lowers
from clinfer.passes.query import prologue_inputs
from clinfer_kernels.dims import product
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.requantise import rounds
from clinfer_kernels.specs import (
    ConvSpec,
    GridSampleSpec,
    MatmulSpec,
    PointwiseSpec,
    PoolSpec,
    PreparedConvSpec,
    ProjectedConvSpec,
    ResizeSpec,
)
from clinfer_kernels.terms import Term
from clinfer_kernels.types import highest, is_float, lowest


@lowers("clinfer.Conv", "clinfer.ConvTranspose")
def conv(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    weights = ctx.required(node, 1)
    shape = node.output.known_shape
    before = node.attrs.get("prologue")
    if before is None and "zero" in node.attrs:
        before = _centred(source.dtype, node.attrs["zero"])
    fused = epilogue(ctx, node, shape, device_dtype(node.output))
    target = ctx.output(node.output)
    if ctx.target.cls == "cpu" and before is None and _is_product(node, source, weights):
        operands = _as_product([source, *fused.operands, target], weights)
        if operands is not None:
            left, right, *extra, out = operands
            ctx.launch(
                MatmulSpec,
                [left, right, *extra],
                [out],
                node.describe(),
                constant_b=True,
                epilogue=fused.expr,
            )
            ctx.bind(node.output, target)
            return
    full = source.shape
    prepared = [ctx.view(v).broadcast(full) for v in prologue_inputs(node)[1:]]
    ctx.launch(
        ConvSpec if before is None else PreparedConvSpec,
        [source, weights, *fused.operands, *prepared],
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
        **({} if before is None else {"prologue": before}),
    )
    ctx.bind(node.output, target)


def _is_product(node: Node, source: View, weights: View) -> bool:
    """Whether a convolution is a product of pixels and filters, of floats as they lie in memory."""
    attrs = node.attrs
    ones = {*attrs["kernel"], *attrs["strides"], attrs["group"]} == {1}
    plain = node.op == "Conv" and ones and not any(attrs["pads"])
    in_place = is_float(source.dtype) and source.tensor.strides[-1] == 1
    return plain and in_place and weights.storage.kind == "const"


def _as_product(views: Sequence[View], weights: View) -> tuple[View, ...] | None:
    """[pixels, C] @ [C, M] with what goes along; None where pixels do not lie in one row."""
    rows = [view.reshape((product(view.shape[:-1]), view.shape[-1])) for view in views]
    filters = weights.reshape(weights.shape[:2])
    known = [view for view in rows if view is not None]
    if filters is None or len(known) < len(rows):
        return None
    return (known[0], filters.permute((1, 0)), *known[1:])


@lowers("clinfer.ProjectedConv")
def projected(ctx: Lowering, node: Node) -> None:
    source, weights, side = (ctx.required(node, index) for index in range(3))
    fused = epilogue(ctx, node, node.output.known_shape, device_dtype(node.output))
    target = ctx.output(node.output)
    ctx.launch(
        ProjectedConvSpec,
        [source, weights, *fused.operands, side],
        [target],
        node.describe(),
        kernel=tuple(node.attrs["kernel"]),
        strides=tuple(node.attrs["strides"]),
        pads=tuple(node.attrs["pads"]),
        dilations=tuple(node.attrs["dilations"]),
        groups=1,
        constant_w=True,
        epilogue=fused.expr,
    )
    ctx.bind(node.output, target)


def _centred(dtype: str, zero: int) -> Expr:
    """What a convolution of 8-bit integers takes of an element: how far from zero it is."""
    builder = Builder([dtype])
    return builder.build((Term(builder, 0).cast("int32") - zero).number)


@lowers("clinfer.Pool")
def pool(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    fused = epilogue(ctx, node, node.output.known_shape, source.dtype)
    values = [v for v in node.outputs if v is not None]
    targets = [ctx.output(v) for v in values]
    # Halves are frequent where averages of bytes are quantised: sums are ONNX Runtime's.
    is_rounded = node.attrs["kind"] == "average" and rounds(fused.expr)
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
        count_include_pad=node.attrs.get("count_include_pad", 0),
        epilogue=fused.expr,
        p=node.attrs.get("p", 2),
        column_major=bool(node.attrs.get("storage_order", 0)),
        order=node.attrs["order"] if is_rounded else "any",
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
    expr = fused.expr
    if attrs["mode"] != "nearest" and not is_float(source.dtype):
        expr = _cut(source.dtype, expr)
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
            epilogue=expr,
        )
    ctx.bind(node.output, target)


@lowers("clinfer.GridSample")
def grid_sample(ctx: Lowering, node: Node) -> None:
    x, grid = ctx.required(node, 0), ctx.required(node, 1)
    fused = epilogue(ctx, node, node.output.known_shape, x.dtype)
    target = ctx.output(node.output, like=x)
    ctx.launch(
        GridSampleSpec,
        [x, grid, *fused.operands],
        [target],
        node.describe(),
        mode=node.attrs["mode"],
        padding=node.attrs["padding_mode"],
        aligned=bool(node.attrs["align_corners"]),
        epilogue=fused.expr,
    )
    ctx.bind(node.output, target)


def _cut(dtype: str, epilogue: Expr) -> Expr:
    """An epilogue of integers over what is interpolated in float32: cut toward zero, saturating."""
    builder = Builder(["float32", *epilogue.inputs[1:]])
    value = Term(builder, 0).at_least(float(lowest(dtype))).at_most(float(highest(dtype)))
    operands = [value.cast(dtype).number, *range(1, len(epilogue.inputs))]
    return builder.build(*builder.inline(epilogue, operands))
