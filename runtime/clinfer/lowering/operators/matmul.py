"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.epilogue import epilogue, own_inputs
from clinfer.lowering.storage import View, device_dtype
from clinfer.lowering.table import lowers
from clinfer_kernels.dims import Dim, product
from clinfer_kernels.row_specs import RowMatmulSpec
from clinfer_kernels.specs import EncodedMatmulSpec, MatmulSpec


@lowers("MatMul")
def matmul(ctx: Lowering, node: Node) -> None:
    """[batch..., M, K] @ [batch..., K, N]; a shared constant right side makes one tall matrix."""
    a, b = (ctx.view(v) for v in own_inputs(node)[:2] if v is not None)
    shape = node.output.known_shape
    fused = epilogue(ctx, node, shape, device_dtype(node.output))
    constant = b.storage.kind == "const" and all(d == 1 for d in b.shape[:-2])
    if constant and _has_few_rows(shape) and _as_rows(a) is None:
        a = ctx.contiguous(a)
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


@lowers("clinfer.RowMatMul")
def row_matmul(ctx: Lowering, node: Node) -> None:
    """[batch..., M, K] @ a constant [K, N], rows normalised as they are read, results summed."""
    a, b, *beside = (ctx.view(v) for v in own_inputs(node) if v is not None)
    shape = node.output.known_shape
    fused = epilogue(ctx, node, shape, device_dtype(node.output))
    columns = [view.broadcast((a.shape[-1],)) for view in map(_flat, beside[1:])]
    results = [(value, ctx.output(value)) for value in node.outputs if value is not None]
    constant = b.broadcast((*shape[:-2], *b.shape[-2:]))
    operands: tuple[View, ...] = (a, constant, results[0][1], *fused.operands)
    sums, made = beside[:1], [view for _, view in results[1:]]
    if len(shape) > 2:
        rows = product(shape[:-1])
        tall = _tall(operands, b, shape)
        flat = [view.reshape((rows, *view.shape[len(shape) - 1 :])) for view in (*sums, *made)]
        known = [view for view in flat if view is not None]
        if tall is not None and len(known) == len(flat):
            operands, sums, made = tall, known[: len(sums)], known[len(sums) :]
    left, right, out, *extra = operands
    ctx.launch(
        RowMatmulSpec,
        [left, right, *extra, *sums, *columns],
        [out, *made],
        node.describe(),
        norm=node.attrs.get("norm"),
        rms=node.attrs.get("rms", False),
        eps=node.attrs.get("eps", 0.0),
        keeps=node.outputs[1] is not None,
        sums=node.outputs[3] is not None,
        epilogue=fused.expr,
    )
    for value, view in results:
        ctx.bind(value, view)


def _flat(view: View) -> View:
    """A view of sizes 1 and a row, as the row."""
    made = view.reshape(view.shape[-1:])
    assert made is not None, "sizes of 1 go without a copy"
    return made


@lowers("clinfer.EncodedMatMul")
def encoded_matmul(ctx: Lowering, node: Node) -> None:
    """[batch..., M, K] @ a constant matrix of few bits."""
    a, codes, *by_block = (ctx.view(v) for v in own_inputs(node) if v is not None)
    shape = node.output.known_shape
    fused = epilogue(ctx, node, shape, device_dtype(node.output))
    target = ctx.output(node.output)
    ctx.launch(
        EncodedMatmulSpec,
        [a, codes.broadcast((*shape[:-2], *codes.shape)), *fused.operands, *by_block],
        [target],
        node.describe(),
        **{name: node.attrs[name] for name in ("block", "bits", "form", "zero", "quantised")},
        epilogue=fused.expr,
    )
    ctx.bind(node.output, target)


_FEW_ROWS = 32
"""Rows of a product below which a copy that makes one product of many costs less than theirs."""


def _has_few_rows(shape: Sequence[Dim]) -> bool:
    """Whether a batch of products may be of few rows each."""
    rows = shape[-2] if len(shape) > 2 else _FEW_ROWS
    return not isinstance(rows, int) or rows < _FEW_ROWS


def _as_rows(view: View) -> View | None:
    """A view as one matrix; None where its strides do not allow it."""
    return view.reshape((product(view.shape[:-1]), view.shape[-1]))


def _tall(
    operands: Sequence[View], constant: View, shape: Sequence[Dim]
) -> tuple[View, ...] | None:
    """The product with its batch folded into the rows; None where a view does not allow it."""
    left, _, *rest = operands
    right = constant.reshape(constant.shape[-2:])
    tall = _as_rows(left)
    others = [view.reshape((product(shape[:-1]), shape[-1])) for view in rest]
    if right is None or tall is None or any(view is None for view in others):
        return None
    return (tall, right, *(view for view in others if view is not None))
