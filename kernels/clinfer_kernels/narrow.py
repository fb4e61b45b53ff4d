"""Floats of 8 and 4 bits, integers of 4 and 2: codes everywhere, numbers only in casts.

A code of a float is sign, exponent and mantissa, as the OCP's "8-bit Floating Point Specification"
(2023) and "Microscaling Formats" (2023) have them; of the 'fnuz' formats the code of -0 is NaN
(Noune et al., "8-bit Numerical Formats for Deep Neural Networks", 2022). What is too large becomes
the largest number, or with `wrap` infinity or NaN, as ONNX's Cast has it. float8_e8m0fnu is the
exponent field of a float32. Integers are stored in a byte each, as NumPy stores them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clinfer_kernels.memory import convert


@dataclass(frozen=True)
class Format:
    """`most` is the code of the largest number, `beyond` what is above it with `wrap`, `infinity`
    its code (0: none). `unsigned_zero`: there is no -0, whose code is NaN."""

    mantissa: int
    bias: int
    most: int
    beyond: int
    nan: int
    infinity: int = 0
    unsigned_zero: bool = False
    bits: int = 8


FORMATS = {
    "float8_e4m3fn": Format(3, 7, 0x7E, 0x7F, 0x7F),
    "float8_e4m3fnuz": Format(3, 8, 0x7F, 0x80, 0x80, unsigned_zero=True),
    "float8_e5m2": Format(2, 15, 0x7B, 0x7C, 0x7E, infinity=0x7C),
    "float8_e5m2fnuz": Format(2, 16, 0x7F, 0x80, 0x80, unsigned_zero=True),
    "float4_e2m1fn": Format(1, 1, 0x7, 0x7, 0x8, bits=4),
}
TABLES = {
    "fp4": (
        *(0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 6 / 12, 2 / 12, 3 / 12),
        *(-0.0, -0.0625 / 12, -8 / 12, -1.0, -4 / 12, -6 / 12, -2 / 12, -3 / 12),
    ),
    "nf4": (
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ),
}
"""What codes of 4 bits stand for (Dettmers et al., "QLoRA", 2023), in float32."""
EXPONENTS = "float8_e8m0fnu"
FLOATS = frozenset({*FORMATS, EXPONENTS})
INTEGERS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
"""Their bits."""

ROUNDING = ("up", "down", "nearest")
"""How a float becomes a float8_e8m0fnu, by the numbers that casts have them."""

_NAME = re.compile(
    r"(encode|wrap|decode)_("
    + "|".join(sorted(FORMATS))
    + r")_float(\d*)$|(encode|wrap|decode)_float8_e8m0fnu(?:_(up|down|nearest))?_float(\d*)$"
)


def encode(value: str, dtype: str, width: int, wrap: bool, rounding: int) -> str:
    """The codes of float32 numbers."""
    how = "wrap" if wrap else "encode"
    mode = f"_{ROUNDING[rounding]}" if dtype == EXPONENTS else ""
    lanes = "" if width == 1 else str(width)
    return convert(f"{how}_{dtype}{mode}_float{lanes}({value})", "uchar", "uint", width)


def decode(value: str, dtype: str, width: int) -> str:
    """The float32 numbers of codes."""
    lanes = "" if width == 1 else str(width)
    wide = convert(value, "uint", "uchar", width)
    return f"decode_{dtype}_float{lanes}({wide})"


def low_bits(value: str, dtype: str, width: int) -> str:
    """The code of an integer of 4 or 2 bits: the low bits of a byte, the others 0 as in NumPy."""
    byte = _byte(dtype, width)
    return f"({byte})({value} & ({byte})({(1 << INTEGERS[dtype]) - 1}))"


def extended(value: str, dtype: str, width: int) -> str:
    """The integer of a code, as a byte."""
    if dtype.startswith("u"):
        return low_bits(value, dtype, width)
    byte = _byte(dtype, width)
    shift = f"({byte})({8 - INTEGERS[dtype]})"
    return f"({byte})(({byte})({value} << {shift}) >> {shift})"


def _byte(dtype: str, width: int) -> str:
    byte = "uchar" if dtype.startswith("u") else "char"
    return byte if width == 1 else f"{byte}{width}"


def helper(name: str) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    match = _NAME.match(name)
    if match is None:
        return None
    how, lanes = match[1] or match[4], match[3] if match[2] else match[6]
    real, word = f"float{lanes}", f"uint{lanes}"
    result, operand = (real, f"{word} c") if how == "decode" else (word, f"{real} v")
    if match[2] is None:
        lines = _exponents(how, match[5] or "up", real, word)
    elif how == "decode":
        lines = _decoded(FORMATS[match[2]], real, word, lanes)
    else:
        lines = _encoded(FORMATS[match[2]], how == "wrap", real, word)
    return f"static {result} {name}({operand}) {{\n    " + "\n    ".join(lines) + "\n}"


def _encoded(form: Format, wrap: bool, real: str, word: str) -> list[str]:
    """Rounded to nearest even: in float32's bits, below the least normal number in its steps."""
    cut = 23 - form.mantissa
    shift = 32 - form.bits
    sign = f"(as_{word}(v) >> {shift}) & {1 << form.bits - 1}u"
    beyond = form.beyond if wrap else form.most
    signed = "code | sign"
    if form.unsigned_zero:
        signed = f"(code == 0u) | (code == {form.nan}u) ? code : (code | sign)"
    nan = f"({word})({form.nan}u)" if form.bits == 8 else "sign ^ 8u"  # there is none: a zero
    return [
        f"const {word} b = as_{word}(v) & 0x7FFFFFFFu;",
        f"const {word} sign = {sign};",
        f"const {word} even = b + {(1 << cut - 1) - 1}u + ((b >> {cut}) & 1u);",
        f"const {word} normal = (even >> {cut}) - {127 - form.bias << form.mantissa}u;",
        f"const {real} steps = as_{real}(b) * {_power(form.bias - 1 + form.mantissa)}"
        " + 8388608.0f;",
        f"const {word} small = as_{word}(steps) & 0xFFu;",
        f"{word} code = b < {128 - form.bias << 23}u ? small : normal;",
        f"code = code > {form.most}u ? ({word})({beyond}u) : code;",
        f"code = {signed};",
        f"return b > 0x7F800000u ? {nan} : code;",
    ]


