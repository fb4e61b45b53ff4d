"""Many sizes computed together: an operation that expressions have in common is done once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from clinfer.lowering.binding import required_sizes
from clinfer.lowering.plan import (
    BranchStep,
    Constraint,
    HostStep,
    LaunchStep,
    LoopStep,
    Plan,
    Reach,
)
from clinfer_kernels.dims import OPERATIONS, Dim, Expr, Sym, symbols

_Operation = Callable[[int, int], int]


class Tape:
    """Expressions as a row of operations on numbers computed before.

    Those that have other symbols than `names` are left out.
    """

    def __init__(self, dims: Iterable[Dim], names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._start: list[int] = []
        """Numbers in the text of the expressions; the symbols' values come before them."""
        self._operations: list[tuple[_Operation, int, int]] = []
        self._places: dict[Any, int] = {}
        self._known: dict[Expr, int] = {}
        given = [dim for dim in dims if isinstance(dim, Expr)]
        every = {dim for dim in given if symbols(dim) <= {*self._names}}
        for number in sorted({n for dim in every for n in _numbers(dim)}):
            self._places[number] = len(self._names) + len(self._start)
            self._start.append(number)
        for place, name in enumerate(self._names):
            self._places[name] = place
        self._first = len(self._names) + len(self._start)
        self._kept = {id(dim): dim for dim in given if dim in every}  # alive: an id is of one only
        self._at = [self._place(dim) for dim in self._kept.values()]

    def __call__(self, values: Mapping[str, int]) -> dict[int, int]:
        """The value of each expression by its `id`; ArithmeticError where one has none."""
        found = [*(values[name] for name in self._names), *self._start]
        add = found.append
        for operation, left, right in self._operations:
            add(operation(found[left], found[right]))
        return dict(zip(self._kept, [found[place] for place in self._at], strict=True))

    def _place(self, dim: Dim) -> int:
        """Where the value of a size is among the numbers."""
        if isinstance(dim, int):
            return self._places[dim]
        if dim in self._known:
            return self._known[dim]
        total: int | None = None
        for monomial, factor in dim.terms:
            term: int | None = None if factor == 1 and monomial else self._places[factor]
            for atom, power in monomial:
                for _ in range(power):
                    term = self._with(operator.mul, term, self._atom(atom))
            assert term is not None
            total = self._with(operator.add, total, term)
        assert total is not None
        self._known[dim] = total
        return total

    def _atom(self, atom: Any) -> int:
        if isinstance(atom, Sym):
            return self._places[atom.name]
        left, right = self._place(atom.left), self._place(atom.right)
        return self._with(OPERATIONS[atom.op], left, right)

    def _with(self, operation: _Operation, left: int | None, right: int) -> int:
        """The place of what an operation gives; of no left operand it is the right one."""
        if left is None:
            return right
        key = (operation, left, right)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._first + len(self._operations)
            self._operations.append(key)
        return place


def tape_of(plan: Plan) -> Tape:
    """All sizes of a plan that its inputs' shapes give."""
    return Tape(_sizes_of(plan), sorted(plan.input_symbols))


def _sizes_of(plan: Plan) -> Iterator[Dim]:
    for buffer in plan.buffers:
        yield from (buffer.size, *buffer.content)
    yield from _required(plan.requirements)
    for port in (*plan.inputs, *plan.outputs):
        yield from port.shape or ()
    for step in plan.steps:
        if isinstance(step, LaunchStep):
            yield from (*step.global_size, step.when, step.flops)
            yield from (arg.value for arg in step.args)
        elif isinstance(step, HostStep):
            for value in (*step.inputs, *step.outputs):
                if value is not None and value.tensor is not None:
                    tensor = value.tensor
                    yield from (*tensor.shape, *tensor.strides, tensor.offset)
        elif isinstance(step, (BranchStep, LoopStep)):
            for block in step.blocks:
                yield from _required(block.requirements)


def _required(requirements: Iterable[Constraint | Reach]) -> Iterator[Dim]:
    for requirement in requirements:
        yield from required_sizes(requirement)


def _numbers(dim: Dim) -> Iterator[int]:
    """The numbers in an expression's text."""
    if isinstance(dim, int):
        yield dim
        return
    for monomial, factor in dim.terms:
        yield factor
        for atom, _ in monomial:
            if not isinstance(atom, Sym):
                yield from _numbers(atom.left)
                yield from _numbers(atom.right)
