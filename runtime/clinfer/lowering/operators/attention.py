"""Attention in one kernel."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.table import lowers
from clinfer_kernels.specs import AttentionSpec


@lowers("clinfer.Attention")
def attention(ctx: Lowering, node: Node) -> None:
    query, key, value = (ctx.required(node, i) for i in range(3))
    mask = node.input(3)
    batch, heads, rows, _ = query.shape
    ins = [query, key, value]
    if mask is not None:
        ins.append(ctx.view(mask).broadcast((batch, heads, rows, key.shape[2])))
    target = ctx.output(node.output)
    ctx.launch(
        AttentionSpec,
        ins,
        [target],
        node.describe(),
        scale=node.attrs["scale"],
        causal=node.attrs.get("causal", False),
        has_mask=mask is not None,
        zeroed=node.attrs.get("zeroed", ""),
    )
    ctx.bind(node.output, target)
