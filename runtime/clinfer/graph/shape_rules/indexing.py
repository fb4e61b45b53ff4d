"""Operators that pick or place elements by index."""

from __future__ import annotations

from clinfer.graph.shape_call import Call, Rule, Type, UnknownShape, same
from clinfer_kernels.dims import Dim


def gather(call: Call) -> list[Type]:
    """Gather: the axis is replaced by the indices' shape."""
    data, indices = call.shape(0), call.shape(1)
    axis = call.axis("axis", 0, len(data))
    return [Type(call.dtype(0), (*data[:axis], *indices, *data[axis + 1 :]))]


def gather_elements(call: Call) -> list[Type]:
    """GatherElements: one element per index."""
    return [Type(call.dtype(0), call.shape(1))]


def gather_nd(call: Call) -> list[Type]:
    """GatherND: indices[..., k] address the first k dimensions after the batch ones."""
    data, indices = call.shape(0), call.shape(1)
    batch = int(call.attr("batch_dims", 0))
    depth = indices[-1]
    if not isinstance(depth, int):
        raise UnknownShape
    return [Type(call.dtype(0), (*indices[:-1], *data[batch + depth :]))]


def one_hot(call: Call) -> list[Type]:
    """OneHot: a dimension of `depth` is put at `axis`."""
    indices = list(call.shape(0))
    axis = call.axis("axis", -1, len(indices) + 1)
    depth = call.content(1)
    if depth is None and call.value(1).const is not None:
        depth = call.value(1).const.astype("int64").astype(object)  # type: ignore[union-attr]
    size: Dim = call.fresh(0, axis) if depth is None else depth.ravel()[0]
    indices.insert(axis, size)
    return [Type(call.dtype(2), tuple(indices))]


def top_k(call: Call) -> list[Type]:
    """TopK: k along the axis; the second output holds int64 indices."""
    if call.count < 2:
        return call.keep()
    shape = list(call.shape(0))
    axis = call.axis("axis", -1, len(shape))
    count = call.content(1)
    shape[axis] = call.fresh(0, axis) if count is None else count.ravel()[0]
    return [Type(call.dtype(0), tuple(shape)), Type("int64", tuple(shape))]


def non_zero(call: Call) -> list[Type]:
    """NonZero: [rank, count], the count known only when it has run."""
    return [Type("int64", (call.rank(0), call.fresh(0, 1)))]


def compress(call: Call) -> list[Type]:
    """Compress: the size along the axis is known only when it has run."""
    shape = list(call.shape(0))
    if call.attr("axis") is None:
        return [Type(call.dtype(0), (call.fresh(0, 0),))]
    axis = call.axis("axis", 0, len(shape))
    shape[axis] = call.fresh(0, axis)
    return [Type(call.dtype(0), tuple(shape))]


def unique(call: Call) -> list[Type]:
    """Unique: values, first indices, inverse indices, counts."""
    shape = list(call.shape(0))
    found = call.fresh(0, 0)
    values: tuple[Dim, ...] = (found,)
    inverse: Dim = 1
    if call.attr("axis") is None:
        for size in shape:
            inverse = inverse * size
    else:
        axis = call.axis("axis", 0, len(shape))
        inverse, shape[axis] = shape[axis], found
        values = tuple(shape)
    vector = Type("int64", (found,))
    return [Type(call.dtype(0), values), vector, Type("int64", (inverse,)), vector]


def non_max_suppression(call: Call) -> list[Type]:
    """NonMaxSuppression: [count, 3] of (batch, class, box)."""
    return [Type("int64", (call.fresh(0, 0), 3))]


RULES: dict[str, Rule] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "TopK": top_k,
    "NonZero": non_zero,
    "Compress": compress,
    "Unique": unique,
    "NonMaxSuppression": non_max_suppression,
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND", "TensorScatter"), same),
}
