"""Pairs of QuantizeLinear and DequantizeLinear give way to operators on the integers between them.

    MatMul(D(a), D(b))         = float(MatMulInteger(a, b)) * scales
    MatMul(a, D(b))            = clinfer.EncodedMatMul(a, b, scales, zero points) for a constant b
    Conv(D(x), D(w)) + bias    = float(ConvInteger(x, w)) * scales + bias
    Q(move(D(x)))              = move(x)    of one scale and zero point: views, MaxPool, Concat
    Q(D(x))                    = x

D decodes integers of 8 bits, Q encodes them. Sums of products are exact in integers, where floats
round each. What remains encoded of constants is decoded at the end (`decode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Array, Graph, Node, Value
from clinfer.passes.canonicalise.integers import BYTES
from clinfer.passes.canonicalise.maker import cast
from clinfer.passes.dead import detach_known, remove_dead
from clinfer.passes.fold import fold
from clinfer.passes.query import normal_axis, scalar
from clinfer.passes.rewrite import Log, Outcome, Refusal, Rewriter, Rule, run_rules

# The integers of few bits that ONNX has, by what holds them.
_FEW_BITS = {"int8": "int8", "uint8": "uint8", "int4": "int8", "uint4": "uint8"}
# Operators that give elements of their first input (of all: Concat) and nothing else.
_MOVES = (
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)


def quantise(graph: Graph, log: Log) -> None:
    """The rules here, for class "cpu"; other devices compute between pairs in floats."""
    if any(node.op == "DequantizeLinear" for node in graph.nodes):
        run_rules(graph, RULES, log, "quantise")
        remove_dead(graph)


def decode(graph: Graph, log: Log) -> None:
    """Constants that are still encoded become what they stand for."""
    if any(node.op == "DequantizeLinear" for node in graph.nodes):
        fold(graph)
        detach_known(graph)


@dataclass(frozen=True)
class Encoded:
    """What DequantizeLinear reads; `axis` is None for one scale and zero point of all elements."""

    data: Value
    scale: Array
    zero: Value | None
    axis: int | None

    @property
    def is_like(self) -> tuple[str | None, bytes, int]:
        """Equal for tensors whose equal integers stand for equal numbers."""
        zero = 0 if self.zero is None else int(scalar(self.zero) or 0)
        return self.data.dtype, self.scale.tobytes(), zero


def encoded(value: Value | None) -> Encoded | None:
    """The 8-bit integers that a float32 value stands for, with constant scales."""
    node = None if value is None else value.producer
    if node is None or node.kind != "DequantizeLinear" or node.output.dtype != "float32":
        return None
    data, scale, zero = node.required(0), node.required(1).const, node.input(2)
    if data.dtype not in BYTES or scale is None or node.attrs.get("block_size", 0):
        return None
    if data.shape is None or scale.dtype != np.float32 or (zero is not None and zero.const is None):
        return None
    if scale.size == 1:
        return Encoded(data, scale.reshape(()), zero, None)
    if scale.ndim != 1:
        return None
    return Encoded(data, scale, zero, normal_axis(node.attrs.get("axis", 1), len(data.shape)))


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
        attrs={"block": block, "bits": 4 if few else 8},
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


def move(rw: Rewriter, node: Node) -> Outcome:
    """Q(move(D(x))) = move(x), and Q(D(x)) = x."""
    wanted = _encoding(node)
    if wanted is None:
        return None
    same = encoded(node.required(0))
    if same is not None:
        return same.data if same.axis is None and same.is_like == wanted else None
    maker = node.required(0).producer
    if maker is None or maker.kind not in _MOVES or len(_read(maker.outputs)) != 1:
        return None
    if not node.required(0).users.are(node) or rw.graph.is_output(node.required(0)):
        return None
    count = len(maker.inputs) if maker.op == "Concat" else 1
    parts = [encoded(value) for value in maker.inputs[:count]]
    if any(p is None or p.axis is not None or p.is_like != wanted for p in parts):
        return None
    rest = list(maker.inputs[count:])
    if maker.op == "Pad" and maker.attrs.get("mode", "constant") == "constant":
        value = 0.0 if maker.input(2) is None else scalar(maker.input(2))
        if value != 0:
            return Refusal("padding of another value than 0")
        number = np.array(wanted[2], np.uint8 if wanted[0] == "uint8" else np.int8)
        rest[1:2] = [rw.constant(number)]
    inputs = [*(p.data for p in parts if p is not None), *rest]
    shape = node.output.shape
    return rw.emit(maker.op, inputs, wanted[0], shape, attrs=maker.attrs, version=maker.version)


def scale_once(rw: Rewriter, node: Node) -> Outcome:
    """Q(x) of what an integer product has made: x / scale as x * (1 / scale).

    Such an x is rounded already; what is given or decoded is divided, as ONNX defines it.
    """
    scale = node.required(1).const
    if _encoding(node) is None or scale is None or not _is_from_product(node.required(0), 6):
        return None
    factor = np.asarray(np.float32(1) / scale.reshape(()))
    if scale.reshape(-1)[0] == 1 or not np.isfinite(factor):
        return None
    x = node.required(0)
    scaled = rw.emit("Mul", [x, rw.constant(factor)], "float32", x.shape)
    inputs = [scaled, rw.constant(np.float32(1).reshape(())), *node.inputs[2:]]
    return rw.emit(
        node.op,
        inputs,
        node.output.dtype,
        node.output.shape,
        attrs=node.attrs,
        version=node.version,
    )


def _is_from_product(value: Value, depth: int) -> bool:
    node = value.producer
    if node is None or depth == 0:
        return False
    if node.op in ("MatMulInteger", "ConvInteger"):
        return True
    if node.op not in ("Add", "Cast", "Clip", "LeakyRelu", "Mul", "Relu", "Sigmoid"):
        return False
    return any(v is not None and _is_from_product(v, depth - 1) for v in node.inputs)


def _read(values: Sequence[Value | None]) -> list[Value]:
    return [value for value in values if value is not None and value.users]


def _encoding(node: Node) -> tuple[str | None, bytes, int] | None:
    """What QuantizeLinear makes, as `Encoded.is_like`; None where its scale is no one constant."""
    scale, zero = node.required(1).const, node.input(2)
    if scale is None or scale.size != 1 or scale.dtype != np.float32:
        return None
    if node.required(0).dtype != "float32" or node.attrs.get("block_size", 0):
        return None
    point = 0 if zero is None else scalar(zero)
    return None if point is None else (node.output.dtype, scale.tobytes(), int(point))


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
    Rule("move-pair", ("QuantizeLinear",), move),
    Rule("scale-once", ("QuantizeLinear",), scale_once),
)
