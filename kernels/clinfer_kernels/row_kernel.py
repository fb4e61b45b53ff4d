"""Kernels that run along each row several times: what softmax and the norms share.

class "cpu"  a work-item takes whole rows; what the first run computes is held in a buffer that
             stays in the first-level cache (or in the output, or is the input itself)
class "gpu"  work-items share rows; later runs compute the prologue again
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clinfer_kernels import types
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, maximum, minimum
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.fold import Number
from clinfer_kernels.nest import count_text
from clinfer_kernels.row_pass import Cell, Pass, along_row, in_group, lane_numbers, trees, view_cell
from clinfer_kernels.rows import RowProblem, RowView, at_least, kept_base, kept_indices
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.template import block, fill
from clinfer_kernels.terms import Term
from clinfer_kernels.types import size_of


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


@dataclass(frozen=True)
class Run:
    """A pass with the views it walks, and the statements on its results that follow it."""

    step: Pass
    views: tuple[RowView, ...]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowKernel:
    """A kernel's text in parts. held: the dtype of a scratch row per work-group, if any."""

    name: str
    purpose: str
    problem: RowProblem
    runs: tuple[Run, ...]
    held: str | None = None


def row_tiles(problem: RowProblem, target: Target) -> tuple[RowTile, ...]:
    """The tiles for rows of that length, the best first."""
    if target.cls == "cpu":
        return (RowTile(),)
    most = min(target.max_work_group, 256)
    length = max(at_least(problem.length) // 4, 1)
    deep = 1 << (min(most, length).bit_length() - 1)
    return (RowTile(across=max(1, min(most, 64) // deep), deep=deep, waves=64),)


def make_pass(
    prefix: str,
    build: Callable[[Builder, list[int]], Sequence[int]],
    loads: Sequence[Cell],
    given: Sequence[tuple[str, str]] = (),
    stores: Sequence[Cell] = (),
    state: Sequence[str] = (),
    start: Sequence[Number] = (),
    merge: str = "add",
) -> Pass:
    """A pass whose step `build` writes: it gets state, loads and given values, in that order."""
    builder = Builder([*state, "int32", *(c.dtype for c in loads), *(d for d, _ in given)])
    count = len(state)
    after = range(count + 1, count + 1 + len(loads) + len(given))
    step = builder.build(*build(builder, [*range(count), *after]))
    return Pass(
        prefix,
        tuple(state),
        tuple(start),
        step,
        _merge(merge, state[0]) if state else None,
        tuple(loads),
        tuple(given),
        tuple(stores),
    )


def _merge(op: str, dtype: str) -> Expr:
    builder = Builder((dtype, dtype))
    return builder.build(builder.op(op, 0, 1))


def apply(builder: Builder, expr: Expr, values: Sequence[int], dtype: str) -> Term:
    """The one result of `expr` over `values`, cast to `dtype`."""
    (number,) = builder.inline(expr, values)
    return Term(builder, number).cast(dtype)


def cells(views: Sequence[RowView]) -> tuple[Cell, ...]:
    """The views' elements along the row."""
    return tuple(view_cell(v) for v in views)


def held_cell(dtype: str) -> Cell:
    """The scratch row of a work-group."""
    return Cell(dtype, "held", "held_at + cell", "1")


def emit_rows(kernel: RowKernel, tile: RowTile, target: Target) -> Kernel:
    """The launch of a row kernel."""
    problem = kernel.problem
    single = tile.deep == 0
    local = 1 if single else tile.across * tile.deep
    tasks = ceildiv(problem.rows, tile.across)
    groups = minimum(tasks, tile.waves * target.compute_units)
    if single:
        worth = ceildiv(problem.rows * maximum(problem.length, 1), tile.grain)
        groups = minimum(groups, worth)
    signature = problem.signature()
    signature.scalar("length", problem.length)
    scratch: tuple[Dim, ...] = ()
    if kernel.held:
        signature.buffer("scratch", 0, kernel.held, "held")
        scratch = (groups * problem.length * size_of(kernel.held),)
    name = f"{kernel.name}_r{len(problem.kept)}{len(problem.row)}"
    values = _single_parts(kernel, tile, target) if single else _group_parts(kernel, tile)
    kept = len(problem.kept)
    text = fill(
        "rows_item" if single else "rows_group",
        target,
        head=kernel_head(name, (local,)),
        parameters=signature.text,
        runs=len(kernel.runs),
        purpose=kernel.purpose,
        rows=count_text(range(kept)),
        indices=block(kept_indices(kept, "flat"), 2),
        bases=block([kept_base(v, kept) for v in problem.views], 2),
        **values,
    )
    launch = Launch(name, text, signature.args, (groups * local,), (local,))
    lines = sum(len(run.step.step.lines) for run in kernel.runs)
    return Kernel((launch,), scratch, flops=problem.rows * problem.length * lines)


def _single_parts(kernel: RowKernel, tile: RowTile, target: Target) -> dict[str, str | int]:
    dtypes = [
        d
        for run in kernel.runs
        for d in (*run.step.step.inputs, *(line.dtype for line in run.step.step.lines))
    ]
    width = types.lanes(target, dtypes)
    rank = len(kernel.problem.row)
    body: list[str] = []
    for run in kernel.runs:
        unroll = tile.unroll if run.step.state else 1
        heavy = any(line.op == "exp" for line in run.step.step.lines)
        unroll = min(unroll, 2) if heavy else unroll
        held = any(c.buffer == "held" for c in (*run.step.loads, *run.step.stores))
        body += along_row(run.step, run.views, rank, width, unroll, cell=held)
        body += run.after
    constants = [lane_numbers(width)]
    if kernel.held:
        constants.append("const int held_at = (int)get_group_id(0) * length;")
    return {"constants": block(constants, 1), "body": block(body, 2)}


def _group_parts(kernel: RowKernel, tile: RowTile) -> dict[str, str | int]:
    rank = len(kernel.problem.row)
    body: list[str] = []
    for run in kernel.runs:
        body += in_group(run.step, run.views, rank, tile.across, tile.deep, ("0", "length"))
        body += run.after
    size = tile.across * tile.deep
    return {
        "across": tile.across,
        "deep": tile.deep,
        "locals": block(trees([run.step for run in kernel.runs], size), 1),
        "constants": "",
        "body": block(body, 2),
    }
