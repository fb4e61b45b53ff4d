"""What the attention operators of com.microsoft share: heads, masks, scores, rotary embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clinfer.graph.contrib.maker import Maker
from clinfer.graph.ir import Value

_LOWEST = {"float16": -65504.0, "bfloat16": -3.38e38, "float32": -3.4028234663852886e38}


class Scoring(NamedTuple):
    """How scores become weights: a factor, a soft limit (0: none), a last score for nothing."""

    scale: float
    softcap: float = 0.0
    sink: Value | None = None


def float_of(make: Maker) -> str:
    """The type of the scores: that of the first input that is no integer."""
    known = (value.dtype or "" for value in make.node.inputs if value is not None)
    return next((dtype for dtype in known if "float" in dtype), "float32")


def split(make: Maker, x: Value, heads: int, size: int) -> Value:
    """[B, S, H * D] as [B, H, S, D]."""
    return make.transpose(make.reshape(x, 0, 0, heads, size), 0, 2, 1, 3)


def joined(make: Maker, x: Value, width: int) -> Value:
    """[B, H, S, D] as [B, S, H * D]."""
    return make.reshape(make.transpose(x, 0, 2, 1, 3), 0, 0, width)


def appended(make: Maker, past: Value | None, new: Value) -> Value:
    """Keys or values [B, H, T, D] of the past and new ones behind."""
    return new if past is None else make("Concat", past, new, axis=2)


def repeated(make: Maker, x: Value, heads: int, times: int, size: int) -> Value:
    """[B, H, T, D] with every head `times` times."""
    if times == 1:
        return x
    column = make("Unsqueeze", x, make.constant([2]))
    wide = make("Expand", column, make.constant([1, 1, times, 1, 1]))
    return make.reshape(wide, 0, heads * times, -1, size)


def scores(make: Maker, q: Value, k: Value, how: Scoring, added: Sequence[Value]) -> Value:
    """scale * q @ k^T, limited, plus what is added: biases and masks."""
    dtype = float_of(make)
    found = make("MatMul", q, make.transpose(k, 0, 1, 3, 2))
    found = make("Mul", found, make.constant(how.scale, dtype))
    if how.softcap:
        cap = make.constant(how.softcap, dtype)
        found = make("Mul", make("Tanh", make("Div", found, cap)), cap)
    return make.sum(found, *added)


def weighted(make: Maker, found: Value, v: Value, how: Scoring) -> Value:
    """softmax(scores) @ v."""
    return make("MatMul", weights(make, found, how), v)


def weights(make: Maker, found: Value, how: Scoring) -> Value:
    """softmax(scores); with a sink, one more score takes part and weighs nothing."""
    if how.sink is None:
        return make("Softmax", found, axis=-1)
    column = make.slice(found, 3, 0, 1)
    sink = make("Expand", make.reshape(how.sink, 1, -1, 1, 1), make("Shape", column))
    both = make("Softmax", make("Concat", found, sink, axis=-1), axis=-1)
    return make.slice(both, 3, 0, -1)


def masked_where(make: Maker, seen: Value, value: float | None = None) -> Value:
    """0 where `seen`, else `value`; by default, and at least, the lowest number of the type."""
    dtype = float_of(make)
    low = _LOWEST[dtype] if value is None else max(value, _LOWEST[dtype])
    return make("Where", seen, make.constant(0, dtype), make.constant(low, dtype))


def steps(make: Maker, count: Value) -> Value:
    """0 to count - 1, where `count` is an int64 of one element."""
    return make("Range", make.constant(0), make.reshape(count), make.constant(1))


def causal(make: Maker, q: Value, k: Value) -> Value:
    """Whether query s sees key t, [S, T]: the last query sees all keys."""
    queries, keys = make.dim(q, 2), make.dim(k, 2)
    before = make("Sub", keys, queries)
    places = make.reshape(make("Add", steps(make, queries), before), -1, 1)
    return make("LessOrEqual", steps(make, keys), places)


def rotated(
    make: Maker, x: Value, places: Value, tables: tuple[int, int], interleaved: int
) -> Value:
    """Rotary embedding of [B, H, S, D] at places [B, S]; `tables` number cosines and sines."""
    width = 2 * make.size(tables[0], 1, "the width of the cosines")
    cos, sin = (make.x(index) for index in tables)
    attrs = {"rotary_embedding_dim": width, "interleaved": interleaved}
    return make("RotaryEmbedding", x, cos, sin, places, **attrs)
