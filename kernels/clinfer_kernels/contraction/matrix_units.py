"""Matrix instructions as rows: NVIDIA's mma.

A wave of work-items owns `wave rows` x `wave columns` of a tile. A fragment is what an instruction
takes of an operand; which place of the tile its rows and columns are is ours to choose, as long as
loads and results agree. It is chosen so that a work-item has whole vectors of LANES neighbouring
columns, and so that it loads whole fragments in vectors: with `lane_row`, `lane_col` of a work-item
in its wave, `height` rows of a fragment,

    row r        of a work-item   lane_rows height (r div height) + height lane_row + r mod height
    vector q     of a work-item   LANES (lane_cols q + lane_col)

Along k a step's order is free as well: quad `lane_col` of four neighbouring k is a lane's.

Each unit has an emulation: the same fragments go from the registers of all lanes through local
memory, so that loads, places and packing run, and are tested, on any device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from clinfer_kernels.contraction.units import LANES, VECTOR_UNITS, Packing, Shape, Unit

EMULATED = " emulated"
"""What the name of a unit's emulation ends with."""


@dataclass(frozen=True)
class MatrixUnit:
    """What all have in common: `lane_rows` x `lane_cols` work-items are a wave.

    `operand` is the dtype of A and B, sums are float32; a step of the text multiplies `depth` k.
    `needs` is what a device must have: a word of `available`. `rate`: multiply-adds of a unit that
    runs groups in a clock, for estimates.
    """

    name: str
    operand: str
    instruction: str
    lane_rows: int
    lane_cols: int
    height: int
    depth: int
    needs: str
    rate: int
    is_emulated: bool = False

    @property
    def lanes(self) -> int:
        """Work-items of a wave."""
        return self.lane_rows * self.lane_cols

    @property
    def packing(self) -> Packing:
        """16-bit operands."""
        return Packing(self.operand, "ushort", "uint2", 2, "packed")

    @property
    def is_exact(self) -> bool:
        """Whether results are float32's, infinite ones and NaN among them (`exact`)."""
        return False

    def places(self, tile: Shape) -> list[str]:
        rows, cols, lanes = self.lane_rows, self.lane_cols, self.lanes
        return [
            f"const int lane = item % {lanes};",
            f"const int lane_row = lane / {cols};",
            f"const int lane_col = lane % {cols};",
            f"const int wave_row = item / {lanes} / (WG_COLS / {cols}) * ({rows} * ROWS);",
            f"const int wave_col = item / {lanes} % (WG_COLS / {cols}) * ({cols} * COLS);",
        ]

    def row(self) -> str:
        high, block = self.height, self.lane_rows * self.height
        if high == 1:
            return f"wave_row + r * {block} + lane_row"
        return f"wave_row + r / {high} * {block} + {high} * lane_row + r % {high}"

    def column(self) -> str:
        return f"wave_col + LANES * ({self.lane_cols} * q + lane_col)"


