"""Reductions as data: a state, a step that takes in an element, a merge of two states, an end.

    state   dtypes and start values: (acc,) for sums, (best, where) for argmax
    step    (state..., position, elements...) -> state     with the prologue and the map inside
    merge   (state..., state...) -> state
    finish  (state..., count, operands...) -> result       epilogue inside

Every part is an `Expr`, so one description gives vector and scalar text. Sums of float16 and
bfloat16 are kept in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.terms import Term
from clinfer_kernels.types import accumulator, highest, is_float, lowest

Number = float | int


@dataclass(frozen=True)
class Fold:
    """See the module's text. `positions`: whether the step reads the element's position."""

    state: tuple[str, ...]
    start: tuple[Number, ...]
    step: Expr
    merge: Expr
    finish: Expr
    positions: bool = False

    def partial(self) -> Fold:
        """The same fold, ending with its state."""
        builder = Builder((*self.state, accumulator(self.state[0])))
        return Fold(
            self.state,
            self.start,
            self.step,
            self.merge,
            builder.build(*range(len(self.state))),
            self.positions,
        )

    def final(self) -> Fold:
        """The fold of states that `partial` left."""
        count = len(self.state)
        builder = Builder((*self.state, "int32", *self.state))
        operands = [*range(count), *range(count + 1, 2 * count + 1)]
        step = builder.build(*builder.inline(self.merge, operands))
        return Fold(self.state, self.start, step, self.merge, self.finish)


@dataclass(frozen=True)
class Plain:
    """A reduction with one accumulator.

    combine: the operation that joins two. start: its identity for a dtype. inner: applied to each
    element; outer: applied to (accumulator, count). floating: integers are computed in float32.
    """

    combine: str
    start: Callable[[str], Number]
    inner: Callable[[Term], Term] = lambda x: x
    outer: Callable[[Term, Term], Term] = lambda acc, count: acc
    floating: bool = False


def _zero(dtype: str) -> Number:
    return 0


def _one(dtype: str) -> Number:
    return 1


def _magnitude(x: Term) -> Term:
    return x.op("abs")


def _square(x: Term) -> Term:
    return x * x


def _mean(acc: Term, count: Term) -> Term:
    return acc / count


def _root(acc: Term, count: Term) -> Term:
    return acc.op("sqrt")


def _log(acc: Term, count: Term) -> Term:
    return acc.op("log")


PLAIN: dict[str, Plain] = {
    "sum": Plain("add", _zero),
    "mean": Plain("add", _zero, outer=_mean),
    "max": Plain("max", lowest),
    "min": Plain("min", highest),
    "prod": Plain("mul", _one),
    "sum_square": Plain("add", _zero, inner=_square),
    "l1": Plain("add", _zero, inner=_magnitude),
    "l2": Plain("add", _zero, inner=_square, outer=_root, floating=True),
    "log_sum": Plain("add", _zero, outer=_log, floating=True),
    "any": Plain("or", _zero),
    "all": Plain("and", _one),
}

ARG = {"argmax": ("gt", "ge", lowest), "argmin": ("lt", "le", highest)}


def fold_of(op: str, prologue: Expr, epilogue: Expr, select_last: bool = False) -> Fold:
    """The fold of a reduction named as in `ReduceSpec` (not log_sum_exp, which is two of them)."""
    if op in ARG:
        return _arg_fold(op, prologue, epilogue, select_last)
    return _plain_fold(PLAIN[op], prologue, epilogue)


def _plain_fold(plain: Plain, prologue: Expr, epilogue: Expr) -> Fold:
    dtype = prologue.output_dtypes[0]
    acc = accumulator(dtype)
    if plain.floating and not is_float(acc):
        acc = "float32"
    step = Builder((acc, "int32", *prologue.inputs))
    (element,) = step.inline(prologue, range(2, 2 + len(prologue.inputs)))
    mapped = plain.inner(Term(step, element).cast(acc))
    stepped = step.build(step.op(plain.combine, 0, mapped.number))
    merge = Builder((acc, acc))
    finish = Builder((acc, acc, *epilogue.inputs[1:]))
    result = plain.outer(Term(finish, 0), Term(finish, 1)).cast(epilogue.inputs[0])
    rest = range(2, 1 + len(epilogue.inputs))
    return Fold(
        (acc,),
        (plain.start(acc),),
        stepped,
        merge.build(merge.op(plain.combine, 0, 1)),
        finish.build(*finish.inline(epilogue, [result.number, *rest])),
    )


def _arg_fold(op: str, prologue: Expr, epilogue: Expr, select_last: bool) -> Fold:
    """Among equal values the first position wins, or the last."""
    better, as_good, start = ARG[op]
    dtype = accumulator(prologue.output_dtypes[0])
    step = Builder((dtype, "int32", "int32", *prologue.inputs))
    (element,) = step.inline(prologue, range(3, 3 + len(prologue.inputs)))
    value = Term(step, element).cast(dtype).number
    wins = step.op(as_good if select_last else better, value, 0, dtype="bool")
    stepped = step.build(
        step.op("where", wins, value, 0, dtype=dtype), step.op("where", wins, 2, 1, dtype="int32")
    )
    merge = Builder((dtype, "int32", dtype, "int32"))
    above = merge.op(better, 2, 0, dtype="bool")
    equal = merge.op("eq", 2, 0, dtype="bool")
    placed = merge.op("gt" if select_last else "lt", 3, 1, dtype="bool")
    takes = merge.op("or", above, merge.op("and", equal, placed))
    merged = merge.build(
        merge.op("where", takes, 2, 0, dtype=dtype), merge.op("where", takes, 3, 1, dtype="int32")
    )
    finish = Builder((dtype, "int32", dtype, *epilogue.inputs[1:]))
    position = Term(finish, 1).cast(epilogue.inputs[0])
    rest = range(3, 2 + len(epilogue.inputs))
    ended = finish.build(*finish.inline(epilogue, [position.number, *rest]))
    return Fold((dtype, "int32"), (start(dtype), 0), stepped, merged, ended, positions=True)
