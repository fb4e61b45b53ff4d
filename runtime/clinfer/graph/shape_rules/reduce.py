"""Reductions and operators along an axis that keep the shape."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Shape
from clinfer.graph.shape_call import Call, Rule, Type, same
from clinfer_kernels.dims import Dim


def reduce(call: Call) -> list[Type]:
    """Reduce*: axes from input 1 or the attribute; without any, all of them (or none: a no-op)."""
    source = call.shape(0)
    rank = len(source)
    keep = bool(call.attr("keepdims", 1))
    if call.attr("axes") is None and call.has(1) and call.content(1) is None:
        named = call.elements(1)
        if named:
            return [Type(call.dtype(0), call.unknown(rank if keep else rank - named))]
    axes = reduced_axes(call, rank)
    return [Type(call.dtype(0), dropped(source, axes, keep))]


def reduced_axes(call: Call, rank: int) -> list[int]:
    """The axes a reduction works over."""
    given: Sequence[int] | None = call.attr("axes")
    if given is None and call.has(1) and call.elements(1):
        given = call.ints(1)
    if given:
        # a scalar has axis 0 here
        return list(dict.fromkeys(call.normal(a, max(rank, 1)) for a in given))
    return [] if call.attr("noop_with_empty_axes", 0) else list(range(rank))


def dropped(shape: Shape, axes: Sequence[int], keep: bool) -> Shape:
    """`shape` with `axes` reduced to 1, or taken out."""
    if keep:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def arg(call: Call) -> list[Type]:
    """ArgMax, ArgMin: int64 indices."""
    source = call.shape(0)
    axis = call.axis("axis", 0, max(len(source), 1))
    return [Type("int64", dropped(source, [axis], bool(call.attr("keepdims", 1))))]


def layer_norm(call: Call) -> list[Type]:
    """LayerNormalization: the result, then mean and inverse deviation with the axes kept as 1."""
    source = call.shape(0)
    axis = call.axis("axis", -1, len(source))
    statistics: tuple[Dim, ...] = (*source[:axis], *[1] * (len(source) - axis))
    kind = "float32" if call.dtype(0) in ("float16", "bfloat16", "float32") else call.dtype(0)
    return [Type(call.dtype(0), source), *[Type(kind, statistics)] * 2]


def batch_norm(call: Call) -> list[Type]:
    """BatchNormalization: like the input; in training mode also the new statistics."""
    source = call.shape(0)
    statistics = Type(call.dtype(3), call.value(3).shape)
    return [Type(call.dtype(0), source), statistics, statistics]


def dropout(call: Call) -> list[Type]:
    """Dropout: like the input, and a mask."""
    return [*same(call), Type("bool", call.node.required(0).shape)]


_REDUCTIONS = "Sum Mean Max Min Prod SumSquare L1 L2 LogSum LogSumExp"
_LIKE_INPUT = (
    "Softmax LogSoftmax Hardmax LpNormalization MeanVarianceNormalization InstanceNormalization "
    "GroupNormalization LRN CumSum CumProd Trilu ReverseSequence RotaryEmbedding RMSNormalization "
    "Identity"
)

RULES: dict[str, Rule] = {
    **{f"Reduce{name}": reduce for name in _REDUCTIONS.split()},
    **dict.fromkeys(_LIKE_INPUT.split(), same),
    "ArgMax": arg,
    "ArgMin": arg,
    "LayerNormalization": layer_norm,
    "BatchNormalization": batch_norm,
    "Dropout": dropout,
}
