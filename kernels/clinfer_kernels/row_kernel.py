"""Kernels that run along each row several times: what softmax and the norms share.

class "cpu"  a work-item takes whole rows; what the first run computes is held in a buffer that
             stays in the first-level cache (or in the output, or is the input itself); of rows
             known to be short, or side by side in memory, it takes as many as a vector has lanes
             (`row_short`, `row_columns`)
class "gpu"  work-items share rows (`row_group`); what the first run computes stays in registers
             where rows are known not to be too long, else later runs compute the prologue again
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import types
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, maximum, minimum
from clinfer_kernels.nest import count_text
from clinfer_kernels.row_columns import ColumnTile, column_parts, column_tile
from clinfer_kernels.row_group import GroupTile, group_tile, held_vector, in_group, locals_of
from clinfer_kernels.row_item import ROOM, item_parts
from clinfer_kernels.row_pass import Cell
from clinfer_kernels.row_runs import RowKernel, dtypes, held_cell
from clinfer_kernels.row_short import Across, ShortTile, held_tile, is_short, short_parts
from clinfer_kernels.rows import RowProblem, kept_base, kept_indices
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import size_of

_SPAN = 2048  # elements: as many rows as have them are in work at a time, in the nearest cache
_MOST = 4


@dataclass(frozen=True)
class RowTile:
    """How a row kernel of one work-item a work-group is cut.

    unroll: accumulators. grain: elements for which one more work-group is worth it. waves:
    work-groups per compute unit at most.
    """

    unroll: int = 4
    grain: int = 4096
    waves: int = 8


Tile = RowTile | ShortTile | ColumnTile | GroupTile


def row_tiles(problem: RowProblem, target: Target) -> tuple[Tile, ...]:
    """The tiles for rows of that length, the best first."""
    if target.cls == "cpu":
        short = ShortTile() if is_short(problem, target) else None
        better = short or column_tile(problem, target)
        return (better, RowTile()) if better else (RowTile(),)
    return (group_tile(problem, target),)


def place_held(tile: Tile, dtype: str) -> Cell | None:
    """Where runs keep a value of each element, if anywhere: in scratch, or in registers."""
    if isinstance(tile, ShortTile):
        return held_tile(dtype)
    if isinstance(tile, GroupTile):
        return held_vector(dtype) if tile.held else None
    return held_cell(dtype) if isinstance(tile, RowTile) else None


def emit_rows(kernel: RowKernel, tile: Tile, target: Target) -> Kernel:
    """The launch of a row kernel."""
    scratch: tuple[Dim, ...] = ()
    if isinstance(tile, ShortTile):
        launch = _short(kernel, tile, target)
    elif isinstance(tile, ColumnTile):
        launch = _columns(kernel, tile, target)
    elif isinstance(tile, GroupTile):
        launch = _groups(kernel, tile, target)
    else:
        launch, scratch = _items(kernel, tile, target)
    lines = sum(len(run.step.step.lines) for run in kernel.runs)
    problem = kernel.problem
    return Kernel((launch,), scratch, flops=problem.rows * problem.length * lines)


def _items(kernel: RowKernel, tile: RowTile, target: Target) -> tuple[Launch, tuple[Dim, ...]]:
    problem = kernel.problem
    length = maximum(problem.length, 1)
    worth = ceildiv(problem.rows * length, tile.grain)
    groups = minimum(minimum(problem.rows, tile.waves * target.compute_units), worth)
    together = minimum(ceildiv(_SPAN, length), _MOST)
    signature = problem.signature()
    signature.scalar("length", problem.length)
    signature.scalar("together", together)
    scratch: tuple[Dim, ...] = ()
    if kernel.held:
        signature.buffer("scratch", 0, kernel.held, "held")
        room = ceildiv(problem.length, ROOM) * ROOM
        scratch = (groups * together * room * size_of(kernel.held),)
    name = _name(kernel)
    text = fill(
        "rows_item",
        target,
        head=kernel_head(name),
        parameters=signature.text,
        runs=len(kernel.runs),
        purpose=kernel.purpose,
        rows=count_text(range(len(problem.kept))),
        **item_parts(kernel, tile.unroll, _MOST, target),
    )
    return Launch(name, text, signature.args, (groups,), (1,)), scratch


def _groups(kernel: RowKernel, tile: GroupTile, target: Target) -> Launch:
    problem = kernel.problem
    rank, kept = len(problem.row), len(problem.kept)
    groups = minimum(ceildiv(problem.rows, tile.across), tile.waves * target.compute_units)
    signature = problem.signature()
    signature.scalar("length", problem.length)
    name = _name(kernel)
    body: list[str] = []
    for run in kernel.runs:
        body += in_group(run.step, run.views, rank, tile, ("0", "length"))
        body += run.declared()
    text = fill(
        "rows_group",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        runs=len(kernel.runs),
        purpose=kernel.purpose,
        rows=count_text(range(kept)),
        across=tile.across,
        deep=tile.deep,
        order=_ORDER[tile.dense],
        locals=block(locals_of([run.step for run in kernel.runs], tile, kernel.held), 1),
        places=block(tile.places, 1),
        indices=block(kept_indices(kept, "flat"), 2),
        bases=block([kept_base(v, kept) for v in problem.views], 2),
        body=block(body, 2),
    )
    return Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))


_ORDER = {
    True: "work-items beside each other are along a row",
    False: "work-items beside each other have rows beside each other",
}


def _short(kernel: RowKernel, tile: ShortTile, target: Target) -> Launch:
    width = types.lanes(target, dtypes(kernel.runs))
    follows = [run.declared(width) for run in kernel.runs]
    steps = [Across(r.step, f, f) for r, f in zip(kernel.runs, follows, strict=True)]
    parts = short_parts(kernel.problem, steps, width, kernel.held)
    return _across(kernel, tile, target, "rows_short", parts)


def _columns(kernel: RowKernel, tile: ColumnTile, target: Target) -> Launch:
    width = types.lanes(target, dtypes(kernel.runs))
    parts = column_parts(kernel.problem, kernel.runs, width, tile.unroll)
    return _across(kernel, tile, target, "reduce_columns", parts)


def _across(
    kernel: RowKernel,
    tile: ShortTile | ColumnTile,
    target: Target,
    template: str,
    parts: dict[str, str | int],
) -> Launch:
    """The launch of a kernel whose vectors run across rows."""
    problem = kernel.problem
    worth = ceildiv(problem.rows * problem.length, tile.grain)
    groups = minimum(worth, tile.waves * target.compute_units)
    signature = problem.signature()
    signature.scalar("length", problem.length)
    name = f"{_name(kernel)}_{template.split('_')[1]}"
    text = fill(template, target, head=kernel_head(name), parameters=signature.text, **parts)
    return Launch(name, text, signature.args, (groups,), (1,))


def _name(kernel: RowKernel) -> str:
    return f"{kernel.name}_r{len(kernel.problem.kept)}{len(kernel.problem.row)}"
