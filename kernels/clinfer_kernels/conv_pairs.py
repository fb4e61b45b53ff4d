"""Convolution of bfloat16 for class "cpu": two products at once (`pair_dot`).

The schedule is that of `conv_cpu`, with two channels of a pixel at once. The constant weights take
two bytes a number. The input is read in place, or brought to bfloat16 by a launch before: so are
inputs of float32 where `Target.precision` allows that. Sums are float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_cpu import CpuTile, partition, straight, window_text
from clinfer_kernels.conv_problem import Problem, dense_input, problems_of
from clinfer_kernels.dims import ceildiv, minimum, product
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.packing import Source, pack_rows
from clinfer_kernels.pair_dot import STORED, are_pairs, sums_of
from clinfer_kernels.pixels import declare_pixels, declare_rows, finish, keep_rows, load_rows
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target, dense
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import MAX_GROUPS
from clinfer_kernels.template import block, fill
from clinfer_kernels.window import declare_axes

if TYPE_CHECKING:
    import numpy as np

_LEAST = 32  # filters of a group for which bringing the input to bfloat16 pays


@dataclass(frozen=True)
class PairsTile(CpuTile):
    """As `CpuTile`; `copy_x` makes the input bfloat16."""


def pair_tiles(spec: ConvSpec, target: Target) -> tuple[PairsTile, ...]:
    """The best guess first; none where numbers may not be bfloat16 or nothing is gained by it."""
    x, w = spec.ins[:2]
    if not (are_pairs((x.dtype, w.dtype), target) and spec.constant_w) or spec.transposed:
        return ()
    problem = problems_of(spec)[0]
    channels, filters = problem.channels, problem.filters
    if not (isinstance(channels, int) and isinstance(filters, int)):
        return ()
    if channels % 2 or filters < _LEAST or problem.prologue is not None:
        return ()
    if problem.acc != "float32" or x != dense(x.dtype, x.shape):
        return ()
    lanes, sums = sums_of(target)
    wide = -(-filters // lanes)
    vecs = min((3, 4, 2), key=lambda n: -(-wide // n) * n)
    rows = sums // vecs
    if isinstance(problem.positions, int):
        rows = max(1, min(rows, problem.positions))
    best = PairsTile(rows, vecs, lanes, copy_x=x.dtype != STORED)
    cuts = ((2, 16), (8, 2), (16, 1))
    return (best, *(replace(best, tiles=tiles, panels=panels) for tiles, panels in cuts))


@dataclass(frozen=True)
class PairPanels:
    """Packed weights: [groups][ceil(M / cols)] panels of ints, and a run of zeros behind.

    panel   [taps][C / 2][cols][two numbers]       filters beyond M are zeros
    """

    cols: int
    groups: int

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"pair-conv-{self.cols}-{self.groups}"

    def pack(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """ONNX weights [M, C / groups, taps...] as one flat array of int32."""
        import ml_dtypes
        import numpy as np

        filters, channels = array.shape[0] // self.groups, array.shape[1]
        each = -(-filters // self.cols)
        taps = math.prod(array.shape[2:])
        bits = array.astype(ml_dtypes.bfloat16).view(np.uint16)
        padded = np.zeros((self.groups, each * self.cols, channels, taps), np.uint16)
        padded[:, :filters] = bits.reshape(self.groups, filters, channels, taps)
        two = padded.reshape(self.groups, each, self.cols, channels // 2, 2, taps)
        rows = np.ascontiguousarray(two.transpose(0, 1, 5, 3, 2, 4)).view(np.int32)
        zeros = np.zeros(array.shape[-1] * channels // 2, np.int32)
        return np.concatenate([rows.reshape(-1), zeros])


def emit_pairs(spec: ConvSpec, tile: PairsTile, target: Target) -> Kernel:
    """The launches: the input as bfloat16 where the tile asks for it, then the product."""
    launches: list[Launch] = []
    x_from = ("in", 0)
    x = spec.ins[0]
    if tile.copy_x:
        matrix = Matrix(x.dtype, x.offset, (), x.shape[-1], 1)
        source = Source(matrix, 0, (), product(x.shape[:-1]), x.shape[-1])
        launches.append(pack_rows(source, STORED, tile.lanes, 0, target))
        x_from = ("scratch", 0)
        spec = dense_input(spec, STORED)
    problem = problems_of(spec)[0]
    launches.append(_product(problem, tile, target, x_from))
    panels = PairPanels(tile.cols, spec.groups)
    return Kernel(
        tuple(launches),
        (x.size * 2,) if tile.copy_x else (),
        (Pack(1, panels.key, panels.pack),),
        problem.flops,
        in_place=tuple((o.index, v.index) for o, v in problem.pixels.in_place),
    )


def _product(problem: Problem, tile: PairsTile, target: Target, x_from: tuple[str, int]) -> Launch:
    count = problem.groups * ceildiv(problem.filters, tile.cols)
    cut = partition(problem, count, tile, target)
    rank = len(problem.axes)
    signature = Signature()
    signature.read(*x_from, STORED, "x")
    signature.read("in", 1, "int32", "w")
    declare_pixels(signature, problem.pixels)
    signature.share((o.name, v.name) for o, v in problem.pixels.in_place)
    signature.scalar("x_o", problem.x.offset)
    declare_axes(signature, problem.axes)
    for name, value in (
        ("rows", math.prod(axis.taps for axis in problem.axes[:-1])),
        ("C", problem.channels),
        ("M", problem.filters),
        ("zeros_at", count * problem.window * problem.channels // 2 * tile.cols),
        ("pixels", problem.positions),
        ("panels", count),
        ("pixel_block", cut.pixel_block),
        ("panel_block", cut.panel_block),
        ("pixel_tasks", cut.pixel_tasks),
        ("tasks", cut.tasks),
    ):
        signature.scalar(name, value)
    finished = (problem.pixels, problem.epilogue, "sum", "channel", tile.lanes)
    entry = f"conv_pairs_{tile.rows}x{tile.cols}_r{rank}"
    text = fill(
        "conv_pairs",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=tile.lanes,
        last=rank - 1,
        **window_text(rank),
        load_w=memory.load("int32", "next_w", "v * LANES", tile.lanes),
        rows_of=block(declare_rows(problem.pixels, "ROWS"), 3),
        locate=block(keep_rows(problem.pixels, "flat", "r"), 4),
        load_rows=block(load_rows(problem.pixels, "r"), 5),
        straight=block(straight(problem, tile), 4),
        epilogue=block(finish(*finished, "lanes"), 6),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))
