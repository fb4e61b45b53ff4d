"""The tiles of matrix units, and which unit multiplies what."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.matrix_units import MATRIX_UNITS
from clinfer_kernels.contraction.units import Shape
from clinfer_kernels.contraction.walks import Walk
from clinfer_kernels.spec import Target
from clinfer_kernels.types import size_of

Cut = tuple[int, int, int, int, int]
"""Work-items along M and N, results of each along M and N, and k of a step."""

# By the lanes of a wave along rows and columns, and the bytes of an operand, the largest first.
_CUTS: dict[tuple[int, int, int], tuple[Cut, ...]] = {
    (8, 4, 1): (
        (32, 8, 8, 16, 32),  # 256 x 128, waves of 64 x 64
        (16, 16, 8, 8, 64),  # 128 x 128, waves of 64 x 32
        (16, 8, 8, 8, 64),
        (16, 8, 4, 8, 64),  # 64 x 64
        (8, 8, 4, 8, 64),
    ),
    (8, 4, 2): (
        (32, 8, 8, 16, 16),  # 256 x 128, waves of 64 x 64
        (16, 16, 8, 8, 32),  # 128 x 128, waves of 64 x 32
        (16, 8, 8, 8, 32),  # 128 x 64
        (16, 8, 4, 8, 32),  # 64 x 64
        (8, 8, 4, 8, 32),  # 32 x 64
    ),
    (8, 4, 4): (
        (16, 16, 8, 8, 16),
        (16, 8, 4, 8, 32),
        (8, 8, 4, 8, 32),
    ),
    (16, 4, 1): (
        (32, 8, 4, 16, 64),  # 128 x 128, waves of 64 x 64
        (32, 4, 4, 16, 32),  # 128 x 64
        (16, 4, 4, 16, 32),  # 64 x 64
    ),
    (16, 4, 2): (
        (32, 8, 4, 16, 32),  # 128 x 128, waves of 64 x 64
        (32, 8, 4, 8, 32),  # 128 x 64
        (32, 8, 2, 8, 32),  # 64 x 64, waves of 32 x 32
        (16, 8, 2, 8, 32),  # 32 x 64
    ),
    (16, 4, 4): (
        (32, 8, 4, 16, 16),  # 128 x 128, waves of 64 x 64
        (32, 4, 4, 16, 16),  # 128 x 64
        (32, 4, 2, 16, 16),  # 64 x 64, waves of 32 x 64
        (16, 4, 2, 16, 16),  # 32 x 64
    ),
    (16, 2, 1): (
        (64, 4, 2, 32, 32),  # 128 x 128, waves of 32 x 64
        (32, 4, 4, 16, 32),  # 128 x 64
        (32, 4, 2, 16, 32),  # 64 x 64, waves of 32 x 32
        (16, 4, 2, 16, 32),  # 32 x 64
    ),
    (16, 2, 2): (
        (64, 4, 2, 32, 16),  # 128 x 128, waves of 32 x 64; deeper steps spill
        (32, 4, 4, 16, 16),  # 128 x 64
        (32, 4, 2, 16, 16),  # 64 x 64, waves of 32 x 32
        (16, 4, 2, 16, 16),  # 32 x 64
    ),
    (1, 8, 1): (
        (8, 32, 16, 4, 64),  # 128 x 128, waves of 16 x 32
        (8, 16, 16, 4, 64),  # 128 x 64
        (4, 16, 16, 4, 64),  # 64 x 64
        (4, 16, 8, 4, 64),  # 32 x 64
    ),
    (1, 8, 2): (
        (8, 32, 16, 4, 32),  # 128 x 128, waves of 16 x 32: larger ones spill
        (8, 16, 16, 4, 32),  # 128 x 64
        (8, 16, 16, 4, 16),  # 128 x 64, for pieces of one element
        (4, 16, 16, 4, 32),  # 64 x 64, waves of 16 x 32
        (4, 16, 8, 4, 32),  # 32 x 64
    ),
    (1, 16, 1): (
        (8, 32, 16, 4, 64),  # 128 x 128, waves of 16 x 64
        (8, 16, 16, 4, 64),  # 128 x 64
        (4, 16, 16, 4, 64),  # 64 x 64
        (4, 16, 8, 4, 64),  # 32 x 64
    ),
    (1, 16, 4): (
        (8, 32, 16, 4, 16),  # 128 x 128, waves of 16 x 64
        (8, 32, 8, 4, 32),  # 64 x 128
        (8, 16, 8, 4, 16),  # 64 x 64
        (4, 16, 8, 4, 16),  # 32 x 64
    ),
    (1, 16, 2): (
        (8, 32, 16, 4, 32),  # 128 x 128, waves of 16 x 64
        (8, 16, 16, 4, 32),  # 128 x 64
        (4, 16, 16, 4, 32),  # 64 x 64, waves of 16 x 64
        (4, 16, 8, 4, 32),  # 32 x 64
    ),
}
_ADDRESSES = 12  # registers besides: addresses and counters
# Of instructions of each lane by itself, of eight bits.
_DOT_CUTS: tuple[Cut, ...] = (
    (16, 16, 8, 8, 16),  # 128 x 128
    (16, 8, 4, 8, 32),  # 64 x 64
    (8, 8, 4, 8, 32),  # 32 x 64
)
_HINTED = {
    "f32": "float32",
    "3xtf32": "float32",
    "tf32": "tf32",
    "f16": "float16",
    "bf16": "bfloat16",
}


def cuts_of(unit: MatrixUnit) -> tuple[Cut, ...]:
    """The cuts for waves like the unit's."""
    if unit.is_lane:
        return _DOT_CUTS
    return _CUTS[unit.rows.lanes, unit.cols.lanes, unit.packing.size]


def has_registers(unit: MatrixUnit, tile: Shape, a: Walk, b: Walk) -> bool:
    """Whether a work-item has the registers for its sums, fragments and the pieces that it copies,
    with what it keeps of where those lie."""
    strips, blocks = unit.fragments(tile)
    held = tile.rows * tile.cols + _ADDRESSES
    held += strips * len(unit.a.registers) + blocks * len(unit.b.registers)
    places = (tile.wg_rows * tile.rows, tile.wg_cols * tile.cols)
    for walk, count in zip((a, b), places, strict=True):
        pieces = count * tile.k_step // (tile.wg_rows * tile.wg_cols * walk.width)
        kept = len(walk.kept()) + len(walk.values())
        held += pieces * max(1, walk.width * size_of(walk.dtype) // 4)
        held += kept * (pieces if walk.along == "k" else 1) + walk.width * len(walk.beside())
    return held <= unit.registers


def unit_for(stored: Sequence[str], target: Target) -> MatrixUnit | None:
    """The matrix unit for operands of those dtypes; None where multiply-adds are to be used.

    16-bit operands are multiplied exactly, so they need no hint, but for units that take some of
    them for zero. 8-bit operands have sums of int32.
    """
    units = [MATRIX_UNITS[name] for name in target.matrix_units]
    operand = asked = _HINTED.get(target.precision, "")
    if set(stored) in ({"float16"}, {"bfloat16"}):
        units = [unit for unit in units if not unit.flushes or asked == stored[0]]
        if any(unit.operand == stored[0] for unit in units):
            operand = stored[0]
    elif stored and "int" in stored[0]:
        operand = stored[0] if stored[1] == "int8" else ""
    return next((u for u in units if u.operand == operand and _is_allowed(u, target)), None)


def _is_allowed(unit: MatrixUnit, target: Target) -> bool:
    """Sums of several terms lose infinite operands, so that they are to be asked for."""
    return unit.terms == 1 or target.precision == "3xtf32"
