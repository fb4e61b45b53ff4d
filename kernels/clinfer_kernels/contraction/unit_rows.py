"""What rows of several vendors have in common."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer_kernels.contraction.fragments import Layout, Order, Side
from clinfer_kernels.contraction.instructions import MatrixUnit


def arguments(kind: str, operand: str, registers: int) -> str:
    """The registers of an operand, a0, a1, ..., as one value of type `kind`."""
    values = ", ".join(f"{operand}{i}" for i in range(registers))
    if registers == 1:
        return f"as_{kind}({values})"
    return f"as_{kind}((uint{registers})({values}))"


def dot(name: str, operand: str, issue: str, needs: Sequence[str]) -> MatrixUnit:
    """An instruction of each lane by itself: as a wave's, rows lane div 4 by columns lane mod 4."""
    return MatrixUnit(
        name,
        operand,
        rows=Side(8, 1, "lane / 4", height=4),
        cols=Side(4, 1, "lane % 4", height=4),
        k=4,
        a=Layout("lane / 4", "0", ((0, 0),), 4),
        b=Layout("lane % 4", "0", ((0, 0),), 4),
        issue=issue,
        needs=tuple(needs),
        rate=256,
        order=Order(4),
        acc="int32",
        results="scalars",
    )
