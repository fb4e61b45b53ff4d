"""Gather and scatter."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.plan import Check
from clinfer.lowering.storage import Unlowerable, View, device_dtype
from clinfer.lowering.table import lowers
from clinfer_kernels.specs import GatherSpec, ScatterSpec

_GATHERS = {"Gather": "axis", "GatherElements": "elements", "GatherND": "nd"}
_SCATTERS = {"ScatterElements": "elements", "Scatter": "elements", "ScatterND": "nd"}
# The attribute `positions` (docs/ir.md) -> the kernels' rule.
_RULES = {
    "wrapped": "wrapped",
    "natural": "natural",
    "lengths": "natural",
    "clamped": "clamped",
}


@lowers(*_GATHERS)
def gather(ctx: Lowering, node: Node) -> None:
    source, indices = ctx.required(node, 0), _indices(ctx, node)
    device_dtype(node.output)
    kind, axis = _GATHERS[node.op], _axis(node, source)
    batch = node.attrs.get("batch_dims", 0)
    if kind == "nd" and indices.tensor.shape[-1] == 0:
        raise Unlowerable("its indices name no axis: each is all of the data")
    axes = _tuple_axes(indices, batch) if kind == "nd" else [axis]
    target = ctx.output(node.output)
    ctx.launch(
        GatherSpec,
        [source, indices],
        [target],
        node.describe(),
        checks=_checks(node, source, axes),
        kind=kind,
        axis=axis,
        batch_dims=batch,
        positions=_rule(node),
    )
    ctx.bind(node.output, target)


@lowers(*_SCATTERS)
def scatter(ctx: Lowering, node: Node) -> None:
    data, indices = ctx.required(node, 0), _indices(ctx, node)
    kind, axis = _SCATTERS[node.op], _axis(node, data)
    axes = _tuple_axes(indices, 0) if kind == "nd" else [axis]
    target = ctx.output(node.output)
    ctx.launch(
        ScatterSpec,
        [data, indices, ctx.required(node, 2)],
        [target],
        node.describe(),
        checks=_checks(node, data, axes),
        kind=kind,
        axis=axis,
        reduction=node.attrs.get("reduction", "none"),
        positions=_rule(node),
    )
    ctx.bind(node.output, target)


def _indices(ctx: Lowering, node: Node) -> View:
    indices = ctx.required(node, 1)
    if indices.dtype not in ("int32", "int64"):
        raise Unlowerable(f"indices of dtype {indices.dtype}")
    return indices


def _axis(node: Node, data: View) -> int:
    axis: int = node.attrs.get("axis", 0) % max(data.tensor.rank, 1)
    return axis


def _tuple_axes(indices: View, batch: int) -> list[int]:
    """The axes that the components of an index tuple select."""
    count = indices.shape[-1]
    if not isinstance(count, int):
        raise Unlowerable("the length of its index tuples is not known when the model is compiled")
    return list(range(batch, batch + count))


def _rule(node: Node) -> str:
    return _RULES[node.attrs.get("positions", "wrapped")]


def _checks(node: Node, data: View, axes: list[int]) -> list[Check]:
    """What holds of each component of an index tuple."""
    positions = node.attrs.get("positions", "wrapped")
    if positions == "clamped":
        return []
    found: list[Check] = []
    for axis in axes:
        size = data.shape[axis]
        if positions == "lengths":
            found.append(Check(f"{node.describe()}: a length", 0, size + 1))
            continue
        low = -size if positions == "wrapped" else 0
        found.append(Check(f"{node.describe()}: an index along axis {axis}", low, size))
    return found
