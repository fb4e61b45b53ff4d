"""Reductions over any axes: sums, means, maxima, norms, logarithms of sums, argmax and argmin.

The axes are split into kept ones and those of a row (see `rows`); what is computed is a `Fold`.
Schedules, each in its own text file:

    rows      class "cpu": vectors along the row
    columns   class "cpu": vectors across rows, where kept neighbours are neighbours in memory
    short     class "cpu": vectors across rows of a few elements, where it is known how many
    groups    class "gpu": a work-group for one or several rows, a tree in local memory

Few long rows are cut into parts, which a second launch joins. log_sum_exp is max, then the sum of
e^(x - max), so that it neither overflows nor loses small terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clinfer_kernels import reduce_text
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, maximum, minimum
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.fold import ARG, Fold, fold_of
from clinfer_kernels.reduce_text import Parts, ReduceTile, Stage, Tile
from clinfer_kernels.row_group import GroupTile, group_tile
from clinfer_kernels.row_short import is_short
from clinfer_kernels.rows import RowProblem, RowView, at_least, row_problem
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target, row_major
from clinfer_kernels.specs import ReduceSpec
from clinfer_kernels.template import fill
from clinfer_kernels.terms import Term
from clinfer_kernels.types import is_float, size_of

_SCHEDULES: dict[str, tuple[str, Callable[[Stage, Target], Parts]]] = {
    "rows": ("reduce_rows", reduce_text.rows),
    "columns": ("reduce_columns", reduce_text.columns),
    "short": ("rows_short", reduce_text.short),
    "groups": ("reduce_groups", reduce_text.groups),
}
LONG = 16384  # elements of a row from which parts pay
# From so many elements, in so many rows that lie side by side, on, blocks are as wide as registers
# allow: each step down a column is in another page, and takes longer than what it has there.
TALL = 1 << 20
WIDE = 512


def candidates(spec: ReduceSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles that can run `spec`, the best first."""
    problem = _problem(spec)
    across = problem.ins[0].kept_step == "1"
    if target.cls == "gpu":
        return _group_tiles(problem, target)
    if across:
        plain = ReduceTile("columns", unroll=4)
        units = ceildiv(at_least(problem.rows), 32)
        pieces = at_least(problem.row[0])
    elif is_short(problem, target):
        return ReduceTile("short"), ReduceTile("rows", unroll=4)
    else:
        plain = ReduceTile("rows", unroll=4)
        units = at_least(problem.rows)
        pieces = at_least(problem.row[0]) if len(problem.row) > 1 else at_least(problem.length)
    total = at_least(problem.rows) * at_least(problem.length)
    parts = min(4 * target.compute_units // max(at_least(units), 1), pieces, total // LONG)
    tiles = (replace(plain, parts=parts), plain) if parts > 1 else (plain,)
    if across and spec.op not in ARG and total >= TALL and pieces >= 4 * target.compute_units:
        wide = ReduceTile("columns", unroll=target.vector_width, parts=4 * target.compute_units)
        return (wide, *tiles) if at_least(problem.rows) >= WIDE else tiles
    return tiles


def _group_tiles(problem: RowProblem, target: Target) -> tuple[GroupTile, ...]:
    """Work-groups shaped after the row's length and the memory order."""
    plain = group_tile(problem, target)
    units = max(at_least(problem.rows) // plain.across, 1)
    parts = min(4 * target.compute_units // units, at_least(problem.length) // LONG)
    if parts > 1:
        return replace(plain, parts=parts, held=0), plain
    return (plain,)


def emit(spec: ReduceSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch, two where rows are cut or the operation is log_sum_exp."""
    problem = _problem(spec)
    if spec.op == "log_sum_exp":
        return _log_sum_exp(spec, problem, tile, target)
    fold = fold_of(spec.op, spec.prologue, spec.epilogue, spec.select_last)
    launches, scratch = _launches(spec.op, fold, problem, tile, target, ())
    flops = problem.rows * problem.length * (1 + len(spec.prologue.lines))
    return Kernel(launches, scratch, flops=flops)


def _problem(spec: ReduceSpec) -> RowProblem:
    count = len(spec.prologue.inputs)
    return row_problem(spec.ins[:count], spec.ins[count:], spec.outs, spec.axes, shared=True)


def _launches(
    label: str,
    fold: Fold,
    problem: RowProblem,
    tile: Tile,
    target: Target,
    scratch: tuple[Dim, ...],
) -> tuple[tuple[Launch, ...], tuple[Dim, ...]]:
    """The launches of one fold, and the scratch buffers after it (`scratch`: those before)."""
    length = problem.length
    if tile.parts == 1:
        return (_launch(label, Stage(fold, problem, tile), length, target),), scratch
    dense = row_major(problem.kept)
    first = len(scratch)
    partial_outs = tuple(
        RowView(f"y{s}", "scratch", first + s, dtype, 0, dense, ())
        for s, dtype in enumerate(fold.state)
    )
    joined_ins = tuple(
        RowView(f"x{s}", "scratch", first + s, dtype, 0, dense, (problem.rows,))
        for s, dtype in enumerate(fold.state)
    )
    parts = RowProblem(problem.kept, problem.row, problem.ins, (), partial_outs)
    whole = RowProblem(problem.kept, (tile.parts,), joined_ins, problem.operands, problem.outs)
    sizes = tuple(tile.parts * problem.rows * size_of(dtype) for dtype in fold.state)
    second = _joining_tile(tile)
    return (
        _launch(f"{label}_part", Stage(fold.partial(), parts, tile), length, target),
        _launch(f"{label}_join", Stage(fold.final(), whole, second), length, target),
    ), (*scratch, *sizes)


def _joining_tile(tile: Tile) -> Tile:
    """The states lie side by side, so they are joined across rows."""
    if isinstance(tile, GroupTile):
        return GroupTile(tile.local, 1, waves=tile.waves)
    return ReduceTile("columns", unroll=1)


def _launch(label: str, stage: Stage, length: Dim, target: Target) -> Launch:
    problem, tile = stage.problem, stage.tile
    signature = _signature(stage, length)
    name = f"reduce_{tile.schedule}_{label}_r{len(problem.kept)}{len(problem.row)}"
    local = tile.local
    template, parts = _SCHEDULES[tile.schedule]
    text = fill(
        template,
        target,
        head=kernel_head(name, (local,)),
        parameters=signature.text,
        **parts(stage, target),
    )
    groups = _groups(stage, target)
    return Launch(name, text, signature.args, (groups * local,), (local,))


def _groups(stage: Stage, target: Target) -> Dim:
    """At most one work-group per task, and as many as the work is worth; none without rows."""
    problem, tile = stage.problem, stage.tile
    across = tile.across if isinstance(tile, GroupTile) else 1
    tasks = ceildiv(problem.rows, across) * tile.parts
    most = minimum(tasks, tile.waves * target.compute_units)
    if isinstance(tile, GroupTile):
        return most
    worth = ceildiv(problem.rows * maximum(problem.length, 1), tile.grain)
    return minimum(most, worth)


def _signature(stage: Stage, length: Dim) -> Signature:
    signature = stage.problem.signature()
    signature.scalar("length", length)
    if stage.split:
        signature.scalar("parts", stage.tile.parts)
    return signature


def _log_sum_exp(spec: ReduceSpec, problem: RowProblem, tile: Tile, target: Target) -> Kernel:
    """log(sum(e^(x - m))) + m with m the row's maximum, in scratch, 0 where it is infinite."""
    prologue = _as_float(spec.prologue)
    dtype = prologue.output_dtypes[0]
    dense = row_major(problem.kept)
    store = RowView("y0", "scratch", 0, dtype, 0, dense, ())
    load = RowView("x", "scratch", 0, dtype, 0, dense, (0,) * len(problem.row))
    count = len(problem.ins)
    shifted = replace(
        problem,
        ins=(*problem.ins, replace(load, name=f"x{count}")),
        operands=(*problem.operands, replace(load, name=f"e{len(problem.operands)}", row=())),
    )
    highest = fold_of("max", prologue, _finite(dtype))
    top = RowProblem(problem.kept, problem.row, problem.ins, (), (store,))
    scratch: tuple[Dim, ...] = (problem.rows * size_of(dtype),)
    first, scratch = _launches("max", highest, top, tile, target, scratch)
    total = fold_of("log_sum", _shifted_exp(prologue), _shifted_back(spec.epilogue, dtype))
    second, scratch = _launches("log_sum_exp", total, shifted, tile, target, scratch)
    return Kernel(first + second, scratch, flops=problem.rows * problem.length * 4)


def _as_float(prologue: Expr) -> Expr:
    """The prologue, followed by a cast of integers to float32."""
    dtype = prologue.output_dtypes[0]
    builder = Builder(prologue.inputs)
    (x,) = builder.inline(prologue, range(len(prologue.inputs)))
    return builder.build(Term(builder, x).cast(dtype if is_float(dtype) else "float32").number)


def _finite(dtype: str) -> Expr:
    builder = Builder((dtype,))
    x = Term(builder, 0)
    return builder.build(x.op("isinf", dtype="bool").where(0.0, x).number)


def _shifted_exp(prologue: Expr) -> Expr:
    """e^(prologue - m), m the last operand."""
    builder = Builder((*prologue.inputs, prologue.output_dtypes[0]))
    count = len(prologue.inputs)
    (x,) = builder.inline(prologue, range(count))
    return builder.build((Term(builder, x) - Term(builder, count)).exp().number)


def _shifted_back(epilogue: Expr, dtype: str) -> Expr:
    """epilogue(operand 0 + m, ...), m the last operand."""
    builder = Builder((dtype, *epilogue.inputs[1:], dtype))
    count = len(epilogue.inputs)
    result = (Term(builder, 0) + Term(builder, count)).cast(epilogue.inputs[0])
    return builder.build(*builder.inline(epilogue, [result.number, *range(1, count)]))
