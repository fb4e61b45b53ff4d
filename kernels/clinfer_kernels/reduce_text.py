"""The structural parts of the reductions' texts, one function a schedule.

State number s of accumulator u is the variable a{u}_{s}; operands are loaded into v_x.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory, types
from clinfer_kernels.fold import Fold
from clinfer_kernels.nest import decode
from clinfer_kernels.render import render
from clinfer_kernels.rows import (
    RowProblem,
    RowView,
    along,
    count_text,
    inside,
    kept_base,
    kept_indices,
    nested,
    row_base,
)
from clinfer_kernels.spec import Target
from clinfer_kernels.template import block

Parts = dict[str, str | int]

_PART = ("begin", "end")  # the range of the outermost row index in one task


@dataclass(frozen=True)
class ReduceTile:
    """How a reduction is cut.

    schedule: rows, columns or groups (each a text file). unroll: accumulators of a work-item.
    parts: pieces of a row, reduced on their own and joined by a second launch. across, deep: the
    shape of a work-group. waves: work-groups per compute unit at most. grain: elements for which
    one more work-group is worth it.
    """

    schedule: str
    unroll: int = 1
    parts: int = 1
    across: int = 1
    deep: int = 1
    waves: int = 8
    grain: int = 4096


@dataclass(frozen=True)
class Stage:
    """One launch of a reduction: what is folded, over which views, and how it is cut."""

    fold: Fold
    problem: RowProblem
    tile: ReduceTile

    def lanes(self, target: Target, finish: bool) -> int:
        """Lanes that fit every dtype in vectors; `finish`: the end is done in vectors too."""
        exprs = (self.fold.step, self.fold.merge, *([self.fold.finish] if finish else []))
        lines = [line.dtype for e in exprs for line in e.lines]
        return types.lanes(target, [*lines, *(d for e in exprs for d in e.inputs)])

    @property
    def split(self) -> bool:
        return self.tile.parts > 1


def rows(stage: Stage, target: Target) -> Parts:
    """A row at a time, vectors along it."""
    problem, fold, unroll = stage.problem, stage.fold, stage.tile.unroll
    width = stage.lanes(target, finish=False)
    depth = len(problem.row) - 1
    low, high = ("begin", "end") if depth == 0 else ("0", f"m{depth}")
    whole = [
        line
        for u in range(unroll)
        for line in _step(stage, width, u, f"j + {u * width}" if u else "j", along_row=True)
    ]
    loop = [row_base(v, depth) for v in problem.ins]
    loop += [
        f"int j = {low};",
        f"for (; j + {unroll * width} <= {high}; j += {unroll * width}) {{",
        *inside(whole),
        "}",
        f"for (; j < {high}; j += {width}) {{",
        f"    const int left = min({width}, {high} - j);",
        f"    const int{width} valid = lane < left;",
        *inside(_step(stage, width, 0, "j", along_row=True, part=True)),
        "}",
    ]
    kept = len(problem.kept)
    return {
        **_common(stage),
        "width": width,
        "unroll": unroll,
        "tasks": count_text("n", kept) + _times_parts(stage),
        "constants": block([_lane_numbers(width), *_count(stage)], 1),
        "indices": block(kept_indices(kept, "flat"), 2),
        "bases": block([kept_base(v, kept) for v in problem.views], 2),
        "declare": block([x for u in range(unroll) for x in _declare(fold, u, width)], 2),
        "loops": block(nested(depth, loop, _PART), 2),
        "join": block(_join(fold, unroll, width), 2),
        "finish": block(_finish(stage, 1, "0"), 2),
    }


def columns(stage: Stage, target: Target) -> Parts:
    """Vectors across neighbouring rows."""
    problem, unroll = stage.problem, stage.tile.unroll
    width = stage.lanes(target, finish=True)
    outer = len(problem.kept) - 1
    whole = _column_block(stage, width, unroll, False)
    rest = _column_block(stage, width, 1, True)
    return {
        **_common(stage),
        "width": width,
        "block": unroll * width,
        "columns": f"n{outer}",
        "tasks": count_text("n", outer) + " * blocks" + _times_parts(stage),
        "constants": block(_count(stage), 1),
        "indices": block(kept_indices(outer, "flat"), 2),
        "bases": block([kept_base(v, outer) for v in problem.views], 2),
        "whole": block(whole, 3),
        "rest": block(rest, 3),
    }


def groups(stage: Stage, target: Target) -> Parts:
    """Work-groups with a tree in local memory."""
    problem, fold, tile = stage.problem, stage.fold, stage.tile
    kept = len(problem.kept)
    size = tile.across * tile.deep
    step = ["int element = r;", *(f"int r{k};" for k in range(len(problem.row)))]
    step += decode(range(len(problem.row)), "element", "r", "m")
    step += [row_base(v, len(problem.row)) for v in problem.ins]
    step += _step(stage, 1, 0, "0", along_row=False)
    return {
        **_common(stage, flat_row=True),
        "across": tile.across,
        "deep": tile.deep,
        "rows": count_text("n", kept),
        "times_parts": _times_parts(stage),
        "locals": block(
            [f"__local {types.compute(d)} tree_{s}[{size}];" for s, d in enumerate(fold.state)], 1
        ),
        "constants": block(_count(stage), 1),
        "indices": block(kept_indices(kept, "flat"), 2),
        "bases": block([kept_base(v, kept) for v in problem.views], 2),
        "declare": block(_declare(fold, 0, 1), 2),
        "step": block(step, 3),
        "tree": block(_tree(fold, tile), 2),
        "finish": block(_finish(stage, 1, "0"), 3),
    }


def _common(stage: Stage, flat_row: bool = False) -> Parts:
    """How a task's part of the row is found: of the outermost row index, or of the flat one."""
    size = count_text("m", len(stage.problem.row)) if flat_row else "m0"
    if not stage.split:
        lines = ["const int begin = 0;", f"const int end = {size};"]
    else:
        lines = [
            "const int part = task % parts;",
            f"const int piece = ({size} + parts - 1) / parts;",
            "const int begin = part * piece;",
            f"const int end = min(begin + piece, {size});",
        ]
    return {
        "range": block(lines, 2),
        "flat": "(task / parts)" if stage.split else "task",
    }


