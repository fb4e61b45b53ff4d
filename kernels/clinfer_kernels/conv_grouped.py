"""Convolution for class "cpu" in groups of a few filters: a vector holds the filters of several.

    lane        0    1    2    3    4    5    6    7       PER = 4 filters of a group,
    filter      0    1    2    3    4    5    6    7       C = 2 channels
    reads       c    c    c    c   2+c  2+c  2+c  2+c      of x[pixel at t][first filter / PER * C]

The channels that a vector's filters read lie side by side, so one load of LANES / PER * C of them
serves C products: channel c of each group is moved to its lanes by a fixed permutation of the
register. Depthwise convolutions with several filters for a channel are the case C = 1. The weights
are panels of all filters, as if there was one group of C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels import memory
from clinfer_kernels.conv_cpu import CpuTile, Inside, emit_with
from clinfer_kernels.conv_problem import Problem, problems_of, vector_lanes
from clinfer_kernels.spec import Kernel, Target, Tensor
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.types import register

_ROWS, _ROWS_WIDE = 6, 8  # pixels of a tile: sums and channels of each in registers, of 16 or 32
_MOST = 16  # elements of a vector


@dataclass(frozen=True)
class GroupedTile(CpuTile):
    """As `CpuTile`; groups have `per` filters and `channels` channels, which the text knows."""

    per: int = 1
    channels: int = 1

    @property
    def chunk(self) -> int:
        """Channels that the filters of a vector read."""
        return self.lanes // self.per * self.channels


def grouped_tiles(spec: ConvSpec, target: Target) -> tuple[GroupedTile, ...]:
    """The best guess first; none where a group's filters fill vectors, or no vectors evenly."""
    problem = problems_of(spec)[0]
    groups, filters, channels = problem.groups, problem.filters, problem.channels
    if not (isinstance(groups, int) and isinstance(filters, int) and isinstance(channels, int)):
        return ()
    if not spec.constant_w or spec.transposed or groups == 1:
        return ()
    rows = _ROWS_WIDE if target.vector_width >= 16 else _ROWS
    widest = vector_lanes(target, problem.acc)
    tiles = []
    for lanes in (widest, widest // 2):
        if lanes <= filters or lanes % filters or groups * filters % lanes:
            continue
        copies = not problem.reads_in_place
        tile = GroupedTile(rows, 1, lanes, copies, per=filters, channels=channels)
        if 2 <= tile.chunk <= _MOST and not tile.chunk & (tile.chunk - 1):
            tiles.append(tile)
    return tuple(tiles + [replace(tile, tiles=8, tasks=2) for tile in tiles])


def emit_grouped(spec: ConvSpec, tile: GroupedTile, target: Target) -> Kernel:
    """The launches: a copy of x where the tile asks for it, then the product."""
    acc = problems_of(spec)[0].acc
    inside = Inside(
        _products(tile, acc),
        f"filter / {tile.per} * {tile.channels}",
        tile.chunk,
        f"_per{tile.per}of{tile.channels}",
    )
    return emit_with(spec, tile, target, _joined, inside)


def _joined(spec: ConvSpec) -> tuple[Problem, ...]:
    """The problems as if there was one group, of all filters."""
    return tuple(
        replace(
            problem,
            groups=1,
            filters=problem.groups * problem.filters,
            weights=_ungrouped(problem.weights),
        )
        for problem in problems_of(spec)
    )


def _ungrouped(w: Tensor) -> Tensor:
    groups, filters = w.shape[:2]
    return Tensor(w.dtype, (1, groups * filters, *w.shape[2:]), (0, *w.strides[1:]), w.offset)


def _products(tile: GroupedTile, acc: str) -> list[str]:
    """Statements that multiply the channels of a tap, one after the other."""
    load_x = memory.load(acc, "from[r]", "0", tile.chunk)
    lines = [
        f"{register(acc, tile.chunk)} reads[ROWS];",
        "#pragma unroll",
        f"for (int r = 0; r < ROWS; ++r) reads[r] = {load_x};",
    ]
    for channel in range(tile.channels):
        load_w = memory.load(acc, "next_w", f"{channel} * LANES", tile.lanes)
        lines += [
            "{",
            f"    const vec y = {load_w};",
            "    #pragma unroll",
            "    for (int r = 0; r < ROWS; ++r) {",
            f"        acc[r][0] += reads[r].s{_lanes(tile, channel)} * y;",
            "    }",
            "}",
        ]
    return [*lines, f"next_w += {tile.channels} * COLS;"]


def _lanes(tile: GroupedTile, channel: int) -> str:
    """The elements of the loaded channels that go to the lanes, as a swizzle."""
    places = (lane // tile.per * tile.channels + channel for lane in range(tile.lanes))
    return "".join(f"{place:x}" for place in places)
