"""Transposes move down, through the nodes that read them, until they meet and cancel.

Each rule writes op(Transpose(x)) as Transpose(op'(x)). For a transpose by `perm`, dimension i of
its result is dimension perm[i] of x.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from clinfer.graph.ir import Node, Shape, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM, REDUCTIONS
from clinfer.passes.canonicalise.views import to_reshape, to_transpose
from clinfer.passes.query import integers, inverse
from clinfer.passes.reshapes import moves_only_units, reshape_first
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, evaluate, product
from clinfer_kernels.onnx_pointwise import POINTWISE

# What a dynamic size counts as where costs are compared.
_TYPICAL_SIZE = 64


def transposed(value: Value | None) -> tuple[Value, list[int]] | None:
    """(x, perm) where `value` is Transpose(x, perm)."""
    if value is None or value.producer is None or value.producer.kind != "Transpose":
        return None
    return value.producer.required(0), list(value.producer.attrs["perm"])


def permuted(shape: Sequence[Dim], perm: Sequence[int]) -> Shape:
    """The shape after transposing by `perm`."""
    return tuple(shape[p] for p in perm)


def weight(value: Value) -> int:
    """How many elements a value has, with a guess for dynamic sizes."""
    return evaluate(product(value.known_shape), defaultdict(lambda: _TYPICAL_SIZE))


def common_perm(values: Sequence[Value], rank: int) -> list[int] | None:
    """The permutation worth moving below a node that reads `values`.

    It is the one most elements come through. Operands without it have to be transposed the other
    way, which costs nothing for constants and where only dimensions of size 1 move; all others
    together must be smaller than what comes through the permutation.
    """
    through: dict[tuple[int, ...], int] = {}
    for value in values:
        found = transposed(value)
        if found is not None and len(found[1]) == rank:
            key = tuple(found[1])
            through[key] = through.get(key, 0) + weight(value)
    if not through:
        return None
    perm = max(through, key=lambda p: through[p])
    cost = sum(weight(v) for v in values if not _is_free(v, perm))
    return list(perm) if cost < through[perm] else None


def _is_free(value: Value, perm: Sequence[int]) -> bool:
    """Whether undoing `perm` on an operand costs nothing."""
    if value.const is not None:
        return True
    found = transposed(value)
    if found is not None and found[1] == list(perm):
        return True
    shape = value.known_shape
    full = (*([1] * (len(perm) - len(shape))), *shape)
    return moves_only_units(full, inverse(perm))


def undo(rw: Rewriter, value: Value, perm: Sequence[int]) -> Value:
    """`value`, which broadcasts to Transpose(x, perm), as it broadcasts to x."""
    found = transposed(value)
    if found is not None and found[1] == list(perm):
        return found[0]
    shape = value.known_shape
    full = (*([1] * (len(perm) - len(shape))), *shape)
    back = inverse(perm)
    if moves_only_units(full, back):
        kept = permuted(full, back)
        while kept and len(kept) > 1 and kept[0] == 1:
            kept = kept[1:]
        return rw.reshape(value, kept if shape else ())
    return rw.transpose(rw.reshape(value, full), back)


def below_pointwise(rw: Rewriter, node: Node) -> Outcome:
    """f(T(x), y...) = T(f(x, T'(y)...)) with T' the inverse of T."""
    inputs = [v for v in node.inputs if v is not None]
    perm = common_perm(inputs, len(node.output.known_shape))
    if perm is None:
        return None
    operands = [None if v is None else undo(rw, v, perm) for v in node.inputs]
    shape = permuted(node.output.known_shape, inverse(perm))
    made = rw.emit(
        node.op,
        operands,
        node.output.dtype,
        shape,
        attrs=node.attrs,
        domain=node.domain,
        version=node.version,
    )
    return rw.transpose(made, perm)


def below_concat(rw: Rewriter, node: Node) -> Outcome:
    """Concat(T(x), T(y)) = T(Concat(x, y))."""
    inputs = [v for v in node.inputs if v is not None]
    perm = common_perm(inputs, len(node.output.known_shape))
    if perm is None:
        return None
    back = inverse(perm)
    parts = [_whole_undo(rw, v, perm) for v in inputs]
    shape = permuted(node.output.known_shape, back)
    attrs = {"axis": perm[node.attrs["axis"]]}
    return rw.transpose(rw.emit("Concat", parts, node.output.dtype, shape, attrs=attrs), perm)


def _whole_undo(rw: Rewriter, value: Value, perm: Sequence[int]) -> Value:
    """As `undo`, for an operand that does not broadcast and keeps its rank."""
    found = transposed(value)
    if found is not None and found[1] == list(perm):
        return found[0]
    back = inverse(perm)
    if moves_only_units(value.known_shape, back):
        return rw.reshape(value, permuted(value.known_shape, back))
    return rw.transpose(value, back)


def below_reduce(rw: Rewriter, node: Node) -> Outcome:
    """Reduce(T(x), axes) = T'(Reduce(x, perm[axes])), T' among the dimensions that are left."""
    found = transposed(node.required(0))
    if found is None or "keepdims" not in node.attrs:
        return None
    x, perm = found
    keep = node.attrs["keepdims"]
    single = "axis" in node.attrs
    axes = [node.attrs["axis"]] if single else node.attrs["axes"]
    gone = {perm[a] for a in axes}
    name: dict[str, object] = {"axis": perm[axes[0]]} if single else {"axes": sorted(gone)}
    attrs = {**node.attrs, **name}
    if keep:
        left = perm
    else:
        rest = [p for p in perm if p not in gone]
        left = [sorted(rest).index(p) for p in rest]
    shape = permuted(node.output.known_shape, inverse(left))
    version = node.version if single else ATTRIBUTE_FORM
    made = rw.emit(node.op, [x], node.output.dtype, shape, attrs=attrs, version=version)
    return rw.transpose(made, left)


def below_trailing(rw: Rewriter, node: Node) -> Outcome:
    """Softmax and Norm over trailing dimensions, where these trail in x too, in any order."""
    found = transposed(node.required(0))
    if found is None or "own" in node.attrs:
        return None
    x, perm = found
    lead = len(perm) - node.attrs["axes"]
    if set(perm[lead:]) != set(range(lead, len(perm))):
        return None
    made = rw.emit(node.op, [x], x.dtype, x.shape, attrs=node.attrs, domain="clinfer")
    return rw.transpose(made, perm)


def below_slice(rw: Rewriter, node: Node) -> Outcome:
    """Slice(T(x)) = T(Slice(x))."""
    found = transposed(node.required(0))
    if found is None or "steps" not in node.attrs:
        return None
    x, perm = found
    columns = zip(node.attrs["axes"], node.attrs["starts"], node.attrs["steps"], strict=True)
    moved = sorted((perm[axis], start, step) for axis, start, step in columns)
    attrs = {
        "axes": [axis for axis, _, _ in moved],
        "starts": [start for _, start, _ in moved],
        "steps": [step for _, _, step in moved],
    }
    shape = permuted(node.output.known_shape, inverse(perm))
    return rw.transpose(rw.emit("Slice", [x], x.dtype, shape, attrs=attrs), perm)


def below_pad(rw: Rewriter, node: Node) -> Outcome:
    """Pad(T(x)) = T(Pad(x)) where the padding is constant."""
    found = transposed(node.required(0))
    if found is None:
        return None
    x, perm = found
    pads = integers(node.required(1))
    rank = len(perm)
    axes = list(range(rank)) if node.input(3) is None else integers(node.input(3))
    if pads is None or axes is None:
        return Refusal("the padding is computed from data")
    moved = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        moved[perm[axis]] = pads[position]
        moved[rank + perm[axis]] = pads[len(axes) + position]
    inputs: list[Value | None] = [x, rw.constant(np.array(moved, dtype=np.int64))]
    fill = node.input(2)
    if fill is not None:
        inputs.append(fill)
    shape = permuted(node.output.known_shape, inverse(perm))
    attrs = {"mode": node.attrs.get("mode", "constant")}
    return rw.transpose(rw.emit("Pad", inputs, x.dtype, shape, attrs=attrs, version=19), perm)


def below_resize(rw: Rewriter, node: Node) -> Outcome:
    """Resize(T(x)) = T(Resize(x))."""
    found = transposed(node.required(0))
    if found is None or len(node.inputs) > 1:
        return None
    x, perm = found
    pairs = zip(node.attrs["axes"], node.attrs["scales"], strict=True)
    moved = sorted((perm[axis], scale) for axis, scale in pairs)
    attrs = {**node.attrs, "axes": [a for a, _ in moved], "scales": [s for _, s in moved]}
    shape = permuted(node.output.known_shape, inverse(perm))
    return rw.transpose(rw.emit("Resize", [x], x.dtype, shape, attrs=attrs), perm)


def below_expand(rw: Rewriter, node: Node) -> Outcome:
    """Expand(T(x)) = T(Expand(x)), where the rank stays."""
    found = transposed(node.required(0))
    shape = node.output.known_shape
    if found is None or len(node.inputs) > 1 or len(shape) != len(found[1]):
        return None
    x, perm = found
    made = rw.emit("Expand", [x], x.dtype, permuted(shape, inverse(perm)))
    return rw.transpose(made, perm)


def below_reshape(rw: Rewriter, node: Node) -> Outcome:
    """Reshape(T(x)) = T'(Reshape(x)) where no part of the reshape joins what T put together."""
    found = transposed(node.required(0))
    if found is None:
        return None
    x, perm = found
    swapped = reshape_first(x.known_shape, perm, node.output.known_shape)
    if swapped is None:
        return None
    return rw.transpose(rw.reshape(x, swapped[0]), swapped[1])


def units_are_reshapes(rw: Rewriter, node: Node) -> Outcome:
    """A transpose that moves only dimensions of size 1 is a reshape."""
    x = node.required(0)
    if not moves_only_units(x.known_shape, node.attrs["perm"]):
        return None
    return rw.reshape(x, node.output.known_shape)


VIEW_CHAINS = (
    Rule("merge-transposes", ("Transpose",), to_transpose),
    Rule("merge-reshapes", ("Reshape",), to_reshape),
)
SINK_RULES = (
    *VIEW_CHAINS,
    Rule("below-pointwise", tuple(POINTWISE), below_pointwise),
    Rule("below-concat", ("Concat",), below_concat),
    Rule("below-reduce", (*REDUCTIONS, "ArgMax", "ArgMin"), below_reduce),
    Rule("below-trailing", ("clinfer.Softmax", "clinfer.Norm"), below_trailing),
    Rule("below-slice", ("Slice",), below_slice),
    Rule("below-pad", ("Pad",), below_pad),
    Rule("below-resize", ("Resize",), below_resize),
    Rule("below-expand", ("Expand",), below_expand),
    Rule("below-reshape", ("Reshape",), below_reshape),
)
FINISH_RULES = (
    *VIEW_CHAINS,
    Rule("units-are-reshapes", ("Transpose",), units_are_reshapes),
)
