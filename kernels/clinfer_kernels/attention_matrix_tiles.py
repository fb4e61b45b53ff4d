"""The tiles of attention by a matrix unit, and where a unit's sums and weights are.

The weights of the first product are operand A of the second: through local memory, or, where a
lane has what its registers of A hold (`contraction.chained`), without leaving it. A unit whose
results are its operand B instead multiplies the other way around: keys by queries, then values by
the weights so turned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from clinfer_kernels.attention_problem import Problem
from clinfer_kernels.attention_tiles import is_split
from clinfer_kernels.contraction.chained import sources
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.matrix_units import MATRIX_UNITS, unit_for
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.dims import ceildiv
from clinfer_kernels.spec import Target

Path = Literal["local", "kept", "turned"]
"""How weights become an operand: through local memory, as A of a lane, as B of a lane."""

_SIDE_BY_SIDE = 2  # values of k that lie side by side in tiles of queries, where they are columns

_Cut = tuple[Path, int, int, int, int]
"""The path of weights, waves that share queries, waves of a work-group along queries, queries of a
work-item, and keys of a block."""

_NARROW: tuple[_Cut, ...] = (("kept", 1, 4, 2, 32), ("kept", 1, 2, 2, 32), ("kept", 1, 1, 2, 16))
_MFMA: tuple[_Cut, ...] = (("kept", 1, 2, 2, 32), ("kept", 1, 4, 2, 32), ("kept", 1, 1, 2, 32))
# By the lanes of a wave along rows and columns, and the bytes of an operand: the largest head that
# cuts are for, and those, the best first. None spills with float16.
_CUTS: dict[tuple[int, int, int], tuple[tuple[int, tuple[_Cut, ...]], ...]] = {
    (8, 4, 2): (
        (64, _NARROW),
        (128, (("kept", 1, 4, 2, 32), ("local", 2, 2, 2, 32), ("local", 2, 1, 2, 32))),
    ),
    (8, 4, 4): (
        (64, _NARROW),
        (128, (("local", 2, 4, 2, 32), ("local", 2, 2, 2, 32))),
    ),
    (16, 4, 2): ((128, _MFMA),),
    (16, 4, 4): ((128, (("kept", 1, 2, 1, 32), ("kept", 1, 4, 1, 32))),),
    (16, 2, 2): (
        (64, (("local", 1, 4, 1, 32), ("local", 1, 2, 1, 32))),
        (128, (("local", 2, 4, 1, 32),)),
    ),
    (1, 8, 2): (
        (64, (("turned", 1, 16, 1, 32),)),
        (96, (("turned", 2, 16, 1, 32), ("turned", 2, 8, 1, 32))),
        (128, (("turned", 2, 16, 1, 32),)),
    ),
    (1, 16, 2): (
        (64, (("turned", 1, 8, 1, 32),)),
        (128, (("turned", 2, 8, 1, 32), ("turned", 2, 4, 1, 32))),
    ),
}


@dataclass(frozen=True)
class Shape:
    """A product of a wave's tiles, as `units.Shape`."""

    rows: int
    cols: int
    wg_rows: int
    wg_cols: int
    k_step: int


