"""Pointwise operators and fused chains of them: one kernel each."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.storage import Unlowerable, device_dtype
from clinfer.lowering.table import lowers
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.onnx_pointwise import POINTWISE
from clinfer_kernels.specs import PointwiseSpec


@lowers("clinfer.Pointwise", *POINTWISE)
def pointwise(ctx: Lowering, node: Node) -> None:
    inputs = [v for v in node.inputs if v is not None]
    for value in (*inputs, node.output):
        device_dtype(value)
    shape = node.output.known_shape
    expr = node.attrs["expr"] if node.kind == "clinfer.Pointwise" else _expression(node)
    views = [ctx.view(v).broadcast(shape) for v in inputs]
    target = ctx.output(node.output)
    ctx.launch(PointwiseSpec, views, [target], node.describe(), expr=expr)
    ctx.bind(node.output, target)


def _expression(node: Node) -> Expr:
    """The expression of a single ONNX operator."""
    if any(v is None for v in node.inputs):
        raise Unlowerable("an optional input in the middle is absent")
    builder = Builder([str(v.dtype) for v in node.inputs if v is not None])
    result = POINTWISE[node.kind].build(builder, list(range(len(node.inputs))), node.attrs)
    return builder.build(result)
