"""Pointwise kernels on rows of a few elements, as rows of `rows_short.cl`.

The short dimension is the outputs' innermost one; or the one before, where an operand has its unit
stride there (the transposition of such rows). Rows that vectors along them fill are not short.
"""

from __future__ import annotations

from clinfer_kernels import types
from clinfer_kernels.expr import Builder
from clinfer_kernels.nest import View
from clinfer_kernels.pointwise_problem import Problem
from clinfer_kernels.row_runs import cells, make_pass
from clinfer_kernels.row_short import Across, is_short, short_parts
from clinfer_kernels.rows import RowProblem, RowView
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Target


def short_rows(problem: Problem, target: Target) -> RowProblem | None:
    """The problem with the short dimension as rows; None where there is none."""
    if problem.rank < 2:
        return None
    last = problem.rank - 1
    width = types.lanes(target, problem.dtypes)
    for axis in (last, last - 1) if problem.columns else (last,):
        rows = _with_rows(problem, axis)
        if is_short(rows, target) and rows.length % width != 0:
            return rows
    return None


def text(problem: Problem, target: Target) -> tuple[str, Signature, dict[str, str | int]]:
    """The template, the parameters and the `$` names."""
    rows = short_rows(problem, target)
    assert rows is not None

    def build(builder: Builder, values: list[int]) -> tuple[int, ...]:
        return builder.inline(problem.expr, values)

    step = make_pass("p", build, cells(rows.ins), stores=cells(rows.outs))
    width = types.lanes(target, problem.dtypes)
    return "rows_short", rows.signature(), short_parts(rows, [Across(step)], width)


def _with_rows(problem: Problem, axis: int) -> RowProblem:
    kept = tuple(size for k, size in enumerate(problem.sizes) if k != axis)
    ins, outs = (tuple(_row_view(v, axis) for v in views) for views in (problem.ins, problem.outs))
    return RowProblem(kept, (problem.sizes[axis],), ins, (), outs)


def _row_view(view: View, axis: int) -> RowView:
    kept = tuple(stride for k, stride in enumerate(view.strides) if k != axis)
    return RowView(
        view.name, view.kind, view.index, view.dtype, view.offset, kept, (view.strides[axis],)
    )
