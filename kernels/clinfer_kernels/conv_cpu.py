"""Convolution for class "cpu": implicit matrix product in register tiles, one work-item a group.

The text knows neither the window nor any size: taps, strides, dilations and padding are arguments,
so that all convolutions of a network with one kind of epilogue are one program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from clinfer_kernels import hints, memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_pack import DenseInput, Panels, constant_panels, pack_panels
from clinfer_kernels.conv_problem import Problem, problems_of, vector_lanes
from clinfer_kernels.dims import Dim, ceildiv, floordiv, maximum, minimum
from clinfer_kernels.pixels import declare_pixels, declare_rows, finish, keep_rows, load_rows
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import MAX_GROUPS
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, filled_vectors, register, size_of
from clinfer_kernels.window import (
    advance_position,
    declare_axes,
    decode_position,
    decode_taps,
    index,
    windowed,
)

_WIDEST = 64  # bytes of a vector
_AHEAD = 64  # rows of a panel that a fetch is ahead of its use
_CHEAP = 4  # lines of an epilogue that is written out for each vector of a tile


@dataclass(frozen=True)
class CpuTile:
    """A register tile of `rows` pixels x (`vecs` x `lanes`) filters, and how work is cut.

    A task has about `tiles` register tiles of pixels, and at most `panels` panels of filters: fewer
    where there would be less than `tasks` tasks per compute unit. `copy_x`: a launch before makes
    the input dense, in the dtype of the sums. `pack_w`: a launch before packs the weights, which
    are not constant.
    """

    rows: int = 6
    vecs: int = 2
    lanes: int = 8
    copy_x: bool = False
    pack_w: bool = False
    tiles: int = 4
    panels: int = 8
    tasks: int = 32

    @property
    def cols(self) -> int:
        """Filters of a register tile."""
        return self.vecs * self.lanes


def cpu_tiles(spec: ConvSpec, target: Target) -> tuple[CpuTile, ...]:
    """The best guess first, then other cuts into tasks of the same text.

    Where the filters fill them, tiles are two vectors wide. Known few pixels are cut evenly, and
    one or two get wider tiles, for enough independent sums.
    """
    problem = problems_of(spec)[0]
    lanes = _lanes(problem, target)
    vecs = filled_vectors(problem.filters, lanes)
    most = (_ROWS_WIDE if target.vector_width >= 16 else _ROWS)[vecs]
    rows = _even_rows(problem.positions, most)
    best = CpuTile(
        rows=rows,
        vecs=_few_rows_vectors(problem.filters, lanes) if rows <= 2 else vecs,
        lanes=lanes,
        copy_x=not problem.reads_in_place,
        pack_w=not spec.constant_w,
    )
    cuts = ((2, 16), (8, 2), (16, 1))
    return (best, *(replace(best, tiles=tiles, panels=panels) for tiles, panels in cuts))


# Pixels of a tile by its vectors: with 16 vector registers for 12 accumulators, with 32 for 14 and
# more; 7 pixels divide the usual image sizes, pointers to more than 8 do not fit in registers.
_ROWS = {1: 12, 2: 6, 3: 4}
_ROWS_WIDE = {1: 8, 2: 7, 3: 7}


def _lanes(problem: Problem, target: Target) -> int:
    """Lanes of a vector: half of the widest where filters leave the rest of it empty.

    Processors multiply at least as many vectors of 256 bits a cycle as of 512.
    """
    lanes = vector_lanes(target, problem.acc)
    is_widest = lanes * max(4, size_of(problem.acc)) == _WIDEST
    few = isinstance(problem.filters, int) and problem.filters <= lanes // 2
    return lanes // 2 if is_widest and few else lanes


def _few_rows_vectors(filters: Dim, lanes: int) -> int:
    return min(4, max(1, -(-filters // lanes))) if isinstance(filters, int) else 4


def _even_rows(positions: Dim, most: int) -> int:
    """Pixels of a register tile that cut few known pixels into even tiles."""
    if not isinstance(positions, int) or positions > 4 * most:
        return most
    tiles = max(1, -(-positions // most))
    return max(1, -(-positions // tiles))


@dataclass(frozen=True)
class Partition:
    """Pixels and panels of a task, how many tasks lie along the pixels, and how many there are."""

    pixel_block: Dim
    panel_block: Dim
    pixel_tasks: Dim
    tasks: Dim


def partition(problem: Problem, panels: Dim, tile: CpuTile, target: Target) -> Partition:
    """Cuts pixels x panels into enough tasks of nearly equal size; neighbours share panels."""
    rows = maximum(ceildiv(problem.positions, tile.rows), 1)
    fair = maximum(floordiv(rows * panels, tile.tasks * target.compute_units), 1)
    row_tasks = ceildiv(rows, minimum(fair, tile.tiles))
    row_block = ceildiv(rows, row_tasks)
    panel_block = minimum(maximum(floordiv(fair, row_block), 1), tile.panels)
    return Partition(
        row_block * tile.rows,
        panel_block,
        row_tasks,
        row_tasks * ceildiv(panels, panel_block) * minimum(problem.positions, 1),
    )


class Inside(NamedTuple):
    """What a kernel does within a tap: `products` are statements, `group_at` where a group's
    channels begin, `zeros` the elements that a pixel of padding needs, `name` goes with the tile's.
    """

    products: list[str]
    group_at: str = "group * C"
    zeros: int = 0
    name: str = ""


def emit_cpu(spec: ConvSpec, tile: CpuTile, target: Target) -> Kernel:
    """The launches: copies where the tile asks for them, then one product per phase."""
    return emit_with(spec, tile, target, problems_of, Inside(_products(spec, tile, target)))


def _products(spec: ConvSpec, tile: CpuTile, target: Target) -> list[str]:
    """Statements that multiply a run of channels: a pixel's is in all lanes."""
    acc = problems_of(spec)[0].acc
    fetch = hints.will_read_later("next_w", f"({_AHEAD} * VECS + v) * LANES")
    return [
        "for (int k = 0; k < run; ++k) {",
        "    vec y[VECS];",
        "    #pragma unroll",
        "    for (int v = 0; v < VECS; ++v) {",
        f"        y[v] = {memory.load(acc, 'next_w', 'v * LANES', tile.lanes)};",
        *([f"        {fetch}"] if hints.has_hints(target) else []),
        "    }",
        "    #pragma unroll",
        "    for (int r = 0; r < ROWS; ++r) {",
        "        #pragma unroll",
        "        for (int v = 0; v < VECS; ++v) acc[r][v] += from[r][k] * y[v];",
        "    }",
        "    next_w += COLS;",
        "}",
    ]