def _times_parts(stage: Stage) -> str:
    return " * parts" if stage.split else ""


def _count(stage: Stage) -> list[str]:
    dtype = stage.fold.finish.inputs[len(stage.fold.state)]
    return [f"const {types.register(dtype)} count = ({types.register(dtype)})length;"]


def _lane_numbers(width: int) -> str:
    return f"const int{width} lane = (int{width})({', '.join(map(str, range(width)))});"


def _names(fold: Fold, u: int) -> list[str]:
    return [f"a{u}_{s}" for s in range(len(fold.state))]


def _declare(fold: Fold, u: int, width: int) -> list[str]:
    lines = []
    for name, dtype, start in zip(_names(fold, u), fold.state, fold.start, strict=True):
        value = types.literal(start, dtype)
        sign = "-" if dtype == "bool" and width > 1 else ""
        lines.append(f"{types.register(dtype, width)} {name} = {sign}{value};")
    return lines


def _step(
    stage: Stage, width: int, u: int, index: str, along_row: bool, part: bool = False
) -> list[str]:
    """Takes the elements at `index` (of the row, or of the kept nest) into accumulator `u`.

    `part`: only `left` lanes exist; along the row, lanes that are not `valid` keep their state.
    """
    fold = stage.fold
    scope = []
    values = []
    for view in stage.problem.ins:
        step = view.row_step if along_row else view.kept_step
        at = along(f"{view.name}_row", _bracket(index), step) if width > 1 else f"{view.name}_row"
        value = memory.load(view.dtype, view.name, at, width, step)
        if part and step != "0":
            short = memory.load_part(view.dtype, view.name, at, width, "left", step)
            value = f"left >= {width} ? {value} : {short}"
        scope.append(f"const {types.register(view.dtype, width)} v_{view.name} = {value};")
        values.append(f"v_{view.name}")
    masked = part and along_row
    expr = fold.masked_step if masked else fold.step
    position = _position(fold, width, index, along_row)
    operands = [*_names(fold, u), position, *values, *(["valid"] if masked else [])]
    rendered = render(expr, operands, width)
    scope += rendered.statements
    scope += [f"{n} = {r};" for n, r in zip(_names(fold, u), rendered.results, strict=True)]
    return ["{", *inside(scope), "}"]


def _position(fold: Fold, width: int, index: str, along_row: bool) -> str:
    if not fold.positions:
        return "0"
    if width == 1:
        return "r"
    return f"(lane + ({index}))" if along_row else f"(int{width})(r0)"


def _bracket(index: str) -> str:
    return f"({index})" if " " in index else index


