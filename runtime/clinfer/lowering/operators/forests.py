"""Forests."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.graph.ml.kernel_form import KINDS, kernel_form
from clinfer.lowering.context import Lowering
from clinfer.lowering.storage import Unlowerable
from clinfer.lowering.table import lowers
from clinfer_kernels.specs import ForestSpec


@lowers("clinfer.Forest")
def forest(ctx: Lowering, node: Node) -> None:
    ins = [ctx.whole(ctx.required(node, index)) for index in range(len(node.inputs))]
    target = ctx.own_buffer(node.output)
    ctx.launch(
        ForestSpec,
        ins,
        [target],
        node.describe(),
        aggregate=node.attrs["aggregate"],
        alone=len(ins) == 3,
        mask=int(node.attrs["mask"]),
        features=int(node.attrs["features"]),
    )
    ctx.bind(node.output, target)


@lowers(*KINDS)
def trees(ctx: Lowering, node: Node) -> None:
    """What no rule has made a `clinfer.Forest` of is a host step."""
    try:
        kernel_form(node)
    except ValueError as reason:
        raise Unlowerable(str(reason)) from reason
    raise Unlowerable("its types are known only after it could become a kernel's")
