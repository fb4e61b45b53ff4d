"""Reductions, softmax and normalisation: rows of elements become one value, or each other."""

from __future__ import annotations

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering
from clinfer.lowering.epilogue import epilogue, prologue
from clinfer.lowering.storage import Unlowerable
from clinfer.lowering.table import lowers
from clinfer_kernels.dims import Dim
from clinfer_kernels.expr import identity
from clinfer_kernels.specs import NormSpec, ReduceSpec, ScanSpec, SoftmaxSpec, TopKSpec

_REDUCTIONS = {
    "ReduceSum": "sum",
    "ReduceMean": "mean",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceSumSquare": "sum_square",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
}


@lowers(*_REDUCTIONS)
def reduce(ctx: Lowering, node: Node) -> None:
    if "axes" not in node.attrs:
        raise Unlowerable("the axes are not known when the model is compiled")
    before = prologue(ctx, node)
    axes = tuple(node.attrs["axes"])
    shape = _kept(before.operands[0].shape, axes)
    after = epilogue(ctx, node, shape, before.expr.output_dtypes[0])
    target = ctx.output(node.output, shape)
    ctx.launch(
        ReduceSpec,
        [*before.operands, *after.operands],
        [target],
        node.describe(),
        op=_REDUCTIONS[node.op],
        axes=axes,
        prologue=before.expr,
        epilogue=after.expr,
    )
    ctx.bind(node.output, target)


@lowers("ArgMax", "ArgMin")
def arg_reduce(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    axis = node.attrs.get("axis", 0) % source.tensor.rank
    target = ctx.output(node.output, _kept(source.shape, (axis,)))
    ctx.launch(
        ReduceSpec,
        [source],
        [target],
        node.describe(),
        op=node.op.lower(),
        axes=(axis,),
        prologue=identity(source.dtype),
        epilogue=identity("int64"),
        select_last=bool(node.attrs.get("select_last_index", 0)),
    )
    ctx.bind(node.output, target)


@lowers("clinfer.Softmax")
def softmax(ctx: Lowering, node: Node) -> None:
    before = prologue(ctx, node)
    shape = node.output.known_shape
    after = epilogue(ctx, node, shape, before.expr.output_dtypes[0])
    operands = [v.broadcast(shape) for v in before.operands]
    target = ctx.output(node.output, like=operands[0])
    ctx.launch(
        SoftmaxSpec,
        [*operands, *after.operands],
        [target],
        node.describe(),
        log=bool(node.attrs.get("log", False)),
        axes=node.attrs["axes"],
        prologue=before.expr,
        epilogue=after.expr,
    )
    ctx.bind(node.output, target)


@lowers("clinfer.Norm")
def norm(ctx: Lowering, node: Node) -> None:
    before = prologue(ctx, node)
    shape = node.output.known_shape
    after = epilogue(ctx, node, shape, before.expr.output_dtypes[0])
    operands = [v.broadcast(shape) for v in before.operands]
    target = ctx.output(node.output, like=operands[0])
    ctx.launch(
        NormSpec,
        [*operands, *after.operands],
        [target],
        node.describe(),
        rms=bool(node.attrs.get("rms", False)),
        axes=node.attrs["axes"],
        eps=float(node.attrs["eps"]),
        prologue=before.expr,
        epilogue=after.expr,
    )
    ctx.bind(node.output, target)


@lowers("CumSum", "CumProd")
def scan(ctx: Lowering, node: Node) -> None:
    source = ctx.required(node, 0)
    axis = node.attrs.get("axis")
    if axis is None:
        array = ctx.constant_array(node.input(1))
        if array is None:
            raise Unlowerable("the axis is not known when the model is compiled")
        axis = int(array.reshape(-1)[0])
    target = ctx.output(node.output)
    ctx.launch(
        ScanSpec,
        [source],
        [target],
        node.describe(),
        op="sum" if node.op == "CumSum" else "prod",
        axis=axis % source.tensor.rank,
        exclusive=bool(node.attrs.get("exclusive", 0)),
        reverse=bool(node.attrs.get("reverse", 0)),
    )
    ctx.bind(node.output, target)


@lowers("TopK")
def topk(ctx: Lowering, node: Node) -> None:
    """k is the output's size along the axis."""
    source = ctx.required(node, 0)
    values, indices = (*node.outputs, None)[:2]
    shape = (values or indices or node.output).known_shape
    targets = [
        ctx.temp(source.dtype, shape) if values is None else ctx.output(values),
        ctx.temp("int64", shape) if indices is None else ctx.output(indices),
    ]
    ctx.launch(
        TopKSpec,
        [source],
        targets,
        node.describe(),
        axis=node.attrs.get("axis", -1) % source.tensor.rank,
        largest=bool(node.attrs.get("largest", 1)),
    )
    for value, target in zip((values, indices), targets, strict=True):
        if value is not None:
            ctx.bind(value, target)


def _kept(shape: tuple[Dim, ...], axes: tuple[int, ...]) -> tuple[Dim, ...]:
    return tuple(1 if i in axes else d for i, d in enumerate(shape))
