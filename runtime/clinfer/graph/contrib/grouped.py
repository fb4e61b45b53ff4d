"""GroupQueryAttention: queries of several heads share the keys and values of one, with a cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from clinfer.graph.contrib.heads import (
    Scoring,
    joined,
    masked_where,
    repeated,
    rotated,
    scores,
    split,
    steps,
    weighted,
)
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value

_QUERY, _KEY, _VALUE, _PAST_KEY, _PAST_VALUE, _LAST, _TOTAL, _COS, _SIN, _PLACES = range(10)
_BIAS, _SINK, _K_SCALE, _V_SCALE, _Q_NORM, _K_NORM, _LENGTHS = range(10, 17)


class _Heads(NamedTuple):
    queries: int
    keys: int
    size: int


def _grouped(make: Maker) -> Sequence[Value | None]:
    """Rows of the batch may have pasts of different lengths: places are counted for each."""
    make.refuse(k_scale=_K_SCALE, v_scale=_V_SCALE, query_seqlens=_LENGTHS)
    make.only("sliding_window_cache", 0)
    make.only("kv_cache_bit_width", 0)
    make.only("k_quant_type", "NONE")
    make.only("v_quant_type", "NONE")
    q, k, v, heads = _operands(make)
    length = make.dim(make.x(_QUERY), 1)
    past = _past_lengths(make, length)
    places = make("Add", make.reshape(past, -1, 1), steps(make, length))  # [B, S]
    q, k = _normed(make, q, _Q_NORM, "q"), _normed(make, k, _K_NORM, "k")
    if make.attr("do_rotary", 0):
        given = make.input(_PLACES)
        where = places if given is None else given
        interleaved = make.attr("rotary_interleaved", 0)
        q, k = (rotated(make, x, where, (_COS, _SIN), interleaved) for x in (q, k))
    k, v = _cached(make, k, v, past, length)
    how = Scoring(
        make.attr("scale", 0.0) or 1 / math.sqrt(heads.size),
        max(make.attr("softcap", 0.0), 0.0),
        _sink(make),
    )
    times = heads.queries // heads.keys
    wide_k, wide_v = (repeated(make, x, heads.keys, times, heads.size) for x in (k, v))
    bias = make.input(_BIAS)
    added = [] if bias is None else [bias]
    added.append(masked_where(make, _seen(make, k, places, past, length)))
    result = weighted(make, scores(make, q, wide_k, how, added), wide_v, how)
    return joined(make, result, heads.queries * heads.size), k, v


def _operands(make: Maker) -> tuple[Value, Value, Value, _Heads]:
    """Queries, keys and values [B, H, S, D], packed in one input or apart."""
    count, shared = make.attr("num_heads"), make.attr("kv_num_heads")
    if count % shared:
        raise make.error(f"num_heads a multiple of kv_num_heads expected, found {count}, {shared}")
    width = make.size(_QUERY, 2, "the width of the queries")
    packed = make.input(_KEY) is None
    size = width // (count + 2 * shared if packed else count)
    heads = _Heads(count, shared, size)
    parts = [make.x(_QUERY)]
    if packed:
        sizes = make.constant([count * size, shared * size, shared * size])
        parts = make.several("Split", 3, make.x(_QUERY), sizes, axis=2)
    else:
        parts += [make.x(_KEY), make.x(_VALUE)]
    q, k, v = (
        split(make, part, number, size)
        for part, number in zip(parts, (count, shared, shared), strict=True)
    )
    return q, k, v, heads


def _past_lengths(make: Maker, length: Value) -> Value:
    """How many keys each row of the batch has in its past; none at a first prompt."""
    last = make.cast(make.reshape(make.x(_LAST), -1), "int64")
    total = make("Add", last, make.constant(1))
    return make("Max", make("Sub", total, length), make.constant(0))


def _normed(make: Maker, x: Value, index: int, letter: str) -> Value:
    weight = make.input(index)
    if weight is None:
        return x
    epsilon = make.attr(f"{letter}_norm_epsilon", make.attr("qk_norm_epsilon", 1e-6))
    return make("RMSNormalization", x, weight, axis=-1, epsilon=epsilon)


def _cached(make: Maker, k: Value, v: Value, past: Value, length: Value) -> tuple[Value, Value]:
    """Present keys and values: the past of each row, at its end the new ones.

    The cache has room for max(P, total) keys, where P is that of the past's tensor: element t of a
    row with p keys is new[t - p] where p <= t < p + S, else past[t].
    """
    old = [make.input(index) for index in (_PAST_KEY, _PAST_VALUE)]
    if old[0] is None or old[1] is None:
        return k, v
    room = make.dim(old[0], 2)
    total = make.cast(make.reshape(make.x(_TOTAL), 1), "int64")
    every = steps(make, make("Max", room, total))
    since = make("Sub", every, make.reshape(past, -1, 1))  # [B, T]
    new = make(
        "And",
        make("GreaterOrEqual", since, make.constant(0)),
        make("Less", since, length),
    )
    last = make("Sub", make("Add", room, length), make.constant(1))
    index = make("Where", new, make("Add", since, room), make("Min", every, last))
    column = make("Unsqueeze", index, make.constant([1, 3]))  # [B, 1, T, 1]
    return tuple(  # type: ignore[return-value]
        _picked(make, make("Concat", before, after, axis=2), column)
        for before, after in zip(old, (k, v), strict=True)
    )


def _picked(make: Maker, x: Value, column: Value) -> Value:
    """x[b, h, index[b, t], d] with an index [B, 1, T, 1]."""
    one = make.constant([1])
    sizes = make("Concat", one, make.dim(x, 1), one, make.dim(x, 3), axis=0)
    return make("GatherElements", x, make("Expand", column, sizes), axis=2)


def _seen(make: Maker, k: Value, places: Value, past: Value, length: Value) -> Value:
    """Whether query s of row b sees key t, [B, 1, S, T]."""
    keys = steps(make, make.dim(k, 2))
    query = make("Unsqueeze", places, make.constant([1, 3]))
    window = make.attr("local_window_size", -1)
    if make.attr("causal", 1):
        seen = make("LessOrEqual", keys, query)
    else:
        ends = make("Add", past, length)
        seen = make("Less", keys, make.reshape(ends, -1, 1, 1, 1))
    if window < 0:
        return seen
    return make("And", seen, make("Greater", keys, make("Sub", query, make.constant(window))))


def _sink(make: Maker) -> Value | None:
    """The score of seeing nothing, one for each head."""
    given = make.input(_SINK)
    if given is not None or make.attr("smooth_softmax", -1) != 1:
        return given
    return make.like([0.0] * make.attr("num_heads"), make.x(_QUERY))


RULES: dict[str, Rule] = {"GroupQueryAttention": _grouped}
