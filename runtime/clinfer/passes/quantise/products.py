"""Products and convolutions between decoded values become sums of integers, scaled behind.

MatMul(D(a), D(b))         = float(MatMulInteger(a, b)) * scales
MatMul(a, D(b))            = clinfer.EncodedMatMul(a, b, scales, zero points) for a constant b
Conv(D(x), D(w)) + bias    = float(ConvInteger(x, w)) * scales + bias
"""

from __future__ import annotations

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.canonicalise.maker import cast
from clinfer.passes.quantise.encoded import Encoded, encoded
from clinfer.passes.query import normal_axis
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule

# The integers of few bits that ONNX has, by what holds them.
_FEW_BITS = {"int8": "int8", "uint8": "uint8", "int4": "int8", "uint4": "uint8"}


def product(rw: Rewriter, node: Node) -> Outcome:
    """MatMul(D(a), D(b)): b's scales are of the tensor or of its columns."""
    found = _operands(node)
    if found is None:
        return None
    a, b = found
    if b.axis not in (None, len(b.data.known_shape) - 1):
        return Refusal("scales along what is summed")
    return _scaled(rw, a, a.data, b.data, b, node)


def encoded_product(rw: Rewriter, node: Node) -> Outcome:
    """MatMul(a, D(b)) with a constant matrix b of few bits, which is decoded in registers."""
    a, b = node.required(0), node.required(1)
    made = None if b.producer is None else _codes(b.producer)
    if made is None or a.dtype != "float32" or len(a.known_shape) < 2:
        return None
    codes, scale, zero = made
    inner, blocks = codes.shape[0], scale.shape[0]
    if inner % blocks or not codes.size:
        return None
    low, high = int(codes.min()), int(codes.max())
    least = -8 if codes.dtype == np.int8 else 0
    block = inner // blocks
    few = least <= low and high <= least + 15 and block % 2 == 0
    return rw.emit(
        "EncodedMatMul",
        [a, *map(rw.constant, (codes, scale, zero))],
        "float32",
        node.output.shape,
        attrs={
            "block": block,
            "bits": 4 if few else 8,
            "quantised": bool(node.attrs.get("quantised", 0)),
        },
        domain="clinfer",
    )


def _codes(node: Node) -> tuple[Array, Array, Array] | None:
    """Codes [K, N], scales and zero points [K / block, N] of a constant matrix."""
    if node.kind != "DequantizeLinear" or node.output.dtype != "float32":
        return None
    data, scale, zero = node.required(0), node.required(1).const, node.input(2)
    if data.const is None or data.dtype not in _FEW_BITS or data.const.ndim != 2:
        return None
    if scale is None or scale.dtype != np.float32 or (zero is not None and zero.const is None):
        return None
    dtype = np.dtype(_FEW_BITS[data.dtype])
    codes = data.const.astype(dtype)
    points = np.zeros_like(scale, dtype) if zero is None else zero.const
    assert points is not None
    axis = normal_axis(node.attrs.get("axis", 1), 2)
    columns = codes.shape[1]
    if node.attrs.get("block_size", 0) and scale.ndim == 2:
        if axis != 0 or scale.shape[1] != columns:
            return None
        return codes, scale, points.astype(dtype)
    if scale.size != 1 and (axis != 1 or scale.ndim != 1):
        return None
    row = (1, columns)
    spread = (np.broadcast_to(part.reshape(1, -1), row).copy() for part in (scale, points))
    wide, narrow = spread
    return codes, wide, narrow.astype(dtype)


def gemm(rw: Rewriter, node: Node) -> Outcome:
    """Gemm(D(a), D(b), c)."""
    found = _operands(node)
    if found is None:
        return None
    a, b = found
    is_turned = bool(node.attrs.get("transB", 0))
    if b.axis not in (None, 0 if is_turned else 1):
        return Refusal("scales along what is summed")
    left = rw.transpose(a.data, (1, 0)) if node.attrs.get("transA", 0) else a.data
    right = b.data
    if is_turned and right.const is not None:
        right = rw.constant(np.ascontiguousarray(right.const.T))
    elif is_turned:
        right = rw.transpose(right, (1, 0))
    result = _scaled(rw, a, left, right, b, node, node.attrs.get("alpha", 1.0))
    added, factor = node.input(2), node.attrs.get("beta", 1.0)
    if added is None or factor == 0:
        return result
    if factor != 1:
        beta = rw.constant(np.array(factor, np.float32))
        added = rw.emit("Mul", [added, beta], "float32", added.shape)
    return rw.emit("Add", [result, added], "float32", result.shape)


def convolution(rw: Rewriter, node: Node) -> Outcome:
    """Conv(D(x), D(w), bias): w is constant, its scales are of the tensor or of filters."""
    found = _operands(node)
    if found is None:
        return None
    x, w = found
    if w.data.const is None or w.axis not in (None, 0):
        return Refusal("weights that are no constant, or scales along what is summed")
    inputs = [x.data, w.data, x.zero, w.zero]
    shape = node.output.known_shape
    total = rw.emit("ConvInteger", inputs, "int32", shape, attrs=node.attrs, version=10)
    spatial = [1] * (len(shape) - 2)
    scales = x.scale * w.scale
    by_filter = scales.reshape(-1, *spatial) if scales.ndim else scales
    wide = cast(rw, total, "float32")
    result = rw.emit("Mul", [wide, rw.constant(by_filter)], "float32", shape)
    bias = node.input(2)
    if bias is None:
        return result
    column = rw.reshape(bias, (*bias.known_shape, *spatial))
    return rw.emit("Add", [result, column], "float32", shape)


def _operands(node: Node) -> tuple[Encoded, Encoded] | None:
    """Both factors, where they are encoded and the first has one scale."""
    a, b = encoded(node.required(0)), encoded(node.required(1))
    if a is None or b is None or a.axis is not None or node.output.dtype != "float32":
        return None
    return a, b


def _scaled(
    rw: Rewriter, a: Encoded, left: Value, right: Value, b: Encoded, node: Node, alpha: float = 1.0
) -> Value:
    inputs = [left, right, a.zero, b.zero]
    shape = node.output.shape
    total = rw.emit("MatMulInteger", inputs, "int32", shape, version=10)
    scales = np.asarray(a.scale * b.scale * np.float32(alpha))
    return rw.emit("Mul", [cast(rw, total, "float32"), rw.constant(scales)], "float32", shape)


RULES = (
    Rule("integer-product", ("MatMul",), product),
    Rule("encoded-product", ("MatMul",), encoded_product),
    Rule("integer-gemm", ("Gemm",), gemm),
    Rule("integer-convolution", ("Conv",), convolution),
)
