"""A matrix instruction as a unit: its loads, its issue and its emulation, from its layouts.

A wave of work-items owns a part of a tile, `rows` x `cols` results each. Which registers a lane
needs of which place is numbers (`fragments`); those that lie side by side in local memory become
loads of up to 128 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from clinfer_kernels.contraction.apart import apart, apart_vectors, emulated_apart
from clinfer_kernels.contraction.emulation import emulated, emulation, matrices
from clinfer_kernels.contraction.fragments import PLAIN, Layout, Order, Side
from clinfer_kernels.contraction.packed import PACK
from clinfer_kernels.contraction.summands import ONE, Plane, Summands
from clinfer_kernels.contraction.units import LANES, Packing, Shape
from clinfer_kernels.template import inside
from clinfer_kernels.types import size_of

_HALF = "0x40404040u"  # four times 64
_ALIGNED = 4  # words, which local memory is aligned to


class Register(NamedTuple):
    """Number `number` of operand `name`, of a fragment and of instruction `s` of a step."""

    name: str
    fragment: int
    s: int
    number: int


@dataclass(frozen=True)
class MatrixUnit:
    """An instruction of `lanes` work-items: `rows.count` x `cols.count` results over `k`.

    `operand`: the dtype of A and B (of A where B is int8), `acc` that of the sums; `depth`: k of a
    step of the text, of which each instruction has its own by `order`. `a`, `b`: operands' layouts.
    `issue`: the instruction as statements on `d` (a vector of results), or d0, d1, ... where the
    `results` are "scalars", and a0, ..., b0, ...

    `terms`: float32 operands are sums, the products of whose larger parts are added. Instructions
    may round their sums towards zero, so each adds to a sum that begins at 0 every `depth` k, and
    that is added to the others to nearest (Ootomo & Yokota, "Recovering single precision accuracy
    from Tensor Cores while surpassing the FP32 theoretical peak performance", 2022). What is not
    finite is made again by multiply-adds (`exact`). `flushes`:
    16-bit operands that are subnormal count as zero. `flips`: uint8 of A are multiplied as int8,
    128 less; a further fragment of A, all 64, gives half of what that lacks.

    `needs`: what a device must have, one of these words of `matrix_units.available`. `rate`:
    multiply-adds of what runs groups in a clock, for estimates. `pack`: how float32 is rounded, a
    key of `packed.PACK`. `settle`: a statement on results `@` that a compiler does not move, so
    that it multiplies before it waits for the next tile. `extension`, `attribute`, `options`: what
    the text enables, the kernel has and the compiler is told besides. `pad`: places after a row of
    a tile, so that lanes read different banks of local memory. `words`: of 32 bits, of the widest
    load. `registers`: of 32 bits, that a work-item has.
    """

    name: str
    operand: str
    rows: Side
    cols: Side
    k: int
    a: Layout
    b: Layout
    issue: str
    needs: tuple[str, ...]
    rate: int
    depth: int = 16
    order: Order = PLAIN
    acc: str = "float32"
    results: str = "vectors"
    pack: str = ""
    terms: Summands = ONE
    flushes: bool = False
    flips: bool = False
    attribute: str = ""
    hide: str = ""
    settle: str = ""
    extension: str = ""
    options: str = ""
    pad: int = LANES
    words: int = 4
    registers: int = 255
    is_emulated: bool = False

    @property
    def lanes(self) -> int:
        """Work-items of a wave."""
        return self.rows.lanes * self.cols.lanes

    @property
    def rows_step(self) -> int:
        """What the rows of a wave are a multiple of."""
        return self.rows.lanes * max(self.rows.each * self.rows.weave, self.rows.height)

    @property
    def cols_step(self) -> int:
        """What the columns of a wave are a multiple of."""
        return self.cols.lanes * max(self.cols.each * self.cols.weave, self.cols.height)

    @property
    def is_exact(self) -> bool:
        """Whether sums of several terms are to give float32's results, infinite ones included."""
        return not self.terms.is_one

    @property
    def has_scalars(self) -> bool:
        """Whether sums are an array of scalars, which a loop's counters may index."""
        return self.results == "scalars"

    @property
    def is_lane(self) -> bool:
        """Whether each lane computes by itself: a result, of the k of a register."""
        return self.rows.each * self.cols.each == 1

    @property
    def packing(self) -> Packing:
        planes = self.terms.planes
        operand = "bfloat16" if planes else self.operand
        size = 4 if operand in ("tf32", "float32") else size_of(operand)
        element = {4: "float", 2: "ushort", 1: "uchar"}[size]
        bits = {4: "float4", 2: "uint2", 1: "uchar4"}[size]
        pack = "packed" if self.pack else ""
        together = (self.a.together, self.b.together)
        gaps = (self.a.gap, self.b.gap)
        return Packing(
            operand, element, bits, size, pack, together, self.pad, self.flips, planes, gaps
        )

    @property
    def type(self) -> str:
        """Of sums, in C."""
        return "int" if self.acc == "int32" else "float"

    def fragments(self, tile: Shape) -> tuple[int, int]:
        """Of a wave: along rows, and along columns."""
        return tile.rows // self.rows.each, tile.cols // self.cols.each

    def multiplied(self, tile: Shape) -> tuple[int, int]:
        """`fragments` that are multiplied, with the one that makes good what flipping lacks."""
        strips, blocks = self.fragments(tile)
        return strips + self.flips, blocks

    def read_bytes(self, tile: Shape) -> int:
        """What a group reads of local memory in a step of `tile.k_step`."""
        strips, blocks = self.fragments(tile)
        words = strips * len(self.a.registers) + blocks * len(self.b.registers)
        words *= self.packing.count
        return words * 4 * tile.wg_rows * tile.wg_cols * tile.k_step // self.k

    # -- what a unit is ----------------------------------------------------------------------------

    def helpers(self) -> list[str]:
        text = [f"#pragma OPENCL EXTENSION {self.extension} : enable"] if self.extension else []
        if self.is_exact:
            text.append(self.terms.helpers)
        if self.pack:
            text.append(PACK[self.pack.partition(" ")[0] if self.is_emulated else self.pack])
        if self.is_emulated:
            return [*text, *emulation(self)]
        if self.is_exact and self.has_scalars:
            issue = self.issue.replace("{%0, %1, %2, %3};", "{z, z, z, z};}").replace(
                '"+f"', '"=f"'
            )
            issue = issue.replace('("mma', '("{.reg .f32 z; mov.f32 z, 0f00000000;"\n    "mma')
            text.append(self._macro("MULTIPLY_FIRST", issue))
        return [*text, self._macro("MULTIPLY", self.issue)]

    def _macro(self, name: str, issue: str) -> str:
        operands = [f"{n}{i}" for n in "ab" for i in range(len(getattr(self, n).registers))]
        count = self.rows.each * self.cols.each
        d = [f"d{i}" for i in range(count)] if self.has_scalars else ["d"]
        text = issue.replace("\n", " \\\n    ")
        return f"#define {name}({', '.join([*d, *operands])}) \\\n    {text}"

    def places(self, tile: Shape) -> list[str]:
        rows, cols, lanes = self.rows, self.cols, self.lanes
        wave = f"item / {lanes}"
        lines = [
            f"const int lane = item % {lanes};",
            f"const int lane_row = {rows.lane};",
            f"const int lane_col = {cols.lane};",
            f"const int wave_row = {wave} / (WG_COLS / {cols.lanes}) * ({rows.lanes} * ROWS);",
            f"const int wave_col = {wave} % (WG_COLS / {cols.lanes}) * ({cols.lanes} * COLS);",
        ]
        for n, layout, side in (("a", self.a, rows), ("b", self.b, cols)):
            first = "wave_row" if n == "a" else "wave_col"
            v, k = layout.together, self.order.text(f"{n}_slot")
            place = side.place_text(f"{n}_index")
            gaps = f" + ({first} + {place}) / LANES * {layout.gap}" if layout.gap else ""
            lines += [
                f"const int {n}_index = {layout.index};",
                f"const int {n}_slot = {layout.k};",
                f"const int {n}_first_k = {k};",
                f"const int {n}_first = ({n}_first_k / {v} * {n.upper()}_PITCH + {first}"
                f" + {place}) * {v} + {n}_first_k % {v}{gaps};",
            ]
        if self.is_emulated:
            lines += [f"const int wave = {wave};", *matrices(self, tile)]
        return lines

    def begin(self, tile: Shape, vec: str) -> list[str]:
        """The sums by row and column of the lane, or an instruction's vectors by fragments."""
        if self.has_scalars:
            rows = self.multiplied(tile)[0] * self.rows.each
            zeros = [f"acc[{r}][{c}] = 0;" for r, c in _all(rows, tile.cols)]
            return [f"{self.type} acc[{rows}][COLS];", *zeros]
        strips, blocks = self.multiplied(tile)
        kind = f"{self.type}{self.rows.each * self.cols.each}"
        zeros = [f"acc[{p}][{q}] = ({kind})(0);" for p, q in _all(strips, blocks)]
        return [f"{kind} acc[{strips}][{blocks}];", *zeros]

    def row(self) -> str:
        high, block = self.rows.height, self.rows.lanes * self.rows.height
        if high == 1:
            return f"wave_row + r * {block} + lane_row"
        if self.rows.lanes == 1:
            return "wave_row + r"
        return f"wave_row + r / {high} * {block} + {high} * lane_row + r % {high}"

    def column(self) -> str:
        wide = self.cols.height // LANES
        if wide == 1:
            return f"wave_col + LANES * ({self.cols.lanes} * q + lane_col)"
        block = self.cols.lanes * wide
        return f"wave_col + LANES * (q / {wide} * {block} + {wide} * lane_col + q % {wide})"

    def sums(self, r: str, q: str, vec: str) -> str:
        """`r` and `q` are numbers where results are vectors, whose components have no index."""
        columns = [f"LANES * {q} + {lane}" for lane in range(LANES)]
        if self.has_scalars:
            lanes = [f"acc[{r}][{c}]" for c in columns]
            halves = [f"acc[ROWS][{c}]" for c in columns]
        else:
            numbers = range(LANES * int(q), LANES * int(q) + LANES)
            lanes = [f"acc{self.sum_at(int(r), c)}" for c in numbers]
            half = f"ROWS / {self.rows.each}"
            halves = [f"acc{self._component(half, 0, c)}" for c in numbers]
        if self.flips:
            lanes = [f"{sum_} + 2 * {half}" for sum_, half in zip(lanes, halves, strict=True)]
        return f"({vec})({', '.join(lanes)})"

    def sum_at(self, r: int, c: int) -> str:
        """The lane's row r, column c, behind the name of the sums that `begin` declares."""
        if self.has_scalars:
            return f"[{r}][{c}]"
        p, row = self._own(self.rows, r)
        return self._component(str(p), row, c)

    def step(self, tile: Shape, vec: str, acc: str) -> list[str]:
        lines = [*self.from_tile("a"), *self.from_tile("b")]
        native = () if self.is_emulated else ("#pragma unroll",)
        head = f"for (int k = 0; k < K_STEP; k += {self.depth}) {{"
        made = [*lines, *native, head, *inside(self.multiplied_lines(tile, {})), "}"]
        return made + self.settled(tile)

    def from_tile(self, n: str) -> list[str]:
        """The pointer to a lane's first element of operand `n`."""
        return [
            f"const __local {self.packing.element}* {n}_from_tile = {n}_tile"
            f" + turn * ({self.packing.times}K_STEP * {n.upper()}_PITCH) + {n}_first;"
        ]

    def settled(self, tile: Shape) -> list[str]:
        """What follows a tile's products."""
        if not self.settle or self.is_emulated:
            return []
        return [self.settle.replace("@", f"acc[{p}][{q}]") for p, q in _all(*self.multiplied(tile))]

    def packed_lines(self, name: str, values: Sequence[str]) -> list[str]:
        """The declaration of `name`, registers made of four float32; its terms, where it has some,
        are that name with their suffix."""
        vector = f"(float4)({', '.join(values)})"
        if self.pack:
            kind = "uint2" if self.packing.size == 2 else "uint4"
            made = "packed(@)" if self.packing.size == 2 else "as_uint4(packed(@))"
            return [f"const {kind} {name} = {made.replace('@', vector)};"]
        return [f"const uint4 {name} = as_uint4({vector});", *self._split(name)]

    # -- a step ------------------------------------------------------------------------------------

    def multiplied_lines(self, tile: Shape, kept: Mapping[Register, str]) -> list[str]:
        """Statements for `depth` of k. `kept`: registers of an operand that is not loaded."""
        strips, blocks = self.fragments(tile)
        lines: list[str] = []
        values: dict[Register, str] = dict(kept)
        loaded = {"a", "b"} - {register.name for register in kept}
        by_block = self.is_exact and not self.has_scalars and not self.is_emulated
        block_loads: list[list[str]] = []
        for n, layout, side, count in (
            ("a", self.a, self.rows, strips),
            ("b", self.b, self.cols, blocks),
        ):
            if n not in loaded:
                continue
            fragments = [range(f, f + 1) for f in range(count)]
            is_apart = by_block and n == "b"
            for own in fragments if is_apart else [range(count)]:
                loads, found = self._loads(n, layout, side, own)
                values |= found
                if is_apart:
                    block_loads.append(loads)
                else:
                    lines += loads
        turns: list[tuple[list[list[str]], list[list[str]]]] = []
        for terms, s in product(self.terms.products, range(self.depth // self.k)):
            a, b = (
                [
                    [f"{values[Register(n, f, s, i)].replace('@', term)}" for i in range(registers)]
                    for f in range(count)
                ]
                for n, term, count, registers in (
                    ("a", terms[0], strips, len(self.a.registers)),
                    ("b", terms[1], blocks, len(self.b.registers)),
                )
            )
            if self.flips:
                a.append([_HALF] * len(self.a.registers))
            turns.append((a, b))
        if self.is_emulated:
            return [*lines, *self._emulated(tile, turns)]
        if self.is_exact:
            issue = apart if self.has_scalars else apart_vectors
            return [*lines, *issue(self, turns, block_loads)]
        return [*lines, *(line for a, b in turns for line in self._native(a, b))]

    def _emulated(
        self, tile: Shape, turns: Sequence[tuple[list[list[str]], list[list[str]]]]
    ) -> list[str]:
        made = [line for a, b in turns for line in emulated(self, tile, a, b)]
        return emulated_apart(self, tile, made) if self.is_exact else made

    def results_of(self, p: int, q: int) -> list[str]:
        """The results of fragments p and q, in the order of the instruction's registers."""
        own = _all(self.rows.each, self.cols.each)
        return [f"acc[{self.rows.number(r, p)}][{self.cols.number(c, q)}]" for r, c in own]

    def _loads(
        self, n: str, layout: Layout, side: Side, fragments: range
    ) -> tuple[list[str], dict[Register, str]]:
        """The loads of the registers of some fragments of an operand, and each as text; `@` stands
        for a term's suffix."""
        v, size = layout.together, self.packing.size
        at: dict[tuple[int, int], Register] = {}
        own = product(fragments, *map(range, (self.depth // self.k, len(layout.registers))))
        for f, s, i in own:
            index, slot = layout.registers[i]
            k = self.order.k(slot, s)
            place = side.place(index, f)
            word = (place * v + place // LANES * layout.gap + k % v) * size // 4
            at[k // v, word] = Register(n, f, s, i)
        lines, values = [], {}
        for number, (row, word, words) in enumerate(_runs(at, self.words)):
            kind = "uint" if words == 1 else f"uint{words}"
            name = f"{n}{number}" if fragments.start == 0 else f"{n}{fragments.start}_{number}"
            for plane, part in enumerate(self.terms.planes or (Plane("", "", ""),)):
                first = "".join(
                    [f" + {plane} * K_STEP" if plane else "", f" + {row * v}" * (row > 0)]
                )
                step = f"(k{first})" if first else "k"
                offset = f"{step} * {n.upper()}_PITCH" + (f" + {word * 4 // size}" if word else "")
                value = f"*(const __local {kind}*)({n}_from_tile + {offset})"
                if words > _ALIGNED:
                    value = f"vload8(0, (const __local uint*)({n}_from_tile + {offset}))"
                lines.append(f"const {kind} {name}{part.name} = {value};")
            lines += self._split(name)
            for w in range(words):
                register = at[row, word + w]
                values[register] = f"{name}@" if words == 1 else f"{name}@.s{w}"
        return lines, values

    def _split(self, name: str) -> list[str]:
        """The terms of four elements."""
        if self.terms.is_one or self.terms.planes:
            return []
        return [
            f"const uint4 {name}h = high({name});",
            f"const uint4 {name}l = low({name}, {name}h);",
        ]

    def _native(self, a: list[list[str]], b: list[list[str]]) -> list[str]:
        lines = []
        for p, q in _all(len(a), len(b)):
            d = [f"acc[{p}][{q}]"]
            if self.has_scalars:
                d = self.results_of(p, q)
            lines.append(f"MULTIPLY({', '.join([*d, *a[p], *b[q]])});")
        return lines

    def _component(self, strip: str, row: int, c: int) -> str:
        """The lane's column c in row number `row` of a strip: a component of its results."""
        q, col = self._own(self.cols, c)
        return f"[{strip}][{q}].s{row * self.cols.each + col:x}"

    @staticmethod
    def _own(side: Side, number: int) -> tuple[int, int]:
        """The fragment and the number in it of what a lane calls `number`."""
        first = number // (side.weave * side.each) * side.weave
        return next(
            (f, own)
            for f, own in product(range(first, first + side.weave), range(side.each))
            if side.number(own, f) == number
        )


def _all(*counts: int) -> Iterable[tuple[int, ...]]:
    return product(*(range(count) for count in counts))


def _runs(words: Iterable[tuple[int, int]], most: int) -> list[tuple[int, int, int]]:
    """(row, first word, words) of loads: neighbours, in powers of two up to `most`."""
    found: list[tuple[int, int, int]] = []
    waiting = sorted(words)
    known = set(waiting)
    while waiting:
        row, word = waiting[0]
        size = next(
            n
            for n in (8, 4, 2, 1)
            if n <= most and word % n == 0 and all((row, word + w) in known for w in range(n))
        )
        found.append((row, word, size))
        waiting = waiting[size:]
    return found
