"""GroupQueryAttention: queries of several heads share the keys and values of one, with a cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from clinfer.graph.contrib import cached
from clinfer.graph.contrib.heads import (
    Scoring,
    appended,
    float_of,
    joined,
    masked_where,
    repeated,
    rotated,
    scores,
    split,
    steps,
    weighted,
    weights,
)
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value

_QUERY, _KEY, _VALUE, _PAST_KEY, _PAST_VALUE, _LAST, _TOTAL, _COS, _SIN, _PLACES = range(10)
_BIAS, _SINK = 10, 11
_Q_NORM, _K_NORM, _LENGTHS = 14, 15, 16


_NEVER = 1 << 40  # the place of a key that nobody sees
_Pair = tuple[Value | None, ...]


class _Steps(NamedTuple):
    """Of each row: keys after this step and before it [B], new ones that count; S of the queries.

    `new` is [B, 1] or, where all count, `length`.
    """

    total: Value
    past: Value
    new: Value
    length: Value


class _Keys(NamedTuple):
    """Keys and values [B, H, T, D], and the places of the keys [B, T]."""

    parts: tuple[Value, ...]
    places: Value


class _Heads(NamedTuple):
    queries: int
    keys: int
    size: int


def _grouped(make: Maker) -> Sequence[Value | None]:
    """Rows of the batch may have pasts of different lengths: places are counted for each."""
    q, k, v, heads = _operands(make)
    length = make.dim(make.x(_QUERY), 1)
    step = _steps(make, length)
    places = make("Add", make.reshape(step.past, -1, 1), steps(make, length))  # [B, S]
    q, k = _normed(make, q, _Q_NORM, "q"), _normed(make, k, _K_NORM, "k")
    if make.attr("do_rotary", 0):
        given = make.input(_PLACES)
        where = places if given is None else given
        interleaved = make.attr("rotary_interleaved", 0)
        q, k = (rotated(make, x, where, (_COS, _SIN), interleaved) for x in (q, k))
    coded = tuple(cached.codes(make, heads.size, heads.keys, letter) for letter in "kv")
    new = tuple(code.encoded(make, x) for code, x in zip(coded, (k, v), strict=True))
    old = tuple(make.input(index) for index in (_PAST_KEY, _PAST_VALUE))
    bias = make.input(_BIAS)
    if make.attr("sliding_window_cache", 0):
        keys, seen, present = _windowed(make, old, new, step, places)
        bias = None if bias is None else _of_keys(make, bias, keys, heads.queries)
        stored = keys.parts
    else:
        stored = present = _cached(make, old, new, step)
        seen = _seen(make, steps(make, make.dim(present[0], 2)), places, step)
    how = Scoring(
        make.attr("scale", 0.0) or 1 / math.sqrt(heads.size),
        max(make.attr("softcap", 0.0), 0.0),
        _sink(make),
    )
    times = heads.queries // heads.keys
    wide_k, wide_v = (
        repeated(make, code.decoded(make, x), heads.keys, times, heads.size)
        for code, x in zip(coded, stored, strict=True)
    )
    added = [] if bias is None else [bias]
    plain = scores(make, q, wide_k, how, added)
    masked = make.sum(plain, masked_where(make, seen))
    result = _of_seen(make, weighted(make, masked, wide_v, how), places, step, how)
    return (
        joined(make, result, heads.queries * heads.size),
        *present,
        _shown(make, plain, masked, seen, how),
    )


def _shown(make: Maker, plain: Value, masked: Value, seen: Value, how: Scoring) -> Value | None:
    """The scores before or the weights behind the softmax, 0 for keys that are not seen."""
    kind = make.attr("qk_output", 0)
    if not make.wanted(3):
        return None
    if kind not in (1, 2):
        raise make.error(
            f"attribute 'qk_output': 1 or 2 expected for a fourth result, found {kind}"
        )
    found = plain if kind == 1 else weights(make, masked, how)
    return make("Where", seen, found, make.constant(0, float_of(make)))


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


def _steps(make: Maker, length: Value) -> _Steps:
    """How many keys each row of the batch has after this step, and how many of them are new."""
    last = make.cast(make.reshape(make.x(_LAST), -1), "int64")
    total = make("Add", last, make.constant(1))
    given = make.input(_LENGTHS)
    if given is None:  # none of a first prompt's keys is of the past
        past = make("Max", make("Sub", total, length), make.constant(0))
        return _Steps(total, past, length, length)
    count = make.cast(make.reshape(given, -1), "int64")
    return _Steps(total, make("Sub", total, count), make.reshape(count, -1, 1), length)


def _normed(make: Maker, x: Value, index: int, letter: str) -> Value:
    weight = make.input(index)
    if weight is None:
        return x
    epsilon = make.attr(f"{letter}_norm_epsilon", make.attr("qk_norm_epsilon", 1e-6))
    return make("RMSNormalization", x, weight, axis=-1, epsilon=epsilon)


def _cached(make: Maker, old: _Pair, new: tuple[Value, ...], step: _Steps) -> tuple[Value, ...]:
    """Present keys and values: the past of each row, at its end the new ones.

    The cache has room for max(P, total) keys, where P is that of the past's tensor: element t of a
    row with p keys is past[t] where t < p, new[t - p] where p <= t < p + S, else 0.
    """
    if old[0] is None or old[1] is None:
        return new
    room = make.dim(old[0], 2)
    total = make.cast(make.reshape(make.x(_TOTAL), 1), "int64")
    every = steps(make, make("Max", room, total))
    since = make("Sub", every, make.reshape(step.past, -1, 1))  # [B, T]
    last = make("Sub", make("Add", room, step.length), make.constant(1))
    is_new = make("GreaterOrEqual", since, make.constant(0))
    index = make("Min", make("Where", is_new, make("Add", since, room), every), last)
    held = make("Unsqueeze", make("Less", since, step.new), make.constant([1, 3]))
    parts = _joined_parts(make, old, new)
    zero = make.like(0, old[0])
    return tuple(make("Where", held, x, zero) for x in _picked(make, parts, index))


def _joined_parts(make: Maker, old: _Pair, new: tuple[Value, ...]) -> tuple[Value, ...]:
    """Keys and values of the past's tensors with the new ones behind."""
    return tuple(appended(make, before, after) for before, after in zip(old, new, strict=True))


