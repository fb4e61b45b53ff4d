"""Depthwise convolution for class "cpu": vectors along the channels, several pixels in registers.

The text knows the window along the innermost axis, so that each input vector is read once for all
the windows of a tile that it lies in; along the other axes taps are a loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from clinfer_kernels import memory, packings
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_pack import DenseInput
from clinfer_kernels.conv_problem import Problem, problems_of, vector_lanes
from clinfer_kernels.dims import Dim, ceildiv, floordiv, maximum, minimum
from clinfer_kernels.packings import taps_of
from clinfer_kernels.pixels import declare_pixels, declare_rows, finish, keep_rows, load_rows
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import MAX_GROUPS
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, register
from clinfer_kernels.window import (
    declare_axes,
    decode_position,
    decode_taps,
    input_at,
    positions,
    tap_indices,
    windowed,
)

MAX_COLUMNS = 63  # columns are bits of a long
_CHEAP = 12  # lines of an epilogue that is written out for each pixel


@dataclass(frozen=True)
class DepthwiseTile:
    """A tile of `pixels` outputs side by side x `lanes` channels.

    A task is a line of pixels by a block of channels: as many blocks as give about `tasks` tasks
    per compute unit, of at least `vectors` vectors each. `copy_x`: a launch before makes the input
    dense, in the dtype of the sums.
    """

    pixels: int = 7
    lanes: int = 8
    copy_x: bool = False
    tasks: int = 16
    vectors: int = 2


def depthwise_tiles(spec: ConvSpec, target: Target) -> tuple[DepthwiseTile, ...]:
    """The best guess first; none where `spec` is not depthwise or its weights are not constant.

    7 pixels divide the usual image sizes. Channels beyond whole vectors are done one by one, so
    shorter vectors may be better.
    """
    problems = problems_of(spec)
    first = problems[0]
    if not (first.is_depthwise and spec.constant_w):
        return ()
    most = max(_columns(problem, 1) for problem in problems)
    step = first.axes[-1].step
    pixels = min(7, (MAX_COLUMNS - most) // step + 1)
    if pixels < 1 or any(not problem.window for problem in problems):
        return ()
    lanes = vector_lanes(target, first.acc)
    if isinstance(first.groups, int):
        lanes = min((lanes, lanes // 2), key=partial(_steps, first.groups))
    best = DepthwiseTile(pixels, lanes, not first.reads_in_place)
    return (best, replace(best, pixels=min(4, pixels)))


def _steps(channels: int, lanes: int) -> int:
    """What `channels` cost in vectors of `lanes` and single ones, in vector operations."""
    return channels // lanes + 2 * (channels % lanes)


def _columns(problem: Problem, pixels: int) -> int:
    """Input columns that the windows of a tile reach."""
    axis = problem.axes[-1]
    return (pixels - 1) * axis.step + abs((axis.taps - 1) * axis.tap_step) + 1


@dataclass(frozen=True)
class ChannelCut:
    """Channels of a task, tasks side by side along the channels, and all of them."""

    channel_block: Dim
    channel_tasks: Dim
    tasks: Dim


def cut_channels(problem: Problem, tile: DepthwiseTile, target: Target) -> ChannelCut:
    """Cuts lines of pixels x channels into tasks, as the tile says."""
    lines = positions(problem.axes[:-1])
    vectors = maximum(floordiv(problem.groups, tile.lanes), 1)
    fair = floordiv(tile.tasks * target.compute_units, maximum(lines, 1))
    blocks = minimum(maximum(fair, 1), maximum(floordiv(vectors, tile.vectors), 1))
    channel_block = ceildiv(ceildiv(problem.groups, tile.lanes), blocks) * tile.lanes
    channel_tasks = ceildiv(problem.groups, channel_block)
    return ChannelCut(channel_block, channel_tasks, lines * channel_tasks)


@dataclass(frozen=True)
class TapRows:
    """Packed weights: [taps][channels] of each phase, one after the other."""

    problems: tuple[Problem, ...]
    transposed: bool

    def begin(self, phase: int) -> Dim:
        """Where the rows of a phase begin."""
        begins: Dim = 0
        for problem in self.problems[:phase]:
            begins = begins + problem.window * problem.groups
        return begins

    @property
    def pack(self) -> Pack:
        """The weights packed when the model is compiled."""
        packing = packings.TapRows(self.problems[0].acc, taps_of(p.taps for p in self.problems))
        return Pack(1, packing.key, packing.pack)


def emit_depthwise(spec: ConvSpec, tile: DepthwiseTile, target: Target) -> Kernel:
    """The launches: a copy of the input where the tile asks for one, then one per phase."""
    source = DenseInput.of(spec, target) if tile.copy_x else DenseInput.in_place(spec)
    problems = problems_of(source.spec)
    weights = TapRows(problems, spec.transposed)
    launches = tuple(
        _launch(weights, phase, tile, target, source.buffer) for phase in range(len(problems))
    )
    flops = sum((p.flops for p in problems), 0)
    in_place = tuple((o.index, v.index) for o, v in problems[0].pixels.in_place)
    every = (*source.launches, *launches)
    return Kernel(every, source.scratch, (weights.pack,), flops, in_place=in_place)


def _launch(
    weights: TapRows, phase: int, tile: DepthwiseTile, target: Target, x_from: tuple[str, int]
) -> Launch:
    problem = weights.problems[phase]
    axis = problem.axes[-1]
    rank = len(problem.axes)
    cut = cut_channels(problem, tile, target)
    signature = Signature()
    signature.read(*x_from, problem.acc, "x")
    signature.read("in", 1, problem.acc, "w")
    declare_pixels(signature, problem.pixels)
    signature.share((o.name, v.name) for o, v in problem.pixels.in_place)
    signature.scalar("x_o", problem.x.offset)
    declare_axes(signature, problem.axes)
    for name, value in (
        ("rows", problem.window // axis.taps),
        ("C", problem.groups),
        ("w_o", weights.begin(phase)),
        ("channel_block", cut.channel_block),
        ("channel_tasks", cut.channel_tasks),
        ("tasks", cut.tasks),
    ):
        signature.scalar(name, value)
    entry = f"depthwise_{axis.taps}s{axis.step}_r{rank}"
    outer = windowed(rank - 1)
    taps = [*decode_taps(outer, "outer"), *tap_indices(outer)]
    text = fill(
        "depthwise_cpu",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        pixels=tile.pixels,
        lanes=tile.lanes,
        width=axis.taps,
        step=axis.step,
        tap_step=axis.tap_step,
        last=rank - 1,
        vec=register(problem.acc, tile.lanes),
        acc_type=compute(problem.acc),
        position=block(decode_position(rank - 1, "position"), 2),
        rows=block(declare_rows(problem.pixels, "PIXELS"), 3),
        locate=block(keep_rows(problem.pixels, "flat", "r"), 4),
        taps=block(taps, 5),
        taps_one=block(taps, 6),
        line_at=input_at(outer),
        load_w=memory.load(problem.acc, "tap_w", "t * C", tile.lanes),
        load_x=memory.load(problem.acc, "x", "at", tile.lanes),
        unroll=tile.pixels if len(problem.epilogue.lines) <= _CHEAP else 1,
        load_rows=block(load_rows(problem.pixels, "r"), 5),
        load_rows_one=block(load_rows(problem.pixels, "r"), 4),
        epilogue=block(finish(problem.pixels, problem.epilogue, "sum", "channel", tile.lanes), 5),
        epilogue_one=block(finish(problem.pixels, problem.epilogue, "sum", "channel", 1), 5),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))
