"""Element types in OpenCL C: how they are stored, what they are computed in, how they are written.

    name       storage  compute            name       storage  compute
    float32    float    float              int8       char     char
    float64    double   double             ...
    float16    half     float              uint64     ulong    ulong
    bfloat16   ushort   float              bool       uchar    int (a comparison's result)

float16 and bfloat16 are storage formats: they are widened when loaded and rounded to nearest even
when stored, so no extension is needed and a fused chain rounds once, at its end, and where the
model casts to them.

A bool in registers is what an OpenCL comparison yields: 0 / 1 as a scalar `int`, 0 / -1 in each
lane of an `intN`. `x & 1` gives 0 / 1 in both forms; in memory it is a byte 0 / 1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from clinfer_kernels.dims import Dim
from clinfer_kernels.spec import Target


@dataclass(frozen=True)
class ElementType:
    """`kind`: 'f' float, 'i' signed, 'u' unsigned, 'b' bool, 't' a table. `size`: its bytes."""

    name: str
    storage: str
    compute: str
    size: int
    kind: str


_TABLE = (
    ElementType("float32", "float", "float", 4, "f"),
    ElementType("float64", "double", "double", 8, "f"),
    ElementType("float16", "half", "float", 2, "f"),
    ElementType("bfloat16", "ushort", "float", 2, "f"),
    ElementType("int8", "char", "char", 1, "i"),
    ElementType("int16", "short", "short", 2, "i"),
    ElementType("int32", "int", "int", 4, "i"),
    ElementType("int64", "long", "long", 8, "i"),
    ElementType("uint8", "uchar", "uchar", 1, "u"),
    ElementType("uint16", "ushort", "ushort", 2, "u"),
    ElementType("uint32", "uint", "uint", 4, "u"),
    ElementType("uint64", "ulong", "ulong", 8, "u"),
    ElementType("bool", "uchar", "int", 1, "b"),
    # Codes, which only casts read and make (`clinfer_kernels.narrow`).
    ElementType("float8_e4m3fn", "uchar", "uchar", 1, "u"),
    ElementType("float8_e4m3fnuz", "uchar", "uchar", 1, "u"),
    ElementType("float8_e5m2", "uchar", "uchar", 1, "u"),
    ElementType("float8_e5m2fnuz", "uchar", "uchar", 1, "u"),
    ElementType("float8_e8m0fnu", "uchar", "uchar", 1, "u"),
    ElementType("float4_e2m1fn", "uchar", "uchar", 1, "u"),
    ElementType("int4", "char", "char", 1, "i"),
    ElementType("uint4", "uchar", "uchar", 1, "u"),
    ElementType("int2", "char", "char", 1, "i"),
    ElementType("uint2", "uchar", "uchar", 1, "u"),
    # 256 bytes that one `lookup` reads; in registers it is where they lie.
    ElementType("void2048", "uchar", "lookup_table", 256, "t"),
)

TABLE = "void2048"
"""The dtype of a table: NumPy's name of 256 bytes."""

TYPES = {entry.name: entry for entry in _TABLE}

# Bytes of the C types that values are computed in.
_C_SIZES = {
    "char": 1,
    "uchar": 1,
    "short": 2,
    "ushort": 2,
    "int": 4,
    "uint": 4,
    "float": 4,
    "long": 8,
    "ulong": 8,
    "double": 8,
    "lookup_table": 1,
}
_FLOAT32_OVERFLOW = 2.0**128 - 2.0**103  # from here on the nearest float32 is infinity
_MASKS = {1: "char", 2: "short", 4: "int", 8: "long"}
_SUFFIXES = {"uint": "u", "ulong": "ul", "long": "l"}


def element(dtype: str) -> ElementType:
    """The entry of a dtype; `KeyError` for one that kernels do not know."""
    return TYPES[dtype]


def storage(dtype: str) -> str:
    """The C type of an element in a buffer: 'half' for float16."""
    return TYPES[dtype].storage


def compute(dtype: str) -> str:
    """The C type of an element in registers: 'float' for float16."""
    return TYPES[dtype].compute


def size_of(dtype: str) -> int:
    """Bytes of an element in a buffer."""
    return TYPES[dtype].size


def kind(dtype: str) -> str:
    """'f', 'i', 'u', 'b', or 't' for a table."""
    return TYPES[dtype].kind


def bits_type(dtype: str) -> str:
    """The unsigned dtype of the same size: what copies move, so that they share programs."""
    return f"uint{TYPES[dtype].size * 8}"


