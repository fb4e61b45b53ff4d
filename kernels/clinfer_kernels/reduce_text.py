"""The structural parts of the reductions' texts, one function a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import types
from clinfer_kernels.fold import Fold
from clinfer_kernels.nest import count_text
from clinfer_kernels.render import render
from clinfer_kernels.row_group import GroupTile, in_group, trees
from clinfer_kernels.row_pass import (
    Cell,
    Pass,
    along_row,
    declare,
    lane_numbers,
    load_cell,
    step_lines,
    store_cell,
    view_cell,
)
from clinfer_kernels.row_short import Across, short_parts
from clinfer_kernels.rows import RowProblem, RowView, kept_base, kept_indices, nested, row_base
from clinfer_kernels.spec import Target
from clinfer_kernels.template import block, inside

Parts = dict[str, str | int]

_PART = ("begin", "end")  # the range of the outermost row index in one task


@dataclass(frozen=True)
class ReduceTile:
    """How a reduction is cut.

    schedule: rows, columns, short or groups (each a text file). unroll: accumulators of a
    work-item. parts: pieces of a row, reduced on their own and joined by a second launch. across,
    deep: the shape of a work-group. waves: work-groups per compute unit at most. grain: elements
    for which one more work-group is worth it.
    """

    schedule: str
    unroll: int = 1
    parts: int = 1
    across: int = 1
    deep: int = 1
    waves: int = 8
    grain: int = 4096

    @property
    def local(self) -> int:
        """Work-items of a work-group."""
        return self.across * self.deep


Tile = ReduceTile | GroupTile


@dataclass(frozen=True)
class Stage:
    """One launch of a reduction: what is folded, over which views, and how it is cut."""

    fold: Fold
    problem: RowProblem
    tile: Tile

    def lanes(self, target: Target, finish: bool) -> int:
        """Lanes that fit every dtype in vectors; `finish`: the end is done in vectors too."""
        exprs = (self.fold.step, self.fold.merge, *([self.fold.finish] if finish else []))
        lines = [line.dtype for e in exprs for line in e.lines]
        return types.lanes(target, [*lines, *(d for e in exprs for d in e.inputs)])

    @property
    def count_dtype(self) -> str:
        """The dtype in which the end of the fold sees the number of elements."""
        return self.fold.finish.inputs[len(self.fold.state)]

    def step(self, cells: list[Cell]) -> Pass:
        """The run that takes the elements in."""
        fold = self.fold
        return Pass(
            "a",
            fold.state,
            fold.start,
            fold.step,
            fold.merge,
            tuple(cells),
            positions=fold.positions,
        )

    @property
    def split(self) -> bool:
        return self.tile.parts > 1


def rows(stage: Stage, target: Target) -> Parts:
    """A row at a time, vectors along it."""
    problem = stage.problem
    width = stage.lanes(target, finish=False)
    kept = len(problem.kept)
    step = stage.step([view_cell(v) for v in problem.ins])
    run = along_row(step, problem.ins, len(problem.row), width, stage.tile.unroll, _PART)
    return {
        **_common(stage),
        "width": width,
        "unroll": stage.tile.unroll,
        "tasks": count_text(range(kept)) + _times_parts(stage),
        "constants": block([lane_numbers(width), *_count(stage)], 1),
        "indices": block(kept_indices(kept, "flat"), 2),
        "bases": block([kept_base(v, kept) for v in problem.views], 2),
        "run": block(run, 2),
        "finish": block(_finish(stage, step.results), 2),
    }


def columns(stage: Stage, target: Target) -> Parts:
    """Vectors across neighbouring rows."""
    problem, unroll = stage.problem, stage.tile.unroll
    width = stage.lanes(target, finish=True)
    outer = len(problem.kept) - 1
    return {
        **_common(stage),
        "width": width,
        "block": unroll * width,
        "columns": f"n{outer}",
        "tasks": count_text(range(outer)) + " * blocks" + _times_parts(stage),
        "constants": block(_count(stage), 1),
        "indices": block(kept_indices(outer, "flat"), 2),
        "bases": block([kept_base(v, outer) for v in problem.views], 2),
        "whole": block(_column_block(stage, width, unroll, False), 3),
        "rest": block(_column_block(stage, width, 1, True), 3),
    }


def short(stage: Stage, target: Target) -> Parts:
    """Vectors across rows of a few elements, which lie one behind the other."""
    problem = stage.problem
    step = stage.step([view_cell(v) for v in problem.ins])
    width = stage.lanes(target, finish=True)
    ends = [_finish(stage, step.results, width, "j", part) for part in (False, True)]
    return short_parts(problem, [Across(step, *ends)], width, constants=_count(stage))


def groups(stage: Stage, target: Target) -> Parts:
    """Work-groups with a tree in local memory."""
    problem, tile = stage.problem, stage.tile
    kept = len(problem.kept)
    step = stage.step([view_cell(v) for v in problem.ins])
    assert isinstance(tile, GroupTile)
    run = in_group(step, problem.ins, len(problem.row), tile, _PART)
    return {
        **_common(stage, flat_row=True),
        "across": tile.across,
        "deep": tile.deep,
        "places": block(tile.places, 1),
        "rows": count_text(range(kept)),
        "times_parts": _times_parts(stage),
        "locals": block(trees([step], tile), 1),
        "constants": block(_count(stage), 1),
        "indices": block(kept_indices(kept, "flat"), 2),
        "bases": block([kept_base(v, kept) for v in problem.views], 2),
        "run": block(run, 2),
        "finish": block(_finish(stage, step.results), 3),
    }


def _common(stage: Stage, flat_row: bool = False) -> Parts:
    """How a task's part of the row is found: of the outermost row index, or of the flat one."""
    size = count_text(range(len(stage.problem.row)), "m") if flat_row else "m0"
    if not stage.split:
        lines = ["const int begin = 0;", f"const int end = {size};"]
    else:
        lines = [
            "const int part = task % parts;",
            f"const int piece = {_piece(stage, size)};",
            "const int begin = part * piece;",
            f"const int end = min(begin + piece, {size});",
        ]
    return {"range": block(lines, 2), "flat": "(task / parts)" if stage.split else "task"}