@dataclass(frozen=True)
class Mma(MatrixUnit):
    """NVIDIA's mma.sync, m16 n8, of 16-bit operands (k16) or TF32 (k8): PTX ISA, "Matrix Fragments
    for mma.m16n8k8" and "mma.m16n8k16".

    With p elements of a 32-bit register and lane = 4 g + t, element i of register r is

        A   row g + 8 (r mod 2)    k p t + (K / 2) (r div 2) + i
        B   column g               k p t + (K / 2) r + i
        D   row g + 8 (r div 2)    column 2 t + r mod 2

    Lane t's k are those of quad t. Two instructions side by side make a vector of columns: column n
    of the one numbered j is 2 n + j of the 16 (16-bit operands: so both come in one load), or
    4 (n div 2) + 2 j + n mod 2 (TF32: neighbouring lanes read other banks).

    `terms` 3: float32 operands are the sum of two TF32, the products of which are added but for
    that of the small ones (Markidis et al., "NVIDIA Tensor Core Programmability, Performance &
    Precision", 2018). Instructions round their sums towards zero, so each adds to a sum that begins
    at 0 every 16 k, and that is added to the others to nearest (Ootomo & Yokota, "Recovering single
    precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance",
    2022). What is not finite is made again by multiply-adds (`exact`).
    """

    terms: int = 1

    @property
    def is_exact(self) -> bool:
        return self.terms == 3

    @property
    def is_tf32(self) -> bool:
        """Whether operands have 32 bits."""
        return self.operand in ("tf32", "float32")

    @property
    def packing(self) -> Packing:
        if self.is_tf32:
            return Packing(self.operand, "float", "float4", 4, "" if self.terms == 3 else "packed")
        return super().packing

    def helpers(self) -> list[str]:
        text = [] if self.terms == 3 else [_PACK[self.operand, not self.is_emulated]]
        if self.terms == 3:
            text.append(_HIGH)
        if not self.is_emulated:
            text.append(_MMA.replace("@", self.instruction))
            if self.terms == 3:
                text.append(_FIRST.replace("@", self.instruction))
            return text
        value = {
            "float16": "vload_half(i, (const __local half*)&(x))",
            "bfloat16": "as_float((x) >> (16 * (i)) << 16)",
        }.get(self.operand, "as_float(x)")
        per = 1 if self.is_tf32 else 2
        made = _EMULATED_MMA.replace("@VALUE", value).replace("@P", str(per))
        return [*text, _TOWARDS_ZERO if self.terms == 3 else _TO_NEAREST, made]

    def places(self, tile: Shape) -> list[str]:
        lines = super().places(tile)
        if self.is_emulated:
            items = tile.wg_rows * tile.wg_cols
            sizes = {"a": 2 * tile.rows * items, "b": tile.cols * items}
            aligned = "__attribute__((aligned(16)))"
            lines += [f"__local uint {n}_lanes[{size}] {aligned};" for n, size in sizes.items()]
        return lines

    def begin(self, tile: Shape, vec: str) -> list[str]:
        zeros = [f"acc[{r}][{c}] = 0;" for r in range(tile.rows) for c in range(tile.cols)]
        return ["float acc[ROWS][COLS];", *zeros]

    def sums(self, r: str, q: str, vec: str) -> str:
        lanes = ", ".join(f"acc[{r}][LANES * {q} + {lane}]" for lane in range(LANES))
        return f"({vec})({lanes})"

    def step(self, tile: Shape, vec: str, acc: str) -> list[str]:
        a_place = "wave_row + lane_row" if self.is_tf32 else "wave_row + 2 * lane_row"
        b_place = "lane_row / 2 * 4 + lane_row % 2" if self.is_tf32 else "2 * lane_row"
        element = self.packing.element
        lines = [
            f"const __local {element}* a_from_tile = a_tile + turn * (K_STEP * A_PITCH)"
            f" + (lane_col * A_PITCH + {a_place}) * LANES;",
            f"const __local {element}* b_from_tile = b_tile + turn * (K_STEP * B_PITCH)"
            f" + (lane_col * B_PITCH + wave_col + {b_place}) * LANES;",
            *([] if self.is_emulated else ["#pragma unroll"]),
            "for (int k = 0; k < K_STEP; k += 16) {",
            *_inside(self._fragments(tile)),
            "}",
        ]
        return lines

    def _fragments(self, tile: Shape) -> list[str]:
        strips, pairs = tile.rows // 2, tile.cols // LANES
        per = 2 if self.is_tf32 else 1  # vectors of a fragment
        lines = []
        for name, count, apart in (("a", strips, 8), ("b", pairs, 2)):
            for f in range(count):
                for v in range(per):
                    place = (16 * f + apart * v) * LANES
                    at = f"{name}_from_tile + k * {name.upper()}_PITCH + {place}"
                    lines.append(f"const uint4 {name}{f}_{v} = *(const __local uint4*)({at});")
        if self.terms == 3:
            for name, count in (("a", strips), ("b", pairs)):
                for f in range(count):
                    for v in range(per):
                        n = f"{name}{f}_{v}"
                        lines.append(f"const uint4 {n}h = high({n});")
                        lines.append(f"const uint4 {n}l = low({n}, {n}h);")
        return [*lines, *(self._emulated(tile) if self.is_emulated else self._native(tile))]

    @property
    def _turns(self) -> list[tuple[int, str, str]]:
        """The instructions of a fragment: which part of its k, and which terms of A and B; small
        terms first, so that only two sums of each 16 k are rounded by much."""
        terms = (("l", "h"), ("h", "l"), ("h", "h")) if self.terms == 3 else (("", ""),)
        return [(part, *pair) for pair in terms for part in range(2 if self.is_tf32 else 1)]

    def _a(self, p: int, part: int, term: str) -> list[str]:
        if self.is_tf32:
            return [f"a{p}_{v}{term}.{s}" for s in ("xy", "zw")[part] for v in (0, 1)]
        return [f"a{p}_0.{s}" for s in "xzyw"]

    def _b(self, q: int, j: int, part: int, term: str) -> list[str]:
        if self.is_tf32:
            return [f"b{q}_{j}{term}.{s}" for s in ("xy", "zw")[part]]
        return [f"b{q}_0.{s}" for s in ("xy", "zw")[j]]

    def _native(self, tile: Shape) -> list[str]:
        if self.terms == 3:
            return self._native_apart(tile)
        lines = []
        for part, left, right in self._turns:
            for p in range(tile.rows // 2):
                for q, j in self._vectors(tile):
                    d = ", ".join(self._d(p, q, j))
                    operands = [*self._a(p, part, left), *self._b(q, j, part, right)]
                    lines.append(f"MULTIPLY({d}, {', '.join(operands)});")
        return lines

    def _native_apart(self, tile: Shape) -> list[str]:
        """The same by sums that begin at 0, for a strip of rows at a time."""
        lines = []
        for p in range(tile.rows // 2):
            lines.append("{")
            for n, (part, left, right) in enumerate(self._turns):
                for q, j in self._vectors(tile):
                    d = ", ".join(f"d{q}{j}{i}" for i in range(4))
                    operands = [*self._a(p, part, left), *self._b(q, j, part, right)]
                    if n == 0:
                        lines.append(f"    float {d};")
                    name = "MULTIPLY" if n else "MULTIPLY_FIRST"
                    lines.append(f"    {name}({d}, {', '.join(operands)});")
            for q, j in self._vectors(tile):
                each = enumerate(self._d(p, q, j))
                lines += [f"    {to} += d{q}{j}{i};" for i, to in each]
            lines.append("}")
        return lines

    @staticmethod
    def _vectors(tile: Shape) -> list[tuple[int, int]]:
        """The instructions side by side: the vector of columns, and which of its two."""
        return [(q, j) for q in range(tile.cols // LANES) for j in range(2)]

    def _d(self, p: int, q: int, j: int) -> list[str]:
        """The sums of an instruction."""
        first, apart = (2 * j, 1) if self.is_tf32 else (j, 2)
        columns = (LANES * q + first, LANES * q + first + apart)
        return [f"acc[{2 * p + r}][{c}]" for r in range(2) for c in columns]

    def _emulated(self, tile: Shape) -> list[str]:
        """The same by way of local memory, an instruction of all fragments at a time."""
        items = tile.wg_rows * tile.wg_cols
        sums = "apart" if self.terms == 3 else "acc"
        lines = ["float apart[ROWS][COLS] = {{0}};"] if self.terms == 3 else []
        for part, left, right in self._turns:
            lines.append("barrier(CLK_LOCAL_MEM_FENCE);")
            for p in range(tile.rows // 2):
                to = f"a_lanes + 4 * ({p * items} + item)"
                a = ", ".join(self._a(p, part, left))
                lines.append(f"*(__local uint4*)({to}) = (uint4)({a});")
            for q in range(tile.cols // LANES):
                for j in range(2):
                    to = f"b_lanes + 2 * ({(2 * q + j) * items} + item)"
                    b = ", ".join(self._b(q, j, part, right))
                    lines.append(f"*(__local uint2*)({to}) = (uint2)({b});")
            lines += [
                "barrier(CLK_LOCAL_MEM_FENCE);",
                "for (int f = 0; f < ROWS / 2 * (COLS / LANES) * 8; ++f) {",
                "    const int d = f % 4, n = f / 4 % (COLS / 2), p = f / 4 / (COLS / 2);",
                f"    const __local uint* a_wave = a_lanes + 4 * (p * {items} + item - lane);",
                f"    const __local uint* b_wave = b_lanes + 2 * (n * {items} + item - lane);",
                f"    const int c = n / 2 * LANES + {self._column};",
                f"    __private float* const to = &{sums}[2 * p + d / 2][c];",
                "    *to = emulated(a_wave, b_wave, lane, d, *to);",
                "}",
            ]
        if self.terms == 3:
            add = "acc[n / COLS][n % COLS] += apart[n / COLS][n % COLS];"
            lines.append(f"for (int n = 0; n < ROWS * COLS; ++n) {add}")
        return lines

    @property
    def _column(self) -> str:
        return "n % 2 * 2 + d % 2" if self.is_tf32 else "n % 2 + d % 2 * 2"


_MMA = """#define MULTIPLY(d0, d1, d2, d3, a0, a1, a2, a3, b0, b1) \\
    __asm__ ("@ {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \\
        : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) \\
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))"""

_FIRST = """#define MULTIPLY_FIRST(d0, d1, d2, d3, a0, a1, a2, a3, b0, b1) \\
    __asm__ ("{.reg .f32 z; mov.f32 z, 0f00000000;" \\
        "@ {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {z, z, z, z};}" \\
        : "=f"(d0), "=f"(d1), "=f"(d2), "=f"(d3) \\
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))"""

# What an emulation sums in, and how it rounds the sum.
_TO_NEAREST = """#define SUM_TYPE float
#define ROUNDED(x) (x)"""
_TOWARDS_ZERO = """#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#define SUM_TYPE double
#define ROUNDED(x) convert_float_rtz(x)"""

_EMULATED_MMA = """#define VALUE(x, i) (@VALUE)
static float emulated(const __local uint* a, const __local uint* b, int lane, int d, float c)
{
    SUM_TYPE sum = c;
    const int row = lane / 4 + d / 2 * 8;
    const int column = lane % 4 * 2 + d % 2;
    for (int r = 0; r < 2; ++r)
        for (int t = 0; t < 4; ++t)
            for (int i = 0; i < @P; ++i)
                sum += (SUM_TYPE)VALUE(a[4 * (row % 8 * 4 + t) + 2 * r + row / 8], i)
                     * VALUE(b[2 * (column * 4 + t) + r], i);
    return ROUNDED(sum);
}"""

_HIGH = """// float32 as two TF32: the nearest, ties away from zero, and the rest, whose 12 bits
// lose one. Neither loses NaN, and what is infinite, or becomes so, makes the rest NaN.
static uint4 high(uint4 v) { return (v + 0x1000u) & 0xFFFFE000u; }
static uint4 low(uint4 v, uint4 h)
{
    return as_uint4(as_float4(v) - as_float4(h)) & 0xFFFFE000u;
}"""


def _asm_pack(kind: str) -> str:
    return f"""static uint2 packed(float4 v)
{{
    uint x, y;
    __asm__ ("cvt.rn.{kind}x2.f32 %0, %1, %2;" : "=r"(x) : "f"(v.y), "f"(v.x));
    __asm__ ("cvt.rn.{kind}x2.f32 %0, %1, %2;" : "=r"(y) : "f"(v.w), "f"(v.z));
    return (uint2)(x, y);
}}"""


_PACK_FLOAT16 = """static uint2 packed(float4 v)
{
    uint2 bits;
    vstore_half4_rte(v, 0, (half*)&bits);
    return bits;
}"""
_PACK_BFLOAT16 = """static uint2 packed(float4 v)
{
    const uint4 b = as_uint4(v);
    const uint4 even = b + 0x7FFFu + (b >> 16 & 1u);
    const uint4 r = (isnan(v) ? b | 0x400000u : even) >> 16;
    return (uint2)(r.x | r.y << 16, r.z | r.w << 16);
}"""
_PACK_TF32 = """static float4 packed(float4 v)
{
    const uint4 b = as_uint4(v);
    const uint4 near = (b + 0x1000u) & 0xFFFFE000u; // to nearest, ties away from zero
    return as_float4(isnan(v) ? b | 0x400000u : near);
}"""
# By operand, and whether NVIDIA's conversions may be used.
_PACK = {
    ("float16", True): _asm_pack("f16"),
    ("float16", False): _PACK_FLOAT16,
    ("bfloat16", True): _asm_pack("bf16"),
    ("bfloat16", False): _PACK_BFLOAT16,
    ("tf32", True): _PACK_TF32,
    ("tf32", False): _PACK_TF32,
}


def _inside(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _mma(name: str, operand: str, kind: str, k: int, terms: int = 1) -> Mma:
    instruction = f"mma.sync.aligned.m16n8k{k}.row.col.f32.{kind}.{kind}.f32"
    height, rate = (1, 512) if kind == "tf32" else (2, 1024)
    return Mma(name, operand, instruction, 8, 4, height, 16, "sm_80", rate // terms, terms=terms)


_ROWS: Sequence[Mma] = (
    _mma("mma_f16", "float16", "f16", 16),
    _mma("mma_bf16", "bfloat16", "bf16", 16),
    _mma("mma_tf32", "tf32", "tf32", 8),
    _mma("mma_3xtf32", "float32", "tf32", 8, terms=3),
)
MATRIX_UNITS = {
    unit.name: unit
    for row in _ROWS
    for unit in (row, replace(row, name=row.name + EMULATED, is_emulated=True))
}
"""By name, each with its emulation."""


def available(
    capability: tuple[int, ...], architecture: str, extensions: Collection[str]
) -> tuple[str, ...]:
    """The units of a device: by NVIDIA's compute capability, AMD's gfx name, or an extension."""
    facts = {*extensions, architecture.partition(":")[0]}
    if capability >= (8, 0):
        facts.add("sm_80")
    return tuple(row.name for row in _ROWS if row.needs in facts)


UNITS: Mapping[str, Unit] = {**{unit.name: unit for unit in VECTOR_UNITS}, **MATRIX_UNITS}
"""All units by name, as `Target.units` lists what a device has."""
