"""Expressions together with the values their operands stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clinfer.graph.ir import Node, Value
from clinfer.passes.limits import MAX_LINES, most_operands
from clinfer_kernels.expr import Builder, Expr, Line

# What an operation costs, in additions. All others cost 1.
_COSTS = {
    **dict.fromkeys(("const", "cast"), 0),
    **dict.fromkeys(("div", "reciprocal", "sqrt", "fmod", "mod"), 4),
    **dict.fromkeys(("exp", "log", "tanh", "erf", "pow", "softplus", "sin", "cos", "tan"), 16),
    **dict.fromkeys(("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"), 16),
}
_COMMUTATIVE = frozenset(
    ("add", "mul", "and", "or", "xor", "eq", "ne", "bit_and", "bit_or", "bit_xor")
)


@dataclass(frozen=True)
class Program:
    """An expression of one output; operand i of it is `operands[i]`."""

    expr: Expr
    operands: tuple[Value, ...]

    @property
    def cost(self) -> int:
        """How much computing one element costs, in additions."""
        return sum(_COSTS.get(line.op, 1) for line in self.expr.lines)

    @property
    def is_small(self) -> bool:
        """Whether it fits into one kernel."""
        most = most_operands(self.operands)
        return len(self.operands) <= most and len(self.expr.lines) <= MAX_LINES


def fits_surely(consumer: Program, producers: Iterable[Program]) -> bool:
    """Whether `inline` will give something small: what is shared only makes it smaller."""
    parts = [consumer, *producers]
    operands = [value for part in parts for value in part.operands]
    lines = sum(len(part.expr.lines) for part in parts)
    return len(operands) <= most_operands(operands) and lines <= MAX_LINES


def program_of(node: Node) -> Program:
    """The program of a clinfer.Pointwise."""
    return Program(node.attrs["expr"], tuple(v for v in node.inputs if v is not None))


def inline(
    consumer: Program, producers: Mapping[int, Program], lead: Sequence[Value] = ()
) -> Program:
    """`consumer` with operands computed in place: `producers` maps an operand's id to its program.

    Each value is one operand; those of `lead` come first, the others in their canonical order.
    """
    operands: list[Value] = list(lead)
    for value in consumer.operands:
        found = producers.get(id(value))
        operands.extend([value] if found is None else found.operands)
    unique = list({id(v): v for v in operands}.values())
    number = {id(v): i for i, v in enumerate(unique)}
    builder = Builder([str(v.dtype) for v in unique])
    bound: list[int] = []
    for value in consumer.operands:
        found = producers.get(id(value))
        if found is None:
            bound.append(number[id(value)])
        else:
            numbers = [number[id(v)] for v in found.operands]
            bound.append(builder.inline(found.expr, numbers)[0])
    result = builder.inline(consumer.expr, bound)[0]
    return canonical(Program(builder.build(result), tuple(unique)), len(lead))


def canonical(program: Program, lead: int = 0) -> Program:
    """The program without unread operands, in an order that equal computations share.

    After the first `lead` operands come constants, then smaller ranks, then the order of reading;
    operands of commutative operations are in ascending order. Equal programs make equal kernels,
    which are built once.
    """
    expr = program.expr
    read = {a for line in expr.lines for a in line.args} | set(expr.outputs)
    others = [i for i in range(lead, len(expr.inputs)) if i in read]
    others.sort(key=lambda i: _rank(program.operands[i]))
    order = [*range(lead), *others]
    if order == list(range(len(expr.inputs))) and all(map(_is_ordered, expr.lines)):
        return program
    builder = Builder([expr.inputs[i] for i in order])
    place = {old: new for new, old in enumerate(order)}
    # An operand that nothing reads may stand for any number.
    numbers = [place.get(i, 0) for i in range(len(expr.inputs))]
    for line in expr.lines:
        args = [numbers[a] for a in line.args]
        if line.op in _COMMUTATIVE:
            args.sort()
        numbers.append(builder.op(line.op, *args, dtype=line.dtype, attrs=line.attrs))
    made = builder.build(*(numbers[v] for v in expr.outputs))
    return Program(made, tuple(program.operands[i] for i in order))


def _is_ordered(line: Line) -> bool:
    return line.op not in _COMMUTATIVE or list(line.args) == sorted(line.args)


def _rank(value: Value) -> tuple[bool, int]:
    return value.const is None, len(value.shape or ())