def _picked(make: Maker, parts: tuple[Value, ...], index: Value) -> tuple[Value, ...]:
    """x[b, h, index[b, t], d] of keys and values with an index [B, T]."""
    column = make("Unsqueeze", index, make.constant([1, 3]))
    one, found = make.constant([1]), []
    for x in parts:
        sizes = make("Concat", one, make.dim(x, 1), one, make.dim(x, 3), axis=0)
        found.append(make("GatherElements", x, make("Expand", column, sizes), axis=2))
    return tuple(found)


def _windowed(
    make: Maker, old: _Pair, new: tuple[Value, ...], step: _Steps, places: Value
) -> tuple[_Keys, Value, tuple[Value, ...]]:
    """A cache of C places that holds the last L(T) of T keys, the oldest first.

    With a window of W keys and G = C - W + 1: L(T) = T where T <= C, else
    T - G * ceil((T - C) / G), as the schema has it. What is seen is in the old cache or new.
    """
    window = make.attr("local_window_size", -1)
    if old[0] is None or old[1] is None or window <= 0:
        raise make.error(
            "attribute 'sliding_window_cache' 1: past keys and values and a 'local_window_size' "
            f"above 0 expected, found {window}"
        )
    one, zero, room = make.constant(1), make.constant(0), make.dim(old[0], 2)
    slack = make("Add", make("Sub", room, make.constant(window)), one)

    def held(total: Value) -> Value:
        """How many of `total` keys [B] are kept, [B, 1]."""
        over = make("Max", make("Sub", total, room), zero)
        times = make("Div", make("Sub", make("Add", over, slack), one), slack)
        return make.reshape(make("Sub", total, make("Mul", times, slack)), -1, 1)

    before, after = held(step.past), held(step.total)
    past, total = make.reshape(step.past, -1, 1), make.reshape(step.total, -1, 1)
    stored = steps(make, room)
    old_at = make("Add", stored, make("Sub", past, before))
    old_at = make("Where", make("Less", stored, before), old_at, make.constant(_NEVER))
    fresh = steps(make, step.length)
    new_at = make("Where", make("Less", fresh, step.new), places, make.constant(_NEVER))
    keys = _Keys(_joined_parts(make, old, new), make("Concat", old_at, new_at, axis=1))
    seen = _seen(make, make("Unsqueeze", keys.places, make.constant([1, 2])), places, step)
    wanted = make("Add", stored, make("Sub", total, after))  # the place each row of the cache holds
    index = make(
        "Where",
        make("GreaterOrEqual", wanted, past),
        make("Add", make("Sub", wanted, past), room),
        make("Sub", wanted, make("Sub", past, before)),
    )
    kept = make("Where", make("Less", stored, after), index, stored)
    return keys, seen, _picked(make, keys.parts, kept)


