"""The first lanes of a vector in one instruction, on CPUs with AVX-512 through PoCL.

`load_part_float32x16(p, s, n)` and its like (`memory`), whose lanes are else read one by one: with
neighbours (s = 1) a mask of the first n lanes takes their place. Lanes that are left out are
neither read nor written; n may be any number, below 0 and above 16 too.
"""

from __future__ import annotations

import re

from clinfer_kernels.integer_dot import instructions
from clinfer_kernels.memory import helper as plain
from clinfer_kernels.spec import Target
from clinfer_kernels.types import register, storage

_NAME = re.compile(r"(load|store)_part_(float32|int32|u?int8)x16$")
_MOVES = {4: "vmovdqu32", 1: "vmovdqu8"}
_SIZES = {"float32": 4, "int32": 4, "uint8": 1, "int8": 1}


def helper(name: str, target: Target) -> str | None:
    """The text of the function `name`; None where this module has none for the target."""
    match = _NAME.match(name)
    if match is None or target.dialect != "pocl" or "x86-64-v4" not in instructions(target):
        return None
    rest = plain(name, target)
    assert rest is not None
    action, dtype = match[1], match[2]
    move = _MOVES[_SIZES[dtype]]
    lines = _load(dtype, move) if action == "load" else _store(move)
    head, _, body = rest.partition("{\n")
    inside = "\n".join(f"        {line}" for line in lines)
    mask = "const int mask = (1 << clamp(n, 0, 16)) - 1;"
    masked = f"    if (s == 1) {{\n        {mask}\n{inside}\n    }}\n"
    return f"{head}{{\n{masked}{body}"


def _load(dtype: str, move: str) -> list[str]:
    return [
        f"{register(dtype, 16)} first;",
        f'__asm__("kmovd %2, %%k1\\n\\t{move} %1, %0%{{%%k1%}}%{{z%}}"',
        f'    : "=v"(first) : "m"(*(const __global {storage(dtype)} (*)[16])p), "r"(mask) : "k1");',
        "return first;",
    ]


def _store(move: str) -> list[str]:
    return [
        f'__asm__ volatile("kmovd %2, %%k1\\n\\t{move} %1, %0%{{%%k1%}}"',
        '    : "=m"(*p) : "v"(v), "r"(mask) : "k1", "memory");',
        "return;",
    ]
