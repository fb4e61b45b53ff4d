"""Convolution of 8-bit integers for class "cpu": int32 register tiles over packed panels of bytes.

The schedule is that of `conv_cpu`, with four products a lane at once (`integer_dot`). x holds uint8
or int8, the constant weights int8; the prologue, which takes the zero point off x, goes into what
sums begin with (`zero_of`). A group's channels are brought to whole ints by a copy of x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from clinfer_kernels import memory
from clinfer_kernels.byte_packings import ConvBytes
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_cpu import CpuTile, partition, window_text
from clinfer_kernels.conv_pack import row_address
from clinfer_kernels.conv_problem import Problem, problems_of
from clinfer_kernels.dims import Dim, ceildiv, floordiv, minimum, product
from clinfer_kernels.finish_rows import finish_row, finish_rows
from clinfer_kernels.integer_dot import has_matrix_registers, unit
from clinfer_kernels.pixels import (
    declare_pixels,
    declare_rows,
    finish,
    keep_rows,
    load_rows,
)
from clinfer_kernels.requantise import finished as short_end
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target, dense
from clinfer_kernels.specs import ConvSpec, PreparedConvSpec
from clinfer_kernels.tasks import MAX_GROUPS
from clinfer_kernels.template import block, fill
from clinfer_kernels.window import declare_axes, decode_taps, windowed

BYTES = ("uint8", "int8")


@dataclass(frozen=True)
class IntegerTile(CpuTile):
    """As `CpuTile`; `lanes` count sums of int32. `copy_x`: a launch before makes x dense.

    `deep`: how many bytes of taps and channels are read at once, 64 by matrix registers.
    """

    deep: int = 4


def zero_of(spec: ConvSpec) -> int | None:
    """The zero point of a convolution of 8-bit integers; None for other convolutions."""
    if not isinstance(spec, PreparedConvSpec) or spec.transposed or not spec.constant_w:
        return None
    x, expr = spec.ins[0], spec.prologue
    if x.dtype not in BYTES or spec.ins[1].dtype != "int8" or expr.inputs != (x.dtype,):
        return None
    if spec.epilogue.inputs[0] != "int32" or expr.output_dtypes != ("int32",):
        return None
    match [(line.op, line.args) for line in expr.lines]:
        case [("cast", (0,))]:
            return 0
        case [("cast", (0,)), ("const", ()), ("sub", (1, 2))]:
            return int(expr.lines[1].attrs[0])
    return None


def integer_tiles(spec: ConvSpec, target: Target) -> tuple[IntegerTile, ...]:
    """The best guess first, then other cuts into tasks; none for other convolutions."""
    if zero_of(spec) is None:
        return ()
    problem = plain_problem(spec)
    how = unit(target)
    vecs = _vectors(problem.filters, how.lanes)
    rows = _even_rows(problem.positions, min(how.registers * 3 // 4 // vecs, 14))
    x = spec.ins[0]
    channels = floordiv(x.shape[-1], spec.groups)
    is_whole = isinstance(channels, int) and channels % 4 == 0 and x.strides[-1] == 1
    panel = problem.window * problem.channels * vecs * how.lanes
    first, *cuts = sorted(_CUTS, key=lambda cut: cut != _cut(panel))
    best = IntegerTile(rows, vecs, how.lanes, copy_x=not is_whole, tiles=first[0], panels=first[1])
    others = (best, *(replace(best, tiles=tiles, panels=panels) for tiles, panels in cuts))
    return (*_matrix_tiles(spec, problem, best, target), *others)


_CUTS = ((4, 8), (2, 16), (8, 2), (16, 1))  # tiles of pixels and panels of a task
_NEAREST = 16384  # bytes of weights that the nearest cache keeps beside all else


def _cut(panel: Dim) -> tuple[int, int]:
    """Large panels are read by many pixels, one after the other; of small ones pixels read many.

    A pixel's results then lie side by side, and so does what a residual sum reads.
    """
    return (16, 1) if isinstance(panel, int) and panel > _NEAREST else (2, 16)


def _matrix_tiles(
    spec: ConvSpec, problem: Problem, best: IntegerTile, target: Target
) -> tuple[IntegerTile, ...]:
    """Tiles of matrix registers, where there are some and pixels and filters fill them."""
    few = isinstance(problem.positions, int) and problem.positions < _LEAST_PIXELS
    channels = problem.channels
    if not has_matrix_registers(target) or few or spec.ins[0].strides[-1] != 1:
        return ()
    if not isinstance(channels, int) or not isinstance(problem.filters, int):
        return ()
    staged = _ROWS * -(-problem.window * channels // _DEEP) * _DEEP
    if staged > target.local_mem or problem.filters < 8 or problem.window * channels < _LEAST_DEPTH:
        return ()
    tile = replace(best, rows=_ROWS, vecs=2, lanes=16, deep=_DEEP, copy_x=False, tiles=4, panels=64)
    return (tile, replace(tile, tiles=1))


_ROWS = 32  # of a tile of matrix registers,
_DEEP = 64  # and its bytes of taps and channels
_LEAST_PIXELS = 9
_LEAST_DEPTH = 96  # below, setting registers up costs more than they save

# What a tile costs beyond its filters, in filters: the narrower, the more often pixels are read.
_COST = {1: 6, 2: 2, 3: 1, 4: 1}


def _vectors(filters: Dim, lanes: int) -> int:
    """Vectors of a tile: as many as leave few filters empty."""
    if not isinstance(filters, int):
        return 2
    return min((4, 3, 2, 1), key=lambda n: -(-filters // (n * lanes)) * (n * lanes + _COST[n]))


def _even_rows(positions: Dim, most: int) -> int:
    """Pixels of a register tile: as many as leave few of the last tile's empty."""
    if not isinstance(positions, int):
        return most
    least = max(1, min(most, positions) - most // 3)
    rows = range(min(most, max(positions, 1)), least - 1, -1)
    return min(rows, key=lambda n: -(-positions // n) * (n + _SET_UP))


_SET_UP = 0.15  # what a tile costs beyond its pixels, in pixels


def plain_problem(spec: ConvSpec) -> Problem:
    """The convolution of x as it is, without a prologue."""
    plain = {field.name: getattr(spec, field.name) for field in fields(ConvSpec)}
    plain["ins"] = spec.ins[: spec.count]
    return problems_of(ConvSpec(**plain))[0]


def _padded_problem(spec: ConvSpec) -> Problem:
    """The same of a dense x with the channels of each group up to whole ints."""
    x, w = spec.ins[:2]
    channels = ceildiv(w.shape[1], 4) * 4
    copied = dense(x.dtype, (*x.shape[:-1], channels * spec.groups))
    weights = dense("int8", (w.shape[0], channels, *w.shape[2:]))
    plain = {field.name: getattr(spec, field.name) for field in fields(ConvSpec)}
    plain["ins"] = (copied, weights, *spec.ins[2 : spec.count])
    return problems_of(ConvSpec(**plain))[0]


def emit_integer(spec: ConvSpec, tile: IntegerTile, target: Target) -> Kernel:
    """The launches: a copy of x where the tile asks for one, then the product."""
    zero = zero_of(spec)
    assert zero is not None
    launches: list[Launch] = []
    scratch: tuple[Dim, ...] = ()
    x_from = ("in", 0)
    problem = plain_problem(spec)
    if tile.copy_x:
        problem = _padded_problem(spec)
        launches.append(_copy(spec, problem, target))
        scratch = (product(spec.ins[0].shape[:-1]) * problem.channels * problem.groups,)
        x_from = ("scratch", 0)
    flipped = spec.ins[0].dtype == "int8" and tile.deep == 4
    panels = ConvBytes(tile.cols, spec.groups, zero, flipped, tile.deep)
    problem = replace(problem, epilogue=short_end(problem.epilogue))
    launches.append(_product(problem, tile, target, x_from, zero))
    in_place = tuple((o.index, v.index) for o, v in problem.pixels.in_place)
    packs = (Pack(1, panels.key, panels.pack),)
    return Kernel(tuple(launches), scratch, packs, problem.flops, in_place=in_place)


def _copy(spec: ConvSpec, problem: Problem, target: Target) -> Launch:
    x = spec.ins[0]
    signature = Signature()
    signature.read("in", 0, x.dtype, "x")
    signature.buffer("scratch", 0, "uint8", "dense")
    rows = product(x.shape[:-2])
    for name, value in (
        ("x_o", x.offset),
        *((f"x_s{d}", x.strides[d]) for d in range(x.rank)),
        *((f"n{d}", x.shape[d]) for d in range(1, x.rank - 1)),
        ("groups", spec.groups),
        ("C", spec.ins[1].shape[1]),
        ("padded", problem.channels),
        ("rows", rows),
    ):
        signature.scalar(name, value)
    channels = spec.ins[1].shape[1]
    counts: dict[str, str | int] = {"groups": "groups", "padded": "padded", "channels": "C"}
    entry = f"integer_input_r{x.rank}"
    if isinstance(channels, int) and channels <= 4 and spec.groups == 1:
        # A picture's few channels are a part of the text, which then needs no loops for them.
        counts = {"groups": 1, "padded": 4, "channels": channels}
        entry += f"_{channels}"
    w_step, c_step = (1 if x.strides[d] == 1 else f"x_s{d}" for d in (x.rank - 2, x.rank - 1))
    text = fill(
        "integer_input",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        row_at=row_address(range(x.rank - 2)),
        width=f"n{x.rank - 2}",
        w_step=w_step,
        c_step=c_step,
        **counts,
    )
    return Launch(entry, text, signature.args, (minimum(rows, MAX_GROUPS),), (1,))


def _product(
    problem: Problem, tile: IntegerTile, target: Target, x_from: tuple[str, int], zero: int
) -> Launch:
    each = ceildiv(problem.filters, tile.cols)
    count = problem.groups * each
    cut = partition(problem, count, tile, target)
    rank = len(problem.axes)
    outer_taps = math.prod(axis.taps for axis in problem.axes[:-1])
    by_matrix = tile.deep == _DEEP
    depth = problem.window * floordiv(problem.channels, 4) + 1
    end = ("zero", zero) if by_matrix else ("zeros_at", count * depth * tile.cols)
    signature = Signature()
    signature.read(*x_from, problem.x.dtype, "x")
    signature.read("in", 1, "int32", "w")
    declare_pixels(signature, problem.pixels)
    signature.share((o.name, v.name) for o, v in problem.pixels.in_place)
    signature.scalar("x_o", problem.x.offset)
    declare_axes(signature, problem.axes)
    for name, value in (
        ("rows", outer_taps),
        ("C", problem.channels),
        ("M", problem.filters),
        end,
        ("pixels", problem.positions),
        ("panels", count),
        ("pixel_block", cut.pixel_block),
        ("panel_block", cut.panel_block),
        ("pixel_tasks", cut.pixel_tasks),
        ("tasks", cut.tasks),
    ):
        signature.scalar(name, value)
    if by_matrix:
        inner = problem.window * problem.channels
        signature.local("char", "staged", _ROWS * ceildiv(inner, _DEEP) * _DEEP)
    finished = (problem.pixels, problem.epilogue, "sum", "channel", tile.lanes)
    kind = "amx_" if by_matrix else ""
    entry = f"conv_{kind}{problem.x.dtype}_{tile.rows}x{tile.cols}_r{rank}"
    window = _staged_window(rank) if by_matrix else window_text(rank)
    text = fill(
        "conv_amx" if by_matrix else "conv_integer",
        target,
        dot="tdpbssd" if problem.x.dtype == "int8" else "tdpbusd",
        head=kernel_head(entry),
        parameters=signature.text,
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=tile.lanes,
        flip="0x80808080" if problem.x.dtype == "int8" else "0",
        last=rank - 1,
        **window,
        load_w=memory.load("int32", "next_w", "v * LANES", tile.lanes),
        rows_of=block(declare_rows(problem.pixels, "ROWS"), 3),
        locate=block(keep_rows(problem.pixels, "flat", "r"), 4),
        load_rows=block(load_rows(problem.pixels, "r"), 5),
        straight=block(_straight(problem, tile, target), 4),
        epilogue=block(finish(*finished, "lanes"), 6),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))


def _staged_window(rank: int) -> dict[str, str | int]:
    """As `window_text`, where the innermost axis is not a part of `taps`, `within` and `tap_at`."""
    outer = windowed(rank - 1)
    text = window_text(rank)
    text["start"] = str(text["start"]).replace("is_run &=", "is_inside &=")
    text["taps"] = block(decode_taps(outer, "outer"), 7)
    inside = (
        f"is_input &= (uint)(first{a}[r] + t{a} * tap_step{a}) < (uint)size{a};" for a in outer
    )
    text["within"] = block(list(inside), 7)
    text["tap_at"] = " + ".join(f"t{a} * tap_step{a} * x_s{a}" for a in outer) or "0"
    return text


def _straight(problem: Problem, tile: IntegerTile, target: Target) -> list[str]:
    """Statements that finish a tile of which nothing is missing; of matrix registers, no filter."""
    if tile.deep == _DEEP:
        rows = finish_row(problem.pixels, problem.epilogue, tile, target, "acc[r]")
        return [
            "if (M - filter >= COLS) {",
            "    const int channel0 = group * M + filter;",
            "    #pragma unroll 1",
            "    for (int r = 0; r < stored; ++r) {",
            *(f"        {line}" for line in rows),
            "    }",
            "    continue;",
            "}",
        ]
    rows = finish_rows(problem.pixels, problem.epilogue, tile, target, "acc")
    return [
        "if (M - filter >= COLS && stored == ROWS) {",
        "    const int channel0 = group * M + filter;",
        *(f"    {line}" for line in rows),
        "    continue;",
        "}",
    ]
