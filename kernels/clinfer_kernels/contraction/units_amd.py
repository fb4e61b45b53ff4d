"""AMD's MFMA, WMMA and dot4, by Clang's builtin functions.

"AMD Instinct MI200 / MI300 Instruction Set Architecture", "Matrix Arithmetic Instructions"; "RDNA3
Instruction Set Architecture", 7.9. Matrix instructions get A and B in each other's place: their
results, four neighbouring rows of one column, are then four neighbouring columns of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clinfer_kernels.contraction.fragments import Layout, Order, Side
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.unit_rows import arguments, dot
from clinfer_kernels.contraction.units import OPAQUE

_MFMA_16X16 = (Side(16, 1, "lane % 16", height=2), Side(4, 4, "lane / 16", True, 8, 2))
_MFMA_BYTES = (Side(16, 1, "lane % 16", height=4), Side(4, 4, "lane / 16", True, 16, 4))
_MFMA_16X16_F32 = (Side(16, 1, "lane % 16"), Side(4, 4, "lane / 16", True, 4))
_WMMA_16X16 = (Side(16, 1, "lane % 16", height=2), Side(2, 8, "lane / 16", False, 4, 2))
_SDOT4 = ("gfx906", "gfx908", "gfx1011", "gfx1012", *(f"gfx103{n}" for n in range(7)))


def _half(operand: str) -> str:
    return "cl_khr_fp16" if operand == "float16" else ""


def _mfma(name: str, operand: str, builtin: str, kind: str, needs: Sequence[str]) -> MatrixUnit:
    """v_mfma_f32_16x16x16: lane = 16 h + r has row r of the first operand and column r of the
    second, k 4 h to 4 h + 3; of the result column r and rows 4 h to 4 h + 3."""
    layout = Layout("lane % 16", "lane / 16 * 4", ((0, 0), (0, 2)), 4)
    given = ", ".join(arguments(kind, n, 2) for n in "ba")
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
    given = ", ".join(arguments(kind, n, 8) for n in "ba")
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
        settle=OPAQUE,
        extension=_half(operand),
    )


def _wmma_bytes(operand: str) -> MatrixUnit:
    """As `_wmma`, with four k a register; the first operand is B, of int8."""
    layout = Layout("lane % 16", "0", tuple((0, k) for k in range(0, 16, 4)), 4)
    b, a = (arguments("int4", n, 4) for n in "ba")
    signs = "true", "true" if operand == "int8" else "false"
    return MatrixUnit(
        f"wmma_{'s8' if operand == 'int8' else 'u8'}",
        operand,
        *_WMMA_16X16,
        16,
        layout,
        layout,
        "d = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32"
        f"({signs[0]}, {b}, {signs[1]}, {a}, d, false)",
        ("gfx11",),
        512,
        acc="int32",
        settle=OPAQUE,
    )


def _mfma_bytes(name: str, k: int, builtin: str, kind: str, needs: str) -> MatrixUnit:
    """As `_mfma`, int8 by int8: lane 16 h + r has k (K / 4) h and on, four a register."""
    registers = tuple((0, first) for first in range(0, k // 4, 4))
    layout = Layout("lane % 16", f"lane / 16 * {k // 4}", registers, 4)
    given = ", ".join(arguments(kind, n, len(registers)) for n in "ba")
    return MatrixUnit(
        name,
        "int8",
        *_MFMA_BYTES,
        k,
        layout,
        layout,
        f"d = __builtin_amdgcn_mfma_i32_16x16x{builtin}({given}, d, 0, 0, 0)",
        (needs,),
        512,
        depth=k,
        order=Order(k),
        acc="int32",
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


def _unsigned(unit: MatrixUnit) -> MatrixUnit:
    """The same for A of uint8, by an instruction that takes int8 only."""
    return replace(unit, name=unit.name.replace("s8", "u8"), operand="uint8", flips=True)


_INT8 = (
    _mfma_bytes("mfma_s8_k32", 32, "32_i8", "long", "gfx942"),
    _mfma_bytes("mfma_s8", 16, "16i8", "int", "gfx90a"),
    dot("sdot4_s8", "int8", "d0 = __builtin_amdgcn_sdot4(a0, b0, d0, false)", _SDOT4),
)
ROWS: Sequence[MatrixUnit] = (
    _MFMA_F16,
    replace(_MFMA_F16, name="mfma_f16_flushing", needs=("gfx90a",), flushes=True),
    _mfma("mfma_bf16", "bfloat16", "bf16_1k", "short4", ("gfx90a", "gfx942")),
    _MFMA_F32,
    _wmma("wmma_f16", "float16", "f16", "half16"),
    _wmma("wmma_bf16", "bfloat16", "bf16", "short16"),
    _wmma_bytes("int8"),
    _wmma_bytes("uint8"),
    *_INT8,
    *map(_unsigned, _INT8),
)
