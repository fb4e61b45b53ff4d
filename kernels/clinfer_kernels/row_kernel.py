"""Kernels that run along each row several times: what softmax and the norms share.

class "cpu"  a work-item takes whole rows; what the first run computes is held in a buffer that
             stays in the first-level cache (or in the output, or is the input itself)
class "gpu"  work-items share rows; later runs compute the prologue again
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, maximum, minimum
from clinfer_kernels.nest import count_text
from clinfer_kernels.row_item import ROOM, item_parts
from clinfer_kernels.row_pass import in_group, trees
from clinfer_kernels.row_runs import RowKernel
from clinfer_kernels.rows import RowProblem, at_least, kept_base, kept_indices
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import size_of

_SPAN = 2048  # elements: as many rows as have them are in work at a time, in the nearest cache
_MOST = 4


@dataclass(frozen=True)
class RowTile:
    """How a row kernel is cut.

    across, deep: rows and work-items per row of a work-group; deep 0: one work-item a work-group.
    unroll: accumulators. grain: elements for which one more work-group is worth it. waves:
    work-groups per compute unit at most.
    """

    across: int = 1
    deep: int = 0
    unroll: int = 4
    grain: int = 4096
    waves: int = 8


def row_tiles(problem: RowProblem, target: Target) -> tuple[RowTile, ...]:
    """The tiles for rows of that length, the best first."""
    if target.cls == "cpu":
        return (RowTile(),)
    most = min(target.max_work_group, 256)
    length = max(at_least(problem.length) // 4, 1)
    deep = 1 << (min(most, length).bit_length() - 1)
    return (RowTile(across=max(1, min(most, 64) // deep), deep=deep, waves=64),)


def emit_rows(kernel: RowKernel, tile: RowTile, target: Target) -> Kernel:
    """The launch of a row kernel."""
    emit = _items if tile.deep == 0 else _groups
    launch, scratch = emit(kernel, tile, target)
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


def _groups(kernel: RowKernel, tile: RowTile, target: Target) -> tuple[Launch, tuple[Dim, ...]]:
    problem = kernel.problem
    rank, kept = len(problem.row), len(problem.kept)
    local = tile.across * tile.deep
    groups = minimum(ceildiv(problem.rows, tile.across), tile.waves * target.compute_units)
    signature = problem.signature()
    signature.scalar("length", problem.length)
    name = _name(kernel)
    body: list[str] = []
    for run in kernel.runs:
        body += in_group(run.step, run.views, rank, tile.across, tile.deep, ("0", "length"))
        body += run.after
    text = fill(
        "rows_group",
        target,
        head=kernel_head(name, (local,)),
        parameters=signature.text,
        runs=len(kernel.runs),
        purpose=kernel.purpose,
        rows=count_text(range(kept)),
        across=tile.across,
        deep=tile.deep,
        locals=block(trees([run.step for run in kernel.runs], local), 1),
        indices=block(kept_indices(kept, "flat"), 2),
        bases=block([kept_base(v, kept) for v in problem.views], 2),
        body=block(body, 2),
    )
    return Launch(name, text, signature.args, (groups * local,), (local,)), ()


def _name(kernel: RowKernel) -> str:
    return f"{kernel.name}_r{len(kernel.problem.kept)}{len(kernel.problem.row)}"
