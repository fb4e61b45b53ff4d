"""Peephole rules on expressions: cheaper forms of one operation on constants.

A rule takes the builder, the line and its operands (numbers in the builder), and returns the value
that stands for the line, or None where it does not apply. Results change by no more than the
rounding of the operations themselves; quotients by powers of two are exact products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from clinfer_kernels.expr import Builder, Expr, Line, prune
from clinfer_kernels.terms import Term
from clinfer_kernels.types import is_float, rounded

Constants = dict[int, float | int]
Rule = Callable[[Term, float | int], "Term | None"]


def simplify(expr: Expr) -> Expr:
    """`expr` with the rules applied to every line, without lines nothing needs."""
    builder = Builder(expr.inputs)
    constants: Constants = {}
    numbers = list(range(len(expr.inputs)))
    for line in expr.lines:
        args = [numbers[a] for a in line.args]
        number = _apply(builder, line, args, constants)
        if number is None:
            number = builder.op(line.op, *args, dtype=line.dtype, attrs=line.attrs)
        if line.op == "const" and not isinstance(line.attrs[0], str):
            constants[number] = line.attrs[0]
        numbers.append(number)
    return prune(builder.build(*(numbers[v] for v in expr.outputs)))


def _apply(builder: Builder, line: Line, args: Sequence[int], constants: Constants) -> int | None:
    if line.op == "cast" and builder.dtype(args[0]) == line.dtype:
        return args[0]
    if line.op == "cast" and args[0] in constants and is_float(line.dtype):
        return builder.const(rounded(float(constants[args[0]]), line.dtype), line.dtype)
    if len(args) != 2:
        return None
    x, y = Term(builder, args[0]), Term(builder, args[1])
    result = None
    if args[1] in constants:
        result = _try(_RIGHT, line.op, x, constants[args[1]])
    if result is None and args[0] in constants:
        result = _try(_LEFT, line.op, y, constants[args[0]])
    return None if result is None else result.number


def _try(rules: dict[str, Rule], op: str, x: Term, value: float | int) -> Term | None:
    rule = rules.get(op)
    return rule(x, value) if rule else None


def _add(x: Term, value: float | int) -> Term | None:
    return x if value == 0 else None


def _mul(x: Term, value: float | int) -> Term | None:
    return x if value == 1 else None


def _div(x: Term, value: float | int) -> Term | None:
    if value == 1:
        return x
    if is_float(x.dtype) and value and math.isfinite(value):
        mantissa, exponent = math.frexp(value)
        if abs(mantissa) == 0.5 and abs(exponent) < 100:
            return x * (1.0 / value)
    return None


def _pow(x: Term, value: float | int) -> Term | None:
    powers: dict[float, Callable[[], Term]] = {
        1.0: lambda: x,
        2.0: lambda: x * x,
        3.0: lambda: x * x * x,
        4.0: lambda: (x * x) * (x * x),
    }
    roots: dict[float, Callable[[], Term]] = {
        0.5: lambda: x.op("sqrt"),
        -0.5: lambda: x.op("sqrt").op("reciprocal"),
        -1.0: lambda: x.op("reciprocal"),
        -2.0: lambda: (x * x).op("reciprocal"),
    }
    found = powers.get(float(value))
    if found is None and is_float(x.dtype):
        found = roots.get(float(value))
    return found() if found else None


def _max(x: Term, value: float | int) -> Term | None:
    return None if value != value else x.at_least(value)


def _min(x: Term, value: float | int) -> Term | None:
    return None if value != value else x.at_most(value)


# op(x, constant) and op(constant, x)
_RIGHT: dict[str, Rule] = {
    "add": _add,
    "sub": _add,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "max": _max,
    "min": _min,
}
_LEFT: dict[str, Rule] = {"add": _add, "mul": _mul, "max": _max, "min": _min}
