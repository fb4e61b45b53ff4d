"""NVIDIA's mma.sync and dp4a, by inline PTX: PTX ISA, "Matrix Fragments for mma.m16n8k8",
"mma.m16n8k16" and "mma.m16n8k32"."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer_kernels.contraction.fragments import Layout, Order, Side
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.summands import ONE, TWO_TF32, Summands
from clinfer_kernels.contraction.unit_rows import dot


def _mma(name: str, operand: str, kind: str, rate: int, terms: Summands = ONE) -> MatrixUnit:
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
        rate=rate // len(terms.products),
        depth=max(16, k),
        order=order,
        acc="int32" if is_integer else "float32",
        results="scalars",
        pack="" if not terms.is_one or is_integer else operand if p == 1 else f"{operand} ptx",
        terms=terms,
        pad=8 if is_integer else 4,
    )


def _dp4a(kind: str) -> str:
    return f'__asm__ ("dp4a.{kind}.s32 %0, %1, %2, %0;" : "+r"(d0) : "r"(a0), "r"(b0))'


ROWS: Sequence[MatrixUnit] = (
    _mma("mma_f16", "float16", "f16", 1024),
    _mma("mma_bf16", "bfloat16", "bf16", 1024),
    _mma("mma_tf32", "tf32", "tf32", 512),
    _mma("mma_3xtf32", "float32", "tf32", 512, terms=TWO_TF32),
    _mma("mma_s8", "int8", "s8", 2048),
    _mma("mma_u8", "uint8", "u8", 2048),
    dot("dp4a_s8", "int8", _dp4a("s32"), ("sm_61",)),
    dot("dp4a_u8", "uint8", _dp4a("u32"), ("sm_61",)),
)
