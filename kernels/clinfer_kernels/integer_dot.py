"""Sums of four products of 8-bit integers: `dot4_LANES(sums, x, y)`, by an instruction if there is.

Lane l of a vector of int32 holds four neighbouring bytes; y's are signed, x's are unsigned and the
same in every lane (`dots4_LANES(sums, x, y)` has a vector of them, each lane its own):

    sums[l] + x.byte0 * y[l].byte0 + ... + x.byte3 * y[l].byte3       exact, modulo 2^32

    vnni512   vpdpbusd on registers of 512 bits (AVX512-VNNI), by inline assembly
    vnni256   the same on 256 bits (AVX-VNNI)
    words     vpmaddwd on even and on odd bytes, widened to 16 bits: nothing saturates
    plain     OpenCL C, for any compiler

Bytes that are signed are given as x ^ 0x80, which adds 128 to each; 128 times the sum of y's bytes
is taken off again where sums begin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clinfer_kernels.spec import Target

_NAME = re.compile(r"(dots?4|bytes4|bytes8|bytes64)_(?:(\d+)|(all|some|copy))$|(ask_for)$")


@dataclass(frozen=True)
class Unit:
    """A way to compute: `lanes` of a vector, and the registers there are for such vectors."""

    name: str
    lanes: int
    registers: int


_VNNI512 = Unit("vnni512", 16, 32)
_VNNI256 = Unit("vnni256", 8, 16)
_WORDS512 = Unit("words", 16, 32)
_WORDS256 = Unit("words", 8, 16)
# Inline assembly by lanes; "v" are all registers of AVX-512, "x" the first sixteen.
_VNNI = {
    16: '__asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(same), "v"(y));',
    8: '__asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(same), "x"(y));',
}
_MADD = '__asm__("vpmaddwd %2, %1, %0" : "={c}"({out}) : "{c}"({x}), "{c}"({y}));'


def instructions(target: Target) -> frozenset[str]:
    """What the processor is known to have beyond its level; compilers may know less."""
    return frozenset(target.architecture.rpartition("/")[2].split("+"))


def unit(target: Target) -> Unit:
    """The fastest way on a CPU. Inline assembly is for PoCL's compiler: Intel's refuses it."""
    wide = target.vector_width >= 16
    if target.dialect == "pocl":
        known = instructions(target)
        if wide and "avx512_vnni" in known:
            return _VNNI512
        if "avx_vnni" in known:
            return _VNNI256
        if known & {"x86-64-v4", "x86-64-v3"}:
            return _WORDS512 if wide and "x86-64-v4" in known else _WORDS256
    return Unit("plain", 16, 32) if wide else Unit("plain", 8, 16)


def has_matrix_registers(target: Target) -> bool:
    """Whether products may use Intel's AMX: `clinfer.device` has asked the system for it."""
    known = instructions(target)
    return target.dialect == "pocl" and target.vector_width >= 16 and "amx_int8" in known


def helper(name: str, target: Target) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    match = _NAME.match(name)
    if match is None:
        return None
    if match[4]:
        return _ASK if target.dialect == "pocl" and _is_x86(target) else _ASK_NOBODY
    if match[1] in _COPIES:
        vec, size = _COPIES[match[1]]
        return _COPY.format(name=name, vec=vec, size=size)
    if match[1] == "bytes4":
        return _bytes(match[3] == "all", target)
    return _dot(name, int(match[2]), target)


def _dot(name: str, lanes: int, target: Target) -> str:
    vec = f"int{lanes}"
    kind = unit(target).name if unit(target).lanes == lanes else "plain"
    lines = {
        "vnni512": [f"const {vec} same = x;", _VNNI[16]],
        "vnni256": [f"const {vec} same = x;", _VNNI[8]],
        "words": _words(vec, lanes),
        "plain": [
            "sums += (x & 0xff) * ((y << 24) >> 24);",
            "sums += (x >> 8 & 0xff) * ((y << 16) >> 24);",
            "sums += (x >> 16 & 0xff) * ((y << 8) >> 24);",
            "sums += (x >> 24 & 0xff) * (y >> 24);",
        ],
    }[kind]
    body = "\n    ".join([*lines, "return sums;"])
    first = vec if name.startswith("dots4") else "int"
    return f"static {vec} {name}({vec} sums, const {first} x, const {vec} y) {{\n    {body}\n}}"


def _words(vec: str, lanes: int) -> list[str]:
    sign = "v" if lanes == 16 else "x"
    return [
        f"const {vec} even = x & 0x00ff00ff;",
        f"const {vec} odd = x >> 8 & 0x00ff00ff;",
        f"{vec} low, high, y_even, y_odd;",
        f'__asm__("vpsllw $8, %1, %0" : "={sign}"(low) : "{sign}"(y));',
        f'__asm__("vpsraw $8, %1, %0" : "={sign}"(y_even) : "{sign}"(low));',
        f'__asm__("vpsraw $8, %1, %0" : "={sign}"(y_odd) : "{sign}"(y));',
        _MADD.format(c=sign, out="low", x="even", y="y_even"),
        _MADD.format(c=sign, out="high", x="odd", y="y_odd"),
        "sums += low + high;",
    ]


def _bytes(every: bool, target: Target) -> str:
    """Four bytes in memory, or the first n of them, as an int."""
    if not every:
        return (
            "static int bytes4_some(const __global uchar* p, const int n) {\n"
            "    int made = 0;\n"
            "    for (int j = 0; j < n; ++j) made |= (int)p[j] << 8 * j;\n"
            "    return made;\n}"
        )
    if target.dialect != "pocl":
        return (
            "static int bytes4_all(const __global uchar* p) {\n    return as_int(vload4(0, p));\n}"
        )
    return (
        "typedef int int_anywhere __attribute__((aligned(1), may_alias));\n"
        "static int bytes4_all(const __global uchar* p) {\n"
        "    return *(const __global int_anywhere*)p;\n}"
    )


# What is read once comes page by page, and processors look ahead no further: memory that is asked
# for in time is there when it is read. Beyond the end of a buffer nothing is asked for.
_ASK = """static void ask_for(const __global char* p) {
    __asm__ volatile("prefetcht0 %0" : : "m"(*p));
}"""
_ASK_NOBODY = "static void ask_for(const __global char* p) {}"


def _is_x86(target: Target) -> bool:
    return bool(instructions(target) & {"x86-64-v4", "x86-64-v3", "x86-64-v2"})


_COPIES = {"bytes8": ("long", 8), "bytes64": ("int16", 64)}
_COPY = """typedef {vec} bytes{size}_anywhere __attribute__((aligned(1), may_alias));
static void {name}(const __global char* p, __local char* q) {{
    *(__local bytes{size}_anywhere*)q = *(const __global bytes{size}_anywhere*)p;
}}"""
