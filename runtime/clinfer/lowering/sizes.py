"""Sizes that are in data: the step of a plan that reads them."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.binding import symbol_name
from clinfer.lowering.context import Lowering
from clinfer.lowering.pending import PendingSizes
from clinfer.lowering.plan import Check, Constraint


def lower_sizes(ctx: Lowering, node: Node) -> None:
    """Adds the step for a `clinfer.Sizes` (docs/ir.md)."""
    views = [ctx.required(node, index) for index in range(len(node.inputs))]
    for view in views:
        ctx.proofs.view(view.tensor, view.storage.size, node.describe(), is_counted=False)
    gives = [symbol_name(dim) for dim in node.output.known_shape]
    checks = ((name, Check(*check)) for name, *check in node.attrs["checks"])
    ctx.steps.append(
        PendingSizes(
            tuple(views),
            tuple(node.attrs["names"]),
            tuple(zip(node.attrs["defined"], node.attrs["values"], strict=True)),
            tuple(name for name in gives if name is not None),
            tuple(checks),
            tuple(Constraint(*constraint) for constraint in node.attrs["constraints"]),
            str(node.attrs["of"]),
        )
    )
