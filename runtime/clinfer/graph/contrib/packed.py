"""Weights of few bits, decoded when the model is read: products with them and look-ups in them.

MatMulNBits of 4 and 8 bits in float32 keeps its codes (`passes.quantise`); the others are float
tensors from then on, of the memory that the model not quantised takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Array, Value

_FP4 = np.array([0, 0.0625 / 12, 8 / 12, 1, 4 / 12, 6 / 12, 2 / 12, 3 / 12], np.float32)
_NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
_BYTES = 4  # the accuracy level that allows A to be quantised to bytes
_CODES = (np.concatenate([_FP4, -_FP4]), _NF4)  # by quant_type


def unpacked(data: Array, bits: int) -> Array:
    """The numbers in bytes along the last axis, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts: Array = (data[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(*data.shape[:-1], data.shape[-1] * len(shifts))


def _shaped(make: Maker, index: int, *shape: int) -> Array:
    """A constant input in the shape it stands for. `UnsupportedError` where it has not the size."""
    content = make.content(index)
    if content.size != np.prod(shape):
        raise make.error(f"input {index}: {list(shape)} expected, found {list(content.shape)}")
    return content.reshape(shape)


def _matmul_n_bits(make: Maker) -> Value:
    """A @ W^T + bias with W [N, K] in blocks along K, each with a scale and a zero point."""
    make.only("weight_prepacked", 0)
    rows, inner = make.attr("N"), make.attr("K")
    bits, size = make.attr("bits", 4), make.attr("block_size")
    blocks = -(-inner // size)
    if size * bits % 8:
        raise make.error(f"blocks of whole bytes expected, found {size} numbers of {bits} bits")
    content = unpacked(_shaped(make, 1, rows, blocks, size * bits // 8), bits)
    codes = content.reshape(rows, -1)[:, :inner]
    scales = _shaped(make, 2, rows, blocks).astype(np.float32)
    zeros = _zeros(make, rows, blocks, bits)
    if make.input(4) is None and inner % size == 0 and _are_codes(make, zeros, bits):
        return _encoded(make, codes, scales, zeros, size)
    weights = codes.astype(np.float32)
    if make.input(4) is None:
        block = np.arange(inner) // size
    else:
        block = _shaped(make, 4, inner)
        if block.min() < 0 or block.max() >= blocks:
            raise make.error(f"input 4: numbers of the {blocks} blocks expected")
    weights -= zeros[:, block]
    weights *= scales[:, block]
    return _product(make, weights.T, make.input(5))


def _are_codes(make: Maker, zeros: Array, bits: int) -> bool:
    """Whether DequantizeLinear can decode them: whole zero points, products in float32."""
    whole = bool((zeros == np.rint(zeros)).all()) and zeros.min() >= 0 and zeros.max() < 256
    return whole and bits in (4, 8) and make.x(0).dtype == "float32"


def _encoded(make: Maker, codes: Array, scales: Array, zeros: Array, size: int) -> Value:
    """The product with weights in blocks along K, which `passes.quantise` keeps as they are."""
    data = make.constant(np.ascontiguousarray(codes.T), "uint8")
    scale = make.constant(np.ascontiguousarray(scales.T), "float32")
    zero = make.constant(np.ascontiguousarray(zeros.T), "uint8")
    weights = make("DequantizeLinear", data, scale, zero, axis=0, block_size=size)
    allowed = {"quantised": 1} if make.attr("accuracy_level", 0) == _BYTES else {}
    return make.sum(make("MatMul", make.x(0), weights, **allowed), make.input(5))


def _zeros(make: Maker, rows: int, blocks: int, bits: int) -> Array:
    """The zero point of each block; packed as the weights, or numbers."""
    given = make.input(3)
    if given is None:
        return np.full((rows, blocks), 1 << (bits - 1), np.float32)
    if given.dtype != "uint8":
        return _shaped(make, 3, rows, blocks).astype(np.float32)
    packed = _shaped(make, 3, rows, -(-blocks * bits // 8))
    return unpacked(packed, bits)[:, :blocks].astype(np.float32)


def _product(make: Maker, weights: Array, bias: Value | None = None) -> Value:
    """A @ weights + bias."""
    dtype = make.x(0).dtype or "float32"
    content = np.ascontiguousarray(weights).astype(to_numpy(dtype))
    return make.sum(make("MatMul", make.x(0), make.constant(content, dtype)), bias)


def _matmul_bnb4(make: Maker) -> Value:
    """A @ W^T with W [N, K] as codes of 4 bits, the higher ones first, in blocks of all numbers."""
    rows, inner, size = (make.attr(name) for name in ("N", "K", "block_size"))
    count = rows * inner
    data = _shaped(make, 1, -(-count // 2))
    codes = np.stack([data >> 4, data & 15], -1).ravel()[:count]
    largest = _shaped(make, 2, -(-count // size)).astype(np.float32)
    values = _CODES[make.attr("quant_type")][codes] * np.repeat(largest, size)[:count]
    weights = values.reshape(rows, inner)
    return _product(make, weights.T if make.attr("transB", 1) else weights)


def _gather_block_quantized(make: Maker) -> Value:
    """Gather of numbers in blocks along an axis, each with a scale and a zero point."""
    data, scale = make.content(0), make.content(2).astype(np.float32)
    byte = make.x(0).dtype == "uint8"
    bits, size = make.attr("bits", 4), make.attr("block_size", 128)
    if make.x(0).dtype not in ("uint8", "int4", "uint4"):
        raise make.error(f"input 0: uint8, int4 or uint4 supported, found {make.x(0).dtype}")
    if byte:
        data = unpacked(data, bits)
    axis = make.attr("quantize_axis", 1) % data.ndim
    wanted = list(data.shape)
    wanted[axis] = -(-wanted[axis] // size)
    if list(scale.shape) != wanted:
        raise make.error(f"input 2: {wanted} expected, found {list(scale.shape)}")
    zero = _points(make, bits, scale.shape)

    def spread(blocks: Any) -> Any:
        if np.ndim(blocks) == 0:
            return blocks
        wide = np.repeat(blocks, size, axis)
        return np.take(wide, np.arange(data.shape[axis]), axis)

    values = (data.astype(np.float32) - spread(zero)) * spread(scale)
    table = make.constant(values, make.x(2).dtype or "float32")
    return make("Gather", table, make.x(1), axis=make.attr("gather_axis", 0))


def _points(make: Maker, bits: int, shape: tuple[int, ...]) -> Any:
    """The zero point of each block of a look-up: the middle of bytes, else 0, or given."""
    byte = make.x(0).dtype == "uint8"
    if make.input(3) is None:
        return (1 << (bits - 1)) if byte else 0
    given = unpacked(make.content(3), bits) if byte else make.content(3)
    if given.shape[:-1] != shape[:-1] or given.shape[-1] < shape[-1]:
        raise make.error(f"input 3: a zero point for each block expected, found {make.x(3)!r}")
    return given[..., : shape[-1]].astype(np.float32)


RULES: dict[str, Rule] = {
    "MatMulNBits": _matmul_n_bits,
    "MatMulBnb4": _matmul_bnb4,
    "GatherBlockQuantized": _gather_block_quantized,
}
