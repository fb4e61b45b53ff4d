"""Attention, MultiHeadAttention and RotaryEmbedding of com.microsoft."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clinfer.graph.contrib.heads import (
    Scoring,
    appended,
    causal,
    joined,
    masked_where,
    scores,
    split,
    steps,
    weighted,
)
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value

_MOST = 2**31 - 1


def _rotary_embedding(make: Maker) -> Value:
    """ONNX's, at given places or at those behind a first one."""
    make.only("is_packed_batching", 0)
    make.only("scale", 1.0, 0.0)
    x, places = make.x(0), make.x(1)
    rank = len(make.shape(0))
    heads, width = make.attr("num_heads", 0), make.attr("rotary_embedding_dim", 0)
    if len(make.shape(1)) == 1:
        length = make.dim(x, 1 if rank == 3 else 2)
        row = make("Add", steps(make, length), places)
        places = make("Expand", row, make("Concat", make.dim(x, 0), length, axis=0))
    if rank == 3 and not heads:
        table = make.size(2, 1, "the width of the cosines")
        heads = make.size(0, 2, "the width of the input") // (2 * table)
    attrs = {"interleaved": make.attr("interleaved", 0), "rotary_embedding_dim": width}
    if rank == 3:
        attrs["num_heads"] = heads
    return make("RotaryEmbedding", x, make.x(2), make.x(3), places, **attrs)


def key_mask(make: Maker, index: int, q: Value, k: Value) -> list[Value]:
    """What input `index` adds to scores [B, H, S, T]: the filter value where keys are hidden.

    It holds a number for each key [B, T], each pair [B, S, T] or [B, 1, M, M], or the ends [B] and
    perhaps, behind those, the starts [2 B] or more [3 B + 2] of what is seen.
    """
    mask = make.input(index)
    if mask is None:
        return []
    value = make.attr("mask_filter_value", -10000.0)
    rank = len(make.shape(index))
    if rank == 1:
        return [masked_where(make, _between(make, index, q, k), value)]
    if rank == 4:  # of the longest sequences there may be
        queries, keys = make.dim(q, 2), make.dim(k, 2)
        axes = make.constant([2, 3])
        starts = make("Concat", make("Sub", keys, queries), make.constant([0]), axis=0)
        mask = make("Slice", mask, starts, make("Concat", keys, keys, axis=0), axes)
    else:
        mask = make("Unsqueeze", mask, make.constant([1, 2] if rank == 2 else [1]))
    return [masked_where(make, make("Greater", mask, make.constant(0, "int32")), value)]


def _between(make: Maker, index: int, q: Value, k: Value) -> Value:
    """Whether a key lies before the end, and behind the start where there are as many starts."""
    mask, batch, keys = make.x(index), make.dim(q, 0), steps(make, make.dim(k, 2))
    axis = make.constant([0])
    limits = make.cast(mask, "int64")
    ends = make.reshape(make("Slice", limits, axis, batch, axis), -1, 1, 1, 1)
    seen = make("Less", keys, ends)
    count, size = make.shape(index)[0], make.shape(0)[0]
    if count == size or count != 2 * size:
        return seen
    both = make("Add", batch, batch)
    starts = make.reshape(make("Slice", limits, batch, both, axis), -1, 1, 1, 1)
    return make("And", seen, make("GreaterOrEqual", keys, starts))


def attended(
    make: Maker, q: Value, k: Value, v: Value, size: int, mask: int, bias: int | None
) -> tuple[Value, Value]:
    """(the weighted values [B, H, S, D], the scores), with the attributes both operators have."""
    how = Scoring(make.attr("scale", 0.0) or 1 / math.sqrt(size))
    added = key_mask(make, mask, q, k)
    if make.attr("unidirectional", 0):
        added.append(masked_where(make, causal(make, q, k)))
    if bias is not None:
        given = make.input(bias)
        added += [] if given is None else [given]
    found = scores(make, q, k, how, added)
    return weighted(make, found, v, how), found


