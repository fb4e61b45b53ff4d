"""Products and convolutions between decoded values become sums of integers, scaled behind.

MatMul(D(a), D(b))         = float(MatMulInteger(a, b)) * scales
Conv(D(x), D(w)) + bias    = float(ConvInteger(x, w)) * scales + bias
"""

from __future__ import annotations

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.maker import cast
from clinfer.passes.quantise.encoded import Encoded, encoded
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule


def product(rw: Rewriter, node: Node) -> Outcome:
    """MatMul(D(a), D(b)): b's scales are of the tensor or of its columns."""
    found = _operands(node)
    if found is None:
        return None
    a, b = found
    if b.axis not in (None, len(b.data.known_shape) - 1):
        return Refusal("scales along what is summed")
    return _scaled(rw, a, a.data, b.data, b, node)


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
    Rule("integer-gemm", ("Gemm",), gemm),
    Rule("integer-convolution", ("Conv",), convolution),
)
