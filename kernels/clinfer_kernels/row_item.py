"""The text of row kernels for one work-item a work-group: the parts of `rows_item.cl`.

Every run goes along `together` rows before the next run does, so that one row's last steps (lanes
joined, quotients) wait for nothing: the next row's are under way. What later runs need of a row is
kept in small arrays, one place a row.
"""

from __future__ import annotations

from dataclasses import replace

from clinfer_kernels import hints, types
from clinfer_kernels.row_pass import Hints, along_row, lane_numbers, view_cell
from clinfer_kernels.row_runs import RowKernel, Run, cells, dtypes
from clinfer_kernels.rows import RowView, kept_base, kept_indices
from clinfer_kernels.spec import Target
from clinfer_kernels.template import block, inside

ROOM = 16
"""Scratch rows begin at multiples of so many elements."""

_STREAMED = "streamed"


def item_parts(kernel: RowKernel, unroll: int, most: int, target: Target) -> dict[str, str | int]:
    """The `$` names of `rows_item.cl`; `most` rows are in work at a time."""
    width = types.lanes(target, dtypes(kernel.runs))
    hinted = hints.has_hints(target)
    streams = hinted and _can_stream(kernel)
    runs = _with_hints(kernel, streams) if hinted else kernel.runs
    constants = [lane_numbers(width)]
    end: list[str] = []
    if streams:
        large = hints.is_large(kernel.problem.outs[0].dtype, "(long)rows * length")
        constants.append(f"const int large = {large};")
        end = [hints.fence("large")]
    if kernel.held:
        constants.append(f"const int room = (length + {ROOM - 1}) / {ROOM} * {ROOM};")
    body: list[str] = []
    for number, run in enumerate(runs):
        saved = _saved(runs, number)
        for dtype, name in saved:
            constants.append(f"{types.register(dtype)} {name}_of[{most}];")
        lines = [*_row_start(kernel, run, width, streams), *_run(kernel, run, width, unroll)]
        lines += [f"{name}_of[row - block] = {name};" for _, name in saved]
        body += ["for (int row = block; row < stop; ++row) {", *inside(lines), "}"]
    return {
        "constants": block(constants, 1),
        "body": block(body, 2),
        "end": block(end, 1),
    }


def _saved(runs: tuple[Run, ...], number: int) -> list[tuple[str, str]]:
    """Scalars, as (dtype, name), that run `number` gives and later ones take."""
    own = runs[number]
    given = {*own.step.results, *(name for name in own.names)}
    taken = dict.fromkeys(pair for run in runs[number + 1 :] for pair in run.step.given)
    return [(dtype, name) for dtype, name in taken if name in given]


def _row_start(kernel: RowKernel, run: Run, width: int, streams: bool) -> list[str]:
    """Where the row lies, and what earlier runs found out about it."""
    problem = kernel.problem
    kept = len(problem.kept)
    lines = ["int flat = row;", *kept_indices(kept, "flat")]
    lines += [kept_base(view, kept) for view in run.views]
    if any(c.buffer == "held" for c in (*run.step.loads, *run.step.stores)):
        lines.append("const int held_at = ((int)get_group_id(0) * together + row - block) * room;")
    told = run.step.hints
    if told.reads:
        lines += [_next(view, kept) for view in problem.ins if _is_dense(view)]
    if streams and _STREAMED in (told.unless, told.streamed):
        out = problem.outs[0]
        aligned = hints.is_aligned(out.dtype, out.name, f"{out.name}_at", width)
        lines.append(f"const int {_STREAMED} = large && {aligned};")
    for dtype, name in run.step.given:
        lines.append(f"const {types.register(dtype)} {name} = {name}_of[row - block];")
    return lines


def _run(kernel: RowKernel, run: Run, width: int, unroll: int) -> list[str]:
    heavy = any(line.op == "exp" for line in run.step.step.lines)
    copies = min(unroll, 2 if heavy else unroll) if run.step.state else 1
    held = any(c.buffer == "held" for c in (*run.step.loads, *run.step.stores))
    rank = len(kernel.problem.row)
    return [*along_row(run.step, run.views, rank, width, copies, cell=held), *run.declared()]


# -- hints to memory -----------------------------------------------------------------------------


def _can_stream(kernel: RowKernel) -> bool:
    """Whether the result's vectors are aligned in all of a row where the first one is, and no run
    reads what it holds."""
    out = view_cell(kernel.problem.outs[0])
    read_back = any(out in run.step.loads for run in kernel.runs)
    return out.step == "1" and len(kernel.problem.row) == 1 and not read_back


def _with_hints(kernel: RowKernel, streams: bool) -> tuple[Run, ...]:
    """The runs with hints to memory.

    The last run but one, which finds its operands in the nearest cache, has the lines fetched that
    the last one writes, and the next rows; where there are only two runs, the last one has those
    rows fetched. Large results are streamed.
    """
    problem = kernel.problem
    *first, before, end = kernel.runs
    flag = _STREAMED if streams else ""
    reads = tuple(
        replace(view_cell(v), base=f"{v.name}_row + {v.name}_next")
        for v in problem.ins
        if _is_dense(v)
    )
    written = tuple(v for v in problem.outs[:1] if _is_dense(v))
    early, late = (reads, ()) if first else ((), reads)
    views = tuple(dict.fromkeys((*before.views, *problem.ins, *written)))
    before = replace(
        before,
        step=replace(before.step, hints=Hints(early, cells(written), unless=flag)),
        views=views,
    )
    end = replace(end, step=replace(end.step, hints=Hints(late, streamed=flag)))
    return (*first, before, end)


def _is_dense(view: RowView) -> bool:
    return view.row_step == "1"


def _next(view: RowView, kept: int) -> str:
    """From this row to the one in its place in the next block, where it is in the same dimension:
    an address that is no row's is not used but for a hint."""
    step = f"together * {view.name}_s{kept - 1}"
    return f"const int {view.name}_next = row + together < last ? {step} : 0;"
