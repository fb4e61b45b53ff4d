"""Transposes a square of registers: `transpose_float8(t)` turns rows t[0..7] into columns.

Recursive block transposition in log2(W) stages. In the stage of distance h, rows r and r + h
(r & h == 0) exchange lanes; each result takes its lanes from two registers:

    row r      lane l:  a[l]      where l & h == 0, else b[l - h]
    row r + h  lane l:  a[l + h]  where l & h == 0, else b[l]
"""

from __future__ import annotations

import re

_NAME = re.compile(r"transpose_([a-z]+)(4|8|16)$")


def helper(name: str) -> str | None:
    """The text of the function `name`; None where it is not one of these."""
    match = _NAME.match(name)
    if match is None:
        return None
    width = int(match[2])
    ctype = match[1] + match[2]
    lines = [f"{ctype} {_row(r, 0)} = t[{r}];" for r in range(width)]
    stage = 0
    distance = 1
    while distance < width:
        for row in range(width):
            lanes = ", ".join(_source(row, lane, distance, stage) for lane in range(width))
            lines.append(f"const {ctype} {_row(row, stage + 1)} = ({ctype})({lanes});")
        stage += 1
        distance *= 2
    lines += [f"t[{r}] = {_row(r, stage)};" for r in range(width)]
    body = "\n    ".join(lines)
    return f"static void {name}({ctype}* t) {{\n    {body}\n}}"


def _row(row: int, stage: int) -> str:
    return f"r{stage}_{row}"


def _source(row: int, lane: int, distance: int, stage: int) -> str:
    first = row & ~distance
    upper = bool(lane & distance)
    taken = lane
    if row & distance and not upper:
        taken = lane + distance
    elif not row & distance and upper:
        taken = lane - distance
    source = first + distance if upper else first
    return f"{_row(source, stage)}.s{taken:x}"
