"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.epilogue import epilogue, own_inputs
from clinfer.lowering.storage import View, device_dtype
from clinfer.lowering.table import lowers
from clinfer_kernels.dims import Dim, product
from clinfer_kernels.specs import EncodedMatmulSpec, MatmulSpec


@lowers("MatMul")
def matmul(ctx: Lowering, node: Node) -> None:
    """[batch..., M, K] @ [batch..., K, N]; a shared constant right side makes one tall matrix."""
    a, b = (ctx.view(v) for v in own_inputs(node)[:2] if v is not None)
    shape = node.output.known_shape
    fused = epilogue(ctx, node, shape, device_dtype(node.output))
    constant = b.storage.kind == "const" and all(d == 1 for d in b.shape[:-2])
    target = ctx.output(node.output)
    operands = (
        a.broadcast((*shape[:-2], *a.shape[-2:])),
        b.broadcast((*shape[:-2], *b.shape[-2:])),
        target,
        *fused.operands,
    )
    if constant and len(shape) > 2:
        operands = _tall(operands, b, shape) or operands
    left, right, out, *extra = operands
    ctx.launch(
        MatmulSpec,
        [left, right, *extra],
        [out],
        node.describe(),
        constant_b=constant,
        epilogue=fused.expr,
    )
    ctx.bind(node.output, target)


@lowers("clinfer.EncodedMatMul")
def encoded_matmul(ctx: Lowering, node: Node) -> None:
    """[batch..., M, K] @ a constant matrix of few bits."""
    a, codes, scales, zeros = (ctx.view(v) for v in own_inputs(node)[:4] if v is not None)
    shape = node.output.known_shape
    fused = epilogue(ctx, node, shape, device_dtype(node.output))
    target = ctx.output(node.output)
    ctx.launch(
        EncodedMatmulSpec,
        [a, codes.broadcast((*shape[:-2], *codes.shape)), *fused.operands, scales, zeros],
        [target],
        node.describe(),
        block=node.attrs["block"],
        bits=node.attrs["bits"],
        quantised=node.attrs["quantised"],
        epilogue=fused.expr,
    )
    ctx.bind(node.output, target)


def _tall(
    operands: Sequence[View], constant: View, shape: Sequence[Dim]
) -> tuple[View, ...] | None:
    """The product with its batch folded into the rows; None where a view does not allow it."""
    rows = product(shape[:-1])
    left, _, *rest = operands
    right = constant.reshape(constant.shape[-2:])
    tall = left.reshape((rows, left.shape[-1]))
    others = [view.reshape((rows, shape[-1])) for view in rest]
    if right is None or tall is None or any(view is None for view in others):
        return None
    return (tall, right, *(view for view in others if view is not None))
