"""The text of kernels whose vectors run across short rows: the parts of `rows_short.cl`.

A row's length is a number known when the model is compiled, and part of the text: loops over it are
unrolled, and how registers are turned over follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinfer_kernels import memory, types
from clinfer_kernels.nest import count_text
from clinfer_kernels.row_pass import TILE, Cell, Pass, declare, step_lines
from clinfer_kernels.rows import RowProblem, RowView, kept_base, kept_indices, row_base
from clinfer_kernels.spec import Target
from clinfer_kernels.template import block, inside

LONGEST = 16
"""Elements of a row: with longer ones, vectors along the row are as good."""


@dataclass(frozen=True)
class ShortTile:
    """How a kernel on short rows is cut.

    grain: elements for which one more work-group is worth it. waves: work-groups per compute unit
    at most.
    """

    grain: int = 4096
    waves: int = 8


@dataclass(frozen=True)
class Across:
    """A pass across rows, and the statements on its states that follow; see `short_parts`.

    part: those in a block that is a part of one.
    """

    step: Pass
    whole: Sequence[str] = ()
    part: Sequence[str] = ()


def is_short(problem: RowProblem, target: Target) -> bool:
    """Whether rows are that short, and enough of them side by side to fill a vector."""
    (length, *more), columns = problem.row, problem.kept[-1]
    if more or not isinstance(length, int) or not 2 <= length <= LONGEST:
        return False
    return not isinstance(columns, int) or columns >= target.vector_width


def short_parts(
    problem: RowProblem,
    steps: Sequence[Across],
    width: int,
    held: str | None = None,
    constants: Sequence[str] = (),
) -> dict[str, str | int]:
    """The `$` names of `rows_short.cl`. held: the dtype of a tile that passes keep values in."""
    outer = len(problem.kept) - 1
    return {
        "length": _length(problem),
        "width": width,
        "columns": f"n{outer}",
        "outer": count_text(range(outer)),
        "constants": block(list(constants), 1),
        "indices": block(kept_indices(outer, "flat"), 2),
        "bases": block([kept_base(v, outer) for v in problem.views], 2),
        "whole": block(_block(problem, steps, width, held, False), 3),
        "rest": block(_block(problem, steps, width, held, True), 3),
    }


def held_tile(dtype: str) -> Cell:
    """The tile that passes keep values in."""
    return Cell(dtype, "held_tile", "r0", TILE)


def _length(problem: RowProblem) -> int:
    (length,) = problem.row
    assert isinstance(length, int)
    return length


def _block(
    problem: RowProblem, steps: Sequence[Across], width: int, held: str | None, part: bool
) -> list[str]:
    """Tiles are loaded, the passes run, tiles are stored."""
    length = _length(problem)
    loaded = [v for v in (*problem.ins, *problem.operands) if _is_dense(v, length)]
    stored = [v for v in problem.outs if _is_dense(v, length)]
    lines = [x for view in loaded for x in _load_tile(view, length, width, part)]
    lines += [_tile(v.dtype, f"{v.name}_tile", length, width) for v in stored]
    if held:
        lines.append(_tile(held, "held_tile", length, width))
    tiled = [*loaded, *stored]
    for step in steps:
        lines += _pass(step, problem, tiled, width, part)
    return lines + [x for view in stored for x in _store_tile(view, length, width, part)]


def _is_dense(view: RowView, length: int) -> bool:
    """Whether row lies behind row in memory."""
    return view.row == (1,) and view.kept[-1] == length


def _pass(
    across: Across, problem: RowProblem, tiled: list[RowView], width: int, part: bool
) -> list[str]:
    p = across.step
    names = {view.name: view for view in problem.views}
    cells = [_cell(c, names, tiled) for c in (*p.loads, *p.stores)]
    step = replace(p, loads=tuple(cells[: len(p.loads)]), stores=tuple(cells[len(p.loads) :]))
    body = [row_base(names[b], 1) for b in dict.fromkeys(c.buffer for c in cells) if b in names]
    position = f"(int{width})(r0)" if p.positions else "0"
    body += step_lines(step, width, 0, "j", position, part, masked=False)
    lines = declare(p, 0, width)
    lines += [f"for (int r0 = 0; r0 < {_length(problem)}; ++r0) {{", *inside(body), "}"]
    for dtype, result, state in zip(p.state, p.results, p.accumulators(0), strict=True):
        lines.append(f"const {types.register(dtype, width)} {result} = {state};")
    return [*lines, *(across.part if part else across.whole)]


def _cell(cell: Cell, names: dict[str, RowView], tiled: list[RowView]) -> Cell:
    """The cell's elements across rows: in a tile, or `kept_step` apart in memory."""
    view = names.get(cell.buffer)
    if view is None:
        return cell
    if view in tiled:
        return Cell(cell.dtype, f"{view.name}_tile", "r0", TILE)
    return replace(cell, step=view.kept_step)


def _tile(dtype: str, name: str, length: int, width: int) -> str:
    return f"{types.register(dtype, width)} {name}[{length}];"


def _load_tile(view: RowView, length: int, width: int, part: bool) -> list[str]:
    name, at, left = _places(view, length, width)
    if part:
        value = memory.load_part(view.dtype, view.name, at, width, left)
    else:
        value = memory.load(view.dtype, view.name, at, width)
    return [
        _tile(view.dtype, name, length, width),
        f"for (int c = 0; c < {length}; ++c) {{",
        f"    {name}[c] = {value};",
        "}",
        f"deinterleave_{types.register(view.dtype, width)}_{length}({name});",
    ]


def _store_tile(view: RowView, length: int, width: int, part: bool) -> list[str]:
    name, at, left = _places(view, length, width)
    if part:
        store = memory.store_part(view.dtype, f"{name}[c]", view.name, at, width, left)
    else:
        store = memory.store(view.dtype, f"{name}[c]", view.name, at, width)
    return [
        f"interleave_{types.register(view.dtype, width)}_{length}({name});",
        f"for (int c = 0; c < {length}; ++c) {{",
        f"    {store}",
        "}",
    ]


def _places(view: RowView, length: int, width: int) -> tuple[str, str, str]:
    """The tile's name, where its vector c lies, and how many of that one's elements there are."""
    at = f"{view.name}_at + j * {length} + c * {width}"
    return f"{view.name}_tile", at, f"min({width}, left * {length} - c * {width})"
