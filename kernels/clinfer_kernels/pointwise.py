"""Pointwise kernels: every output element from the operands' elements at the same index.

Copies, casts, transposes, slices, broadcasts and the pieces of a concatenation are the identity
expression over suitable views. Dimensions are merged first, so most specs become one long row.

Schedules, each in its own text file, where its index formulas are:

    rows   class "cpu": pieces of rows, vectors along the innermost dimension
    tiles  class "cpu": squares of registers, where an operand's unit stride lies in another
           dimension than the output's
    grid   class "gpu": one element a work-item, striding over the grid
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clinfer_kernels import pointwise_text
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
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
    "grid": pointwise_text.grid,
}


def candidates(spec: PointwiseSpec, target: Target) -> tuple[PointwiseTile, ...]:
    """The schedules that can run `spec`, the best first."""
    if target.cls == "gpu":
        return (PointwiseTile("grid", min(target.max_work_group, 256), 4, 32),)
    rows = PointwiseTile("rows", 1, 4096, 8)
    tiles = PointwiseTile("tiles", 1, 4096, 8)
    problem = problem_of(spec, square=True)
    if not problem.columns:
        return (rows,)
    depth = problem.sizes[-2]
    shallow = isinstance(depth, int) and depth < 8  # a square would be mostly padding
    return (rows,) if shallow else (tiles, rows)


def emit(spec: PointwiseSpec, tile: PointwiseTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    problem = problem_of(spec, square=tile.schedule == "tiles")
    signature = problem.signature()
    name = _name(problem, tile.schedule)
    text = fill(
        f"pointwise_{tile.schedule}",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        **_PARTS[tile.schedule](problem, target),
    )
    most = tile.waves * target.compute_units
    groups = minimum(ceildiv(problem.total, tile.grain * tile.local), most)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,), flops=problem.total * len(spec.expr.lines))


def _name(problem: Problem, schedule: str) -> str:
    """'pointwise_rows_r2_add_tanh': schedule, rank and the first operations."""
    names = [line.op for line in problem.expr.lines if line.op != "const"]
    return "_".join(["pointwise", schedule, f"r{problem.rank}", *(names[:4] or ["copy"])])
