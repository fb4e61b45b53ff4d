"""Convolutions and pools as their channels-last operators between two transposes.

Conv(x [N, C, spatial...])  =  Transpose(clinfer.Conv(Transpose(x)) + bias)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.passes.query import inverse
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer.passes.window import window
from clinfer_kernels.dims import Dim

# Those of 8 bits are summed in int32.
_CONVOLVED = frozenset({"float16", "bfloat16", "float32", "float64", "int32", "uint8", "int8"})
_FAR = 1 << 28  # that indices, which begin in the padding, may be from the data
_MOST_PHASES = 1024  # launches of one transposed convolution
_BY_ROWS = 19  # the operator set from which AveragePool has dilations
_POOLS = {"MaxPool": "max", "AveragePool": "average", "LpPool": "lp"}


def to_last(rank: int) -> list[int]:
    """[N, C, spatial...] -> [N, spatial..., C]."""
    return [0, *range(2, rank), 1]


def convolution(rw: Rewriter, node: Node) -> Outcome:
    """Conv and ConvTranspose; the bias becomes an Add."""
    x, weights = node.required(0), node.required(1)
    if not 3 <= len(x.known_shape) <= 5 or x.dtype not in _CONVOLVED:
        return Refusal("only 1 to 3 spatial dimensions of floats and int32 have a kernel")
    attrs = window(node, weights.known_shape[2:])
    if isinstance(attrs, Refusal):
        return attrs
    if node.op == "ConvTranspose" and prod(attrs["strides"]) > _MOST_PHASES:
        return Refusal(f"its strides {attrs['strides']} make more than {_MOST_PHASES} launches")
    if max(_reaches(attrs)) > _FAR:
        return Refusal("its windows reach too far for the kernels' 'int'")
    attrs["group"] = node.attrs.get("group", 1)
    if "zero" in node.attrs:
        attrs["zero"] = node.attrs["zero"]
    if node.op == "Conv" and weights.const is not None:
        weights = _met(rw, attrs, weights, x.known_shape[2:], node.output.known_shape[2:])
    dtype = node.output.dtype
    perm = to_last(len(x.known_shape))
    inputs = [rw.transpose(x, perm), weights]
    shape = tuple(node.output.known_shape[p] for p in perm)
    made = rw.emit(node.op, inputs, dtype, shape, attrs=attrs, domain="clinfer")
    bias = node.input(2)
    if bias is not None:
        made = rw.emit("Add", [made, bias], dtype, shape)
    return rw.transpose(made, inverse(perm))


def _met(
    rw: Rewriter, attrs: dict[str, Any], weights: Value, sizes: Sequence[Dim], outs: Sequence[Dim]
) -> Value:
    """The weights without the first and last taps of each axis that meet nothing but padding, as
    the outer ones of far dilated windows do; `attrs` become those of what is left."""
    kept, rank = [slice(None), slice(None)], len(sizes)
    kernel, pads = list(attrs["kernel"]), list(attrs["pads"])
    for a, (size, out) in enumerate(zip(sizes, outs, strict=True)):
        step, taps, front = attrs["dilations"][a], kernel[a], pads[a]
        first, end = 0, taps
        if isinstance(size, int) and isinstance(out, int):
            last = (out - 1) * attrs["strides"][a] - front  # where the last window begins
            while first < taps - 1 and last + first * step < 0 and front >= (first + 1) * step:
                first += 1
            back = pads[a + rank]
            while end - 1 > first and (end - 1) * step - front >= size and back >= step:
                end, back = end - 1, back - step
            pads[a], pads[a + rank] = front - first * step, back
        kernel[a] = end - first
        kept.append(slice(first, end))
    if weights.const is None or kernel == attrs["kernel"]:
        return weights
    attrs.update(kernel=kernel, pads=pads)
    return rw.constant(np.ascontiguousarray(weights.const[tuple(kept)]))


def _reaches(attrs: Mapping[str, list[int]]) -> list[int]:
    """How many places each axis of a window, its step and its padding may be from the data."""
    kernel, strides, pads = attrs["kernel"], attrs["strides"], attrs["pads"]
    rank = len(kernel)
    return [
        kernel[a] * attrs["dilations"][a] + strides[a] + pads[a] + pads[a + rank]
        for a in range(rank)
    ]


def pool(rw: Rewriter, node: Node) -> Outcome:
    """MaxPool, AveragePool, LpPool."""
    x = node.required(0)
    if not 3 <= len(x.known_shape) <= 5:
        return Refusal("only 1 to 3 spatial dimensions have a kernel")
    attrs = window(node, node.attrs["kernel_shape"])
    if isinstance(attrs, Refusal):
        return attrs
    attrs["kind"] = _POOLS[node.op]
    attrs["count_include_pad"] = node.attrs.get("count_include_pad", 0)
    attrs["p"] = node.attrs.get("p", 2)
    attrs["storage_order"] = node.attrs.get("storage_order", 0)
    attrs["order"] = node.attrs.get("order", _order(node.version))
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


def _order(version: int | None) -> str:
    """In which ONNX Runtime adds the elements of a window; it has two implementations."""
    return "columns" if version is not None and version < _BY_ROWS else "rows"


RULES = (
    Rule("channels-last", ("Conv", "ConvTranspose"), convolution),
    Rule("channels-last-pool", tuple(_POOLS), pool),
)
