"""Inner products as data: how a work-group's items share a tile and add a step of its results.

A unit owns what `local_tile.cl` leaves open: which rows and columns of a tile a work-item has, how
its sums are declared, the text of a step, and how operands lie in local memory. Results come in
vectors of LANES neighbouring columns, whatever the unit, so that ends and stores are the same.

    fma         `rows` x `cols` results of a work-item by multiply-adds of vectors
    fma_pairs   the same, lane by lane, for RDNA 3
    others      matrix instructions: `matrix_units`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from clinfer_kernels.contraction.summands import Plane

LANES = 4
"""Elements of the vectors that tiles are read and written in: 16 bytes of float32."""


class Shape(Protocol):
    """What units need of a `tiles.LocalTile`."""

    @property
    def rows(self) -> int: ...

    @property
    def cols(self) -> int: ...

    @property
    def wg_rows(self) -> int: ...

    @property
    def wg_cols(self) -> int: ...

    @property
    def k_step(self) -> int: ...


@dataclass(frozen=True)
class Packing:
    """Operands in local memory as [k / v][place][v], in elements of `size` bytes.

    v: 16, 4, 2 or 1, `together` of A and of B. `pack`: the function that makes LANES elements of a
    vector of sums' type; `bits`: the type of what it gives; `element`: that of one. `operand` is
    the dtype they have. `pad`: places between a tile's last and the next k's first. `flips`: A's
    bytes get their highest bit inverted. `planes`: what elements are sums of, one tile each; none
    where a tile holds the elements. `gaps`: of A and of B, as
    `fragments.Layout`. `pair`: the function that makes 32 bits of two neighbours, or ''.
    """

    operand: str
    element: str
    bits: str
    size: int
    pack: str
    together: tuple[int, int] = (LANES, LANES)
    pad: int = LANES
    flips: bool = False
    planes: tuple[Plane, ...] = ()
    gaps: tuple[int, int] = (0, 0)
    pair: str = ""

    def pad_of(self, side: int, places: int) -> int:
        """Places between the last of `places` and the next k's first, of A (`side` 0) or of B."""
        v = self.together[side]
        return self.pad + (places // LANES * self.gaps[side] + v - 1) // v

    @property
    def count(self) -> int:
        """Tiles that hold a tile of the operand."""
        return max(1, len(self.planes))

    @property
    def times(self) -> str:
        """`count` as a factor in text; '' for one."""
        return f"{self.count} * " if self.planes else ""


class Unit(Protocol):
    """One way to multiply. `item` is the number of a work-item; a tile's shape is in macros."""

    @property
    def name(self) -> str: ...

    @property
    def packing(self) -> Packing | None:
        """None: operands are as the sums are, and lie as [k][place]."""
        ...

    @property
    def has_scalars(self) -> bool:
        """Whether the sums are an array that a loop's counters may index."""
        ...

    @property
    def attribute(self) -> str:
        """Of the kernel; '' for none."""
        ...

    @property
    def options(self) -> str:
        """What the compiler is given besides."""
        ...

    @property
    def hide(self) -> str:
        """A statement behind which AMD's compiler knows nothing of a number `@`; '' for none."""
        ...

    def helpers(self) -> list[str]:
        """Functions and macros that go before the kernel."""
        ...

    def places(self, tile: Shape) -> list[str]:
        """Statements that say which places of the tile are the work-item's."""
        ...

    def begin(self, tile: Shape, vec: str) -> list[str]:
        """The declaration of the sums, and their zeros."""
        ...

    def step(self, tile: Shape, vec: str, acc: str) -> list[str]:
        """Statements that add the products of tile number `turn`."""
        ...

    def row(self) -> str:
        """Of the work-item's row `r`, its number in the tile."""
        ...

    def column(self) -> str:
        """Of the work-item's vector `q`, the number of its first column in the tile."""
        ...

    def sums(self, r: str, q: str, vec: str) -> str:
        """Row r, vector q of the sums: names where the unit `has_scalars`, else numbers."""
        ...


@dataclass(frozen=True)
class VectorUnit:
    """Multiply-adds; `multiply(rows, cols, row_block, col_block, vec)` is the text for one k.

    Operands are at `a_step` and `b_step`. Rows and columns of a work-item come in blocks of LANES,
    `row_block` and `col_block` elements apart.
    """

    name: str
    multiply: Callable[[int, int, int, int, str], list[str]]
    packing: Packing | None = None
    has_scalars: bool = True
    attribute: str = ""
    options: str = ""
    hide: str = ""

    def helpers(self) -> list[str]:
        return []

    def places(self, tile: Shape) -> list[str]:
        return ["const int item_col = item % WG_COLS;", "const int item_row = item / WG_COLS;"]

    def begin(self, tile: Shape, vec: str) -> list[str]:
        blocks = range(tile.cols // LANES)
        zeros = [f"acc[{r}][{q}] = ({vec})(0);" for r in range(tile.rows) for q in blocks]
        return [f"{vec} acc[ROWS][COLS / LANES];", *zeros]

    def step(self, tile: Shape, vec: str, acc: str) -> list[str]:
        blocks = (LANES * tile.wg_rows, LANES * tile.wg_cols)
        lines = self.multiply(tile.rows, tile.cols, *blocks, vec)
        return [
            *(
                f"const __local {acc}* {n}_from_tile = {n}_tile"
                f" + turn * (K_STEP * {n.upper()}_PITCH) + {item} * LANES;"
                for n, item in (("a", "item_row"), ("b", "item_col"))
            ),
            "#pragma unroll UNROLL",
            "for (int k = 0; k < K_STEP; ++k) {",
            *(
                f"    const __local {acc}* {n}_step = {n}_from_tile + k * {n.upper()}_PITCH;"
                for n in "ab"
            ),
            *(f"    {line}" for line in lines),
            "}",
        ]

    def row(self) -> str:
        return "LANES * (item_row + r / LANES * WG_ROWS) + r % LANES"

    def column(self) -> str:
        return "LANES * (item_col + q * WG_COLS)"

    def sums(self, r: str, q: str, vec: str) -> str:
        return f"acc[{r}][{q}]"


def _fma(rows: int, cols: int, row_block: int, col_block: int, vec: str) -> list[str]:
    """Multiply-adds of a scalar of A and a vector of B."""
    lines = [_local(f"a{p}", vec, "a_step", p * row_block) for p in range(rows // LANES)]
    lines += [_local(f"b{q}", vec, "b_step", q * col_block) for q in range(cols // LANES)]
    for r in range(rows):
        for q in range(cols // LANES):
            lines.append(f"acc[{r}][{q}] += a{r // LANES}.s{r % LANES} * b{q};")
    return lines


def _fma_pairs(rows: int, cols: int, row_block: int, col_block: int, vec: str) -> list[str]:
    """Multiply-adds one lane at a time, of two rows in turn.

    RDNA 3 has one instruction for two of them where their operands lie in different banks of
    registers ("RDNA3 Instruction Set Architecture", 7.6): neighbours differ in every operand.
    """
    lines = [_local(f"a{p}", vec, "a_step", p * row_block) for p in range(rows // LANES)]
    lines += [_local(f"b{q}", vec, "b_step", q * col_block) for q in range(cols // LANES)]
    for r in range(0, rows, 2):
        for q in range(cols // LANES):
            for lane in range(LANES):
                lines.append(_one(r, q, lane))
                lines.append(_one(r + 1, q, lane ^ 1))
    return lines


def _one(r: int, q: int, lane: int) -> str:
    return f"acc[{r}][{q}].s{lane} += a{r // LANES}.s{r % LANES} * b{q}.s{lane};"


def _local(name: str, vec: str, pointer: str, offset: int) -> str:
    at = f"{pointer} + {offset}" if offset else pointer
    return f"const {vec} {name} = *(const __local {vec}*)({at});"


OPAQUE = '__asm__ volatile ("" : "+v"(@));'
"""Behind this Clang for AMD's GPUs knows nothing of the value of `@`, which is in a register."""

# Clang 15 has 128 registers on gfx11, and schedules as if there were 256 unless it is told of waves
# in flight: 8 on each SIMD leave 128.
FEW_REGISTERS = "__attribute__((amdgpu_waves_per_eu(8)))"

VECTOR_UNITS: Sequence[VectorUnit] = (
    VectorUnit("fma", _fma),
    VectorUnit("fma_pairs", _fma_pairs, attribute=FEW_REGISTERS, hide=OPAQUE),
)
