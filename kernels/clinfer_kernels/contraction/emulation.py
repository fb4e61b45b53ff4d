"""A matrix instruction replaced by its definition, so that loads, places and packing run anywhere.

Each lane puts its registers where the layout says into matrices in local memory, one for each
fragment of a wave, and adds to its results the products of their rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clinfer_kernels.contraction.fragments import Side
from clinfer_kernels.contraction.packed import FLUSHED, VALUE
from clinfer_kernels.contraction.units import Shape

if TYPE_CHECKING:
    from clinfer_kernels.contraction.instructions import MatrixUnit

Fragments = Sequence[Sequence[str]]
"""Of each fragment, the registers as text."""


def emulation(unit: MatrixUnit) -> list[str]:
    """The functions: an element of a register, and what an instruction makes of a result c; where
    that is to be exact, rounded towards zero as devices do."""
    each, k = unit.cols.each, unit.k
    wide = "double" if unit.is_exact else unit.type
    text = [FLUSHED] if unit.flushes else []
    text += [f"#define VALUE_{n.upper()}(x, i) ({_value(unit, n)})" for n in "ab"]
    return [
        *text,
        *(["#pragma OPENCL EXTENSION cl_khr_fp64 : enable"] if unit.is_exact else []),
        f"static {unit.type} product_of(const __local {unit.type}* a,",
        f"    const __local {unit.type}* b, int lane, int d, {unit.type} c)",
        "{",
        f"    const int row = {unit.rows.index(f'd / {each}')};",
        f"    const int column = {unit.cols.index(f'd % {each}')};",
        f"    {wide} sum = c;",
        f"    for (int k = 0; k < {k}; ++k) sum += ({wide})a[row * {k} + k] * b[column * {k} + k];",
        f"    return {'convert_float_rtz(sum)' if unit.is_exact else 'sum'};",
        "}",
    ]


def _value(unit: MatrixUnit, name: str) -> str:
    """Element i of register x of an operand; B holds int8 where A has 8 bits."""
    is_signed = unit.operand == "uint8" and (name == "b" or unit.flips)
    text = VALUE["int8" if is_signed else unit.packing.operand]
    return f"flushed({text})" if unit.flushes else text


def matrices(unit: MatrixUnit, tile: Shape) -> list[str]:
    """The declarations of the matrices of all waves."""
    counts = zip("ab", unit.multiplied(tile), (unit.rows, unit.cols), strict=True)
    waves = tile.wg_rows * tile.wg_cols // unit.lanes
    return [
        f"__local {unit.type} {n}_matrix[{count * waves * side.count * unit.k}];"
        for n, count, side in counts
    ]


def emulated(unit: MatrixUnit, tile: Shape, a: Fragments, b: Fragments) -> list[str]:
    """An instruction of all fragments: what `MULTIPLY` is with all pairs of `a` and `b`."""
    waves = tile.wg_rows * tile.wg_cols // unit.lanes
    each, k = unit.rows.each * unit.cols.each, unit.k
    name = "apart" if unit.is_exact else "acc"
    sums = f"(({unit.type}*)&{name}[p][q])[d]"
    if unit.has_scalars:
        row = _number("p", f"d / {unit.cols.each}", unit.rows)
        column = _number("q", f"d % {unit.cols.each}", unit.cols)
        sums = f"{name}[{row}][{column}]"
    operands = [
        f"{n}_matrix + ({f} * {waves} + wave) * {side.count * k}"
        for n, f, side in (("a", "p", unit.rows), ("b", "q", unit.cols))
    ]
    return [
        "barrier(CLK_LOCAL_MEM_FENCE);",
        *_put(unit, "a", a, waves),
        *_put(unit, "b", b, waves),
        "barrier(CLK_LOCAL_MEM_FENCE);",
        f"for (int p = 0; p < {len(a)}; ++p)",
        f"    for (int q = 0; q < {len(b)}; ++q)",
        f"        for (int d = 0; d < {each}; ++d)",
        f"            {sums} = product_of({operands[0]}, {operands[1]}, lane, d, {sums});",
    ]


def _put(unit: MatrixUnit, n: str, fragments: Fragments, waves: int) -> list[str]:
    """Statements that put the lane's registers into the matrices of its wave."""
    layout, side = (unit.a, unit.rows) if n == "a" else (unit.b, unit.cols)
    elements = 4 // unit.packing.size
    v = layout.together if layout.is_across else elements
    lines = []
    for f, registers in enumerate(fragments):
        first = f"({f * waves} + wave) * {side.count * unit.k}"
        lines.append("{")
        lines.append(
            f"    __local {unit.type}* to = {n}_matrix + {first} + {n}_index * {unit.k} + {n}_slot;"
        )
        for (index, slot), register in zip(layout.registers, registers, strict=True):
            put = [
                f"to[{(index + i // v) * unit.k + slot + i % v}] = VALUE_{n.upper()}(x, {i});"
                for i in range(elements)
            ]
            lines.append(f"    {{ const uint x = {register}; {' '.join(put)} }}")
        lines.append("}")
    return lines


def _number(fragment: str, own: str, side: Side) -> str:
    """`Side.number` as text."""
    if side.weave == 1:
        return f"{fragment} * {side.each} + {own}"
    first = f"{fragment} / {side.weave} * {side.weave * side.each}"
    return f"{first} + ({own}) * {side.weave} + {fragment} % {side.weave}"
