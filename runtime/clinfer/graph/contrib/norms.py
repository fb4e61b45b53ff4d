"""Normalisations with what is added before them; embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.contrib.activations import quick
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value


def _skip_layer_norm(make: Maker) -> Sequence[Value | None]:
    """LayerNormalization of input + skip + bias; the sum is the last result."""
    total = make.sum(make.x(0), make.x(1), make.input(4))
    statistics = make.wanted(1) or make.wanted(2)
    outputs: list[Value | None] = [
        *make.several(
            "LayerNormalization",
            3 if statistics else 1,
            total,
            make.x(2),
            make.input(3),
            axis=-1,
            epsilon=make.attr("epsilon", 1e-12),
        )
    ]
    return [*outputs, *[None] * (3 - len(outputs)), total]


def _skip_rms_norm(make: Maker) -> Sequence[Value | None]:
    total = make.sum(make.x(0), make.x(1), make.input(3))
    epsilon = make.attr("epsilon", 1e-12)
    result = make("RMSNormalization", total, make.x(2), axis=-1, epsilon=epsilon)
    if not make.wanted(2):
        return result, None, None, total
    wide = make.cast(total, "float32")
    mean = make("ReduceMean", make("Mul", wide, wide), make.constant([-1]))
    spread = make("Sqrt", make("Add", mean, make.constant(epsilon, "float32")))
    return result, None, make("Reciprocal", spread), total


def _embed_layer_norm(make: Maker) -> Sequence[Value | None]:
    return embedded(make, [make.input(index) for index in range(9)])


def embedded(make: Maker, inputs: Sequence[Value | None]) -> Sequence[Value | None]:
    """Embeddings of words, places and segments, added and normalised; lengths of the masks."""
    ids, words, table_of_places, scale, bias = (inputs[i] for i in (0, 2, 3, 5, 6))
    assert ids is not None
    places = inputs[8] if len(inputs) > 8 else None
    if places is None:
        steps = make("Squeeze", make.dim(ids, 1))
        places = make("Range", make.constant(0), steps, make.constant(1))
    total = make.sum(make("Gather", words, ids), make("Gather", table_of_places, places))
    segments, table = inputs[1], inputs[4]
    if segments is not None and table is not None:
        total = make.sum(total, make("Gather", table, segments))
    epsilon = make.attr("epsilon", 1e-12)
    result = make("LayerNormalization", total, scale, bias, axis=-1, epsilon=epsilon)
    return result, _mask_index(make, ids) if make.wanted(1) else None, total


def _mask_index(make: Maker, ids: Value) -> Value:
    """How many places of each row are masked in; 0 without a mask."""
    mask = make.input(7)
    if mask is None:
        return make("Expand", make.constant(0, "int32"), make.dim(ids, 0))
    ones = make.cast(make("Equal", mask, make.constant(1, "int32")), "int32")
    return make("ReduceSum", ones, make.constant([1]), keepdims=0)


def _group_norm(make: Maker) -> Sequence[Value | None]:
    """GroupNormalization of images, channels last unless told, with x * sigmoid(x) behind it."""
    x, total = make.x(0), None
    rank = len(make.shape(0))
    last = bool(make.attr("channels_last", 1))
    if make.node.op == "SkipGroupNorm":
        bias = make.input(4)
        skip = make.x(3)
        if len(make.shape(3)) == 2:
            skip = make("Unsqueeze", skip, make.constant([1, 2] if last else [2, 3]))
        if bias is not None and not last:
            bias = make("Unsqueeze", bias, make.constant([1, 2]))
        x = total = make.sum(x, skip, bias)
    if last:
        x = make.transpose(x, 0, rank - 1, *range(1, rank - 1))
    x = make(
        "GroupNormalization",
        x,
        *(_of_type(make, index) for index in (1, 2)),
        num_groups=make.attr("groups"),
        epsilon=make.attr("epsilon", 1e-5),
    )
    if make.attr("activation"):
        x = quick(make, x, 1.0)
    if last:
        x = make.transpose(x, 0, *range(2, rank), 1)
    return x, total


def _of_type(make: Maker, index: int) -> Value:
    """Scale or bias in the images' element type."""
    value, wanted = make.x(index), make.x(0).dtype
    return value if value.dtype == wanted or wanted is None else make.cast(value, wanted)


RULES: dict[str, Rule] = {
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
    "EmbedLayerNormalization": _embed_layer_norm,
    "GroupNorm": _group_norm,
    "SkipGroupNorm": _group_norm,
}
