"""Epilogues and prologues of a node, as the kernel families take them (see docs/ir.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer.graph.ir import Node, Value
from clinfer.lowering.context import Lowering, View
from clinfer_kernels.dims import Dim
from clinfer_kernels.expr import Expr, identity


@dataclass(frozen=True)
class Fused:
    """An expression with the views of its extra operands."""

    expr: Expr
    operands: tuple[View, ...]


def own_inputs(node: Node) -> list[Value | None]:
    """The inputs that belong to the operator itself."""
    return node.inputs[: node.attrs.get("own", len(node.inputs))]


def epilogue(ctx: Lowering, node: Node, shape: Sequence[Dim], dtype: str) -> Fused:
    """The node's epilogue over results of `dtype`; its operands broadcast to `shape`."""
    expr = node.attrs.get("epilogue")
    if expr is None:
        return Fused(identity(dtype), ())
    extra = [v for v in node.inputs[node.attrs["own"] :] if v is not None]
    return Fused(expr, tuple(ctx.view(v).broadcast(shape) for v in extra))


def prologue(ctx: Lowering, node: Node, shape: Sequence[Dim] | None = None) -> Fused:
    """The node's prologue with its operands, all broadcast to the operator's input shape."""
    own = [v for v in own_inputs(node) if v is not None]
    views = [ctx.view(v) for v in own]
    expr = node.attrs.get("prologue")
    if expr is None:
        return Fused(identity(views[0].dtype), (views[0],))
    full = broadcast_shape([v.shape for v in views]) if shape is None else tuple(shape)
    return Fused(expr, tuple(v.broadcast(full) for v in views))


def broadcast_shape(shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """NumPy's broadcast of shapes; of two symbols the first is taken (the reader checked them)."""
    rank = max(len(s) for s in shapes)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, start=rank - len(shape)):
            known = result[axis]
            if known == 1 or (not isinstance(known, int) and isinstance(dim, int) and dim != 1):
                result[axis] = dim
    return tuple(result)
