"""Loads, stores and conversions between buffers and registers, as small C functions by name.

Expressions for kernel texts (`index` counts elements, `width` lanes along the innermost dimension):

    load("float16", "x", "i", 8)            load_float16x8(x + i)          unit stride
    load("float16", "x", "i", 8, "0")       (float8)(load_float16(x + i))  broadcast
    load("float16", "x", "i", 8, "s")       gather_float16x8(x + i, s)     any stride
    load_part("float32", "x", "i", 8, "n")  load_part_float32x8(x + i, n)  first n lanes, rest 0

and the same for `store`, `scatter`, `store_part`. Values in registers have the dtype's compute type
(see `types`); pointers are global. The functions' texts are made here, for one compiler family.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from clinfer_kernels.spec import Target
from clinfer_kernels.types import (
    TABLE,
    TYPES,
    compute,
    register,
    size_of,
    storage,
    vector,
)

_MEMORY = re.compile(
    r"(load|load_part|load_aligned|gather|store|store_part|store_aligned|scatter|stream)_("
    + "|".join(TYPES)
    + r")(?:x(\d+))?$"
)
_CVT = re.compile(r"cvt_([a-z]+)(\d*)_([a-z]+?)(\d*)$")


def load(
    dtype: str,
    buffer: str,
    index: str,
    width: int = 1,
    stride: str = "1",
    is_aligned: bool = False,
) -> str:
    """An expression for `width` elements, widened; `stride` is '0', '1' or a C expression.

    `is_aligned`: they begin at a multiple of `width` elements.
    """
    if dtype == TABLE:  # every lane's
        return f"{buffer} + {size_of(TABLE)} * ({index})"
    if width > 1 and stride == "1" and is_aligned:
        return f"load_aligned_{dtype}x{width}({_at(buffer, index)})"
    if width > 1 and stride == "1":
        return f"load_{dtype}x{width}({_at(buffer, index)})"
    if width > 1 and stride != "0":
        return f"gather_{dtype}x{width}({_at(buffer, index)}, {stride})"
    one = _load_one(dtype, buffer, index)
    if width == 1:
        return one
    if dtype == "bool":
        one = f"-{one}"
    return f"({register(dtype, width)})({one})"


def load_part(
    dtype: str, buffer: str, index: str, width: int, count: str, stride: str = "1"
) -> str:
    """As `load` for the first `count` (< width) lanes; the rest are 0."""
    if width == 1 or stride == "0":
        return load(dtype, buffer, index, width, stride)
    return f"load_part_{dtype}x{width}({_at(buffer, index)}, {stride}, {count})"


def store(
    dtype: str,
    value: str,
    buffer: str,
    index: str,
    width: int = 1,
    stride: str = "1",
    is_aligned: bool = False,
) -> str:
    """A statement that stores `width` elements; `is_aligned` as in `load`."""
    if width == 1:
        return _store_one(dtype, value, buffer, index)
    if stride == "1" and is_aligned:
        return f"store_aligned_{dtype}x{width}({value}, {_at(buffer, index)});"
    if stride == "1":
        return f"store_{dtype}x{width}({value}, {_at(buffer, index)});"
    return f"scatter_{dtype}x{width}({value}, {_at(buffer, index)}, {stride});"


def store_part(
    dtype: str, value: str, buffer: str, index: str, width: int, count: str, stride: str = "1"
) -> str:
    """A statement that stores the first `count` (< width) lanes."""
    if width == 1:
        return _store_one(dtype, value, buffer, index)
    return f"store_part_{dtype}x{width}({value}, {_at(buffer, index)}, {stride}, {count});"


def convert(value: str, to: str, source: str, width: int) -> str:
    """`value` from C type `source` to C type `to`, lane by lane, as C casts do."""
    if to == source:
        return value
    if width == 1:
        return f"({to}){value}"
    return f"cvt_{to}{width}_{source}{width}({value})"


def parameter(dtype: str, name: str, written: bool = False) -> str:
    """A kernel's buffer parameter."""
    const = "" if written else "const "
    return f"__global {const}{storage(dtype)}* restrict {name}"


