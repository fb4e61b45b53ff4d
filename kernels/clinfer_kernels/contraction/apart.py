"""Instructions on sums that begin at 0 every few k, and are added to the others to nearest.

Why: `instructions.MatrixUnit.terms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clinfer_kernels.contraction.units import Shape

if TYPE_CHECKING:
    from clinfer_kernels.contraction.instructions import MatrixUnit

Turn = tuple[list[list[str]], list[list[str]]]
"""Registers of the fragments of A and of B that one instruction each multiplies, as text."""


def apart(
    unit: MatrixUnit, turns: Sequence[Turn], loads: Sequence[Sequence[str]] = ()
) -> list[str]:
    """The instructions of a strip of rows at a time, whose results are scalars."""
    each = range(unit.rows.each * unit.cols.each)
    lines = []
    for p in range(len(turns[0][0])):
        lines.append("{")
        blocks = range(len(turns[0][1]))
        lines += [f"    float {', '.join(f'd{q}_{i}' for i in each)};" for q in blocks]
        for n, (a, b) in enumerate(turns):
            name = "MULTIPLY" if n else "MULTIPLY_FIRST"
            for q in blocks:
                d = [f"d{q}_{i}" for i in each]
                lines.append(f"    {name}({', '.join([*d, *a[p], *b[q]])});")
        for q in blocks:
            places = zip(each, unit.results_of(p, q), strict=True)
            lines += [f"    {to} += d{q}_{i};" for i, to in places]
        lines.append("}")
    return lines


def apart_vectors(
    unit: MatrixUnit, turns: Sequence[Turn], loads: Sequence[Sequence[str]]
) -> list[str]:
    """The instructions of a block of columns at a time, behind its `loads`, whose results are
    vectors."""
    kind = f"float{unit.rows.each * unit.cols.each}"
    strips, lines = range(len(turns[0][0])), []
    for q in range(len(turns[0][1])):
        inner = [*(loads[q] if loads else ()), *(f"{kind} d{p} = ({kind})(0);" for p in strips)]
        for a, b in turns:
            inner += [f"MULTIPLY({', '.join([f'd{p}', *a[p], *b[q]])});" for p in strips]
        inner += [f"acc[{p}][{q}] += d{p};" for p in strips]
        lines += ["{", *(f"    {line}" for line in inner), "}"]
    return lines


def emulated_apart(unit: MatrixUnit, tile: Shape, made: Sequence[str]) -> list[str]:
    """The statements `made` of an emulation, which add to `apart`, and those that add that."""
    rows, cols, kind = "ROWS", "COLS", "float"
    if not unit.has_scalars:
        rows, cols = map(str, unit.fragments(tile))
        kind = f"float{unit.rows.each * unit.cols.each}"
    add = f"acc[n / {cols}][n % {cols}] += apart[n / {cols}][n % {cols}];"
    return [
        f"{kind} apart[{rows}][{cols}] = {{{{0}}}};",
        *made,
        f"for (int n = 0; n < {rows} * {cols}; ++n) {add}",
    ]