def _of_keys(make: Maker, bias: Value, keys: _Keys, heads: int) -> Value:
    """The columns of a bias by places for keys at theirs, [B, H, S, keys]."""
    last = make("Sub", make.dim(bias, 3), make.constant(1))
    index = make("Max", make("Min", keys.places, last), make.constant(0))
    index = make("Unsqueeze", index, make.constant([1, 2]))
    one = make.constant([1])
    rows = make("Concat", one, make.constant([heads]), make.dim(bias, 2), one, axis=0)
    sizes = make("Concat", make.dim(index, 0), one, one, one, axis=0)
    wide = make("Expand", make("Expand", bias, rows), sizes)
    return make("GatherElements", wide, make("Expand", index, rows), axis=3)


def _seen(make: Maker, keys: Value, places: Value, step: _Steps) -> Value:
    """Whether query s of row b sees the key at a place [T] or [B, 1, 1, T]: [B, 1, S, T].

    Queries of padding, behind a row's last key, see no key of padding.
    """
    query = make("Unsqueeze", places, make.constant([1, 3]))
    window = make.attr("local_window_size", -1)
    if make.attr("causal", 1):
        last = make("Sub", make.reshape(step.total, -1, 1), make.constant(1))
        until = make("Unsqueeze", make("Min", places, last), make.constant([1, 3]))
        seen = make("LessOrEqual", keys, until)
    else:
        seen = make("Less", keys, make.reshape(step.total, -1, 1, 1, 1))
    if window < 0:
        return seen
    return make("And", seen, make("Greater", keys, make("Sub", query, make.constant(window))))


def _of_seen(make: Maker, result: Value, places: Value, step: _Steps, how: Scoring) -> Value:
    """0 for queries of padding [B, S] of which the window holds no key; a sink's are 0 anyway."""
    window = make.attr("local_window_size", -1)
    if window < 0 or how.sink is not None or make.shape(_QUERY)[1] == 1:
        return result
    before = make("Max", make("Sub", places, make.constant(window)), make.constant(-1))
    last = make("Sub", make.reshape(step.total, -1, 1), make.constant(1))
    some = make("Unsqueeze", make("Less", before, last), make.constant([1, 3]))
    return make("Where", some, result, make.constant(0, float_of(make)))


def _sink(make: Maker) -> Value | None:
    """The score of seeing nothing, one for each head."""
    given = make.input(_SINK)
    if given is not None or make.attr("smooth_softmax", -1) != 1:
        return given
    return make.like([0.0] * make.attr("num_heads"), make.x(_QUERY))


RULES: dict[str, Rule] = {"GroupQueryAttention": _grouped}