def helper(name: str, target: Target) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    clang = "clang vectors" in target.features
    match = _MEMORY.match(name)
    if match:
        return _memory_helper(match[1], match[2], int(match[3] or 1), clang)
    match = _CVT.match(name)
    if match and match[2] == match[4]:
        return _conversion(name, match[1], match[3], match[2], clang)
    return None


def prologue(names: Iterable[str], target: Target) -> list[str]:
    """Type definitions that the functions `names` need."""
    if "clang vectors" not in target.features:
        return []
    found = {
        vector(storage(m[2]), int(m[3])): storage(m[2])
        for m in map(_MEMORY.match, names)
        if m and m[3] and m[1] in _PLAIN and m[2] != "float16"
    }
    return [
        f"typedef {vec} {vec}_unaligned __attribute__((aligned({_ALIGN[one]})));"
        for vec, one in sorted(found.items())
    ]


_PLAIN = ("load", "load_aligned", "store", "store_aligned")
_ALIGN = {entry.storage: entry.size for entry in TYPES.values() if entry.name != TABLE}


def _at(buffer: str, index: str) -> str:
    return buffer if index == "0" else f"{buffer} + {index}"


def _load_one(dtype: str, buffer: str, index: str) -> str:
    if dtype in ("float16", "bfloat16"):
        return f"load_{dtype}({_at(buffer, index)})"
    if dtype == "bool":
        return f"({buffer}[{index}] != 0)"
    return f"{buffer}[{index}]"


def _store_one(dtype: str, value: str, buffer: str, index: str) -> str:
    if dtype in ("float16", "bfloat16"):
        return f"store_{dtype}({value}, {_at(buffer, index)});"
    if dtype == "bool":
        return f"{buffer}[{index}] = (uchar)({value} & 1);"
    return f"{buffer}[{index}] = {value};"


@lru_cache(maxsize=1024)
def _memory_helper(action: str, dtype: str, width: int, clang: bool) -> str:
    reg = register(dtype, width)
    name = f"{action}_{dtype}" + (f"x{width}" if width > 1 else "")
    source = f"const __global {storage(dtype)}* p"
    sink = f"__global {storage(dtype)}* p"
    is_aligned = action.endswith("_aligned")
    if action in ("load", "load_aligned"):
        body = _load_body(dtype, width, clang, is_aligned)
        return f"static {reg} {name}({source}) {{\n    {body}\n}}"
    if action in ("store", "store_aligned"):
        body = _store_body(dtype, width, clang, is_aligned=is_aligned)
        return f"static void {name}({reg} v, {sink}) {{\n    {body}\n}}"
    if action == "stream":
        body = _store_body(dtype, width, clang, streamed=True)
        return f"static void {name}({reg} v, {sink}) {{\n    {body}\n}}"
    if action == "gather":
        lanes = ", ".join(_lane(dtype, "p", _times(j)) for j in range(width))
        return f"static {reg} {name}({source}, int s) {{\n    return ({reg})({lanes});\n}}"
    if action == "scatter":
        lines = [_store_one(dtype, f"v.s{j:x}", "p", _times(j)) for j in range(width)]
        return _function(f"static void {name}({reg} v, {sink}, int s)", lines)
    return _part_helper(action, name, dtype, width)


def _part_helper(action: str, name: str, dtype: str, width: int) -> str:
    """Lanes one by one through an array in private memory."""
    one = compute(dtype)
    reg = register(dtype, width)
    if action == "load_part":
        lanes = ", ".join(f"lanes[{j}]" for j in range(width))
        value = _lane(dtype, "p", "j * s")
        head = f"static {reg} {name}(const __global {storage(dtype)}* p, int s, int n)"
        zero = ", ".join("0" for _ in range(width))
        return _function(
            head,
            [
                f"{one} lanes[{width}] = {{{zero}}};",
                f"for (int j = 0; j < n; ++j) lanes[j] = {value};",
                f"return ({reg})({lanes});",
            ],
        )
    head = f"static void {name}({reg} v, __global {storage(dtype)}* p, int s, int n)"
    fill = ", ".join(f"v.s{j:x}" for j in range(width))
    put = _store_one(dtype, "lanes[j]", "p", "j * s")
    return _function(
        head,
        [f"const {one} lanes[{width}] = {{{fill}}};", f"for (int j = 0; j < n; ++j) {put}"],
    )


