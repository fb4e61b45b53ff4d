"""Layer and RMS normalisation along the trailing dimensions, with prologue and epilogue.

Runs along each row: the sum, hence the mean; the sum of squared distances to it, hence the variance
(both without cancellation); then the normalised values. RMS normalisation needs only the sum of
squares.
"""

from __future__ import annotations

from clinfer_kernels import types
from clinfer_kernels.expr import Builder
from clinfer_kernels.row_group import GroupTile
from clinfer_kernels.row_kernel import Tile, emit_rows, place_held, row_tiles
from clinfer_kernels.row_pass import Cell, view_cell
from clinfer_kernels.row_runs import RowKernel, Run, apply, cells, make_pass
from clinfer_kernels.rows import RowProblem, row_problem
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import NormSpec
from clinfer_kernels.terms import Term


def candidates(spec: NormSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles that can run `spec`, the best first."""
    return row_tiles(_problem(spec), target)


def emit(spec: NormSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    problem = _problem(spec)
    acc = types.accumulator(spec.prologue.output_dtypes[0])
    hold = _hold(spec, problem, tile, acc)
    first = _first_run(spec, problem, acc, hold)
    last = _last_run(spec, problem, acc, hold)
    runs = (first, last) if spec.rms else (first, _spread_run(spec, problem, acc, hold), last)
    purpose = "mean of squares" if spec.rms else "mean, mean squared distance from it"
    kernel = RowKernel(
        "norm_rms" if spec.rms else "norm_layer",
        f"{purpose}, normalised values",
        problem,
        runs,
        acc if hold and hold == place_held(tile, acc) else None,
    )
    return emit_rows(kernel, tile, target)


def _problem(spec: NormSpec) -> RowProblem:
    count = len(spec.prologue.inputs)
    rank = spec.outs[0].rank
    dims = range(rank - spec.axes, rank)
    return row_problem(spec.ins[:count], spec.ins[count:], spec.outs, dims)


def _hold(spec: NormSpec, problem: RowProblem, tile: Tile, acc: str) -> Cell | None:
    """Where later runs find x, if anywhere: the input itself, or held."""
    place = place_held(tile, acc)
    if place is None:
        return None
    if isinstance(tile, GroupTile):
        return place
    if spec.prologue.is_identity:
        return view_cell(problem.ins[0])
    return place


def _source(spec: NormSpec, problem: RowProblem, hold: Cell | None) -> tuple[Cell, ...]:
    return (hold,) if hold else cells(problem.ins)


def _value(spec: NormSpec, b: Builder, own: list[int], hold: Cell | None, acc: str) -> Term:
    """x in a later run: held, or computed again."""
    return Term(b, own[0]).cast(acc) if hold else apply(b, spec.prologue, own, acc)


def _first_run(spec: NormSpec, problem: RowProblem, acc: str, hold: Cell | None) -> Run:
    keeps = [hold] if hold and hold not in cells(problem.ins) else []

    def build(b: Builder, values: list[int]) -> list[int]:
        x = apply(b, spec.prologue, values[1:], acc)
        total = Term(b, 0) + (x * x if spec.rms else x)
        return [total.number, *(x.cast(cell.dtype).number for cell in keeps)]

    step = make_pass("sum", build, cells(problem.ins), stores=keeps, state=(acc,), start=(0,))
    after = _inverse_root(spec, acc, "sum_0") if spec.rms else (acc, "mean", "sum_0 / length")
    return Run(step, problem.ins, (after,))


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
    after = _inverse_root(spec, acc, "spread_0")
    return Run(step, problem.ins, (after,))


def _inverse_root(spec: NormSpec, acc: str, total: str) -> tuple[str, str, str]:
    eps = types.literal(spec.eps, acc)
    return acc, "scale", f"1 / sqrt({total} / length + {eps})"


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
    step = make_pass("end", build, everything, given=given, stores=cells(problem.outs))
    return Run(step, problem.views)
