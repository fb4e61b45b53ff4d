"""Attention to one new token, and the biases of T5's scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clinfer.graph.contrib.attention import attended
from clinfer.graph.contrib.heads import appended, joined, split, steps
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value

_MASK, _BIAS_OF_SCORES, _BIAS = 3, 4, 10


def _decoder_attention(make: Maker) -> Sequence[Value | None]:
    """Multi-head attention with a past, or with the keys and values of another sequence."""
    make.refuse(beam_width=8, cache_indirection=9)
    heads = make.attr("num_heads")
    query = make.x(0)
    width = make.size(0, 2, "the width of the queries")
    if make.input(1) is None:
        raise make.error("input 1 ('key'): keys apart from the queries expected, found none")
    is_other = len(make.shape(1)) == 4
    biases: list[Value | None] = [None] * 3
    if make.input(_BIAS) is not None:
        values = width if is_other else make.size(2, 2, "the width of the values")
        sizes = make.constant([width, width, values])
        biases = [*make.several("Split", 3, make.x(_BIAS), sizes, axis=0)]
    q = split(make, make.sum(query, biases[0]), heads, width // heads)
    if is_other:
        k, v = make.x(1), make.x(2)
        wide = heads * make.size(2, 3, "the size of a head")
    else:
        wide = make.size(2, 2, "the width of the values")
        k, v = (
            split(make, make.sum(make.x(i), biases[i]), heads, w // heads)
            for i, w in ((1, width), (2, wide))
        )
    present: tuple[Value, Value] = k, v
    if not is_other and make.attr("past_present_share_buffer", 0):
        k, v, present = _shared(make, k, v)
    elif not is_other:
        k, v = present = appended(make, make.input(5), k), appended(make, make.input(6), v)
    result, found = attended(make, q, k, v, width // heads, _MASK, _BIAS_OF_SCORES)
    weights = make("Softmax", found, axis=-1) if make.wanted(3) else None
    return joined(make, result, wide), *present, weights


def _shared(make: Maker, k: Value, v: Value) -> tuple[Value, Value, tuple[Value, Value]]:
    """Keys and values so far, and the whole buffers, with the new ones behind the past's length."""
    place = make.cast(make.reshape(make.x(7), 1), "int64")
    mask = make.input(_MASK)
    count = make("Add", place, make.constant(1)) if mask is None else make.dim(mask, 1)
    is_new = make.reshape(make("Equal", steps(make, make.dim(make.x(5), 2)), place), 1, 1, -1, 1)
    present = make("Where", is_new, k, make.x(5)), make("Where", is_new, v, make.x(6))
    zero, axis = make.constant([0]), make.constant([2])
    seen = (make("Slice", whole, zero, count, axis) for whole in present)
    return next(seen), next(seen), present


def _relative_position_bias(make: Maker) -> Value:
    """A number for each head and distance between query and key, [1, H, Q, K].

    Distances beyond half of the table share numbers by their logarithms (Raffel et al., "Exploring
    the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020). The table is
    stored by heads.
    """
    buckets, heads = (make.size(0, axis, "the size of the table") for axis in (0, 1))
    queries, keys = (steps(make, make.cast(make.x(index), "int64")) for index in (1, 2))
    distance = make("Sub", keys, make.reshape(queries, -1, 1))
    zero, first = make.constant(0), None
    if make.attr("is_bidirectional", 0):
        buckets //= 2
        ahead = make.cast(make("Greater", distance, zero), "int64")
        first = make("Mul", ahead, make.constant(buckets))
        distance = make("Abs", distance)
    else:
        distance = make("Max", make("Neg", distance), zero)
    exact = buckets // 2
    ratio = make("Div", make.cast(distance, "float32"), make.constant(exact, "float32"))
    scale = math.log(make.attr("max_distance") / exact)
    grown = make(
        "Mul", make("Div", make("Log", ratio), _of(make, scale)), _of(make, buckets - exact)
    )
    is_near = make("Less", distance, make.constant(exact))
    far = make.cast(make("Where", is_near, _of(make, 0), grown), "int64")
    far = make("Min", make("Add", far, make.constant(exact)), make.constant(buckets - 1))
    number = make.sum(make("Where", is_near, distance, far), first)
    table = make.reshape(make.x(0), heads, -1)
    return make("Unsqueeze", make("Gather", table, number, axis=1), make.constant([0]))


def _of(make: Maker, number: float) -> Value:
    return make.constant(number, "float32")


RULES: dict[str, Rule] = {
    "DecoderMaskedMultiHeadAttention": _decoder_attention,
    "RelativePositionBias": _relative_position_bias,
}
