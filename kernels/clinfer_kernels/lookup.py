"""Functions of one byte as tables of 256 bytes: `lookup_uchar16(x, table)`.

    lanes   permutations of 128 bytes (vpermi2b, AVX512-VBMI), two for the table's halves
    plain   a load for each byte

A table's place is the byte's bits, so that signed bytes take the upper half. `lookup_bytes_64` does
the same for the 64 bytes of an int16.
"""

from __future__ import annotations

import re

from clinfer_kernels.integer_dot import instructions
from clinfer_kernels.spec import Target

_NAME = re.compile(r"lookup_(?:(u?char)(16|8|4|2)?|bytes_64)$")
_TABLE = "typedef const __global uchar* lookup_table;\n"
_PERMUTED = """typedef int16 lookup_part __attribute__((aligned(1), may_alias));
static int16 lookup_bytes_64(const int16 x, lookup_table table) {
    const __global lookup_part* parts = (const __global lookup_part*)table;
    int16 made = x, high = x;
    __asm__("vpermi2b %2, %1, %0" : "+v"(made) : "v"(parts[0]), "v"(parts[1]));
    __asm__("vpermi2b %2, %1, %0" : "+v"(high) : "v"(parts[2]), "v"(parts[3]));
    __asm__("vpmovb2m %1, %%k1\\n\\tvmovdqu8 %2, %0%{%%k1%}"
        : "+v"(made) : "v"(x), "v"(high) : "k1");
    return made;
}"""


def has_permutations(target: Target) -> bool:
    """Whether vectors are looked up at once: by inline assembly, so by PoCL's compiler."""
    wide = target.vector_width >= 16 and target.dialect == "pocl"
    return wide and "avx512vbmi" in instructions(target)


def helper(name: str, target: Target) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    match = _NAME.match(name)
    if match is None:
        return None
    if match[1] is None:
        return _TABLE + _PERMUTED
    byte, lanes = match[1], int(match[2] or 1)
    vec = byte if lanes == 1 else f"{byte}{lanes}"
    head = f"static {vec} {name}(const {vec} x, lookup_table table) {{\n    "
    if lanes == 1:
        return f"{_TABLE}{head}return ({byte})table[(uchar)x];\n}}"
    if lanes == 16 and has_permutations(target):
        lines = [
            "const int4 four = __builtin_astype(x, int4);",
            "const int16 wide = __builtin_shufflevector(four, four, "
            "0, 1, 2, 3, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);",
            f"return __builtin_astype(lookup_bytes_64(wide, table).s0123, {vec});",
        ]
        return head + "\n    ".join(lines) + "\n}"
    places = ", ".join(f"({byte})table[(uchar)x.s{lane:x}]" for lane in range(lanes))
    return f"{_TABLE}{head}return ({vec})({places});\n}}"
