"""Softmax and its logarithm along the trailing dimensions, with prologue and epilogue.

Three runs along each row: the maximum m; the sum of e^(x - m); then e^(x - m) / sum, or
x - m - log(sum). A row of -inf gives NaN, as in the ONNX definition. The maximum is that of the
numbers in the row: a NaN makes the sum NaN, and so every result.
"""

from __future__ import annotations

from clinfer_kernels import types
from clinfer_kernels.expr import Builder
from clinfer_kernels.row_columns import ColumnTile
from clinfer_kernels.row_kernel import RowTile, Tile, emit_rows, place_held, row_tiles
from clinfer_kernels.row_pass import Cell
from clinfer_kernels.row_runs import RowKernel, Run, apply, cells, make_pass
from clinfer_kernels.rows import RowProblem, at_least, row_problem
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import SoftmaxSpec
from clinfer_kernels.terms import Term
from clinfer_kernels.types import lowest

_LONG = 65536  # elements of a row: with two of them a cache of half a megabyte is full


def candidates(spec: SoftmaxSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles that can run `spec`, the best first."""
    return row_tiles(_problem(spec), target)


def emit(spec: SoftmaxSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    problem = _problem(spec)
    acc = types.accumulator(spec.prologue.output_dtypes[0])
    hold = None if spec.log else _hold(spec, problem, tile, acc)
    runs = (_maximum(spec, problem, acc), _sum(spec, problem, acc, hold))
    name = "softmax_log" if spec.log else "softmax"
    kernel = RowKernel(
        name,
        "maximum, sum of exponentials, quotients",
        problem,
        (*runs, _quotients(spec, problem, acc, hold)),
        acc if hold and hold not in cells(problem.outs) else None,
    )
    return emit_rows(kernel, tile, target)


def _problem(spec: SoftmaxSpec) -> RowProblem:
    count = len(spec.prologue.inputs)
    rank = spec.outs[0].rank
    dims = range(rank - spec.axes, rank)
    return row_problem(spec.ins[:count], spec.ins[count:], spec.outs, dims)


def _hold(spec: SoftmaxSpec, problem: RowProblem, tile: Tile, acc: str) -> Cell | None:
    """Where the exponentials wait for their sum, if anywhere: held, but in the output where they
    fit and a row, or a block of columns, is larger than the nearest cache."""
    place = place_held(tile, acc)
    columns = isinstance(tile, ColumnTile)
    (out,) = cells(problem.outs)
    step = problem.outs[0].kept_step if columns else out.step
    fits = out.dtype == acc and step == "1" and spec.epilogue.is_identity
    large = columns or (isinstance(tile, RowTile) and at_least(problem.length) > _LONG)
    return out if fits and large else place


def _maximum(spec: SoftmaxSpec, problem: RowProblem, acc: str) -> Run:
    def build(b: Builder, values: list[int]) -> list[int]:
        x = apply(b, spec.prologue, values[1:], acc)
        return [x.op("max_with", Term(b, 0)).number]

    step = make_pass(
        "top", build, cells(problem.ins), state=(acc,), start=(lowest(acc),), merge="max_with"
    )
    return Run(step, problem.ins)


def _sum(spec: SoftmaxSpec, problem: RowProblem, acc: str, hold: Cell | None) -> Run:
    def build(b: Builder, values: list[int]) -> list[int]:
        x = apply(b, spec.prologue, values[1:-1], acc)
        e = (x - Term(b, values[-1])).op("exp_below")
        total = Term(b, 0) + e
        return [total.number, e.number] if hold else [total.number]

    step = make_pass(
        "sum",
        build,
        cells(problem.ins),
        given=((acc, "top_0"),),
        stores=(hold,) if hold else (),
        state=(acc,),
        start=(0,),
    )
    after = (acc, "shift", "log(sum_0)") if spec.log else (acc, "scale", "1 / sum_0")
    views = (*problem.ins, *problem.outs) if hold else problem.ins
    return Run(step, views, (after,))


def _quotients(spec: SoftmaxSpec, problem: RowProblem, acc: str, hold: Cell | None) -> Run:
    loads = (hold,) if hold else cells(problem.ins)
    given = ((acc, "top_0"), (acc, "shift" if spec.log else "scale"))

    def build(b: Builder, values: list[int]) -> list[int]:
        own = values[: len(loads)]
        top, last = (Term(b, v) for v in values[-2:])
        if hold:
            y = Term(b, own[0]) * last
        else:
            x = apply(b, spec.prologue, own, acc) - top
            y = x - last if spec.log else x.op("exp_below") * last
        result = y.cast(spec.epilogue.inputs[0]).number
        return list(b.inline(spec.epilogue, [result, *values[len(loads) : -2]]))

    everything = (*loads, *cells(problem.operands))
    step = make_pass("end", build, everything, given=given, stores=cells(problem.outs))
    return Run(step, problem.views)