def accumulator(dtype: str) -> str:
    """The dtype that sums are kept in: float32 for the narrow floats."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def is_float(dtype: str) -> bool:
    """Whether the dtype is a floating-point type."""
    return TYPES[dtype].kind == "f"


def vector(ctype: str, width: int) -> str:
    """The C type of `width` lanes: 'float8', and 'float' for one."""
    return ctype if width == 1 else f"{ctype}{width}"


def register(dtype: str, width: int = 1) -> str:
    """The C type of `width` values of a dtype in registers."""
    if dtype == TABLE:
        return TYPES[dtype].compute
    return vector(TYPES[dtype].compute, width)


def mask_type(ctype: str) -> str:
    """The element type of what comparing vectors of `ctype` yields: 'long' for 'double'."""
    return _MASKS[_C_SIZES[ctype]]


def compute_size(dtype: str) -> int:
    """Bytes of a value in registers."""
    return _C_SIZES[TYPES[dtype].compute]


def literal(value: float | int | bool, dtype: str) -> str:
    """A C constant of the dtype's compute type, exact; widens to vectors by itself."""
    entry = TYPES[dtype]
    if entry.kind == "f":
        return _float_literal(float(value), entry.compute)
    if entry.kind == "b":
        return "1" if value else "0"
    number = int(value)
    if entry.size < 4:
        return f"({entry.compute})({number})" if number < 0 else f"({entry.compute}){number}"
    bits = entry.size * 8
    if entry.kind == "i" and number == -(2 ** (bits - 1)):
        return f"({number + 1}{_SUFFIXES.get(entry.compute, '')} - 1)"
    text = f"{number}{_SUFFIXES.get(entry.compute, '')}"
    return f"({text})" if number < 0 else text


def rounded(value: float, dtype: str) -> float:
    """The number of a float dtype nearest to `value`, ties to even."""
    if dtype == "float64" or value != value:
        return value
    with np.errstate(over="ignore"):
        if dtype == "float16":
            return float(np.float16(value))
        single = np.float32(value)
    if dtype == "bfloat16" and np.isfinite(single):
        bits = int(single.view(np.uint32))
        even = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        return float(np.uint32(even).view(np.float32))
    return float(single)


def _float_literal(value: float, ctype: str) -> str:
    if math.isnan(value):
        return "NAN" if ctype == "float" else "((double)NAN)"
    if math.isinf(value) or (ctype == "float" and abs(value) >= _FLOAT32_OVERFLOW):
        name = "INFINITY" if ctype == "float" else "((double)INFINITY)"
        return name if value > 0 else f"(-{name})"
    if ctype == "float":
        text = f"{_shortest_float32(value)}f"
    else:
        text = repr(value)
    return f"({text})" if text.startswith("-") else text


def _shortest_float32(value: float) -> str:
    """The shortest decimal that reads back as the float32 nearest to `value`."""
    (single,) = struct.unpack("f", struct.pack("f", value))
    for digits in range(6, 10):
        text = f"{single:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == single:
            break
    return text if any(c in text for c in ".en") else f"{text}.0"


def lowest(dtype: str) -> float | int:
    """The identity of max: -inf for floats, the least integer otherwise."""
    entry = TYPES[dtype]
    if entry.kind == "f":
        return -math.inf
    return -(1 << (entry.size * 8 - 1)) if entry.kind == "i" else 0


def highest(dtype: str) -> float | int:
    """The identity of min: +inf for floats, the greatest integer otherwise."""
    entry = TYPES[dtype]
    if entry.kind == "f":
        return math.inf
    if entry.kind == "b":
        return 1
    return (1 << (entry.size * 8 - (entry.kind == "i"))) - 1


def lanes(target: Target, dtypes: Iterable[str]) -> int:
    """How many lanes a kernel's vectors have: as many as fit registers with the widest dtype.

    1 on class "gpu", where work-items are the lanes.
    """
    if target.cls == "gpu":
        return 1
    wide = target.vector_width >= 16
    widest = max((compute_size(d) for d in dtypes), default=4)
    return (16 if wide else 8) // (2 if widest == 8 else 1)


def filled_vectors(count: Dim, lanes: int) -> int:
    """Vectors of a register tile: two, unless known columns leave too much of the last empty."""
    if not isinstance(count, int):
        return 2
    if count <= lanes:
        return 1
    two, three = (-(-count // (n * lanes)) * n for n in (2, 3))
    return 3 if two >= 1.2 * three else 2