def emit_with(
    spec: ConvSpec,
    tile: CpuTile,
    target: Target,
    seen: Callable[[ConvSpec], tuple[Problem, ...]],
    inside: Inside,
) -> Kernel:
    """As `emit_cpu` for the problems that `seen` makes of a spec."""
    source = DenseInput.of(spec, target) if tile.copy_x else DenseInput.in_place(spec)
    launches = list(source.launches)
    scratch = list(source.scratch)
    packs: tuple[Pack, ...] = ()
    w_from = ("in", 1)
    problems = seen(source.spec)
    panels = Panels(problems, tile.cols, spec.transposed, least_zeros=inside.zeros)
    if tile.pack_w:
        w_from = ("scratch", len(scratch))
        launches += pack_panels(panels, len(scratch), target)
        scratch.append(panels.total * size_of(problems[0].acc))
    else:
        packs = (constant_panels(panels),)
    launches += (
        _product(panels, phase, tile, target, source.buffer, w_from, inside)
        for phase in range(len(problems))
    )
    flops = sum((p.flops for p in problems), 0)
    in_place = tuple((o.index, v.index) for o, v in problems[0].pixels.in_place)
    return Kernel(tuple(launches), tuple(scratch), packs, flops, in_place=in_place)


def _product(
    panels: Panels,
    phase: int,
    tile: CpuTile,
    target: Target,
    x_from: tuple[str, int],
    w_from: tuple[str, int],
    inside: Inside,
) -> Launch:
    problem = panels.problems[phase]
    count = problem.groups * panels.each(problem)
    cut = partition(problem, count, tile, target)
    rank = len(problem.axes)
    signature = Signature()
    signature.read(*x_from, problem.acc, "x")
    signature.read(*w_from, problem.acc, "w")
    declare_pixels(signature, problem.pixels)
    signature.share((o.name, v.name) for o, v in problem.pixels.in_place)
    signature.scalar("x_o", problem.x.offset)
    declare_axes(signature, problem.axes)
    outer_taps = 1
    for axis in problem.axes[:-1]:
        outer_taps *= axis.taps
    for name, value in (
        ("rows", outer_taps),
        ("C", problem.channels),
        ("M", problem.filters),
        ("w_o", panels.begin(phase)),
        ("zeros_at", panels.begin(len(panels.problems))),
        ("pixels", problem.positions),
        ("panels", count),
        ("pixel_block", cut.pixel_block),
        ("panel_block", cut.panel_block),
        ("pixel_tasks", cut.pixel_tasks),
        ("tasks", cut.tasks),
    ):
        signature.scalar(name, value)
    finished = (problem.pixels, problem.epilogue, "sum", "channel", tile.lanes)
    entry = f"conv_{tile.rows}x{tile.cols}{inside.name}_r{rank}"
    text = fill(
        "conv_cpu",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=tile.lanes,
        vec=register(problem.acc, tile.lanes),
        acc_type=compute(problem.acc),
        last=rank - 1,
        **window_text(rank),
        group_at=inside.group_at,
        products=block(inside.products, 6),
        rows_of=block(declare_rows(problem.pixels, "ROWS"), 3),
        locate=block(keep_rows(problem.pixels, "flat", "r"), 4),
        load_rows=block(load_rows(problem.pixels, "r"), 5),
        straight=block(straight(problem, tile), 4),
        epilogue=block(finish(*finished, "lanes"), 6),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))


