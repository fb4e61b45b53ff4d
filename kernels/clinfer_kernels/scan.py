"""Cumulative sums and products along one axis.

Lines along the axis are independent. Where neighbouring lines are neighbours in memory, class "cpu"
scans a vector of them at once; otherwise a work-item scans one line.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory, types
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.expr import Builder
from clinfer_kernels.nest import count_text, decode
from clinfer_kernels.render import render
from clinfer_kernels.rows import RowProblem, along, kept_base, row_problem
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import ScanSpec
from clinfer_kernels.template import block, fill, inside
from clinfer_kernels.types import accumulator, literal, register

_OPS = {"sum": ("add", 0), "prod": ("mul", 1)}


@dataclass(frozen=True)
class ScanTile:
    """vectors: whether a work-item takes a vector of neighbouring lines. local: work-items of a
    work-group. grain: elements for which one more work-item is worth it. waves: work-groups per
    compute unit at most."""

    vectors: bool
    local: int
    grain: int
    waves: int


def candidates(spec: ScanSpec, target: Target) -> tuple[ScanTile, ...]:
    """The tiles that can run `spec`, the best first."""
    if target.cls == "gpu":
        return (ScanTile(False, min(target.max_work_group, 64), 1, 64),)
    plain = ScanTile(False, 1, 4096, 8)
    views = _problem(spec).views
    if all(view.kept_step == "1" for view in views):
        return ScanTile(True, 1, 4096, 8), plain
    return (plain,)


def emit(spec: ScanSpec, tile: ScanTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    problem = _problem(spec)
    dtype = spec.outs[0].dtype
    width = types.lanes(target, [dtype, accumulator(dtype)]) if tile.vectors else 1
    kept = len(problem.kept)
    loops = range(kept)
    columns = f"((n{kept - 1} + {width - 1}) / {width})"
    outer = range(kept - 1) if tile.vectors else loops
    indices = [f"int i{k};" for k in outer]
    if tile.vectors:
        indices += [f"const int j = flat % {columns} * {width};", f"flat /= {columns};"]
    lines = f"{count_text(outer)} * {columns}" if tile.vectors else count_text(loops)
    way = ("reverse_" if spec.reverse else "") + ("exclusive_" if spec.exclusive else "")
    name = f"scan_{way}{spec.op}_r{kept}x{width}"
    signature = problem.signature()
    text = fill(
        "scan",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        width=width,
        lines=lines,
        indices=block([*indices, *decode(outer, "flat")], 2),
        bases=block([kept_base(v, len(outer)) for v in problem.views], 2),
        body=block(_body(spec, problem, width, tile.vectors), 2),
    )
    units = ceildiv(problem.rows, width * tile.local)
    worth = ceildiv(problem.rows * problem.length, tile.grain * tile.local)
    groups = minimum(minimum(units, worth), tile.waves * target.compute_units)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,), flops=problem.rows * problem.length)


def _problem(spec: ScanSpec) -> RowProblem:
    return row_problem(spec.ins, (), spec.outs, (spec.axis,))


def _body(spec: ScanSpec, problem: RowProblem, width: int, vectors: bool) -> list[str]:
    """Statements of one line, or of a vector of lines of which `left` exist."""
    if not vectors:
        return _scan(spec, problem, 1, part=False)
    kept = len(problem.kept)
    return [
        f"const int left = min({width}, n{kept - 1} - j);",
        f"if (left == {width}) {{",
        *inside(_scan(spec, problem, width, part=False)),
        "} else {",
        *inside(_scan(spec, problem, width, part=True)),
        "}",
    ]


def _scan(spec: ScanSpec, problem: RowProblem, width: int, part: bool) -> list[str]:
    operation, start = _OPS[spec.op]
    x, y = problem.ins[0], problem.outs[0]
    acc = accumulator(x.dtype)
    builder = Builder((acc, x.dtype))
    element = builder.op("cast", 1, dtype=acc) if acc != x.dtype else 1
    rendered = render(builder.build(builder.op(operation, 0, element)), ["total", "v"], width)
    lanes = "j" if width > 1 else "0"
    x_at = along(f"x0_at + k * {x.name}_t0", lanes, "1" if width > 1 else "0")
    y_at = along(f"y0_at + k * {y.name}_t0", lanes, "1" if width > 1 else "0")
    value = memory.load(x.dtype, "x0", x_at, width)
    keep = memory.store(y.dtype, "total", "y0", y_at, width)
    if part:
        value = memory.load_part(x.dtype, "x0", x_at, width, "left")
        keep = memory.store_part(y.dtype, "total", "y0", y_at, width, "left")
    take = [*rendered.statements, f"total = {rendered.results[0]};"]
    step = [keep, *take] if spec.exclusive else [*take, keep]
    return [
        f"{register(acc, width)} total = {literal(start, acc)};",
        "for (int r = 0; r < m0; ++r) {",
        f"    const int k = {'m0 - 1 - r' if spec.reverse else 'r'};",
        f"    const {register(x.dtype, width)} v = {value};",
        *inside(step),
        "}",
    ]