def _merge(fold: Fold, into: list[str], other: list[str], width: int) -> list[str]:
    rendered = render(fold.merge, [*into, *other], width)
    sets = [f"{n} = {r};" for n, r in zip(into, rendered.results, strict=True)]
    return ["{", *inside([*rendered.statements, *sets]), "}"]


def _join(fold: Fold, unroll: int, width: int) -> list[str]:
    """All accumulators into a0, then its lanes by halves into h1_*; results in h1_*."""
    lines: list[str] = []
    for u in range(1, unroll):
        lines += _merge(fold, _names(fold, 0), _names(fold, u), width)
    source = _names(fold, 0)
    while width > 1:
        width //= 2
        halves = [f"h{width}_{s}" for s in range(len(fold.state))]
        for half, whole, dtype in zip(halves, source, fold.state, strict=True):
            scalar_bool = " & 1" if dtype == "bool" and width == 1 else ""
            lines.append(f"{types.register(dtype, width)} {half} = {whole}.lo{scalar_bool};")
        lines += _merge(fold, halves, [f"{whole}.hi" for whole in source], width)
        source = halves
    return lines


def _finish(stage: Stage, width: int, index: str, u: int = 0, part: bool = False) -> list[str]:
    """Applies the end of the fold and stores; scalar results come from h1_* or a0_*."""
    fold, problem = stage.fold, stage.problem
    lines, values = [], []
    for view in problem.operands:
        step = view.kept_step if width > 1 else "0"
        at = along(f"{view.name}_at", _bracket(index), step)
        value = memory.load(view.dtype, view.name, at, width, step)
        if part and step != "0":
            short = memory.load_part(view.dtype, view.name, at, width, "left", step)
            value = f"left >= {width} ? {value} : {short}"
        lines.append(f"const {types.register(view.dtype, width)} v_{view.name} = {value};")
        values.append(f"v_{view.name}")
    states = _names(fold, u)
    if stage.tile.schedule == "rows":
        states = [f"h1_{s}" for s in range(len(states))]
    ctype = types.register(fold.finish.inputs[len(states)], width)
    rendered = render(fold.finish, [*states, f"({ctype})(count)", *values], width)
    lines += rendered.statements
    for view, result in zip(problem.outs, rendered.results, strict=True):
        lines += _store(stage, view, result, width, index, part)
    return lines


def _store(
    stage: Stage, view: RowView, value: str, width: int, index: str, part: bool
) -> list[str]:
    step = view.kept_step if width > 1 else "0"
    at = along(f"{view.name}_at", _bracket(index), step)
    if stage.split:
        at = f"part * {count_text('n', len(stage.problem.kept))} + {at}"
    whole = memory.store(view.dtype, value, view.name, at, width, step)
    if not part:
        return [whole]
    short = memory.store_part(view.dtype, value, view.name, at, width, "left", step)
    return [f"if (left >= {width}) {{", f"    {whole}", "} else {", f"    {short}", "}"]


def _column_block(stage: Stage, width: int, unroll: int, part: bool) -> list[str]:
    """States for `unroll` vectors of rows, the loops over their elements, the results."""
    problem, fold = stage.problem, stage.fold
    depth = len(problem.row)
    lines = [x for u in range(unroll) for x in _declare(fold, u, width)]
    body = [row_base(v, depth) for v in problem.ins]
    for u in range(unroll):
        body += _step(stage, width, u, f"j + {u * width}" if u else "j", False, part)
    lines += nested(depth, body, _PART)
    for u in range(unroll):
        ends = _finish(stage, width, f"j + {u * width}" if u else "j", u, part)
        lines += ["{", *inside(ends), "}"]
    return lines


def _tree(fold: Fold, tile: ReduceTile) -> list[str]:
    """Joins the states of the work-items of one row; the result is in a0_* of y == 0."""
    if tile.deep == 1:
        return []
    slots = [f"tree_{s}[get_local_id(0)]" for s in range(len(fold.state))]
    put = [f"{slot} = {name};" for slot, name in zip(slots, _names(fold, 0), strict=True)]
    other = [f"tree_{s}[get_local_id(0) + far * {tile.across}]" for s in range(len(fold.state))]
    return [
        *put,
        f"for (int far = {tile.deep // 2}; far > 0; far /= 2) {{",
        "    barrier(CLK_LOCAL_MEM_FENCE);",
        "    if (y < far) {",
        *inside(inside([*_merge(fold, _names(fold, 0), other, 1), *put])),
        "    }",
        "}",
    ]
