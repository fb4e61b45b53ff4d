"""Runs along rows by work-groups of GPUs: `across` rows at a time, `deep` work-items to each.

Where a row's elements lie side by side, so do its work-items: they read 16 bytes at a time where
all vectors are known to lie at multiples of their size. Of rows known not to be too long, a
work-item keeps its vectors in registers from one run to the next. Rows of a few elements have a
work-item each. Else neighbouring work-items have neighbouring rows.

The states of a row's work-items are joined in local memory by a tree of few levels; every
work-item reads the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinfer_kernels import types
from clinfer_kernels.dims import common_factor
from clinfer_kernels.nest import decode
from clinfer_kernels.row_pass import (
    TILE,
    Cell,
    Pass,
    declare,
    join,
    lane_numbers,
    merge_lines,
    step_lines,
)
from clinfer_kernels.rows import RowProblem, RowView, at_least, row_base
from clinfer_kernels.spec import Target
from clinfer_kernels.template import inside

_SHORT = 16  # elements of a row that one work-item takes
_MOST_HELD = 8  # vectors that a work-item keeps in registers
_FAN = 8  # states that a level of the tree joins
_VECTOR = 16  # bytes of a vector


@dataclass(frozen=True)
class GroupTile:
    """A work-group of `across` rows by `deep` work-items, which take `width` elements at a time.

    dense: neighbouring work-items are neighbours along the row. held: vectors of a row that a
    work-item has, where it is known, and few enough for registers; else 0. parts: pieces of a row,
    reduced on their own and joined by a second launch. waves: work-groups per compute unit at most.
    """

    across: int
    deep: int
    width: int = 1
    held: int = 0
    dense: bool = False
    parts: int = 1
    waves: int = 64

    schedule = "groups"
    unroll = 1

    @property
    def local(self) -> int:
        """Work-items of a work-group."""
        return self.across * self.deep

    @property
    def places(self) -> list[str]:
        """Statements giving the work-item's row x and place y in it."""
        row, place = "get_local_id(0) / {0}", "get_local_id(0) % {0}"
        if not self.dense:
            row, place = f"get_local_id(0) % {self.across}", f"get_local_id(0) / {self.across}"
        return [
            f"const int x = {row.format(self.deep)};",
            f"const int y = {place.format(self.deep)};",
        ]


