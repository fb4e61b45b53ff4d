"""Products and convolutions between decoded values become sums of integers, scaled behind.

MatMul(D(a), D(b))         = float(MatMulInteger(a, b)) * scales
MatMul(a, D(b))            = clinfer.EncodedMatMul(a, b, scales, zero points) for a constant b
Gemm(a, D(b), c)           = that + c
Conv(D(x), D(w)) + bias    = float(ConvInteger(x, w)) * scales + bias
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.canonicalise.maker import cast
from clinfer.passes.fold import DECODERS
from clinfer.passes.quantise.encoded import Encoded, encoded
from clinfer.passes.query import normal_axis
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule

# What few bits hold: integers, by the type whose bytes hold them, and floats.
_INTEGERS = {
    "int8": "int8",
    "uint8": "uint8",
    **dict.fromkeys(("int4", "int2"), "int8"),
    **dict.fromkeys(("uint4", "uint2"), "uint8"),
}
_FLOATS = {
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"), 8),
    "float4_e2m1fn": 4,
}


@dataclass(frozen=True)
class _Codes:
    """A constant matrix: codes [K, N], scales and perhaps zero points [K / block, N].

    `form` is what `EncodedMatmulSpec` has, `bits` those a code needs there.
    """

    codes: Array
    scales: Array
    zeros: Array | None
    form: str
    bits: int

    @property
    def turned(self) -> _Codes:
        """The same with axes swapped."""
        zeros = None if self.zeros is None else self.zeros.T
        return replace(self, codes=self.codes.T, scales=self.scales.T, zeros=zeros)


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
    a = node.required(0)
    made = _codes(node.required(1))
    if made is None or a.dtype != "float32" or len(a.known_shape) < 2:
        return None
    return _decoding(rw, node, a, made)


def encoded_gemm(rw: Rewriter, node: Node) -> Outcome:
    """Gemm(a, D(b), c), the same."""
    a, added, attrs = node.required(0), node.input(2), node.attrs
    made = _codes(node.required(1))
    if made is None or a.dtype != "float32" or attrs.get("transA", 0):
        return None
    if attrs.get("alpha", 1.0) != 1 or attrs.get("beta", 1.0) != 1:
        return None
    result = _decoding(rw, node, a, made.turned if attrs.get("transB", 0) else made)
    if added is None or not isinstance(result, Value):
        return result
    return rw.emit("Add", [result, added], "float32", node.output.shape)


def _decoding(rw: Rewriter, node: Node, a: Value, made: _Codes) -> Outcome:
    """a @ the matrix. Refuses blocks that are not along K, and what has no form a kernel reads."""
    inner, columns = made.codes.shape
    blocks = made.scales.shape[0]
    if made.scales.shape[1] != columns or inner % blocks or not made.codes.size:
        return Refusal("scales that are not of blocks along what is summed")
    block = inner // blocks
    bits = made.bits
    if made.form == "integer":
        bits = _bits_of(made.codes, bool(node.attrs.get("quantised", 0)))
    if block * bits % 8:
        bits = 8
    zero, zeros = 0, made.zeros
    if zeros is not None:
        first = float(zeros.flat[0])
        is_one = first.is_integer() and bool((zeros == zeros.flat[0]).all())
        zero, zeros = (int(first), None) if is_one else (0, zeros)
    scales: Array = made.scales.astype(np.float32)
    half = scales.astype(np.float16)
    if np.isfinite(half).all() and (half.astype(np.float32) == scales).all():
        scales = half  # as a model of float16 has them
    parts = (made.codes, scales, zeros)
    constants = [None if p is None else rw.constant(np.ascontiguousarray(p)) for p in parts]
    return rw.emit(
        "EncodedMatMul",
        [a, *constants],
        "float32",
        node.output.shape,
        attrs={
            "block": block,
            "bits": bits,
            "form": made.form,
            "zero": zero if zeros is None else None,
            "quantised": bool(node.attrs.get("quantised", 0)),
        },
        domain="clinfer",
    )


def _bits_of(codes: Array, wide: bool) -> int:
    """How many bits the integers need, of 2, 4 and 8; `wide`: not 2, which no unit multiplies."""
    low, high = int(codes.min()), int(codes.max())
    for bits in (4,) if wide else (2, 4):
        least = -(1 << bits - 1) if codes.dtype == np.int8 else 0
        if least <= low and high < least + (1 << bits):
            return bits
    return 8


def _codes(value: Value) -> _Codes | None:
    """What a constant matrix that DequantizeLinear decodes is, perhaps transposed."""
    node = value.producer
    if node is not None and node.kind == "Transpose" and node.required(0).rank == 2:
        made = _codes(node.required(0))
        return None if made is None else made.turned
    if node is None or node.kind not in DECODERS or value.dtype != "float32":
        return None
    data, scale, zero = node.required(0), node.required(1).const, node.input(2)
    if data.const is None or data.const.ndim != 2 or scale is None:
        return None
    if scale.dtype != np.float32 or (zero is not None and zero.const is None):
        return None
    if data.dtype in _FLOATS:
        form, bits, codes = str(data.dtype), _FLOATS[str(data.dtype)], data.const.view(np.uint8)
    elif data.dtype in _INTEGERS:
        form, bits = node.attrs.get("format", "integer"), 4
        codes = data.const.astype(np.dtype(_INTEGERS[data.dtype]))
    else:
        return None
    points = None if zero is None or zero.const is None else _points(zero.const, codes)
    axis = normal_axis(node.attrs.get("axis", 1), 2)
    if node.attrs.get("block_size", 0) and scale.ndim == 2:
        return _Codes(codes, scale, points, form, bits)
    if scale.size != 1 and scale.ndim != 1:
        return None
    sizes = [1, 1]
    sizes[axis] = codes.shape[axis]
    column = [1, 1]
    column[axis] = -1
    spread = [
        None if part is None else np.broadcast_to(part.reshape(column), sizes)
        for part in (scale, points)
    ]
    assert spread[0] is not None
    return _Codes(codes, spread[0], spread[1], form, bits)


def _points(zeros: Array, codes: Array) -> Array:
    """Zero points as the codes are, or in float32."""
    if zeros.dtype == np.float32 or zeros.dtype.name in _FLOATS:
        return zeros.astype(np.float32)
    return zeros.astype(codes.dtype)


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
    Rule("encoded-gemm", ("Gemm",), encoded_gemm),
    Rule("integer-convolution", ("Conv",), convolution),
)
