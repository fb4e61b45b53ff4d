"""Layer and RMS normalisation along the trailing dimensions, with prologue and epilogue.

Runs along each row: the sum, hence the mean; the sum of squared distances to it, hence the variance
(both without cancellation); then the normalised values. RMS normalisation needs only the sum of
squares. A second output keeps the prologue's value, as for a residual sum.
"""

from __future__ import annotations

from clinfer_kernels import types
from clinfer_kernels.expr import Builder
from clinfer_kernels.row_kernel import RowTile, emit_rows, row_tiles
from clinfer_kernels.row_pass import Cell, view_cell
from clinfer_kernels.row_runs import RowKernel, Run, apply, cells, held_cell, make_pass
from clinfer_kernels.rows import RowProblem, row_problem
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import NormSpec
from clinfer_kernels.terms import Term


def candidates(spec: NormSpec, target: Target) -> tuple[RowTile, ...]:
    """The tiles that can run `spec`, the best first."""
    return row_tiles(_problem(spec), target)


def emit(spec: NormSpec, tile: RowTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    problem = _problem(spec)
    acc = types.accumulator(spec.prologue.output_dtypes[0])
    hold = None if tile.deep else _hold(spec, problem, acc)
    first = _first_run(spec, problem, acc, hold)
    last = _last_run(spec, problem, acc, hold)
    runs = (first, last) if spec.rms else (first, _spread_run(spec, problem, acc, hold), last)
    purpose = "mean of squares" if spec.rms else "mean, mean squared distance from it"
    kernel = RowKernel(
        "norm_rms" if spec.rms else "norm_layer",
        f"{purpose}, normalised values",
        problem,
        runs,
        acc if hold and hold.buffer == "held" else None,
    )
    return emit_rows(kernel, tile, target)


def _problem(spec: NormSpec) -> RowProblem:
    count = len(spec.prologue.inputs)
    rank = spec.outs[0].rank
    dims = range(rank - spec.axes, rank)
    return row_problem(spec.ins[:count], spec.ins[count:], spec.outs, dims)


def _hold(spec: NormSpec, problem: RowProblem, acc: str) -> Cell:
    """Where later runs find x: the input itself, the second output, or a row in scratch."""
    if spec.prologue.is_identity:
        return view_cell(problem.ins[0])
    if len(problem.outs) > 1:
        kept = view_cell(problem.outs[1])
        if kept.dtype == acc and kept.step == "1":
            return kept
    return held_cell(acc)


def _source(spec: NormSpec, problem: RowProblem, hold: Cell | None) -> tuple[Cell, ...]:
    return (hold,) if hold else cells(problem.ins)


def _value(spec: NormSpec, b: Builder, own: list[int], hold: Cell | None, acc: str) -> Term:
    """x in a later run: held, or computed again."""
    return Term(b, own[0]).cast(acc) if hold else apply(b, spec.prologue, own, acc)


def _first_run(spec: NormSpec, problem: RowProblem, acc: str, hold: Cell | None) -> Run:
    keeps = list(cells(problem.outs[1:]))
    if hold and hold not in keeps and hold.buffer == "held":
        keeps.append(hold)

    def build(b: Builder, values: list[int]) -> list[int]:
        x = apply(b, spec.prologue, values[1:], acc)
        total = Term(b, 0) + (x * x if spec.rms else x)
        return [total.number, *(x.cast(cell.dtype).number for cell in keeps)]

    step = make_pass("sum", build, cells(problem.ins), stores=keeps, state=(acc,), start=(0,))
    ctype = types.compute(acc)
    after = [f"const {ctype} mean = sum_0 / length;"]
    if spec.rms:
        after = _inverse_root(spec, ctype, "sum_0")
    names = ("scale",) if spec.rms else ("mean",)
    return Run(step, (*problem.ins, *problem.outs[1:]), tuple(after), names)


def _spread_run(spec: NormSpec, problem: RowProblem, acc: str, hold: Cell | None) -> Run:
    def build(b: Builder, values: list[int]) -> list[int]:
        distance = _value(spec, b, values[1:-1], hold, acc) - Term(b, values[-1])
        return [(Term(b, 0) + distance * distance).number]

    step = make_pass(
        "spread",
        build,
        _source(spec, problem, hold),
        given=((acc, "mean"),),
        state=(acc,),
        start=(0,),
    )
    after = _inverse_root(spec, types.compute(acc), "spread_0")
    return Run(step, (*problem.ins, *problem.outs[1:]), tuple(after), ("scale",))


def _inverse_root(spec: NormSpec, ctype: str, total: str) -> list[str]:
    eps = types.literal(spec.eps, "float64" if ctype == "double" else "float32")
    return [f"const {ctype} scale = 1 / sqrt({total} / length + {eps});"]


def _last_run(spec: NormSpec, problem: RowProblem, acc: str, hold: Cell | None) -> Run:
    source = _source(spec, problem, hold)
    given = ((acc, "scale"),) if spec.rms else ((acc, "scale"), (acc, "mean"))

    def build(b: Builder, values: list[int]) -> list[int]:
        x = _value(spec, b, values[: len(source)], hold, acc)
        scale, *mean = (Term(b, v) for v in values[len(values) - len(given) :])
        y = (x - mean[0] if mean else x) * scale
        operands = values[len(source) : len(values) - len(given)]
        result = y.cast(spec.epilogue.inputs[0]).number
        return list(b.inline(spec.epilogue, [result, *operands]))

    everything = (*source, *cells(problem.operands))
    step = make_pass("end", build, everything, given=given, stores=cells(problem.outs[:1]))
    return Run(step, problem.views)
