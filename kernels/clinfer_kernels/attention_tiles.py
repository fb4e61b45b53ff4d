"""The tiles of attention for class "gpu", and which sizes want which."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels.attention_cpu import head_room
from clinfer_kernels.attention_problem import Problem
from clinfer_kernels.dims import Dim, ceildiv, maximum, minimum
from clinfer_kernels.spec import Target
from clinfer_kernels.types import compute_size

WIDTH = 4  # elements of the vectors in local memory: 16 bytes of float32
# Vectors that a work-item holds in arrays: with more the compilers spill them, or Intel's leaves
# them in memory, as it does with 4 rows (docs/gpu-rows.md).
_MOST_HELD = 10
_HELD = {"intel": 8}
_ROWS = {"intel": 2}
_LEAST_GROUP = 64  # work-items: fewer leave lanes empty
_FEW = 8  # rows of queries for which work-groups share the keys
_CHUNK = 256  # keys of a part


@dataclass(frozen=True)
class LocalTile:
    """A work-group of `wg_rows` x `wg_cols` work-items, each with `rows` queries, `key_cols` keys.

    `head_size`: room for the sizes of a head, a multiple of 4 `wg_cols`. `split`: runs of few
    queries share out the keys.
    """

    head_size: int
    wg_rows: int = 8
    wg_cols: int = 16
    rows: int = 4
    key_cols: int = 4
    split: bool = False

    @property
    def queries(self) -> int:
        """Queries of a work-group."""
        return self.wg_rows * self.rows

    @property
    def keys(self) -> int:
        """Keys that pass through local memory at a time."""
        return self.wg_cols * self.key_cols

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.wg_rows * self.wg_cols

    def fits(self, most: int) -> bool:
        """Whether a work-item has whole vectors to copy, and holds no more than `most`: results,
        scores, and keys or values on the way."""
        depth = self.head_size // WIDTH
        fetched, rest = divmod(self.keys * depth, self.work_group)
        results = self.rows * depth // self.wg_cols
        return rest == 0 and results + self.rows * self.key_cols / WIDTH + fetched <= most

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        head = (self.queries + self.keys) * (self.head_size + WIDTH)
        return size * (head + self.queries * (self.keys + WIDTH + self.wg_cols))


def local_tiles(problem: Problem, target: Target) -> tuple[LocalTile, ...]:
    """The tiles within the device's limits: the best guess first.

    That is the one that reuses most of those which give every unit something to do. With
    known few rows of queries only the keys make work.
    """
    room = head_room(problem)
    if room is None:
        return ()
    size = compute_size(problem.acc)
    tiles = [
        replace(tile, split=is_split(problem))
        for tile in _shapes(room, target)
        if tile.work_group <= target.max_work_group and tile.local_bytes(size) <= target.local_mem
    ]
    rows = problem.queries * problem.group
    if isinstance(rows, int) and rows <= _FEW:
        return tuple(sorted(tiles, key=lambda t: (t.work_group < _LEAST_GROUP, t.queries, -t.keys)))
    return tuple(sorted(tiles, key=lambda tile: _is_idle(problem, tile, target)))


def _shapes(room: int, target: Target) -> list[LocalTile]:
    """Tiles for heads of that size that fit the registers, those of most queries first."""
    depth = room // WIDTH
    wg_cols = 16 if depth % 16 == 0 else 8
    most = _HELD.get(target.dialect, _MOST_HELD)
    widest = 16 if depth > 16 else 8
    several = [rows for rows in (4, 2) if rows <= _ROWS.get(target.dialect, 4)]
    groups = [(widest, rows) for rows in several]
    groups += [(wg_rows, 1) for wg_rows in (16, 8, 4, 2) if wg_rows <= widest]
    found = []
    for wg_rows, rows in groups:
        shapes = [LocalTile(room, wg_rows, wg_cols, rows, key_cols) for key_cols in (4, 2, 1)]
        fitting = [tile for tile in shapes if tile.fits(most)]
        found += fitting[:1]
    return found or [LocalTile(room, wg_rows, 8, 1, 1) for wg_rows in (8, 4)]


def _is_idle(problem: Problem, tile: LocalTile, target: Target) -> bool:
    """Whether known sizes give fewer work-groups than units run them."""
    rows = problem.queries * problem.group
    groups = ceildiv(rows, tile.queries) * problem.kv_heads * problem.batch
    return isinstance(groups, int) and groups < target.group_units


def is_split(problem: Problem) -> bool:
    """Whether there may be runs of few queries and many keys."""
    rows, keys = problem.queries * problem.group, problem.keys
    if problem.queries == keys or (isinstance(rows, int) and rows > _FEW):
        return False
    return not isinstance(keys, int) or keys >= 2 * _CHUNK


def parts_of(problem: Problem) -> tuple[Dim, Dim, Dim]:
    """1 where a run shares out the keys, else 0; how many parts; keys of a part.

    Few rows make one block of them, many keys more than one part.
    """
    rows, keys = problem.queries * problem.group, problem.keys
    few = maximum(0, 2 - maximum(1, ceildiv(rows, _FEW)))
    more = maximum(0, ceildiv(keys, _CHUNK) - 1)
    shared = few * minimum(1, more)
    return shared, 1 + shared * more, keys + shared * (_CHUNK - keys)
