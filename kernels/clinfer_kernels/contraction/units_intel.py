"""Intel's dpas, by the functions of cl_intel_subgroup_matrix_multiply_accumulate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clinfer_kernels.contraction.fragments import Layout, Order, Side
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.summands import THREE_BF16
from clinfer_kernels.contraction.unit_rows import arguments

SUB_GROUPS = "cl_intel_subgroups"
DPAS = "cl_intel_subgroup_matrix_multiply_accumulate"
"""The extension of Intel's drivers."""

_NAMED = 256  # registers of a hardware thread, each a word of a lane's where sub-groups fill one
_THREAD = 2048  # 32-bit registers of a hardware thread that has 256 of eight


def _dpas(name: str, operand: str, kind: str, lanes: int) -> MatrixUnit:
    """Eight rows by a sub-group's lanes, k16. Lane l has of B column l, two k a register; of the
    results column l. Of A's rows it has k 2 l and 2 l + 1, in sub-groups of 16 k l, two rows a
    register. All k of a column of B lie side by side: read as one vector they are registers that
    follow each other, as the instruction wants."""
    narrow = Layout("0", "lane * 2", tuple((m, 0) for m in range(8)), 2)
    wide = Layout("0", "lane", tuple((m, 0) for m in range(0, 8, 2)), 1, is_across=True)
    a = narrow if lanes == 8 else wide
    given = [arguments("int8", "a", 8) if lanes == 8 else arguments("short8", "a", 4)]
    given.append(arguments("int8", "b", 8))
    return MatrixUnit(
        name,
        operand,
        rows=Side(1, 8, "0"),
        cols=Side(lanes, 1, "lane", height=4),
        k=16,
        a=a,
        b=Layout("lane", "0", tuple((0, k) for k in range(0, 16, 2)), 16, gap=8),
        issue=f"d = intel_sub_group_{kind}_{kind}_matrix_mad_k16({', '.join(given)}, d)",
        needs=(f"{DPAS} {lanes}",),
        rate=1024,
        pack="bfloat16_upper" if operand == "bfloat16" else operand,
        extension=DPAS,
        attribute=f"__attribute__((intel_reqd_sub_group_size({lanes})))",
        options="-cl-intel-256-GRF-per-thread",
        pad=4 if lanes == 8 else 8,
        words=8,
        registers=_THREAD // lanes,
    )


def _dpas_thirds(lanes: int) -> MatrixUnit:
    """`_dpas` of float32 that are sums of three bfloat16, six products each."""
    unit = _dpas(f"dpas{lanes}_bf16x3", "bfloat16", "bf16", lanes)
    rate = unit.rate // len(THREE_BF16.products)
    return replace(unit, operand="float32", pack="", terms=THREE_BF16, rate=rate, registers=_NAMED)


def _dpas_bytes(operand: str, lanes: int) -> MatrixUnit:
    """As `_dpas`, k32, four k a register, but of A in sub-groups of 16 two of two rows."""
    kind, sign = ("i8", "") if operand == "int8" else ("u8", "u")
    unit = _dpas(f"dpas{lanes}_{'u' if sign else 's'}8", operand, kind, lanes)
    a = Layout("0", "lane * 4", tuple((m, 0) for m in range(8)), 4)
    left = arguments(f"{sign}int8", "a", 8)
    if lanes == 16:
        a = Layout("0", "lane * 2", tuple((m, 0) for m in range(0, 8, 2)), 2, is_across=True)
        left = arguments(f"{sign}short8", "a", 4)
    given = f"{left}, {arguments('int8', 'b', 8)}"
    return replace(
        unit,
        k=32,
        a=a,
        b=Layout("lane", "0", tuple((0, k) for k in range(0, 32, 4)), 4),
        issue=f"d = intel_sub_group_{kind}_i8_matrix_mad_k32({given}, d)",
        rate=2048,
        depth=32,
        order=Order(32),
        acc="int32",
        pack="",
    )


def _shuffled() -> MatrixUnit:
    """Multiply-adds of float32 by a neighbour's A, 8 rows by 16 columns, k4: lane 8 h + m has row
    m, k 2 h and 2 h + 1; lane l has column l of B and of the results.

    A register of a lane whose number is constant is an operand like any other: there is no
    instruction for it, and a sub-group loads each element of A once.
    """
    each = [(k, m) for k in range(4) for m in range(8)]
    made = [
        f"d.s{m} += intel_sub_group_shuffle(as_float(a{k % 2}), {k // 2 * 8 + m}) * as_float(b{k})"
        for k, m in each
    ]
    return MatrixUnit(
        "shuffled_f32",
        "float32",
        rows=Side(1, 8, "0"),
        cols=Side(16, 1, "lane", height=4),
        k=4,
        a=Layout("lane % 8", "lane / 8 * 2", ((0, 0), (0, 1)), 4),
        b=Layout("lane", "0", tuple((0, k) for k in range(4)), 1),
        issue="; ".join(made),
        needs=(f"{DPAS} 8", f"{DPAS} 16"),  # for their registers: those without have half
        rate=128,
        depth=4,
        order=Order(4),
        extension=SUB_GROUPS,
        attribute="__attribute__((intel_reqd_sub_group_size(16)))",
        options="-cl-intel-256-GRF-per-thread",
        registers=_THREAD // 16,
    )


ROWS: Sequence[MatrixUnit] = (
    _dpas_thirds(8),
    _dpas_thirds(16),
    _shuffled(),
    _dpas("dpas8_f16", "float16", "f16", 8),
    _dpas("dpas8_bf16", "bfloat16", "bf16", 8),
    _dpas("dpas16_f16", "float16", "f16", 16),
    _dpas("dpas16_bf16", "bfloat16", "bf16", 16),
    *(_dpas_bytes(operand, lanes) for lanes in (8, 16) for operand in ("int8", "uint8")),
)