def _decoded(form: Format, real: str, word: str, lanes: str) -> list[str]:
    cut = 23 - form.mantissa
    top = 1 << form.bits - 1
    count = convert("size", "float", "uint", int(lanes or 1))
    lines = [
        f"const {word} size = c & {top - 1}u;",
        f"const {real} small = {count} * {_power(1 - form.bias - form.mantissa)};",
        f"const {word} normal = (size << {cut}) + {127 - form.bias << 23}u;",
        f"{word} b = size < {1 << form.mantissa}u ? as_{word}(small) : normal;",
    ]
    if form.infinity:
        lines.append(f"b = size == {form.infinity}u ? ({word})(0x7F800000u) : b;")
        lines.append(f"b = size > {form.infinity}u ? ({word})(0x7FC00000u) : b;")
    elif form.unsigned_zero:
        lines.append(f"b = c == {form.nan}u ? ({word})(0x7FC00000u) : b;")
    elif form.bits == 8:
        lines.append(f"b = size == {form.nan}u ? ({word})(0x7FC00000u) : b;")
    return [*lines, f"return as_{real}(b | ((c & {top}u) << {32 - form.bits}));"]


def _exponents(how: str, rounding: str, real: str, word: str) -> list[str]:
    """The exponent field of a number without its sign; 255 is NaN, which infinity becomes."""
    if how == "decode":
        return [
            f"{word} b = c == 0u ? ({word})(0x00400000u) : (c << 23);",
            f"b = c == 255u ? ({word})(0x7FC00000u) : b;",
            f"return as_{real}(b);",
        ]
    more = {
        "down": f"({word})(0u)",
        "up": f"(rest > 0u ? ({word})(1u) : ({word})(0u))",
        # Half goes up unless the exponent field is 0.
        "nearest": f"((rest > 0x400000u) | ((rest == 0x400000u) & (code > 0u))"
        f" ? ({word})(1u) : ({word})(0u))",
    }[rounding]
    lines = [
        f"const {word} code = (as_{word}(v) >> 23) & 0xFFu;",
        f"const {word} rest = as_{word}(v) & 0x7FFFFFu;",
        f"{word} next = code + {more};",
    ]
    if how == "encode":
        lines.append("next = next > 254u ? code : next;")
    return [*lines, f"return code == 255u ? ({word})(255u) : next;"]


def _power(exponent: int) -> str:
    """2 to a power, as float32."""
    return f"{float.hex(2.0**exponent)}f"
