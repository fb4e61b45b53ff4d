"""Depthwise convolution for class "gpu": vectors of channels, the window's taps written out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as combinations

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.contraction.walks import is_inside
from clinfer_kernels.conv_bytes_gpu import Bytes, byte_problems, bytes_of
from clinfer_kernels.conv_problem import Problem, problems_of
from clinfer_kernels.depthwise_cpu import TapRows
from clinfer_kernels.dims import Dim, ceildiv, common_factor
from clinfer_kernels.pixels import declare_pixels, finish, locate
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import group_items
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, register
from clinfer_kernels.window import declare_axes, decode_position, index, windowed

_MOST_TAPS = 64  # that are written out


@dataclass(frozen=True)
class VectorTile:
    """Work-groups of `local` work-items, each with `width` channels of a pixel."""

    local: int
    width: int


def vector_tiles(spec: ConvSpec, target: Target) -> tuple[VectorTile, ...]:
    """The tile, for a depthwise convolution with constant weights and no large window."""
    problems = _problems(spec)
    if not spec.constant_w or not problems[0].is_depthwise or problems[0].prologue is not None:
        return ()
    if problems[0].x.strides[-1] != 1 or max(p.window for p in problems) > _MOST_TAPS:
        return ()
    x = problems[0].x
    whole = common_factor((x.offset, *x.strides[:-1], problems[0].groups)) % LANES == 0
    dense = all(p.pixels.outs[0].inner == "1" for p in problems)
    return (VectorTile(min(target.max_work_group, 256), LANES if whole and dense else 1),)


def emit_vector(spec: ConvSpec, tile: VectorTile, target: Target) -> Kernel:
    """One launch per phase."""
    problems, integers = _problems(spec), bytes_of(spec)
    rows = TapRows(problems, spec.transposed)
    launches = tuple(
        _launch(problem, rows.begin(phase), spec.transposed, tile, target, integers)
        for phase, problem in enumerate(problems)
    )
    return Kernel(launches, packs=(rows.pack,), flops=sum((p.flops for p in problems), 0))


def _problems(spec: ConvSpec) -> tuple[Problem, ...]:
    return problems_of(spec) if bytes_of(spec) is None else byte_problems(spec)


def _launch(
    problem: Problem,
    begin: Dim,
    transposed: bool,
    tile: VectorTile,
    target: Target,
    integers: Bytes | None,
) -> Launch:
    rank = len(problem.axes)
    col_tasks = ceildiv(problem.groups, tile.width)
    tasks = problem.positions * col_tasks
    signature = Signature()
    signature.read("in", 0, problem.x.dtype, "x")
    signature.read("in", 1, problem.acc, "w")
    declare_pixels(signature, problem.pixels)
    signature.scalar("x_o", problem.x.offset)
    declare_axes(signature, problem.axes)
    for name, value in (
        ("w_o", begin),
        ("channels", problem.groups),
        ("col_tasks", col_tasks),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    window = "x".join(str(problem.axes[a].taps) for a in windowed(rank))
    entry = f"conv_depthwise_{window}_r{rank}"
    epilogue = finish(
        problem.pixels, problem.epilogue, "sum", "channel", tile.width, is_aligned=True
    )
    text = fill(
        "depthwise_gpu",
        target,
        head=kernel_head(entry, (tile.local,)),
        parameters=signature.text,
        width=tile.width,
        vec=register(problem.acc, tile.width),
        position=block(decode_position(rank, "position"), 2),
        begin=block(_begin(rank), 2),
        locate=block(locate(problem.pixels, "flat"), 2),
        taps=block(_taps(problem, transposed, tile.width, integers), 2),
        epilogue=block(epilogue, 2),
    )
    shape = (group_items(ceildiv(tasks, tile.local), tile.local, target),)
    return Launch(entry, text, signature.args, shape, (tile.local,))


def _begin(rank: int) -> list[str]:
    """Where the window's first tap lies."""
    firsts = [f"const int first{a} = {index(a)};" for a in windowed(rank)]
    terms = ["x_o", "o0 * x_s0", *(f"first{a} * x_s{a}" for a in windowed(rank)), "channel"]
    return [*firsts, f"const int at = {' + '.join(terms)};"]


def _taps(problem: Problem, transposed: bool, width: int, integers: Bytes | None) -> list[str]:
    """A statement for each tap."""
    zero = integers.zero if integers else 0
    axes = windowed(len(problem.axes))
    types = (compute(problem.acc), compute(problem.x.dtype), width)
    lines = []
    for number, taps in enumerate(combinations(*(range(problem.axes[a].taps) for a in axes))):
        place, tests = "at", []
        for a, tap in zip(axes, taps, strict=True):
            step = f" + {tap} * tap_step{a}" if tap else ""
            place += f"{step} * x_s{a}" if tap else ""
            if not is_inside(problem.axes[a], transposed):
                tests.append(f"(uint)(first{a}{step}) < (uint)size{a}")
        x = memory.load(problem.x.dtype, "x", place, width, "1", True)
        w = memory.load(problem.acc, "w", f"w_o + {number} * channels + channel", width, "1", True)
        value = memory.convert(x, *types)
        added = f"sum += {f'({value} - {zero})' if zero else value} * {w};"
        lines.append(f"if ({' && '.join(tests)}) {added}" if tests else added)
    return lines
