"""What a kernel computes that runs along each row several times, as data: see `row_kernel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clinfer_kernels import types
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.fold import Number
from clinfer_kernels.row_pass import Cell, Pass, view_cell
from clinfer_kernels.rows import RowProblem, RowView
from clinfer_kernels.terms import Term


@dataclass(frozen=True)
class Run:
    """A pass with the views it walks, and what follows from its results.

    after: values as (dtype, name, C expression).
    """

    step: Pass
    views: tuple[RowView, ...]
    after: tuple[tuple[str, str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What follows from the results, by name."""
        return tuple(name for _, name, _ in self.after)

    def declared(self, width: int = 1) -> list[str]:
        """Statements for what follows; `width`: of so many rows side by side."""
        return [f"const {types.register(d, width)} {name} = {c};" for d, name, c in self.after]


@dataclass(frozen=True)
class RowKernel:
    """A kernel's text in parts. held: the dtype of a scratch row per work-group, if any."""

    name: str
    purpose: str
    problem: RowProblem
    runs: tuple[Run, ...]
    held: str | None = None


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


def dtypes(runs: Sequence[Run]) -> list[str]:
    """Every dtype that the runs' steps have in registers."""
    steps = [run.step.step for run in runs]
    return [d for step in steps for d in (*step.inputs, *(line.dtype for line in step.lines))]


def held_cell(dtype: str) -> Cell:
    """The scratch row of a work-group."""
    return Cell(dtype, "held", "held_at + cell", "1")
