"""Recurrent layers: one launch for all time steps."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.plan import Check
from clinfer.lowering.table import lowers
from clinfer_kernels.specs import RecurrentSpec


@lowers("clinfer.Recurrent")
def recurrent(ctx: Lowering, node: Node) -> None:
    sources = [ctx.contiguous(ctx.view(value)) for value in node.inputs if value is not None]
    values = [value for value in node.outputs if value is not None]
    targets = [ctx.output(value) for value in values]
    label, steps = node.describe(), sources[0].shape[0]
    checks = [Check(f"{label}: a length", 0, steps + 1)] if node.attrs["has_lengths"] else []
    ctx.launch(RecurrentSpec, sources, targets, label, checks, **node.attrs)
    for value, target in zip(values, targets, strict=True):
        ctx.bind(value, target)