def straight(problem: Problem, tile: CpuTile) -> list[str]:
    """Statements that finish a whole tile from the registers, where that is not much code."""
    if len(problem.epilogue.lines) > _CHEAP:
        return []
    finished = finish(problem.pixels, problem.epilogue, "sum", "channel", tile.lanes)
    return [
        "if (M - filter >= COLS && stored == ROWS) {",
        "    #pragma unroll",
        "    for (int r = 0; r < ROWS; ++r) {",
        *(f"        {line}" for line in load_rows(problem.pixels, "r")),
        "        #pragma unroll",
        "        for (int v = 0; v < VECS; ++v) {",
        "            const int channel = group * M + filter + v * LANES;",
        "            const vec sum = acc[r][v];",
        *(f"            {line}" for line in finished),
        "        }",
        "    }",
        "    continue;",
        "}",
    ]


def window_text(rank: int) -> dict[str, str | int]:
    """The parts of the text that have a line for each axis."""
    last = rank - 1
    start = ["at[r] = o0 * x_s0;"]
    within = []
    for a in windowed(rank):
        flag = "is_run" if a == last else "is_inside"
        start += [
            f"first{a}[r] = {index(a)};",
            f"at[r] += first{a}[r] * x_s{a};",
            f"{flag} &= (uint)first{a}[r] < (uint)size{a};",
            f"{flag} &= (uint)(first{a}[r] + reach{a}) < (uint)size{a};",
        ]
        inside = f"(uint)(first{a}[r] + t{a} * tap_step{a}) < (uint)size{a}"
        within.append(f"is_input &= {f'is_run | ({inside})' if a == last else inside};")
    return {
        "reach": block(
            [f"const int reach{a} = (taps{a} - 1) * tap_step{a};" for a in windowed(rank)], 1
        ),
        "position": block(decode_position(rank, "position"), 2),
        "starts": block([f"int first{a}[ROWS];" for a in windowed(rank)], 3),
        "start": block(start, 4),
        "advance": block(advance_position(rank), 4),
        "taps": block(decode_taps(range(1, last), "outer"), 5),
        "tap_at": " + ".join(f"t{a} * tap_step{a} * x_s{a}" for a in windowed(rank)),
        "within": block(["int is_input = 1;", *within], 8),
    }