def _attention(make: Maker) -> Sequence[Value | None]:
    """One product gives queries, keys and values."""
    make.refuse(past_sequence_length=6)
    x = make("MatMul", make.x(0), make.x(1))
    sizes = list(make.attr("qkv_hidden_sizes", []))
    if not sizes:
        sizes = [make.size(1, 1, "the columns of the weights") // 3] * 3
    return self_attention(make, make.sum(x, make.input(2)), sizes, mask=3, past=4, bias=5)


def self_attention(
    make: Maker, x: Value, sizes: Sequence[int], *, mask: int, past: int, bias: int | None
) -> Sequence[Value | None]:
    """Attention of queries, keys and values in one [B, S, sum of sizes]; numbers of inputs."""
    make.only("do_rotary", 0)
    make.only("past_present_share_buffer", 0)
    heads = make.attr("num_heads")
    if any(size % heads for size in sizes) or len(sizes) != 3:
        raise make.error(
            f"three widths that are multiples of {heads} heads expected, found {sizes}"
        )
    q, k, v = (
        split(make, part, heads, size // heads)
        for part, size in zip(
            make.several("Split", 3, x, make.constant(sizes), axis=2), sizes, strict=True
        )
    )
    cache = make.input(past)
    if cache is not None:
        old = [make("Gather", cache, make.constant(number)) for number in (0, 1)]
        k, v = appended(make, old[0], k), appended(make, old[1], v)
    result, _ = attended(make, q, k, v, sizes[0] // heads, mask, bias)
    present = None
    if make.wanted(1):
        parts = [make("Unsqueeze", part, make.constant([0])) for part in (k, v)]
        present = make("Concat", *parts, axis=0)
    return joined(make, result, sizes[2]), present


def _multi_head_attention(make: Maker) -> Sequence[Value | None]:
    make.refuse(past_sequence_length=8, cache_indirection=9)
    heads = make.attr("num_heads")
    q, k, v, size, wide = _operands(make, heads)
    k, v = appended(make, make.input(6), k), appended(make, make.input(7), v)
    result, found = attended(make, q, k, v, size, 4, 5)
    return joined(make, result, wide), k, v, found


def _operands(make: Maker, heads: int) -> tuple[Value, Value, Value, int, int]:
    """Queries, keys, values [B, H, S, D], the size of a head, the width of the values."""
    rank = len(make.shape(0))
    size = make.size(0, 4, "the size of a head") if rank == 5 else _width(make, 0) // heads
    given = [make.input(index) for index in range(3)]
    values = heads * size if given[2] is None else _values(make, heads)
    biases = _biases(make, heads * size, values)
    if rank == 5:
        parts = _unpacked(make, make.x(0), 3)
    elif given[2] is None:
        if given[1] is None:
            raise make.error("keys expected, or queries packed with keys and values in rank 5")
        parts = [make.reshape(make.x(0), 0, 0, heads, size), *_unpacked(make, make.x(1), 2)]
    elif len(make.shape(1)) == 4:
        q = make.sum(make.reshape(make.x(0), 0, 0, heads, size), biases[0])
        return make.transpose(q, 0, 2, 1, 3), make.x(1), make.x(2), size, values
    else:
        widths = (size, size, values // heads)
        parts = [make.reshape(make.x(i), 0, 0, heads, w) for i, w in enumerate(widths)]
    q, k, v = (
        make.transpose(make.sum(part, bias), 0, 2, 1, 3)
        for part, bias in zip(parts, biases, strict=True)
    )
    return q, k, v, size, values


def _width(make: Maker, index: int) -> int:
    return make.size(index, 2, f"the width of input {index}")


def _values(make: Maker, heads: int) -> int:
    """The width of the values of all heads."""
    if len(make.shape(2)) == 4:
        return heads * make.size(2, 3, "the size of a head")
    return _width(make, 2)


def _unpacked(make: Maker, x: Value, count: int) -> list[Value]:
    """[B, S, H, count, D] as `count` of [B, S, H, D]."""
    return [make("Gather", x, make.constant(number), axis=3) for number in range(count)]


def _biases(make: Maker, width: int, values: int) -> list[Value | None]:
    """The biases of queries, keys and values, each [H, D]."""
    bias = make.input(3)
    if bias is None:
        return [None] * 3
    parts = make.several("Split", 3, bias, make.constant([width, width, values]), axis=0)
    return [make.reshape(part, make.attr("num_heads"), -1) for part in parts]


RULES: dict[str, Rule] = {
    "RotaryEmbedding": _rotary_embedding,
    "Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
}