def group_tile(problem: RowProblem, target: Target, rows: bool = True) -> GroupTile:
    """The tile for rows of that length and memory order. `rows`: work-items keep their vectors."""
    most = min(target.max_work_group, 256)
    length = at_least(problem.length)
    source = problem.ins[0]
    if len(problem.row) > 1 or source.row_step != "1":
        return _beside(problem, most, length)
    width = _width(problem)
    known = isinstance(problem.length, int)
    short = known and length <= _SHORT
    deep = 1 if short else _power_of_two(min(most, max(length // 4, 1)))
    held = -(-length // (deep * width)) if known and rows else 0
    if held > _MOST_HELD and not short:
        held = 0
    return GroupTile(max(1, min(most, 64) // deep), deep, width, held, dense=True)


def _beside(problem: RowProblem, most: int, length: int) -> GroupTile:
    """Work-items beside each other have rows beside each other, where these lie so in memory."""
    if problem.ins[0].kept_step == "1":
        across = min(32, most)
        return GroupTile(across, _power_of_two(min(most // across, max(length // 4, 1))))
    deep = _power_of_two(min(most, max(length // 4, 1)))
    return GroupTile(max(1, min(most, 64) // deep), deep)


def _power_of_two(limit: int) -> int:
    """The greatest power of two up to `limit`."""
    return 1 << (limit.bit_length() - 1)


def _width(problem: RowProblem) -> int:
    """Elements of a vector of at most 16 bytes: every one of a row's lies at a multiple of it."""
    views = [view for view in problem.views if view.row]
    if any(view.row_step not in ("0", "1") for view in views):
        return 1
    dense = [view for view in views if view.row_step == "1"]
    strides = [d for view in dense for d in (view.offset, *view.kept)]
    widest = max(types.compute_size(view.dtype) for view in dense)
    factor = common_factor([problem.length, *strides])
    return next(w for w in (4, 2, 1) if factor % w == 0 and w * widest <= _VECTOR)


def in_group(
    p: Pass, views: Sequence[RowView], rank: int, tile: GroupTile, bounds: tuple[str, str]
) -> list[str]:
    """Statements of a work-group that runs along its rows.

    The variables x, y and row say which work-item this is; only rows below `rows` are stored to.
    `bounds`: the range of the flat element index, of vectors whole ones. Arrays tree_0, ... must be
    declared (see `trees`); all work-items of the group must come here. The state's final values are
    in the variables PREFIX_0, PREFIX_1, ... afterwards.
    """
    low, high = bounds
    guard = "row < rows" if tile.across > 1 else ""
    width = tile.width
    lines = declare(p, 0, width)
    if not tile.dense:
        step = ["int element = r;", *(f"int r{k};" for k in range(rank))]
        step += decode(range(rank), "element", "r", "m")
        step += [row_base(v, rank) for v in views]
        step += step_lines(p, 1, 0, "", "r" if p.positions else "0", False, False, guard)
        head = f"for (int r = {low} + y; r < {high}; r += {tile.deep}) {{"
        return [*lines, head, *inside(step), "}", *_tree(p, tile, p.accumulators(0))]
    wide = replace(p, loads=_aligned(p.loads, width), stores=_aligned(p.stores, width))
    position = "(lane + j)" if width > 1 else "j"
    body = [row_base(v, 0) for v in views]
    body += step_lines(wide, width, 0, "j", position if p.positions else "0", False, False, guard)
    if p.positions and width > 1:
        lines.append(lane_numbers(width))
    if tile.held:
        lines += [
            "#pragma unroll",
            f"for (int n = 0; n < {tile.held}; ++n) {{",
            f"    const int j = (n * {tile.deep} + y) * {width};",
            f"    if (j < {high}) {{",
            *inside(inside(body)),
            "    }",
            "}",
        ]
    else:
        first = f"y * {width}" if width > 1 else "y"
        head = f"for (int j = {low} + {first}; j < {high}; j += {tile.deep * width}) {{"
        lines += [head, *inside(body), "}"]
    names = p.accumulators(0)
    if width > 1 and p.state:
        names = [f"{p.prefix}_own_{s}" for s in range(len(p.state))]
        lines += join(p, 1, width, names)
    return ["{", *inside(lines), "}"] if not p.state else [*lines, *_tree(p, tile, names)]


def _aligned(cells: Sequence[Cell], width: int) -> tuple[Cell, ...]:
    return tuple(replace(c, is_aligned=width > 1 and c.step == "1") for c in cells)


def held_vector(dtype: str) -> Cell:
    """The vectors that a work-item keeps."""
    return Cell(dtype, "held_tile", "n", TILE)


def locals_of(passes: Sequence[Pass], tile: GroupTile, held: str | None = None) -> list[str]:
    """What a kernel declares for `in_group`. held: the dtype of what work-items keep."""
    lines = trees(passes, tile)
    if held:
        lines.append(f"{types.register(held, tile.width)} held_tile[{tile.held}];")
    return lines


def trees(passes: Sequence[Pass], tile: GroupTile) -> list[str]:
    """Local arrays for the passes' states, one place a work-item."""
    if tile.deep == 1:
        return []
    states = {(s, d) for p in passes for s, d in enumerate(p.state)}
    return [
        f"__local {types.compute(d)} {_tree_name(s, d)}[{tile.local}];" for s, d in sorted(states)
    ]


def _tree(p: Pass, tile: GroupTile, own: list[str]) -> list[str]:
    """Joins the states `own` of a row's work-items, `_FAN` of them at a time."""
    if not p.state:
        return []
    finals = list(zip(p.results, p.state, strict=True))
    if tile.deep == 1:
        pairs = zip(finals, own, strict=True)
        return [f"const {types.compute(d)} {result} = {name};" for (result, d), name in pairs]
    names = [_tree_name(s, d) for s, d in enumerate(p.state)]
    put = [f"{t}[get_local_id(0)] = {a};" for t, a in zip(names, own, strict=True)]
    apart = 1 if tile.dense else tile.across
    lines = ["barrier(CLK_LOCAL_MEM_FENCE);", *put]
    left = tile.deep
    while left > 1:
        fan = min(_FAN, left)
        left //= fan
        level: list[str] = []
        for other in range(1, fan):
            there = [f"{t}[get_local_id(0) + {other * left * apart}]" for t in names]
            level += merge_lines(p, own, there, 1)
        lines += [
            "barrier(CLK_LOCAL_MEM_FENCE);",
            f"if (y < {left}) {{",
            *inside([*level, *put]),
            "}",
        ]
    lines.append("barrier(CLK_LOCAL_MEM_FENCE);")
    first = f"x * {tile.deep}" if tile.dense and tile.across > 1 else "0" if tile.dense else "x"
    lines += [
        f"const {types.compute(dtype)} {result} = {name}[{first}];"
        for (result, dtype), name in zip(finals, names, strict=True)
    ]
    return lines


def _tree_name(place: int, dtype: str) -> str:
    return f"tree{place}_{types.compute(dtype)}"
