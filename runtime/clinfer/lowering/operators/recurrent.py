"""Recurrent layers, whose inputs' part is a matrix product of its own."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering, View
from clinfer.lowering.table import lowers
from clinfer_kernels.specs import RecurrentSpec


@lowers("clinfer.Recurrent")
def recurrent(ctx: Lowering, node: Node) -> None:
    operands = [ctx.required(node, index) for index in range(len(node.inputs))]
    ins = [view if view.tensor.strides[-1] == 1 else ctx.contiguous(view) for view in operands]
    values = [value for value in node.outputs if value is not None]
    targets = [_rows(ctx, ctx.output(value)) for value in values]
    ctx.launch(
        RecurrentSpec,
        ins,
        targets,
        node.describe(),
        kind=node.attrs["kind"],
        reversed_from=node.attrs["reversed_from"],
    )
    for value, target in zip(values, targets, strict=True):
        ctx.bind(value, target)


def _rows(ctx: Lowering, view: View) -> View:
    """The view, or a new buffer where its last elements are not neighbours."""
    return view if view.tensor.strides[-1] == 1 else ctx.temp(view.dtype, view.shape)
