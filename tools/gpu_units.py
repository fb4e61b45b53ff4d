"""NVIDIA's matrix instructions from OpenCL C, and where each lane's elements lie.

One warp computes D = A B, row-major A (16 x K) and column-major B (K x 8). With 32-bit registers of
p elements each, lane = 4 g + t, element i of register r:

    A  row g + 8 (r mod 2)      column p t + (K / 2) (r div 2) + i
    B  row p t + (K / 2) r + i  column g
    D  row g + 8 (r div 2)      column 2 t + r mod 2

(PTX ISA, "Matrix Fragments for mma.m16n8k8/16/32".) Numbers are small integers, so every unit gives
the exact product where the layout is right, and where the work-items of a group are numbered as
the lanes of a warp. Emulated, the same is computed from the registers of all 32 work-items by way
of local memory: that runs on any device and shows that gather and scatter here are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS, COLUMNS, LANES = 16, 8, 32


@dataclass(frozen=True)
class Unit:
    """An instruction. `kind` of elements: 'f4', 'f2', 'bf16', 'i1'; `depth`: K; `result`: of D."""

    name: str
    instruction: str
    kind: str
    depth: int
    result: str = "f32"

    @property
    def per_register(self) -> int:
        """Elements of a 32-bit register."""
        return {"f4": 1, "f2": 2, "bf16": 2, "i1": 4}[self.kind]


UNITS = (
    Unit("tf32 m16n8k8", "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "f4", 8),
    Unit("f16 m16n8k16", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "f2", 16),
    Unit("bf16 m16n8k16", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "bf16", 16),
    Unit("int8 m16n8k32", "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", "i1", 32, "s32"),
)

_HEAD = """
__kernel __attribute__((reqd_work_group_size(32, 1, 1)))
void unit(__global const uint* a, __global const uint* b, __global @T* d, __global uint* lanes)
{
    const int lane = get_local_id(0);
    @T r0 = 0, r1 = 0, r2 = 0, r3 = 0;
    const uint a0 = a[4 * lane], a1 = a[4 * lane + 1], a2 = a[4 * lane + 2], a3 = a[4 * lane + 3];
    const uint b0 = b[2 * lane], b1 = b[2 * lane + 1];
"""
_TAIL = """
    d[4 * lane] = r0; d[4 * lane + 1] = r1; d[4 * lane + 2] = r2; d[4 * lane + 3] = r3;
}
"""
_NATIVE = """
    uint id;
    __asm__ volatile ("mov.u32 %0, %%laneid;" : "=r"(id));
    lanes[lane] = id;
    __asm__ volatile ("@INSTRUCTION {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+@C"(r0), "+@C"(r1), "+@C"(r2), "+@C"(r3)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
"""
_EMULATED = """
    __local uint as[128], bs[64];
    as[4 * lane] = a0; as[4 * lane + 1] = a1; as[4 * lane + 2] = a2; as[4 * lane + 3] = a3;
    bs[2 * lane] = b0; bs[2 * lane + 1] = b1;
    lanes[lane] = lane;
    barrier(CLK_LOCAL_MEM_FENCE);
    @T r[4];
    for (int k = 0; k < 4; ++k) {
        const int row = lane / 4 + 8 * (k / 2), column = 2 * (lane % 4) + k % 2;
        @T sum = 0;
        for (int half_ = 0; half_ < 2; ++half_)
            for (int t = 0; t < 4; ++t)
                for (int i = 0; i < @P; ++i)
                    sum += VALUE(as[4 * (4 * (row % 8) + t) + 2 * half_ + row / 8], i)
                         * VALUE(bs[2 * (4 * column + t) + half_], i);
        r[k] = sum;
    }
    r0 = r[0]; r1 = r[1]; r2 = r[2]; r3 = r[3];
"""
_VALUES = {
    "f4": "as_float(x)",
    "f2": "vload_half(i, (const __local half*)&(x))",
    "bf16": "as_float((x >> (16 * (i))) << 16)",
    "i1": "(int)(char)((x >> (8 * (i))) & 255)",
}


def source(unit: Unit, emulated: bool) -> str:
    """OpenCL C of a kernel `unit(A, B, D, lanes)` on registers; one work-group of 32."""
    body = _HEAD + (_EMULATED if emulated else _NATIVE) + _TAIL
    words = {
        "@T": "float" if unit.result == "f32" else "int",
        "@C": "f" if unit.result == "f32" else "r",
        "@P": str(unit.per_register),
        "@INSTRUCTION": unit.instruction,
    }
    for word, text in words.items():
        body = body.replace(word, text)
    return f"#define VALUE(x, i) ({_VALUES[unit.kind]})\n{body}"


def matrices(unit: Unit, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A and B of integers that every kind holds exactly, as int64."""
    rng = np.random.default_rng(seed)
    shapes = (ROWS, unit.depth), (unit.depth, COLUMNS)
    a, b = (rng.integers(-8, 9, shape) for shape in shapes)
    return a, b


def registers(
    unit: Unit, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The registers of all lanes, (32, 4) and (32, 2) of uint32."""
    p, half = unit.per_register, unit.depth // 2
    lanes = [divmod(lane, 4) for lane in range(LANES)]
    left = [
        a[g + 8 * (r % 2), p * t + half * (r // 2) + i]
        for g, t in lanes
        for r in range(4)
        for i in range(p)
    ]
    right = [b[p * t + half * r + i, g] for g, t in lanes for r in range(2) for i in range(p)]
    return _packed(unit, left, 4), _packed(unit, right, 2)


def product(d: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """D (16 x 8) from the registers of all lanes, (32, 4)."""
    found = np.empty((ROWS, COLUMNS), d.dtype)
    for lane in range(LANES):
        for r in range(4):
            found[lane // 4 + 8 * (r // 2), 2 * (lane % 4) + r % 2] = d[lane, r]
    return found


def _packed(unit: Unit, values: list[Any], count: int) -> np.ndarray[Any, Any]:
    if unit.kind == "bf16":
        bits = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        bits = np.asarray(values).astype(unit.kind)
    return bits.view(np.uint32).reshape(LANES, count)