def _piece(stage: Stage, size: str) -> str:
    """Elements of a part, of vectors whole ones."""
    tile = stage.tile
    width = tile.width if isinstance(tile, GroupTile) else 1
    piece = f"({size} + parts - 1) / parts"
    return piece if width == 1 else f"({piece} + {width - 1}) / {width} * {width}"


def _times_parts(stage: Stage) -> str:
    return " * parts" if stage.split else ""


def _count(stage: Stage) -> list[str]:
    ctype = types.register(stage.count_dtype)
    return [f"const {ctype} count = ({ctype})length;"]


def _finish(
    stage: Stage, states: list[str], width: int = 1, index: str = "", part: bool = False
) -> list[str]:
    """Applies the end of the fold to the states and stores; scalars, or vectors at row `index`."""
    problem = stage.problem
    lines, values = [], []
    for view in problem.operands:
        value = load_cell(_kept_cell(stage, view), width, index, part)
        lines.append(f"const {types.register(view.dtype, width)} v_{view.name} = {value};")
        values.append(f"v_{view.name}")
    count = f"({types.register(stage.count_dtype, width)})(count)" if width > 1 else "count"
    rendered = render(stage.fold.finish, [*states, count, *values], width)
    lines += rendered.statements
    for view, result in zip(problem.outs, rendered.results, strict=True):
        lines += store_cell(_kept_cell(stage, view), result, width, index, part)
    return lines


def _kept_cell(stage: Stage, view: RowView) -> Cell:
    """A view's elements across rows; those of a part lie behind those of the parts before it."""
    base = f"{view.name}_at"
    if stage.split and view.kind == "scratch":
        base = f"part * {count_text(range(len(stage.problem.kept)))} + {base}"
    return Cell(view.dtype, view.name, base, view.kept_step)


def _column_block(stage: Stage, width: int, unroll: int, part: bool) -> list[str]:
    """States for `unroll` vectors of rows, the loops over their elements, the results."""
    problem = stage.problem
    cells = [Cell(v.dtype, v.name, f"{v.name}_row", v.kept_step) for v in problem.ins]
    step = stage.step(cells)
    lines = [x for u in range(unroll) for x in declare(step, u, width)]
    body = [row_base(v, len(problem.row)) for v in problem.ins]
    position = f"(int{width})(r0)" if step.positions else "0"
    indices = [f"(j + {u * width})" if u else "j" for u in range(unroll)]
    for u, index in enumerate(indices):
        body += step_lines(step, width, u, index, position, part, masked=False)
    lines += nested(len(problem.row), body, _PART)
    for u, index in enumerate(indices):
        ends = _finish(stage, step.accumulators(u), width, index, part)
        lines += ["{", *inside(ends), "}"]
    return lines
