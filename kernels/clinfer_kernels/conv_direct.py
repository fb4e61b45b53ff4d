"""Convolution one result at a time: any strides, any weights, either class.

The plain schedule of last resort, and the one for depthwise convolutions on class "gpu", where
neighbouring work-items read neighbouring channels of the input and of packed weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_problem import Problem, problems_of
from clinfer_kernels.conv_prologue import declare
from clinfer_kernels.conv_reads import channel_step, declare_input, load_input
from clinfer_kernels.depthwise_cpu import TapRows
from clinfer_kernels.dims import Dim, ceildiv, minimum
from clinfer_kernels.pixels import declare_pixels, finish, locate
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target, Tensor, row_major
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import MAX_ITEMS
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute
from clinfer_kernels.window import (
    declare_axes,
    decode_position,
    decode_taps,
    input_at,
    tap_indices,
    windowed,
)


@dataclass(frozen=True)
class DirectTile:
    """Work-groups of `local` work-items; `tap_rows`: weights are packed [taps][channels]."""

    local: int = 1
    tap_rows: bool = False


def direct_tiles(spec: ConvSpec, target: Target) -> tuple[DirectTile, ...]:
    """The tiles for `spec`; the last one reads the weights as they are."""
    local = 1 if target.cls == "cpu" else min(target.max_work_group, 256)
    plain = DirectTile(local)
    if spec.constant_w and problems_of(spec)[0].is_depthwise:
        return (DirectTile(local, tap_rows=True), plain)
    return (plain,)


def emit_direct(spec: ConvSpec, tile: DirectTile, target: Target) -> Kernel:
    """One launch per phase."""
    problems = problems_of(spec)
    rows = TapRows(problems, spec.transposed)
    launches = []
    for phase, problem in enumerate(problems):
        weights = _tap_rows(problem, rows.begin(phase)) if tile.tap_rows else problem.weights
        launches.append(_launch(problem, weights, tile, target))
    packs = (rows.pack,) if tile.tap_rows else ()
    flops = sum((p.flops for p in problems), 0)
    return Kernel(tuple(launches), packs=packs, flops=flops)


def _tap_rows(problem: Problem, begin: Dim) -> Tensor:
    """The packed weights as [groups, 1, 1, taps...]."""
    taps = problem.weights.shape[3:]
    strides = (1, 0, 0, *(s * problem.groups for s in row_major(taps)))
    return Tensor(problem.acc, (problem.groups, 1, 1, *taps), strides, begin)


def _launch(problem: Problem, weights: Tensor, tile: DirectTile, target: Target) -> Launch:
    rank = len(problem.axes)
    tasks = problem.positions * problem.groups * problem.filters
    signature = Signature()
    signature.read("in", 0, problem.x.dtype, "x")
    signature.read("in", 1, weights.dtype, "w")
    declare_pixels(signature, problem.pixels)
    declare_input(signature, problem.x)
    declare(signature, problem.prologue)
    declare_axes(signature, problem.axes)
    spatial = range(weights.rank - 3)
    for name, value in (
        ("w_o", weights.offset),
        ("w_group", weights.strides[0]),
        ("w_filter", weights.strides[1]),
        ("w_channel", weights.strides[2]),
        *((f"w_t{d}", weights.strides[3 + d]) for d in spatial),
        *((f"w_n{d}", weights.shape[3 + d]) for d in spatial),
        ("window", problem.window),
        ("groups", problem.groups),
        ("C", problem.channels),
        ("M", problem.filters),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    axes = windowed(rank)
    load_w = memory.convert(
        memory.load(weights.dtype, "w", "tap_w + c * w_channel"),
        compute(problem.acc),
        compute(weights.dtype),
        1,
    )
    entry = f"conv_direct_r{rank}_t{len(spatial)}"
    text = fill(
        "conv_direct",
        target,
        head=kernel_head(entry, (tile.local,)),
        parameters=signature.text,
        acc_type=compute(problem.acc),
        position=block(decode_position(rank, "position"), 2),
        locate=block(locate(problem.pixels, "flat"), 2),
        taps=block([*decode_taps(axes, "rest"), *tap_indices(axes)], 3),
        input_at=input_at(axes),
        group_step=channel_step(problem.x),
        tap_w=_tap_w(len(spatial)),
        accumulate=block(_accumulate(problem, load_w), 3),
        epilogue=block(finish(problem.pixels, problem.epilogue, "sum", "channel", 1), 2),
    )
    groups = minimum(ceildiv(tasks, tile.local), MAX_ITEMS // tile.local)
    return Launch(entry, text, signature.args, (groups * tile.local,), (tile.local,))


def _accumulate(problem: Problem, weight: str) -> list[str]:
    """Statements that add a tap's products of all channels."""
    lines, value = load_input(problem, "at", "c", "group * C + c")
    loop = "for (int c = 0; c < C; ++c)"
    if not lines:
        return [f"{loop} sum += {value} * {weight};"]
    inner = (f"    {line}" for line in (*lines, f"sum += {value} * {weight};"))
    return [f"{loop} {{", *inner, "}"]


def _tap_w(rank: int) -> str:
    """The offset of tap number `tap` of the weights, innermost axis first."""
    terms = []
    rest = "tap"
    for d in reversed(range(rank)):
        terms.append(f" + {rest if d == 0 else f'{rest} % w_n{d}'} * w_t{d}")
        rest = f"{rest} / w_n{d}"
    return "".join(terms)
