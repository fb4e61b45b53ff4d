"""Completes a kernel's text: puts in front of it the helper functions it calls, and only those.

    with_helpers("... store_float32x8(exp_float8(load_float32x8(x + i)), y + i); ...", target)

A helper's name says what it is: mathematical functions are sections of `common.cl` (`exp_float8`),
loads, stores and conversions come from `memory.py` (`load_float16x8`, `cvt_int8_float8`). The text
differs between compiler families where their built-in functions do; the names do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from string import Template

from clinfer_kernels import (
    byte_end,
    casts,
    hints,
    integer_dot,
    interleave,
    lookup,
    masked,
    memory,
    narrow,
    pair_dot,
    positions,
    transpose,
    types,
)
from clinfer_kernels.guard import check_name, check_text
from clinfer_kernels.spec import Target

# What is added to kernels whose work-groups have one work-item, by compiler family. Intel's CPU
# compiler else makes code for 16 work-items side by side (its build log says so), and such kernels
# are slower by up to a third.
_ALONE = {"intel_cpu": " __attribute__((intel_vec_len_hint(1)))"}
_ONE_ITEM = "__attribute__((reqd_work_group_size(1, 1, 1)))"
_CALL = re.compile(r"\b([a-z]\w*_\w+)\(")
_VECTOR = re.compile(r"(u?(?:char|short|int|long)|float|double)(8|4|16|2)?$")
_SECTION = re.compile(r"^//// ([\w|]+)(?: (scalar|vector))?\n", re.M)


def with_helpers(body: str, target: Target) -> str:
    """The text of a program: the helpers `body` calls, each before its first use, and `body`.

    A kernel for groups of one work-item is marked as such for the compilers that ask for it.
    """
    texts: dict[str, str] = {}
    body = body.replace(_ONE_ITEM, _ONE_ITEM + _ALONE.get(target.dialect, ""))
    _collect(body, target, texts)
    parts = [_pragmas(body), *memory.prologue(texts, target), *texts.values(), body.strip("\n")]
    return check_text("\n".join(part for part in parts if part) + "\n")


def kernel_head(name: str, local_size: Iterable[int] = (1, 1, 1)) -> str:
    """'__kernel __attribute__((...)) void name(': what every entry point begins with."""
    x, y, z = (*local_size, 1, 1, 1)[:3]
    return (
        f"__kernel __attribute__((reqd_work_group_size({x}, {y}, {z})))\nvoid {check_name(name)}("
    )


def _collect(text: str, target: Target, texts: dict[str, str], within: str = "") -> None:
    for name in dict.fromkeys(_CALL.findall(text)):
        if name in texts or name == within:
            continue
        helper = _helper(name, target)
        if helper is not None:
            _collect(helper, target, texts, name)
            texts[name] = helper


def _helper(name: str, target: Target) -> str | None:
    return (
        masked.helper(name, target)
        or memory.helper(name, target)
        or casts.helper(name)
        or narrow.helper(name)
        or hints.helper(name)
        or transpose.helper(name)
        or interleave.helper(name)
        or positions.helper(name)
        or integer_dot.helper(name, target)
        or pair_dot.helper(name, target)
        or lookup.helper(name, target)
        or byte_end.helper(name, target)
        or _math_helper(name)
    )


@lru_cache(maxsize=1024)
def _math_helper(name: str) -> str | None:
    base, _, ctype = name.rpartition("_")
    match = _VECTOR.match(ctype)
    sections = _sections()
    if match is None:
        return None
    scalar, width = match[1], int(match[2] or 1)
    text = sections.get((base, "scalar" if width == 1 else "vector")) or sections.get((base, ""))
    if text is None:
        return None
    mask = types.mask_type(scalar)
    return Template(text).substitute(
        F=base,
        T=ctype,
        E=scalar,
        M=types.vector(mask, width),
        U=types.vector(f"u{mask}", width),
    )


@lru_cache(maxsize=1)
def _sections() -> dict[tuple[str, str], str]:
    text = Path(__file__).with_name("common.cl").read_text(encoding="utf-8")
    parts = _SECTION.split(text)
    triples = zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    return {
        (name, width or ""): body.strip("\n")
        for names, width, body in triples
        for name in names.split("|")
    }


def _pragmas(body: str) -> str:
    if "double" in body:
        return "#pragma OPENCL EXTENSION cl_khr_fp64 : enable"
    return ""
