"""Convolutions and pools as their channels-last operators between two transposes.

Conv(x [N, C, spatial...])  =  Transpose(clinfer.Conv(Transpose(x)) + bias)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinfer.graph.ir import Node, Value
from clinfer.passes.query import inverse
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim

# int32 is what quantised convolutions are computed in.
_CONVOLVED = frozenset({"float16", "bfloat16", "float32", "float64", "int32"})
_POOLS = {"MaxPool": "max", "AveragePool": "average", "LpPool": "lp"}


def to_last(rank: int) -> list[int]:
    """[N, C, spatial...] -> [N, spatial..., C]."""
    return [0, *range(2, rank), 1]


def convolution(rw: Rewriter, node: Node) -> Outcome:
    """Conv and ConvTranspose; the bias becomes an Add."""
    x, weights = node.required(0), node.required(1)
    if not 3 <= len(x.known_shape) <= 5 or x.dtype not in _CONVOLVED:
        return Refusal("only 1 to 3 spatial dimensions of floats and int32 have a kernel")
    attrs = _window(node, weights.known_shape[2:])
    if isinstance(attrs, Refusal):
        return attrs
    attrs["group"] = node.attrs.get("group", 1)
    perm = to_last(len(x.known_shape))
    inputs = [rw.transpose(x, perm), weights]
    shape = tuple(node.output.known_shape[p] for p in perm)
    made = rw.emit(node.op, inputs, x.dtype, shape, attrs=attrs, domain="clinfer")
    bias = node.input(2)
    if bias is not None:
        made = rw.emit("Add", [made, bias], x.dtype, shape)
    return rw.transpose(made, inverse(perm))


def pool(rw: Rewriter, node: Node) -> Outcome:
    """MaxPool, AveragePool, LpPool."""
    x = node.required(0)
    if not 3 <= len(x.known_shape) <= 5:
        return Refusal("only 1 to 3 spatial dimensions have a kernel")
    attrs = _window(node, node.attrs["kernel_shape"])
    if isinstance(attrs, Refusal):
        return attrs
    attrs["kind"] = _POOLS[node.op]
    attrs["count_include_pad"] = node.attrs.get("count_include_pad", 0)
    attrs["p"] = node.attrs.get("p", 2)
    attrs["storage_order"] = node.attrs.get("storage_order", 0)
    perm = to_last(len(x.known_shape))
    outputs: list[Value | None] = []
    for value in node.outputs:
        if value is None or not (value.users or rw.graph.is_output(value)):
            continue
        shape = tuple(value.known_shape[p] for p in perm)
        outputs.append(Value(rw.graph.fresh(value.name), value.dtype, shape))
    if node.outputs[0] is None or len(outputs) < 1:
        return None
    if len(outputs) == 1 and not (node.output.users or rw.graph.is_output(node.output)):
        return Refusal("only its indices are read")
    rw.insert(Node("Pool", [rw.transpose(x, perm)], outputs, attrs, node.name, "clinfer"))
    back = inverse(perm)
    return [None if v is None else rw.transpose(v, back) for v in outputs]


def _window(node: Node, kernel: Sequence[Dim]) -> dict[str, Any] | Refusal:
    """The attributes that convolutions and pools share, with explicit padding."""
    window = [d for d in node.attrs.get("kernel_shape", kernel) if isinstance(d, int)]
    rank = len(kernel)
    if len(window) != rank:
        return Refusal("the size of its kernel is not known")
    strides = list(node.attrs.get("strides", [1] * rank))
    dilations = list(node.attrs.get("dilations", [1] * rank))
    pads = _pads(node, window, strides, dilations)
    if isinstance(pads, Refusal):
        return pads
    if any(p < 0 for p in pads):
        return Refusal("its padding is negative")
    return {"kernel": window, "strides": strides, "pads": pads, "dilations": dilations}


def _pads(
    node: Node, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int] | Refusal:
    auto = node.attrs.get("auto_pad", "NOTSET")
    rank = len(kernel)
    if node.op == "ConvTranspose" and ("output_shape" in node.attrs or auto.startswith("SAME")):
        return _transposed_pads(node, kernel, strides, dilations)
    if auto == "VALID":
        return [0] * (2 * rank)
    if not auto.startswith("SAME"):
        return list(node.attrs.get("pads", [0] * (2 * rank)))
    totals: list[int] = []
    for axis in range(rank):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        size = node.required(0).known_shape[2 + axis]
        if strides[axis] == 1:
            totals.append(extent - 1)
        elif isinstance(size, int):
            steps = -(-size // strides[axis])
            totals.append(max((steps - 1) * strides[axis] + extent - size, 0))
        else:
            return Refusal(f"{auto} with a stride needs sizes known when the model is compiled")
    return _halves(totals, larger_end=auto == "SAME_UPPER")


def _transposed_pads(
    node: Node, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int] | Refusal:
    """Padding such that the output has the size asked for."""
    sizes = node.required(0).known_shape[2:]
    wanted = node.output.known_shape[2:]
    extra = node.attrs.get("output_padding", [0] * len(kernel))
    totals: list[int] = []
    for axis, extent in enumerate(kernel):
        size, out = sizes[axis], wanted[axis]
        if not isinstance(size, int) or not isinstance(out, int):
            return Refusal("its output size needs sizes known when the model is compiled")
        full = strides[axis] * (size - 1) + extra[axis] + (extent - 1) * dilations[axis] + 1
        totals.append(max(full - out, 0))
    return _halves(totals, larger_end=node.attrs.get("auto_pad") == "SAME_UPPER")


def _halves(totals: list[int], larger_end: bool) -> list[int]:
    """Begins, then ends; the odd element goes to the end or to the beginning."""
    smaller = [t // 2 for t in totals]
    larger = [t - t // 2 for t in totals]
    return smaller + larger if larger_end else larger + smaller


RULES = (
    Rule("channels-last", ("Conv", "ConvTranspose"), convolution),
    Rule("channels-last-pool", tuple(_POOLS), pool),
)
