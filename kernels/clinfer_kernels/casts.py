"""ONNX Cast in registers; floats that become integers do so the same on every device.

C and OpenCL C leave open what becomes of a float that the integer type has no room for: compilers
may give what is in a register. Here it is what x86 gives, and with it NumPy and ONNX Runtime: the
least number of int32 (of int64 for 64 bits), of which narrower types have the low bits, 0. An
unsigned type's upper half is a second such range: what lies beyond it is 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clinfer_kernels import narrow
from clinfer_kernels.memory import convert
from clinfer_kernels.types import (
    TYPES,
    compute,
    is_float,
    kind,
    mask_type,
    register,
    size_of,
    vector,
)

_NAME = re.compile(r"fit_(u?)(int|long)(8|4|16|2)?_(float|double)(8|4|16|2)?$")
_LEAST = {"int": "-2147483648.0f", "long": "-9223372036854775808.0f"}


def cast(
    value: str, to_dtype: str, source_dtype: str, width: int, attrs: Sequence[object] = ()
) -> str:
    """ONNX Cast in registers: what becomes float16 or bfloat16 is rounded to it.

    `attrs` of a cast to a float of 8 bits: whether it wraps, and the number of its rounding.
    """
    if source_dtype in narrow.FLOATS:
        value, source_dtype = narrow.decode(value, source_dtype, width), "float32"
    if source_dtype in narrow.INTEGERS:  # what is above their bits means nothing
        value = narrow.extended(value, source_dtype, width)
    if to_dtype in narrow.FLOATS:
        wrap, rounding = (int(n) for n in (*attrs, 0, 0)[:2])  # type: ignore[call-overload]
        return narrow.encode(_single(value, source_dtype, width), to_dtype, width, wrap, rounding)
    if to_dtype in narrow.INTEGERS:
        return _small_integer(value, to_dtype, source_dtype, width)
    if kind(to_dtype) == kind(source_dtype) == "b":
        return value
    if to_dtype == "bool":
        mask = "int" if width == 1 else mask_type(compute(source_dtype))
        zero = f"({register(source_dtype, width)})(0)"
        return convert(f"({value} != {zero})", "int", mask, width)
    if source_dtype == "bool":
        return convert(f"({value} & 1)", compute(to_dtype), "int", width)
    if is_float(source_dtype) and not is_float(to_dtype):
        return _to_integer(value, to_dtype, source_dtype, width)
    if to_dtype not in _NARROW or source_dtype == to_dtype or size_of(source_dtype) == 1:
        return convert(value, compute(to_dtype), compute(source_dtype), width)
    return f"round_{to_dtype}_{vector('float', width)}({_single(value, source_dtype, width)})"


def _single(value: str, source_dtype: str, width: int) -> str:
    """A number in float32, so that rounding it further gives what rounding it once would have."""
    if source_dtype == "bool":
        return convert(f"({value} & 1)", "float", "int", width)
    if source_dtype == "float64":
        value = f"to_odd_{register(source_dtype, width)}({value})"
    return convert(value, "float", compute(source_dtype), width)


def _small_integer(value: str, to_dtype: str, source_dtype: str, width: int) -> str:
    """The low bits of an integer; of a float rounded, halves away from 0 as in ONNX Runtime."""
    byte = "uint8" if to_dtype.startswith("u") else "int8"
    if is_float(source_dtype):
        real = register(source_dtype, width)
        whole = "int64" if compute(source_dtype) == "double" else "int32"
        value = _to_integer(f"round_away_{real}({value})", whole, source_dtype, width)
        source_dtype = whole
    return narrow.low_bits(cast(value, byte, source_dtype, width), to_dtype, width)


_NARROW = frozenset({"float16", "bfloat16"})


def _to_integer(value: str, to_dtype: str, source_dtype: str, width: int) -> str:
    """ONNX Cast from a float to an integer: truncation, then the low bits of the result."""
    source, target = compute(source_dtype), compute(to_dtype)
    wide = target if TYPES[to_dtype].size >= 4 else "int"
    name = f"fit_{vector(wide, width)}_{vector(source, width)}"
    return convert(f"{name}({value})", target, wide, width)


def helper(name: str) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    match = _NAME.match(name)
    if match is None or match[3] != match[5]:
        return None
    is_unsigned, signed, digits, source = match[1], match[2], match[3] or "", match[4]
    width = int(digits or 1)
    result, operand = f"{match[1]}{signed}{digits}", f"{source}{digits}"
    lines = [f"const {operand} least = {_LEAST[signed]};"]
    if not is_unsigned:
        lines.append(f"return {_fitting('v', signed, source, width)};")
    elif signed == "int":
        wide = "int" if source == "float" else "long"  # as wide as a comparison's result
        lines += [
            f"const {operand} above = v + least;",
            f"const {wide}{digits} low = {_fitting('v', wide, source, width)};",
            f"const {wide}{digits} high = {_fitting('above', wide, source, width)}"
            " ^ (int)0x80000000;",
            f"return {convert('(v >= -least ? high : low)', 'uint', wide, width)};",
        ]
    else:
        lines += [
            f"const {operand} zero = 0;",
            f"const {operand} one = 1;",
            f"const {operand} top = v >= -least ? one : zero;",
            f"const {operand} rest = v >= -least ? v + least : v;",
            f"const long{digits} low = {_fitting('rest', 'long', source, width)};",
            f"return as_{result}(low ^ ({convert('top', 'long', source, width)} << 63));",
        ]
    return f"static {result} {name}({operand} v) {{\n    " + "\n    ".join(lines) + "\n}"


def _fitting(value: str, to: str, source: str, width: int) -> str:
    """A float as an integer of a type that holds `least` to -least - 1; others become `least`."""
    kept = f"(({value} >= least) & ({value} < -least) ? {value} : least)"
    return convert(kept, to, source, width)
