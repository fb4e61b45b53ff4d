"""Turns short rows over in registers: `deinterleave_float8_3(t)` and its inverse `interleave_...`.

t[0 .. n) holds n * W elements as they lie in memory, W rows of n elements; afterwards lane l of
t[c] is element c of row l:

    t[0] = a0 a1 a2 b0   t[1] = b1 b2 c0 c1   t[2] = c2 d0 d1 d2
    t[0] = a0 b0 c0 d0   t[1] = a1 b1 c1 d1   t[2] = a2 b2 c2 d2

One stage for each prime factor p of n: p registers in a row give p registers of elements p apart,
each out of p - 1 shuffles of two registers; what has one remainder is then turned over by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NAME = re.compile(r"(de|)interleave_([a-z]+)(4|8|16)_(\d+)$")

Place = tuple[int, int]  # a register of a group, and its lane


def helper(name: str) -> str | None:
    """The text of the function `name`; None where it is not one of these."""
    match = _NAME.match(name)
    if match is None:
        return None
    shuffles = _Shuffles(match[2] + match[3], int(match[3]))
    length = int(match[4])
    lines = [f"{shuffles.ctype} {shuffles.new()} = t[{c}];" for c in range(length)]
    first = [f"r{c}" for c in range(length)]
    turned = _split(first, shuffles) if match[1] else _join(first, shuffles)
    lines += shuffles.lines
    lines += [f"t[{c}] = {register};" for c, register in enumerate(turned)]
    body = "\n    ".join(lines)
    return f"static void {name}({shuffles.ctype}* t) {{\n    {body}\n}}"


class _Shuffles:
    """Statements so far; registers are r0, r1, ..."""

    def __init__(self, ctype: str, width: int) -> None:
        self.ctype = ctype
        self.width = width
        self.lines: list[str] = []
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"r{self._count - 1}"

    def select(self, group: Sequence[str], places: Sequence[Place]) -> str:
        """A register whose lane l is that of `places[l]`; from two registers at a time."""
        into = group[0]
        for number, other in enumerate(group[1:], 1):
            lanes = []
            for lane, (register, source) in enumerate(places):
                if register == number:
                    lanes.append(f"{other}.s{source:x}")
                elif number == 1 and register == 0:
                    lanes.append(f"{into}.s{source:x}")
                else:
                    lanes.append(f"{into}.s{lane:x}")
            into = self.new()
            self.lines.append(f"const {self.ctype} {into} = ({self.ctype})({', '.join(lanes)});")
        return into


def _split(registers: list[str], shuffles: _Shuffles) -> list[str]:
    """Registers in memory order -> those of elements 0, 1, ... of each row."""
    count = len(registers)
    if count == 1:
        return registers
    p = _least_factor(count)
    apart: list[list[str]] = [[] for _ in range(p)]
    for first in range(0, count, p):
        group = registers[first : first + p]
        for q in range(p):
            places = [divmod(lane * p + q, shuffles.width) for lane in range(shuffles.width)]
            apart[q].append(shuffles.select(group, places))
    turned = [_split(part, shuffles) for part in apart]
    return [turned[c % p][c // p] for c in range(count)]


def _join(registers: list[str], shuffles: _Shuffles) -> list[str]:
    """The inverse of `_split`."""
    count = len(registers)
    if count == 1:
        return registers
    p = _least_factor(count)
    apart = [_join(registers[q::p], shuffles) for q in range(p)]
    joined = []
    for group in zip(*apart, strict=True):
        for number in range(p):
            first = number * shuffles.width
            elements = [divmod(first + lane, p) for lane in range(shuffles.width)]
            joined.append(shuffles.select(group, [(q, lane) for lane, q in elements]))
    return joined


def _least_factor(number: int) -> int:
    return next(p for p in range(2, number + 1) if number % p == 0)