def _function(head: str, lines: Iterable[str]) -> str:
    return head + " {\n    " + "\n    ".join(lines) + "\n}"


def _times(lane: int) -> str:
    return "0" if lane == 0 else ("s" if lane == 1 else f"{lane} * s")


def _lane(dtype: str, buffer: str, index: str) -> str:
    """One element as a lane of a vector: true is -1 there."""
    one = _load_one(dtype, buffer, index)
    return f"-{one}" if dtype == "bool" else one


def _load_body(dtype: str, width: int, clang: bool, is_aligned: bool = False) -> str:
    if dtype == "float16" and is_aligned:
        return f"return vloada_half{width}(0, p);"
    if dtype == "float16":
        return "return vload_half(0, p);" if width == 1 else f"return vload_half{width}(0, p);"
    stored = storage(dtype)
    vec = vector(stored, width)
    if width == 1:
        raw = "*p"
    elif clang:
        raw = f"*(const __global {vec}_unaligned*)p"
    elif is_aligned:
        raw = f"*(const __global {vec}*)p"
    else:
        raw = f"vload{width}(0, p)"
    if dtype == "bfloat16":
        wide = convert(raw if width == 1 else f"{raw}", "uint", "ushort", width)
        return f"return as_{register(dtype, width)}({wide} << 16);"
    if dtype == "bool":
        return f"return {convert(raw, 'int', 'uchar', width)} != 0;"
    return f"return {raw};"


def _store_body(
    dtype: str, width: int, clang: bool, streamed: bool = False, is_aligned: bool = False
) -> str:
    if dtype == "float16" and is_aligned:
        return f"vstorea_half{width}_rte(v, 0, p);"
    if dtype == "float16":
        suffix = "" if width == 1 else str(width)
        return f"vstore_half{suffix}_rte(v, 0, p);"
    value = "v"
    lead = ""
    if dtype == "bool":
        value = convert("(v & 1)", "uchar", "int", width)
    if dtype == "bfloat16":
        lead = _round_bfloat16(width)
        value = convert("(r >> 16)", "ushort", "uint", width)
    if width == 1:
        return f"{lead}*p = {value};"
    if streamed:
        vec = vector(storage(dtype), width)
        return f"{lead}__builtin_nontemporal_store({value}, (__global {vec}*)p);"
    if clang:
        return f"{lead}*(__global {vector(storage(dtype), width)}_unaligned*)p = {value};"
    if is_aligned:
        return f"{lead}*(__global {vector(storage(dtype), width)}*)p = {value};"
    return f"{lead}vstore{width}({value}, 0, p);"


def _round_bfloat16(width: int) -> str:
    """Statements giving `r`, whose upper half is `v` rounded to nearest even; NaN stays NaN."""
    bits = vector("uint", width)
    return (
        f"const {bits} b = as_{bits}(v);\n    "
        f"const {bits} even = b + 0x7FFFu + ((b >> 16) & 1u);\n    "
        f"const {bits} r = v != v ? (b | 0x400000u) : even;\n    "
    )


def _conversion(name: str, to: str, source: str, width: str, clang: bool) -> str:
    result = f"{to}{width}"
    operand = f"{source}{width}"
    if not width:
        body = f"({to})v"
    elif clang:
        body = f"__builtin_convertvector(v, {result})"
    else:
        body = f"convert_{result}(v)"
    return f"static {result} {name}({operand} v) {{ return {body}; }}"
