"""The tiles of matrix units, and which unit multiplies what."""

from __future__ import annotations

from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.units import Shape
from clinfer_kernels.contraction.walks import Walk
from clinfer_kernels.types import size_of

Cut = tuple[int, int, int, int, int]
"""Work-items along M and N, results of each along M and N, and k of a step."""

# By the lanes of a wave along rows and columns, and the bytes of an operand, or of all that it is a
# sum of: the largest first.
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
    (1, 8, 6): (
        (8, 32, 16, 4, 16),  # 128 x 128, waves of 16 x 32
        (8, 16, 16, 4, 16),  # 128 x 64
        (4, 16, 16, 4, 16),  # 64 x 64
        (4, 16, 8, 4, 16),  # 32 x 64
    ),
    (1, 16, 6): (
        (8, 32, 16, 4, 16),  # 128 x 128, waves of 16 x 64
        (8, 16, 16, 4, 16),  # 128 x 64
        (4, 16, 16, 4, 16),  # 64 x 64
        (4, 16, 8, 4, 16),  # 32 x 64
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


def cuts_of(unit: MatrixUnit) -> tuple[Cut, ...]:
    """The cuts for waves like the unit's."""
    if unit.is_lane:
        return _DOT_CUTS
    return _CUTS[unit.rows.lanes, unit.cols.lanes, unit.packing.size * unit.packing.count]


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
