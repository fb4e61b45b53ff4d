"""Numbers of values in NumPy: `clinfer.Hash`, what MurmurHash3 of com.microsoft becomes.

The 32-bit form for x86 of Appleby's MurmurHash3, of the bytes of an element: little-endian numbers,
text in UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array

_C1, _C2, _ADDED = np.uint32(0xCC9E2D51), np.uint32(0x1B873593), np.uint32(0xE6546B64)
_FIRST, _SECOND, _FIVE = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35), np.uint32(5)


def murmur(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """A number for each element: uint32 where `positive`, else int32."""
    (x,) = inputs
    seed = int(attrs.get("seed", 0)) & 0xFFFFFFFF
    if x.dtype == object:
        flat = [_hashed_text(str(text), seed) for text in x.ravel().tolist()]
        found = np.array(flat, np.uint32)
    else:
        width = x.dtype.itemsize
        blocks = np.ascontiguousarray(x).astype(x.dtype.newbyteorder("<")).ravel().view("<u4")
        found = _hashed(blocks.reshape(-1, width // 4), seed, width)
    kind = np.uint32 if attrs.get("positive", 1) else np.int32
    return [found.view(kind).reshape(x.shape)]


def _hashed_text(text: str, seed: int) -> int:
    data = text.encode()
    whole = len(data) // 4 * 4
    blocks = np.frombuffer(data[:whole], "<u4").reshape(1, -1)
    rest = int.from_bytes(data[whole:], "little")
    return int(_hashed(blocks, seed, len(data), rest)[0])


def _hashed(blocks: Array, seed: int, size: int, rest: int = 0) -> Array:
    """Numbers [n] of rows of 32-bit blocks [n, blocks] of `size` bytes with what is behind them."""
    h = np.full(len(blocks), seed, np.uint32)
    for block in blocks.T:
        h = _rotated(h ^ _mixed(block.astype(np.uint32)), 13) * _FIVE + _ADDED
    if rest:
        h = h ^ _mixed(np.full(len(blocks), rest, np.uint32))
    h = h ^ np.uint32(size)
    h = (h ^ (h >> np.uint32(16))) * _FIRST
    h = (h ^ (h >> np.uint32(13))) * _SECOND
    result: Array = h ^ (h >> np.uint32(16))
    return result


def _mixed(block: Array) -> Array:
    result: Array = _rotated(block * _C1, 15) * _C2
    return result


def _rotated(x: Array, bits: int) -> Array:
    result: Array = (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))
    return result
