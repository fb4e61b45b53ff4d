"""Matrix instructions as rows: NVIDIA's mma, AMD's MFMA and WMMA, Intel's dpas.

Layouts are those of the vendors' manuals, with A's rows and B's columns as indices. Along k a
step's order is free, and so are the places of a tile: chosen such that a work-item has whole
vectors of LANES neighbouring columns, and loads vectors of 128 bits. AMD's instructions get A and B
in each other's place: their results, four neighbouring rows of one column, are then four
neighbouring columns of one row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from clinfer_kernels.contraction.fragments import Layout, Order, Side
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.units import VECTOR_UNITS, Unit

EMULATED = " emulated"
"""What the name of a unit's emulation ends with."""


# -- NVIDIA: PTX ISA, "Matrix Fragments for mma.m16n8k8", "mma.m16n8k16" and "mma.m16n8k32" --------


def _mma(name: str, operand: str, kind: str, rate: int, terms: int = 1) -> MatrixUnit:
    """mma.sync, m16 n8. With p elements of a register, lane = 4 g + t, element i of register r is

    A   row g + 8 (r mod 2)    k p t + (K / 2) (r div 2) + i
    B   column g               k p t + (K / 2) r + i
    D   row g + 8 (r div 2)    column 2 t + r mod 2
    """
    p = {"tf32": 1, "s8": 4, "u8": 4}.get(kind, 2)
    k, half = 8 * p, 4 * p
    order = {
        1: Order(2, ((1, 4, 4), (4, 2, 1))),  # a lane's k are a vector of four
        2: Order(16, ((2, 4, 4), (8, 2, 2), (1, 2, 1))),
        4: Order(32),
    }[p]
    is_integer = p == 4
    right, sums, letter = ("s8", "s32", "r") if is_integer else (kind, "f32", "f")
    d = ", ".join(f'"+{letter}"(d{i})' for i in range(4))
    issue = (
        f'__asm__ ("mma.sync.aligned.m16n8k{k}.row.col.{sums}.{kind}.{right}.{sums}'
        ' {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"\n'
        f'    : {d}\n    : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))'
    )
    first = ("lane / 4", f"lane % 4 * {p}" if p > 1 else "lane % 4")
    return MatrixUnit(
        name,
        operand,
        rows=Side(8, 2, "lane / 4", height=p),
        cols=Side(4, 2, "lane % 4", is_outer=True, height=8 if is_integer else 4, weave=p),
        k=k,
        a=Layout(*first, ((0, 0), (8, 0), (0, half), (8, half)), 4),
        b=Layout(*first, ((0, 0), (0, half)), 4),
        issue=issue,
        needs=("sm_80",),
        rate=rate // terms,
        depth=max(16, k),
        order=order,
        acc="int32" if is_integer else "float32",
        results="scalars",
        pack="" if terms == 3 or is_integer else operand if p == 1 else f"{operand} ptx",
        terms=terms,
        pad=8 if is_integer else 4,
    )


# -- AMD: "AMD Instinct MI200 / MI300 Instruction Set Architecture", "Matrix Arithmetic
# Instructions"; "RDNA3 Instruction Set Architecture", 7.9 -----------------------------------------


def _arguments(kind: str, operand: str, registers: int) -> str:
    values = ", ".join(f"{operand}{i}" for i in range(registers))
    if registers == 1:
        return f"as_{kind}({values})"
    return f"as_{kind}((uint{registers})({values}))"


def _half(operand: str) -> str:
    return "cl_khr_fp16" if operand == "float16" else ""


_MFMA_16X16 = (Side(16, 1, "lane % 16", height=2), Side(4, 4, "lane / 16", True, 8, 2))
_MFMA_16X16_F32 = (Side(16, 1, "lane % 16"), Side(4, 4, "lane / 16", True, 4))
_WMMA_16X16 = (Side(16, 1, "lane % 16", height=2), Side(2, 8, "lane / 16", False, 4, 2))


def _mfma(name: str, operand: str, builtin: str, kind: str, needs: Sequence[str]) -> MatrixUnit:
    """v_mfma_f32_16x16x16: lane = 16 h + r has row r of the first operand and column r of the
    second, k 4 h to 4 h + 3; of the result column r and rows 4 h to 4 h + 3."""
    layout = Layout("lane % 16", "lane / 16 * 4", ((0, 0), (0, 2)), 4)
    given = ", ".join(_arguments(kind, n, 2) for n in "ba")
    issue = f"d = __builtin_amdgcn_mfma_f32_16x16x16{builtin}({given}, d, 0, 0, 0)"
    return MatrixUnit(
        name,
        operand,
        *_MFMA_16X16,
        16,
        layout,
        layout,
        issue,
        tuple(needs),
        512,
        pack=operand,
        extension=_half(operand),
    )


