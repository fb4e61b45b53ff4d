"""Depthwise convolution of 8-bit integers for class "cpu", with x read as it lies in memory.

The schedule is that of `depthwise_cpu`; the bytes of up to four rows of the window are brought into
one int a channel, so that `integer_dot` adds a column of the window at once. Sums are int32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels import memory
from clinfer_kernels.byte_packings import DepthwiseBytes
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_integer import plain_problem, zero_of
from clinfer_kernels.conv_problem import Problem
from clinfer_kernels.depthwise_cpu import MAX_COLUMNS, DepthwiseTile, cut_channels
from clinfer_kernels.dims import minimum
from clinfer_kernels.integer_dot import unit
from clinfer_kernels.pixels import declare_pixels, declare_rows, finish, keep_rows, load_rows
from clinfer_kernels.requantise import finished as short_end
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import MAX_GROUPS
from clinfer_kernels.template import block, fill
from clinfer_kernels.window import (
    declare_axes,
    decode_position,
    decode_taps,
    index,
    input_at,
    windowed,
)

_FOUR = 4  # bytes of an int
_CHEAP = 32  # lines of an epilogue that is written out for each pixel
_SAME = 0x01010101  # a byte, four times


@dataclass(frozen=True)
class DepthwiseIntegerTile(DepthwiseTile):
    """As `DepthwiseTile`, without a copy; `deep` rows of the window lie in an int."""

    deep: int = 3


def depthwise_integer_tiles(spec: ConvSpec, target: Target) -> tuple[DepthwiseIntegerTile, ...]:
    """The best guess first; none where a vector of channels is not filled or not dense."""
    if zero_of(spec) is None or spec.ins[0].strides[-1] != 1:
        return ()
    problem = plain_problem(spec)
    lanes = unit(target).lanes
    if not problem.is_depthwise or not problem.window:
        return ()
    if not isinstance(problem.groups, int) or problem.groups < lanes:
        return ()
    axis = problem.axes[-1]
    reach = (axis.taps - 1) * axis.tap_step
    pixels = min(7, (MAX_COLUMNS - reach - 1) // axis.step + 1)
    if pixels < 1 or axis.tap_step < 1:
        return ()
    rows = problem.window // axis.taps
    deep = -(-rows // -(-rows // _FOUR))
    best = DepthwiseIntegerTile(pixels, lanes, deep=deep)
    return (best, replace(best, pixels=min(4, pixels)))


def emit_depthwise_integer(spec: ConvSpec, tile: DepthwiseIntegerTile, target: Target) -> Kernel:
    """One launch."""
    zero = zero_of(spec)
    assert zero is not None
    problem = plain_problem(spec)
    problem = replace(problem, epilogue=short_end(problem.epilogue))
    weights = DepthwiseBytes(tile.deep, zero, spec.ins[0].dtype == "int8")
    launch = _launch(problem, tile, target, zero)
    return Kernel((launch,), (), (Pack(1, weights.key, weights.pack),), problem.flops)


def _launch(problem: Problem, tile: DepthwiseIntegerTile, target: Target, zero: int) -> Launch:
    axis = problem.axes[-1]
    rank = len(problem.axes)
    cut = cut_channels(problem, tile, target)
    rows = problem.window // axis.taps
    depth = 1 + -(-rows // tile.deep) * axis.taps
    signature = Signature()
    signature.read("in", 0, problem.x.dtype, "x")
    signature.read("in", 1, "int32", "w")
    declare_pixels(signature, problem.pixels)
    signature.scalar("x_o", problem.x.offset)
    declare_axes(signature, problem.axes)
    bytes_of_zero = (zero & 0xFF) * _SAME
    for name, value in (
        ("rows", rows),
        ("C", problem.groups),
        ("zeros_at", depth * problem.groups),
        ("zero_bytes", bytes_of_zero - (1 << 32 if bytes_of_zero >> 31 else 0)),
        ("channel_block", cut.channel_block),
        ("channel_tasks", cut.channel_tasks),
        ("tasks", cut.tasks),
    ):
        signature.scalar(name, value)
    signed = problem.x.dtype == "int8"
    entry = f"depthwise_{problem.x.dtype}_{axis.taps}s{axis.step}_r{rank}"
    outer = windowed(rank - 1)
    taps = [
        *decode_taps(outer, "outer"),
        *(f"const int j{a} = {index(a)} + t{a} * tap_step{a};" for a in outer),
        *(f"is_input &= (uint)j{a} < (uint)size{a};" for a in outer),
    ]
    text = fill(
        "depthwise_integer",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        pixels=tile.pixels,
        lanes=tile.lanes,
        deep=tile.deep,
        width=axis.taps,
        step=axis.step,
        tap_step=axis.tap_step,
        flip="0x80808080" if signed else "0",
        last=rank - 1,
        position=block(decode_position(rank - 1, "position"), 2),
        rows=block(declare_rows(problem.pixels, "PIXELS"), 3),
        locate=block(keep_rows(problem.pixels, "flat", "r"), 4),
        taps=block(taps, 6),
        line_at=input_at(outer),
        load_begin=memory.load("int32", "next_w", "0", tile.lanes),
        load_w=memory.load("int32", "next_w", "t * C", tile.lanes),
        column=block(_column(tile), 7),
        unroll=tile.pixels if len(problem.epilogue.lines) <= _CHEAP else 1,
        load_rows=block(load_rows(problem.pixels, "r"), 5),
        epilogue=block(finish(problem.pixels, problem.epilogue, "sum", "channel", tile.lanes), 5),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))


def _column(tile: DepthwiseIntegerTile) -> list[str]:
    """Statements that set `value` to the bytes of column j."""
    lines = []
    for d in range(tile.deep):
        loaded = memory.load("uint8", f"from[{d}]", f"j * steps[{d}]", tile.lanes)
        wide = memory.convert(loaded, "int", "uchar", tile.lanes)
        lines.append(f"value {'|' if d else ''}= {wide}{f' << {8 * d}' if d else ''};")
    return lines
