"""Random numbers in NumPy: the same bits as the kernels' (`kernels/clinfer_kernels/random.cl`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array

_LOGARITHM = (
    *(0.08722305, -0.14366819, 0.14952274, -0.16562397, 0.19956833, -0.25002074, 0.33334186),
    *(-0.49999988, 1.0),
)
_SINE = (-75.393563, 81.592354, -41.341661, 6.2831853)
_COSINE = (-83.552591, 64.920306, -19.739147, 1.0)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def seed(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """A fresh key of the generator, uint32 [2]."""
    return [np.frombuffer(os.urandom(8), np.uint32)]


def random(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Numbers of a shape by the key: inputs are the key, (scale, shift) and the sizes."""
    key, (scale, shift), shape = inputs
    total = int(np.prod(shape, dtype=np.int64))
    words = _philox(total // 4 + (total % 4 != 0), key)
    numbers = _uniform(words) if attrs["kind"] == "uniform" else _normal(words)
    return [(numbers.ravel()[:total] * scale + shift).reshape([int(size) for size in shape])]


def _philox(blocks: int, key: Array) -> Array:
    """The words of blocks 0, 1, 2, ..., uint32 [blocks, 4]; see `random.cl`."""
    c = [np.arange(blocks, dtype=np.uint64), *[np.zeros(blocks, np.uint64)] * 3]
    k0, k1 = (int(word) for word in key)
    for _ in range(10):
        first, second = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (second >> _HALF) ^ c[1] ^ np.uint64(k0),
            second & _LOW,
            (first >> _HALF) ^ c[3] ^ np.uint64(k1),
            first & _LOW,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1).astype(np.uint32)


def _uniform(words: Array) -> Array:
    result: Array = (words >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    return result


def _normal(words: Array) -> Array:
    pairs = words.reshape(-1, 2)
    radius = _root(_minus_two_ln(_uniform(pairs[:, 0]) + np.float32(2**-24)))
    return radius[:, None] * _turn(pairs[:, 1])


def _minus_two_ln(u: Array) -> Array:
    bits = u.view(np.int32)
    e = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    f = (bits - (e << np.int32(23))).view(np.float32) - np.float32(1)
    whole = e.astype(np.float32) * np.float32(0.69314718)
    result: Array = np.float32(-2) * (_polynomial(_LOGARITHM, f) * f + whole)
    return result


def _root(v: Array) -> Array:
    r = (np.int32(0x5F3759DF) - (v.view(np.int32) >> np.int32(1))).view(np.float32)
    half = np.float32(0.5) * v
    for _ in range(3):
        r = r * (np.float32(1.5) - half * r * r)
    result: Array = v * r
    return result


def _turn(w: Array) -> Array:
    q = (w + np.uint32(0x20000000)) >> np.uint32(30)
    angle = (w - (q << np.uint32(30))).view(np.int32) >> np.int32(6)
    t = angle.astype(np.float32) * np.float32(2**-26)
    z = t * t
    s, c = t * _polynomial(_SINE, z), _polynomial(_COSINE, z)
    is_odd = (q & np.uint32(1)).astype(bool)
    sides = np.where(is_odd, -s, c), np.where(is_odd, c, s)
    sign = np.where(q & np.uint32(2), np.float32(-1), np.float32(1))
    return np.stack([side * sign for side in sides], 1)


def _polynomial(factors: Sequence[float], x: Array) -> Array:
    result = np.full_like(x, np.float32(factors[0]))
    for factor in factors[1:]:
        result = result * x + np.float32(factor)
    return result