def _wmma(name: str, operand: str, builtin: str, kind: str) -> MatrixUnit:
    """v_wmma_f32_16x16x16 of gfx11, waves of 32: lane = 16 h + r has row or column r of an operand,
    all k, the same for both h; of the result column r and rows 2 i + h in register i."""
    layout = Layout("lane % 16", "0", tuple((0, k) for k in range(0, 16, 2)), 4)
    given = ", ".join(_arguments(kind, n, 8) for n in "ba")
    issue = f"d = __builtin_amdgcn_wmma_f32_16x16x16_{builtin}_w32({given}, d)"
    return MatrixUnit(
        name,
        operand,
        *_WMMA_16X16,
        16,
        layout,
        layout,
        issue,
        ("gfx11",),
        512,
        pack=operand,
        extension=_half(operand),
    )


# -- Intel: cl_intel_subgroup_matrix_multiply_accumulate -------------------------------------------

DPAS = "cl_intel_subgroup_matrix_multiply_accumulate"
"""The extension of Intel's drivers."""


def _dpas(name: str, operand: str, kind: str, lanes: int) -> MatrixUnit:
    """Eight rows by a sub-group's lanes, k16. Lane l has of B column l, two k a register; of the
    results column l. Of A's rows it has k 2 l and 2 l + 1, in sub-groups of 16 k l, two rows a
    register."""
    narrow = Layout("0", "lane * 2", tuple((m, 0) for m in range(8)), 2)
    wide = Layout("0", "lane", tuple((m, 0) for m in range(0, 8, 2)), 1, is_across=True)
    a = narrow if lanes == 8 else wide
    given = [_arguments("int8", "a", 8) if lanes == 8 else _arguments("short8", "a", 4)]
    given.append(_arguments("int8", "b", 8))
    return MatrixUnit(
        name,
        operand,
        rows=Side(1, 8, "0"),
        cols=Side(lanes, 1, "lane", height=4),
        k=16,
        a=a,
        b=Layout("lane", "0", tuple((0, k) for k in range(0, 16, 2)), 2),
        issue=f"d = intel_sub_group_{kind}_{kind}_matrix_mad_k16({', '.join(given)}, d)",
        needs=(f"{DPAS} {lanes}",),
        rate=1024,
        pack=operand,
        extension=DPAS,
        attribute=f"__attribute__((intel_reqd_sub_group_size({lanes})))",
        options="-cl-intel-256-GRF-per-thread",
        pad=4 if lanes == 8 else 8,
    )


_F32_LAYOUT = Layout("lane % 16", "lane / 16", ((0, 0),), 4)
_MFMA_F32 = MatrixUnit(
    "mfma_f32",
    "float32",
    *_MFMA_16X16_F32,
    4,
    _F32_LAYOUT,
    _F32_LAYOUT,
    "d = __builtin_amdgcn_mfma_f32_16x16x4f32(as_float(b0), as_float(a0), d, 0, 0, 0)",
    ("gfx90a", "gfx942"),
    128,
    order=Order(1, ((1, 4, 4),)),
)
_MFMA_F16 = _mfma("mfma_f16", "float16", "f16", "half4", ("gfx942",))

_ROWS: Sequence[MatrixUnit] = (
    _mma("mma_f16", "float16", "f16", 1024),
    _mma("mma_bf16", "bfloat16", "bf16", 1024),
    _mma("mma_tf32", "tf32", "tf32", 512),
    _mma("mma_3xtf32", "float32", "tf32", 512, terms=3),
    _mma("mma_s8", "int8", "s8", 2048),
    _mma("mma_u8", "uint8", "u8", 2048),
    _MFMA_F16,
    replace(_MFMA_F16, name="mfma_f16_flushing", needs=("gfx90a",), flushes=True),
    _mfma("mfma_bf16", "bfloat16", "bf16_1k", "short4", ("gfx90a", "gfx942")),
    _MFMA_F32,
    _wmma("wmma_f16", "float16", "f16", "half16"),
    _wmma("wmma_bf16", "bfloat16", "bf16", "short16"),
    _dpas("dpas8_f16", "float16", "f16", 8),
    _dpas("dpas8_bf16", "bfloat16", "bf16", 8),
    _dpas("dpas16_f16", "float16", "f16", 16),
    _dpas("dpas16_bf16", "bfloat16", "bf16", 16),
)


def _emulation(unit: MatrixUnit) -> MatrixUnit:
    name = unit.name + EMULATED
    return replace(unit, name=name, is_emulated=True, extension="", attribute="", options="")


MATRIX_UNITS = {unit.name: unit for row in _ROWS for unit in (row, _emulation(row))}
"""By name, each with its emulation."""


def available(
    capability: tuple[int, ...],
    architecture: str,
    extensions: Collection[str],
    subgroup_sizes: Collection[int] = (),
) -> tuple[str, ...]:
    """The units of a device: by NVIDIA's compute capability, AMD's gfx name, or an extension, with
    the least size of a sub-group (Arc A has 8, those after it 16)."""
    name = architecture.partition(":")[0]
    facts = {name, name[:5]} if name.startswith("gfx") else set()
    if capability >= (8, 0):
        facts.add("sm_80")
    if DPAS in extensions:
        facts.add(f"{DPAS} {8 if 8 in subgroup_sizes else 16}")
    return tuple(row.name for row in _ROWS if facts.intersection(row.needs))


UNITS: Mapping[str, Unit] = {**{unit.name: unit for unit in VECTOR_UNITS}, **MATRIX_UNITS}
"""All units by name, as `Target.units` lists what a device has."""
