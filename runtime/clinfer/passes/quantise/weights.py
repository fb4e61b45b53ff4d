"""Constant matrices of few bits stay so: products read their codes and decode them in registers.

MatMul(a, D(b))     = clinfer.EncodedMatMul(a, b, scales, zero points)
Gemm(a, D(b), c)    = that + c
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.fold import DECODERS
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
_RESULTS = ("float32", "float16", "bfloat16")


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


@dataclass(frozen=True)
class Readers:
    """What the products of a class of devices read: the types of their results, and how many bits
    of codes they take at once, which are of one block.

    `fills`: the last of them of a column may be a part. `takes_bytes`: where A may be rounded to
    bytes, these are multiplied, by codes of 4 or 8 bits.
    """

    dtypes: tuple[str, ...]
    word: int
    fills: bool
    takes_bytes: bool

    @property
    def rules(self) -> tuple[Rule, ...]:
        """For both products."""
        return (
            Rule("encoded-product", ("MatMul",), self.product),
            Rule("encoded-gemm", ("Gemm",), self.gemm),
        )

    def product(self, rw: Rewriter, node: Node) -> Outcome:
        """MatMul(a, D(b)) with a constant matrix b of few bits, which is decoded in registers."""
        a = node.required(0)
        made = _codes(node.required(1))
        if made is None or a.dtype not in self.dtypes or len(a.known_shape) < 2:
            return None
        return self._decoding(rw, node, a, made)

    def gemm(self, rw: Rewriter, node: Node) -> Outcome:
        """Gemm(a, D(b), c), the same."""
        a, added, attrs = node.required(0), node.input(2), node.attrs
        made = _codes(node.required(1))
        if made is None or a.dtype not in self.dtypes or attrs.get("transA", 0):
            return None
        if attrs.get("alpha", 1.0) != 1 or attrs.get("beta", 1.0) != 1:
            return None
        result = self._decoding(rw, node, a, made.turned if attrs.get("transB", 0) else made)
        if added is None or not isinstance(result, Value):
            return result
        return rw.emit("Add", [result, added], a.dtype, node.output.shape)

    def _decoding(self, rw: Rewriter, node: Node, a: Value, made: _Codes) -> Outcome:
        """a @ the matrix. Refuses blocks that are not along K, and those that no kernel reads."""
        inner, columns = made.codes.shape
        blocks = made.scales.shape[0]
        if made.scales.shape[1] != columns or inner % blocks or not made.codes.size:
            return Refusal("scales that are not of blocks along what is summed")
        block = inner // blocks
        bits = made.bits
        if made.form == "integer":
            bits = _bits_of(made.codes, self.takes_bytes and bool(node.attrs.get("quantised", 0)))
        is_free = self.fills and blocks == 1
        while bits < 8 and block * bits % self.word and not is_free:
            bits *= 2
        if block * bits % self.word and not is_free:
            return Refusal("blocks of a part of what is read at once")
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
            a.dtype,
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
    if node is None or node.kind not in DECODERS or value.dtype not in _RESULTS:
        return None
    data, scale, zero = node.required(0), node.required(1).const, node.input(2)
    if data.const is None or data.const.ndim != 2 or scale is None:
        return None
    if zero is not None and zero.const is None:
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
        size = node.attrs["block_size"]
        scale, points = (_even(part, codes.shape[axis], size, axis) for part in (scale, points))
        assert scale is not None
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


def _even(part: Array | None, length: int, size: int, axis: int) -> Array | None:
    """Numbers of blocks of `size` along an axis, as those of equal blocks: the last one may be a
    part, whose length blocks then have a divisor of."""
    if part is None or part.shape[axis] == 1 or part.shape[axis] * size == length:
        return part
    common = math.gcd(length, size)
    spread = part.repeat(size // common, axis)
    return spread.take(range(length // common), axis)


def _points(zeros: Array, codes: Array) -> Array:
    """Zero points as the codes are, or in float32."""
    if zeros.dtype == np.float32 or zeros.dtype.name in _FLOATS:
        return zeros.astype(np.float32)
    return zeros.astype(codes.dtype)


ON_CPUS = Readers(("float32",), 8, fills=False, takes_bytes=True)
ON_GPUS = Readers(_RESULTS, 32, fills=True, takes_bytes=False)
