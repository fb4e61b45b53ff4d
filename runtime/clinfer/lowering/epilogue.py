"""Epilogues and prologues of a node, as the kernel families take them (see docs/ir.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer.graph.ir import Node, Value
from clinfer.lowering.context import Lowering
from clinfer.lowering.storage import View
from clinfer.passes.query import broadcast
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
    full = broadcast([v.shape for v in views]) if shape is None else tuple(shape)
    assert full is not None, f"{node.describe()}: the prologue's operands do not broadcast"
    return Fused(expr, tuple(v.broadcast(full) for v in views))
