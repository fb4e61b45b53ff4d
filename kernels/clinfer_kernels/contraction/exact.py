"""Results that are not finite, or nearly so, made again by multiply-adds of single elements.

A matrix unit whose operands are sums of terms makes NaN of an infinite operand (inf - inf is one of
its terms), and its sums may stop at the largest number, being rounded towards zero. Whatever such
an operand takes part in is not finite, by the unit and by float32: so nothing but the results needs
a look, and the loop over K no test.
"""

from __future__ import annotations

from collections.abc import Sequence

from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.units import LANES, Shape
from clinfer_kernels.contraction.walks import Walk

_LARGE = "0x7E000000u"  # the exponent from 2^125 on


def again(tile: Shape, unit: MatrixUnit, a: Walk, b: Walk) -> list[str]:
    """Statements before the results are finished: those of `acc`, rows by columns of float32, that
    are NaN, infinite or from 2^125 on become what multiply-adds give. `a` and `b` are the walks."""
    vectors = tile.cols // LANES
    lines = ["uint wrong = 0;"]
    for n in range(tile.rows * vectors):
        columns = (n % vectors * LANES + lane for lane in range(LANES))
        each = (f"acc{unit.sum_at(n // vectors, column)}" for column in columns)
        tests = (f"(as_uint({x}) & {_LARGE}) == {_LARGE}" for x in each)
        lines.append(f"if ({' | '.join(f'({t})' for t in tests)}) wrong |= {hex(1 << n)}u;")
    return [
        *lines,
        "if (wrong) {",
        "    #pragma unroll 1",
        "    for (int e = 0; e < ROWS * COLS; ++e) {",
        f"        const int r = e / COLS, q = e % COLS / {LANES};",
        f"        if (!(wrong >> r * {vectors} + q & 1u)) continue;",
        f"        const int i = a0 + {unit.row()};",
        f"        const int j = b0 + {unit.column()} + e % {LANES};",
        "        if (i >= M || j >= N) continue;",
        "        float sum = 0;",
        "        #pragma unroll 1",
        "        for (int k = k_begin; k < k_end; ++k) {",
        *_deeper(_element("a", a.single(), "i"), 12),
        *_deeper(_element("b", b.single(), "j"), 12),
        "            sum += a_value * b_value;",
        "        }",
        *_deeper(_kept(tile, unit), 8),
        "    }",
        "}",
    ]


def _element(name: str, walk: Walk, place: str) -> list[str]:
    """Statements declaring `NAME_value`: the operand's element at a place and at `k`."""
    kept = ", ".join(walk.kept())
    lines, condition, value = walk.load("k", "")
    step = walk.step("k") if walk.along == "k" else []
    made, value = walk.single_value(value, "", "k", name)
    read = [*lines, *made, f"{name}_value = {value};"]
    if condition:
        read = [f"if ({condition}) {{", *(f"    {line}" for line in read), "}"]
    return [
        f"float {name}_value = 0;",
        "{",
        f"    int {kept};",
        *(f"    float {value};" for value in walk.values()),
        *(f"    {line}" for line in ("{", *walk.place(place, ""), *walk.rows([(place, "")]), "}")),
        *(f"    {line}" for line in (*step, *read)),
        "}",
    ]


def _kept(tile: Shape, unit: MatrixUnit) -> list[str]:
    """Statements that make `sum` the result of number `e`."""
    if unit.has_scalars:
        return [
            "#pragma unroll",
            "for (int n = 0; n < ROWS * COLS; ++n) {",
            "    if (n == e) acc[n / COLS][n % COLS] = sum;",
            "}",
        ]
    each = ((r, c) for r in range(tile.rows) for c in range(tile.cols))
    return [f"if (e == {n}) acc{unit.sum_at(r, c)} = sum;" for n, (r, c) in enumerate(each)]


def _deeper(lines: Sequence[str], spaces: int) -> list[str]:
    return [f"{' ' * spaces}{line}" for line in lines]
