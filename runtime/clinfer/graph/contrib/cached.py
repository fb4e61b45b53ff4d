"""How keys and values lie in a cache: as they are, or in integers or floats of few bits."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer.graph.contrib.heads import float_of
from clinfer.graph.contrib.maker import Maker
from clinfer.graph.ir import Value

_PAST = {"k": 3, "v": 4}
_SCALE = {"k": 12, "v": 13}
_HALF = 8  # what a code of 4 bits is above its number


@dataclass(frozen=True)
class Codes:
    """Keys or values [B, H, T, D] by `scale`, which broadcasts to them; None: as they are."""

    scale: Value | None
    dtype: str
    bits: int
    size: int

    def encoded(self, make: Maker, x: Value) -> Value:
        """New ones as a cache holds them: two of 4 bits in a byte, the first in the lower half.

        ONNX Runtime multiplies by the inverse of the scale, which the codes of ties show.
        """
        if self.scale is None:
            return x
        inverse = make("Div", make.constant(1, "float32"), self.scale)
        ratio = make("Mul", make.cast(x, "float32"), inverse)
        if "float" in self.dtype:
            return make.cast(ratio, self.dtype)
        most = 1 << (self.bits - 1)
        low, high = (make.constant(n, "float32") for n in (-most, most - 1))
        whole = make("Clip", make("Round", ratio), low, high)
        if self.bits == 8:
            return make.cast(whole, self.dtype)
        whole = make("Add", whole, make.constant(_HALF, "float32"))
        first, second = (make.slice(whole, 3, start, self.size, 2) for start in (0, 1))
        both = make("Add", first, make("Mul", second, make.constant(16, "float32")))
        return make.cast(both, self.dtype)

    def decoded(self, make: Maker, x: Value) -> Value:
        """What the cache holds as numbers."""
        if self.scale is None:
            return x
        if self.bits == 4:
            column = make("Unsqueeze", x, make.constant([4]))
            halves = make("BitShift", column, make.constant([0, 4], "uint8"), direction="RIGHT")
            codes = make("BitwiseAnd", halves, make.constant(15, "uint8"))
            numbers = make.cast(make.reshape(codes, 0, 0, 0, self.size), "float32")
            numbers = make("Sub", numbers, make.constant(_HALF, "float32"))
        else:
            numbers = make.cast(x, "float32")
        return make.cast(make("Mul", numbers, self.scale), float_of(make))


def codes(make: Maker, size: int, heads: int, letter: str) -> Codes:
    """How the cache of keys ('k') or values ('v') is, by attributes and the past's type."""
    kind, bits = make.attr(f"{letter}_quant_type", "NONE"), make.attr("kv_cache_bit_width", 0) or 8
    past = make.input(_PAST[letter])
    if kind == "NONE":
        if make.input(_SCALE[letter]) is not None:
            raise make.error(
                f"attribute '{letter}_quant_type': PER_TENSOR or PER_CHANNEL expected where there "
                "is a scale, found NONE"
            )
        return Codes(None, "", 0, size)
    if past is None or bits not in (4, 8):
        raise make.error(
            f"past keys and values, and an attribute 'kv_cache_bit_width' of 4 or 8 expected for a "
            f"quantised cache, found {past!r} and {bits}"
        )
    dtype = past.dtype or "int8"
    if dtype not in (("uint8",) if bits == 4 else ("int8", "float8_e4m3fn")):
        raise make.error(
            f"input {_PAST[letter]}: uint8 of 4 bits, int8 or float8_e4m3fn of 8 bits expected, "
            f"found {dtype} of {bits}"
        )
    scale = make.x(_SCALE[letter])
    shape = (1,) if kind == "PER_TENSOR" else (1, heads, 1, size)
    return Codes(make.reshape(scale, *shape), dtype, bits, size)
