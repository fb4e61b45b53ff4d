"""Weights of few bits: products with them.

Each becomes a product with DequantizeLinear of its codes, which `passes.quantise` keeps as they are
where the device decodes them in registers. `clinfer.Decode` is DequantizeLinear whose zero points
may be floats, and whose codes stand for the numbers of a table where `format` names one.
"""

from __future__ import annotations

import numpy as np

from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Array, Value
from clinfer.graph.numpy_quantise import dequantize_linear

_BYTES = 4  # the accuracy level that allows A to be quantised to bytes
_BLOCKS_OF_2_BITS = (32, 64, 128)  # whose products with bytes ONNX Runtime has
_TABLES = ("fp4", "nf4")  # by quant_type
_DECODED = ("float32", "float16", "bfloat16")


def codes_of(data: Array, bits: int) -> Array:
    """The numbers in bytes along the last axis, the lowest bits first."""
    if bits == 8:
        return data
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts: Array = (data[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(*data.shape[:-1], data.shape[-1] * len(shifts))


def decoded(
    make: Maker,
    codes: Array,
    scales: Array,
    zeros: Array | None,
    size: int,
    dtype: str,
    table: str | None = None,
) -> Value:
    """A matrix of codes [K, N] as numbers; scales and zero points [K / size, N] of blocks along K.

    Zero points are whole numbers of a byte or floats. In other types than float32 and float16 it is
    a constant.
    """
    attrs = {"axis": 0, "block_size": size, **({"format": table} if table else {})}
    if dtype not in _DECODED:
        inputs = [codes, scales.astype(np.float32), zeros]
        return make.constant(dequantize_linear(attrs, inputs)[0], dtype)
    point, kind = None, "DequantizeLinear" if table is None else "clinfer.Decode"
    if zeros is not None:
        whole = zeros.dtype == np.uint8 or bool(
            (zeros == np.rint(zeros)).all() and zeros.min() >= 0 and zeros.max() < 256
        )
        point = make.constant(np.ascontiguousarray(zeros), "uint8" if whole else "float32")
        kind = kind if whole else "clinfer.Decode"
    return make(
        kind,
        make.constant(np.ascontiguousarray(codes), "uint8"),
        make.constant(np.ascontiguousarray(scales), dtype),
        point,
        **attrs,
    )


def _shaped(make: Maker, index: int, *shape: int) -> Array:
    """A constant input in the shape it stands for. `UnsupportedError` where it has not the size."""
    content = make.content(index)
    if content.size != np.prod(shape):
        raise make.error(f"input {index}: {list(shape)} expected, found {list(content.shape)}")
    return content.reshape(shape)


def _matmul_n_bits(make: Maker) -> Value:
    """A @ W^T + bias with W [N, K] in blocks along K, each with a scale and a zero point.

    Where K is no whole number of blocks, A's rows end in zeros; where columns of W are of any block
    (`g_idx`), A's are put in the order of the blocks.
    """
    make.only("weight_prepacked", 0)
    rows, inner = make.attr("N"), make.attr("K")
    bits, size = make.attr("bits", 4), make.attr("block_size")
    blocks = -(-inner // size)
    if size * bits % 8:
        raise make.error(f"blocks of whole bytes expected, found {size} numbers of {bits} bits")
    content = codes_of(_shaped(make, 1, rows, blocks, size * bits // 8), bits)
    codes = content.reshape(rows, -1)
    scales = _shaped(make, 2, rows, blocks)
    zeros = _zeros(make, rows, blocks, bits)
    x = make.x(0)
    if make.input(4) is not None:
        order = _order(make, inner, blocks, size)
        x = make("Gather", x, make.constant(np.maximum(order, 0)), axis=-1)
        codes = np.where(order < 0, 0, codes[:, order])
        if (order < 0).any():  # blocks of fewer numbers than `size`
            x = make("Mul", x, make.like((order >= 0).astype(np.float32), make.x(0)))
    elif inner % size:
        rank = len(make.shape(0))
        pads = [0] * (2 * rank - 1) + [blocks * size - inner]
        x = make("Pad", x, make.constant(pads), make.like(0, x))
    weights = decoded(make, codes.T, scales.T, zeros.T, size, make.x(0).dtype or "float32")
    allowed = {"quantised": 1} if _takes_bytes(make, bits, size) else {}
    return make.sum(make("MatMul", x, weights, **allowed), make.input(5))


def _takes_bytes(make: Maker, bits: int, size: int) -> bool:
    """Whether ONNX Runtime rounds A to bytes: not with float zero points, groups, some blocks."""
    zeros = make.input(3)
    return (
        make.attr("accuracy_level", 0) == _BYTES
        and (zeros is None or zeros.dtype == "uint8")
        and make.input(4) is None
        and (bits != 2 or size in _BLOCKS_OF_2_BITS)
    )


def _order(make: Maker, inner: int, blocks: int, size: int) -> Array:
    """The columns of W block by block, -1 where a block has fewer than `size`."""
    group = _shaped(make, 4, inner)
    if group.min() < 0 or group.max() >= blocks:
        raise make.error(f"input 4: numbers of the {blocks} blocks expected")
    counts = np.bincount(group, minlength=blocks)
    if counts.max() > size:
        raise make.error(
            f"input 4: at most {size} columns of each block expected, found {counts.max()}"
        )
    order = np.full((blocks, size), -1, np.int64)
    order[np.arange(size) < counts[:, None]] = np.argsort(group, kind="stable")
    return order.reshape(-1)


def _zeros(make: Maker, rows: int, blocks: int, bits: int) -> Array:
    """The zero point of each block; packed as the weights, or numbers."""
    given = make.input(3)
    if given is None:
        return np.full((rows, blocks), 1 << (bits - 1), np.uint8)
    if given.dtype != "uint8":
        return _shaped(make, 3, rows, blocks).astype(np.float32)
    packed = _shaped(make, 3, rows, -(-blocks * bits // 8))
    return codes_of(packed, bits)[:, :blocks]


def _matmul_bnb4(make: Maker) -> Value:
    """A @ W^T with W [N, K] as codes of 4 bits, the higher ones first, in blocks of all numbers."""
    rows, inner, size = (make.attr(name) for name in ("N", "K", "block_size"))
    count = rows * inner
    data = _shaped(make, 1, -(-count // 2))
    codes = np.stack([data >> 4, data & 15], -1).ravel()[:count]
    largest = _shaped(make, 2, -(-count // size))
    table = _TABLES[make.attr("quant_type")]
    dtype = make.x(0).dtype or "float32"
    is_turned = bool(make.attr("transB", 1))
    if is_turned and inner % size == 0:
        matrix, scales = codes.reshape(rows, inner).T, largest.reshape(rows, inner // size).T
        return make("MatMul", make.x(0), decoded(make, matrix, scales, None, size, dtype, table))
    attrs = {"axis": 0, "block_size": size, "format": table}
    numbers = dequantize_linear(attrs, [codes, largest.astype(np.float32)])[0]
    weights = numbers.reshape(rows, inner)
    weights = np.ascontiguousarray(weights.T if is_turned else weights)
    return make("MatMul", make.x(0), make.constant(weights, dtype))


RULES: dict[str, Rule] = {
    "MatMulNBits": _matmul_n_bits,
    "MatMulBnb4": _matmul_bnb4,
}