@dataclass(frozen=True)
class MatrixTile:
    """`waves` waves of a unit along queries, each with `rows` queries a work-item.

    `head_size`: room for the sizes of a head; `keys` of a block; `across`: waves that share rows,
    each of which has a part of the head's columns: and of the keys, whose weights go through local
    memory, but where products are turned. There each makes all scores of its rows.
    """

    unit: str
    head_size: int
    keys: int
    waves: int
    rows: int
    across: int = 1
    path: Path = "local"

    @property
    def own(self) -> MatrixUnit:
        """The unit of the results, whose queries lie side by side as a work-item has them."""
        unit = MATRIX_UNITS[self.unit]
        if self.path != "turned":
            height = min(unit.rows.height, self.rows)
            return replace(unit, rows=replace(unit.rows, height=height))
        b = replace(unit.b, together=min(unit.b.together, _SIDE_BY_SIDE), gap=0)
        return replace(unit, cols=replace(unit.cols, height=self.rows), b=b)

    @property
    def scores(self) -> MatrixUnit:
        """The unit of the scores, whose keys lie as the second product wants them."""
        unit = self.own
        if self.path != "kept" or sources(unit, unit, "a", (1, unit.cols_step)):
            return unit
        return replace(unit, cols=replace(unit.cols, weave=1, height=unit.cols.each))

    @property
    def is_turned(self) -> bool:
        """Whether keys and columns of the head are a product's rows, and queries its columns."""
        return self.path == "turned"

    @property
    def lanes(self) -> int:
        """Work-items of a wave that have different queries."""
        return self.own.cols.lanes if self.is_turned else self.own.rows.lanes

    @property
    def parts(self) -> int:
        """Work-items that share the head's columns of a query."""
        return self.across * self.own.lanes // self.lanes

    @property
    def sharers(self) -> int:
        """Work-items that share the keys of a query."""
        return self.own.lanes // self.lanes if self.is_turned else self.parts

    @property
    def queries(self) -> int:
        """Queries of a work-group."""
        return self.waves * self.lanes * self.rows

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.waves * self.across * self.own.lanes

    @property
    def scores_shape(self) -> Shape:
        """Of the product of all queries and keys."""
        return self._shape(self.keys // self.sharers, self.head_size)

    @property
    def results_shape(self) -> Shape:
        """Of the product of all weights and values."""
        return self._shape(self.head_size // self.parts, self.keys)

    def _shape(self, each: int, k_step: int) -> Shape:
        rows = self.waves * self.lanes
        if self.is_turned:
            return Shape(each, self.rows, self.parts, rows, k_step)
        return Shape(self.rows, each, rows, self.parts, k_step)

    @property
    def turn(self) -> int:
        """Values that lie side by side, which a work-item copies together."""
        return self.own.packing.together[0 if self.is_turned else 1]

    @property
    def is_even(self) -> bool:
        """Whether all work-items copy as many vectors of keys, and of values."""
        return self.keys * self.head_size // LANES % (self.work_group * self.turn) == 0

    @property
    def fetched(self) -> int:
        """Vectors of keys, or of values, that a work-item copies."""
        vectors = self.keys * self.head_size // LANES
        return -(-vectors // (self.work_group * self.turn)) * self.turn

    @property
    def kv_room(self) -> int:
        """Elements of the tile of keys, or of values."""
        pad = self.own.packing.pad
        return max(self.head_size * (self.keys + pad), self.keys * (self.head_size + pad))

    @property
    def local_bytes(self) -> int:
        """Local memory."""
        packing = self.own.packing
        lines = self.head_size + (self.keys if self.path == "local" else 0)
        tiles = lines * (self.queries + packing.pad) + self.kv_room
        tree = self.queries * self.sharers * 4 if self.sharers > 1 else 0
        return tiles * packing.size + tree + self.keys * 4

    # -- a lane's numbers --------------------------------------------------------------------------

    def sum_at(self, unit: MatrixUnit, query: int, other: int) -> str:
        """The lane's sum of its query and its key, or column of the head, behind the sums' name."""
        return unit.sum_at(other, query) if self.is_turned else unit.sum_at(query, other)

    def query_place(self, query: int) -> str:
        """Of a lane's query, its number in the tile."""
        return _col(self.own, query) if self.is_turned else _row(self.own, query)

    def place(self, unit: MatrixUnit, other: int) -> str:
        """Of a lane's key, or column of the head, its number in the tile."""
        return _row(unit, other) if self.is_turned else _col(unit, other)


def _row(unit: MatrixUnit, r: int) -> str:
    return re.sub(r"\br\b", str(r), unit.row())


def _col(unit: MatrixUnit, c: int) -> str:
    high, block = unit.cols.height, unit.cols.lanes * unit.cols.height
    return f"wave_col + {c // high * block + c % high} + {high} * lane_col"


def matrix_tiles(problem: Problem, target: Target) -> tuple[MatrixTile, ...]:
    """The tiles within the device's limits, the best guess first; none where no unit may be used,
    or runs of few queries share out the keys."""
    stored = (problem.q.dtype, problem.k.dtype, problem.v.dtype)
    unit = unit_for(stored, target) if problem.acc == "float32" else None
    if unit is None or unit.acc != "float32" or unit.terms.planes or is_split(problem):
        return ()
    wave = (unit.rows.lanes, unit.cols.lanes, unit.packing.size)
    sizes = (problem.depth, problem.columns)
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes):
        return ()
    needed = max(known)
    cuts = next((cuts for most, cuts in _CUTS.get(wave, ()) if needed <= most), ())
    fitting = []
    for path, across, waves, rows, keys in cuts:
        tile = _whole(MatrixTile(unit.name, 0, keys, waves, rows, across, path), needed)
        if tile.work_group <= target.max_work_group and tile.local_bytes <= target.local_mem:
            fitting.append(tile)
    return tuple(sorted(fitting, key=lambda tile: _idle_queries(problem, tile, target)))


def _whole(tile: MatrixTile, head: int) -> MatrixTile:
    """The tile with whole steps and fragments, where that can be of vectors that all copy; but
    waves that make the scores of all keys keep few of those."""
    of_keys, of_head = (
        (unit.rows_step if tile.is_turned else unit.cols_step) * tile.across
        for unit in (tile.scores, tile.own)
    )
    of_keys, of_head = max(of_keys, tile.own.depth), max(of_head, tile.own.depth)
    keys = -(-tile.keys // of_keys) * of_keys
    tile = replace(tile, head_size=-(-head // of_head) * of_head, keys=keys)
    most = 1 if tile.is_turned and tile.across > 1 else 2
    longer = [replace(tile, keys=keys * times) for times in range(1, most + 1)]
    return next((tile for tile in longer if tile.is_even), tile)


def _idle_queries(problem: Problem, tile: MatrixTile, target: Target) -> int:
    """0 where a tile keeps the device busy, or sizes are not known; else its queries."""
    rows = problem.queries * problem.group
    groups = ceildiv(rows, tile.queries) * problem.kv_heads * problem.batch
    is_idle = isinstance(groups, int) and groups < target.group_units
    return tile.queries if is_idle else 0
