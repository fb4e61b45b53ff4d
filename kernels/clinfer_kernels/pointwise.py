"""Pointwise kernels: every output element from the operands' elements at the same index.

Copies, casts, transposes, slices, broadcasts and the pieces of a concatenation are the identity
expression over suitable views. Dimensions are merged first, so most specs become one long row.

Schedules, each in its own text file, where its index formulas are:

    rows   class "cpu": pieces of rows, vectors along the innermost dimension
    tiles  class "cpu": squares of registers, where an operand's unit stride lies in another
           dimension than the output's
    blocks class "gpu": the same through local memory
    short  class "cpu": vectors across rows of a few elements (`row_short`)
    vectors class "gpu": 16 bytes a work-item, where all operands have them at multiples of that
    grid   class "gpu": one element a work-item, striding over the grid
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clinfer_kernels import pointwise_short, pointwise_text
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum
from clinfer_kernels.nest import in_place
from clinfer_kernels.pointwise_problem import Problem, problem_of
from clinfer_kernels.pointwise_text import Parts
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import PointwiseSpec
from clinfer_kernels.template import fill


@dataclass(frozen=True)
class PointwiseTile:
    """How a pointwise kernel is cut.

    schedule: see the module's text. local: work-items of a work-group. grain: elements for which
    one more work-item is worth it. waves: work-groups per compute unit at most.
    """

    schedule: str
    local: int
    grain: int
    waves: int


_PARTS: dict[str, Callable[[Problem, Target], Parts]] = {
    "rows": pointwise_text.rows,
    "tiles": pointwise_text.tiles,
    "blocks": pointwise_text.blocks,
    "vectors": pointwise_text.vectors,
    "grid": pointwise_text.grid,
}
_TEMPLATES = {"vectors": "pointwise_grid"}
SHORT = PointwiseTile("short", 1, 4096, 8)


def candidates(spec: PointwiseSpec, target: Target) -> tuple[PointwiseTile, ...]:
    """The schedules that can run `spec`, the best first."""
    square = problem_of(spec, square=True)
    shallow = bool(square.columns) and _below(square.sizes[-2], 8)  # squares mostly of padding
    turned = bool(square.columns) and not shallow
    if target.cls == "gpu":
        local = min(target.max_work_group, 256)
        grid = PointwiseTile("grid", local, 4, 32)
        depth = pointwise_text.block_depth(target)
        if turned and depth > 0 and pointwise_text.block_bytes(square) <= target.local_mem:
            return PointwiseTile("blocks", depth * pointwise_text.SIDE, 4, 32), grid
        width = pointwise_text.vector_width(problem_of(spec))
        return (PointwiseTile("vectors", local, width, 32), grid) if width > 1 else (grid,)
    rows = PointwiseTile("rows", 1, 4096, 8)
    plain = (PointwiseTile("tiles", 1, 4096, 8), rows) if turned else (rows,)
    is_short = pointwise_short.short_rows(problem_of(spec), target) is not None
    return (SHORT, *plain) if is_short else plain


def _below(size: Dim, limit: int) -> bool:
    return isinstance(size, int) and size < limit


def emit(spec: PointwiseSpec, tile: PointwiseTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    problem = problem_of(spec, square=tile.schedule in ("tiles", "blocks"))
    # Rows are read and written once at each index; the other schedules' squares overlap.
    shared = in_place(problem.outs, problem.ins) if tile.schedule in ("rows", "short") else ()
    if tile.schedule == "short":
        template, signature, parts = pointwise_short.text(problem, target)
    else:
        template = _TEMPLATES.get(tile.schedule, f"pointwise_{tile.schedule}")
        signature = problem.signature()
        parts = _PARTS[tile.schedule](problem, target)
    signature.share((o.name, v.name) for o, v in shared)
    name = _name(problem, tile.schedule)
    text = fill(
        template,
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        **parts,
    )
    most = tile.waves * target.compute_units
    groups = minimum(ceildiv(problem.total, tile.grain * tile.local), most)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    flops = problem.total * len(spec.expr.lines)
    return Kernel((launch,), flops=flops, in_place=tuple((o.index, v.index) for o, v in shared))


def _name(problem: Problem, schedule: str) -> str:
    """'pointwise_rows_r2_add_tanh': schedule, rank and the first operations."""
    names = [line.op for line in problem.expr.lines if line.op != "const"]
    return "_".join(["pointwise", schedule, f"r{problem.rank}", *(names[:4] or ["copy"])])
