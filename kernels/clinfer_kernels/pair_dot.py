"""Sums of two products of bfloat16: `dot2_LANES(sums, x, y)`, by an instruction where there is one.

Lane l of a vector of int32 holds two neighbouring numbers, the first in its low half; x's are the
same in every lane. Sums are float32:

    sums[l] + x.first * y[l].first + x.second * y[l].second

    bf16512   vdpbf16ps on registers of 512 bits (AVX512-BF16), by inline assembly: it takes
              subnormal numbers for zero, so that it is to be asked for
    plain     OpenCL C, for any compiler: products are exact in float32
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clinfer_kernels.integer_dot import instructions
from clinfer_kernels.spec import Target

_NAME = re.compile(r"dot2_(\d+)$")
_LANES = 16


STORED = "bfloat16"


def has_pairs(target: Target) -> bool:
    """Whether the processor multiplies pairs, and the compiler takes the instruction."""
    is_wide = target.cls == "cpu" and target.vector_width >= _LANES
    return is_wide and target.dialect == "pocl" and "avx512_bf16" in instructions(target)


def is_asked(target: Target) -> bool:
    """Whether float32 may be rounded to pairs, and is faster so."""
    return target.precision == "bf16" and has_pairs(target)


def are_pairs(stored: Sequence[str], target: Target) -> bool:
    """Whether operands of those dtypes are multiplied in pairs: as they are, or rounded."""
    kept = set(stored)
    return kept == {STORED} or (is_asked(target) and kept <= {"float32", STORED})


def sums_of(target: Target) -> tuple[int, int]:
    """Lanes of a vector, and how many vectors of sums the registers hold beside all else."""
    return (16, 24) if target.vector_width >= 16 else (8, 12)


def helper(name: str, target: Target) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    match = _NAME.match(name)
    if match is None:
        return None
    lanes = int(match[1])
    if lanes == _LANES and is_asked(target):
        lines = [
            "const int16 same = x;",
            '__asm__("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(same), "v"(y));',
        ]
    else:
        lines = [
            f"sums += as_float(x << 16) * as_float{lanes}(y << 16);",
            f"sums += as_float(x & (int)0xffff0000) * as_float{lanes}(y & (int)0xffff0000);",
        ]
    body = "\n    ".join([*lines, "return sums;"])
    vec = f"float{lanes}"
    return f"static {vec} {name}({vec} sums, const int x, const int{lanes} y) {{\n    {body}\n}}"
