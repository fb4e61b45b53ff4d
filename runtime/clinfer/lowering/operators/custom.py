"""Operators that a program has added: a kernel of its own text, or a host step."""

from __future__ import annotations

from clinfer.errors import UnsupportedError
from clinfer.graph.ir import Node, Value
from clinfer.lowering.context import Lowering
from clinfer.lowering.pending import PendingLaunch
from clinfer.lowering.storage import Unlowerable, View
from clinfer.operators.custom import CustomOperator
from clinfer.operators.custom_kernel import Argument, OpenCLOperator
from clinfer.operators.size_text import Known
from clinfer_kernels.dims import ceildiv
from clinfer_kernels.spec import Arg, Kernel, Launch
from clinfer_kernels.types import TYPES


def lower_custom(ctx: Lowering, node: Node, operator: CustomOperator) -> None:
    """The launch of a node's kernel, or its host step.

    Raises `UnsupportedError` where the device cannot run the kernel: there is no other.
    """
    if not isinstance(operator, OpenCLOperator):
        ctx.host(node, operator.reason)
        return
    try:
        _launch(ctx, node, operator)
    except Unlowerable as reason:
        raise UnsupportedError(
            f"{node.describe()}: its kernel cannot run: {reason}; give it other tensors, or make "
            "the extension a PythonOperator"
        ) from reason


def _launch(ctx: Lowering, node: Node, operator: OpenCLOperator) -> None:
    group = 1
    for count in operator.local_size:
        group *= count
    if group > ctx.target.max_work_group:
        raise Unlowerable(
            f"{group} work-items a group, the device takes {ctx.target.max_work_group}"
        )
    ins = [ctx.whole(ctx.required(node, i)) for i in range(len(operator.inputs))]
    outs = [_result(ctx, v, node, i) for i, v in enumerate(_outputs(node, operator))]
    names = [*(i.name for i in operator.inputs), *(o.name for o in operator.outputs)]
    views = dict(zip(names, [*ins, *outs], strict=True))
    known = operator.known(node.attrs, [v.shape for v in ins])
    places = {name: Arg("in", i) for i, name in enumerate(names[: len(ins)])}
    places.update((name, Arg("out", i)) for i, name in enumerate(names[len(ins) :]))
    launch = Launch(
        operator.entry,
        operator.text(node.attrs, {n: TYPES[v.dtype].storage for n, v in views.items()}),
        tuple(_arg(a, places, known) for a in operator.arguments),
        tuple(
            ceildiv(size(known), local) * local
            for size, local in zip(operator.global_size, operator.local_size, strict=True)
        ),
        operator.local_size,
        operator.options,
    )
    storages = tuple(v.storage for v in ins), tuple(v.storage for v in outs)
    ctx.steps.append(PendingLaunch(Kernel((launch,)), *storages, node.describe()))
    for value, view in zip(node.outputs, outs, strict=False):
        if value is not None:
            ctx.bind(value, view)


def _outputs(node: Node, operator: OpenCLOperator) -> list[Value | None]:
    missing = len(operator.outputs) - len(node.outputs)
    return [*node.outputs, *[None] * missing]


def _result(ctx: Lowering, value: Value | None, node: Node, index: int) -> View:
    """A dense buffer of its own for a result, which the kernel writes."""
    if value is None:
        raise Unlowerable(f"result {index} of {node.describe()} is left out; its kernel writes it")
    return ctx.own_buffer(value)


def _arg(argument: Argument, places: dict[str, Arg], known: Known) -> Arg:
    if argument.size is None:
        return places[argument.tensor]
    value = argument.size(known)
    if argument.kind == "local":
        return Arg("local", value=value)
    return Arg("scalar", value=value, ctype=argument.kind)
