"""What kernels tell of the memory they will touch, where the compiler has the means (`has_hints`).

    stream("float32", "v", "y", "i", 8)     stream_float32x8(v, y + i)     past the caches
    will_read("x", "i")                     will_read_line(x + i)          fetches a cache line
    will_read_later("x", "i")               will_read_later_line(x + i)    into the second cache
    will_write("y", "i")                    will_write_line(y + i)         fetches it to be written

A result of LARGE bytes or more is streamed: it would not stay in the caches, and a line that is
written as a whole need not be read before ('read for ownership'): a quarter more bandwidth. Smaller
results are better off in a cache: somebody reads them next.
"""

from __future__ import annotations

import re

from clinfer_kernels.spec import Target
from clinfer_kernels.types import TYPES

LARGE = 16 << 20
"""Bytes: with operands of that size, more than the last cache that a few cores have."""

_LINE = re.compile(r"will_(read|read_later|write)_line$")
_HOW = {"read": "0, 3", "read_later": "0, 2", "write": "1, 3"}


def has_hints(target: Target) -> bool:
    """Whether texts for that target may have hints."""
    return target.cls == "cpu" and "clang hints" in target.features


def stream(dtype: str, value: str, buffer: str, index: str, width: int) -> str:
    """A statement that stores `width` elements past the caches; see `is_large`, `is_aligned`."""
    return f"stream_{dtype}x{width}({value}, {_at(buffer, index)});"


def is_large(dtype: str, elements: str) -> str:
    """A C condition: a result of so many elements is to be streamed."""
    return f"{elements} >= {LARGE // TYPES[dtype].size}"


def is_aligned(dtype: str, buffer: str, index: str, width: int) -> str:
    """A C condition: vectors from `index` on lie at multiples of their size, as `stream` needs."""
    return f"((ulong)({_at(buffer, index)}) & {width * TYPES[dtype].size - 1}) == 0"


def fence(condition: str) -> str:
    """A statement after which others see what was streamed, if anything was."""
    return f"if ({condition}) __atomic_thread_fence(__ATOMIC_SEQ_CST);"


def will_read(buffer: str, index: str) -> str:
    """A statement that asks for the cache line of an element."""
    return f"will_read_line({_at(buffer, index)});"


def will_read_later(buffer: str, index: str) -> str:
    """A statement that asks for the cache line of an element, and not for the nearest cache."""
    return f"will_read_later_line({_at(buffer, index)});"


def will_write(buffer: str, index: str) -> str:
    """A statement that asks for the cache line of an element, to write it."""
    return f"will_write_line({_at(buffer, index)});"


def helper(name: str) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    match = _LINE.match(name)
    if match is None:
        return None
    body = f"__builtin_prefetch((const void*)(ulong)p, {_HOW[match[1]]});"
    return f"static void {name}(const __global void* p) {{ {body} }}"


def _at(buffer: str, index: str) -> str:
    return buffer if index == "0" else f"{buffer} + {index}"
