"""The text of kernels that run along rows side by side in memory: the parts of `reduce_columns.cl`.

Vectors run across rows, `unroll` of them in a block; every pass walks the rows of a block from end
to end, and what later passes need of a row is kept in small arrays, one place a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

from clinfer_kernels import types
from clinfer_kernels.nest import count_text
from clinfer_kernels.row_pass import Pass, declare, merge_lines, step_lines
from clinfer_kernels.row_runs import Run
from clinfer_kernels.rows import (
    RowProblem,
    RowView,
    at_least,
    kept_base,
    kept_indices,
    nested,
    row_base,
)
from clinfer_kernels.spec import Target
from clinfer_kernels.template import block, inside
from clinfer_kernels.types import size_of

_UNROLL = 4
_FEW = 3  # vectors of columns: with fewer, one that is a part takes longer than all others
_PIECE = 256  # elements of a row that are summed one after another
_WAY = 4096  # bytes from one address to the next of the same place in the nearest cache


@dataclass(frozen=True)
class ColumnTile:
    """How a kernel on rows side by side is cut.

    unroll: vectors of rows in a block. grain: elements for which one more work-group is worth it.
    waves: work-groups per compute unit at most.
    """

    unroll: int = 1
    grain: int = 4096
    waves: int = 8


def column_tile(problem: RowProblem, target: Target) -> ColumnTile | None:
    """The tile where neighbouring rows are neighbours in memory, and enough to fill vectors."""
    source, columns = problem.ins[0], problem.kept[-1]
    if source.kept_step != "1" or source.row_step == "1":
        return None
    if not all(_spreads(view) for view in problem.outs):
        return None
    width = target.vector_width
    if isinstance(columns, int) and columns < _FEW * width and (columns == 0 or columns % width):
        return None
    blocks = at_least(problem.rows) // (_UNROLL * target.vector_width)
    wide = not isinstance(columns, int) or blocks >= target.compute_units
    return ColumnTile(_UNROLL if wide else 1)


def _spreads(view: RowView) -> bool:
    """Whether a block's rows, each written an element at a time, stay in the nearest cache, which
    has one place of a few lines for all addresses of one remainder."""
    apart = view.kept[-1]
    return isinstance(apart, int) and gcd(apart * size_of(view.dtype), _WAY) <= _WAY // 8


def column_parts(
    problem: RowProblem, runs: Sequence[Run], width: int, unroll: int
) -> dict[str, str | int]:
    """The `$` names of `reduce_columns.cl`."""
    outer = len(problem.kept) - 1
    return {
        "width": width,
        "block": unroll * width,
        "columns": f"n{outer}",
        "tasks": count_text(range(outer)) + " * blocks",
        "constants": "",
        "range": "",
        "flat": "task",
        "indices": block(kept_indices(outer, "flat"), 2),
        "bases": block([kept_base(v, outer) for v in problem.views], 2),
        "whole": block(_block(problem, runs, width, unroll, False), 3),
        "rest": block(_block(problem, runs, width, 1, True), 3),
    }


def _block(
    problem: RowProblem, runs: Sequence[Run], width: int, unroll: int, part: bool
) -> list[str]:
    kept = dict.fromkeys(pair for run in runs for pair in run.step.given)
    lines = [f"{types.register(dtype, width)} {name}_of[{unroll}];" for dtype, name in kept]
    for run in runs:
        lines += _run(problem, run, width, unroll, part)
        follows = run.declared(width)
        given = {*run.step.results, *run.names}
        for u in range(unroll):
            own = [
                f"const {types.register(d, width)} {result} = {state};"
                for d, result, state in zip(
                    run.step.state, run.step.results, _total(run.step).accumulators(u), strict=True
                )
            ]
            saved = [f"{name}_of[{u}] = {name};" for _, name in kept if name in given]
            if saved:
                lines += ["{", *inside([*own, *follows, *saved]), "}"]
    return lines


def _run(problem: RowProblem, run: Run, width: int, unroll: int, part: bool) -> list[str]:
    step = _across(problem, run.step)
    used = {cell.buffer for cell in (*step.loads, *step.stores)}
    body = [row_base(v, len(problem.row)) for v in problem.views if v.name in used]
    for u in range(unroll):
        given = tuple((dtype, f"{name}_of[{u}]") for dtype, name in step.given)
        index = f"(j + {u * width})" if u else "j"
        body += step_lines(replace(step, given=given), width, u, index, "0", part, masked=False)
    if not step.state:
        return nested(len(problem.row), body)
    total = _total(step)
    lines = [x for u in range(unroll) for x in declare(total, u, width)]
    return lines + nested(len(problem.row) - 1, _pieces(problem, step, body, width, unroll))


def _total(p: Pass) -> Pass:
    """The pass with names for the states of all pieces together."""
    return replace(p, prefix=f"{p.prefix}_all")


def _pieces(
    problem: RowProblem, step: Pass, body: Sequence[str], width: int, unroll: int
) -> list[str]:
    """The innermost loop in pieces, each with a state of its own: sums of many elements one after
    another lose digits, as those of `row_pass.along_row` do not, which have one for each lane."""
    last = len(problem.row) - 1
    lines = [x for u in range(unroll) for x in declare(step, u, width)]
    lines.append(f"const int stop = min(begin + {_PIECE}, m{last});")
    lines += [f"for (int r{last} = begin; r{last} < stop; ++r{last}) {{", *inside(body), "}"]
    for u in range(unroll):
        lines += merge_lines(step, _total(step).accumulators(u), step.accumulators(u), width)
    head = f"for (int begin = 0; begin < m{last}; begin += {_PIECE}) {{"
    return [head, *inside(lines), "}"]


def _across(problem: RowProblem, p: Pass) -> Pass:
    """The pass with its cells' elements across rows."""
    steps = {view.name: view.kept_step for view in problem.views}
    loads, stores = (
        tuple(replace(cell, step=steps[cell.buffer]) for cell in cells)
        for cells in (p.loads, p.stores)
    )
    return replace(p, loads=loads, stores=stores)
