"""Constants of one element that tell otherwise equal kernels apart become operands.

A literal is part of a kernel's text, so that it costs nothing to read. But where every layer has a
number of its own, as the scales of a quantised model are, every layer would have a program of its
own, which takes longer to build than the number to read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Graph, Node, Value
from clinfer.passes.fuse.anchors import epilogue_of
from clinfer.passes.fuse.program import Program, canonical, program_of
from clinfer.passes.query import prologue_inputs
from clinfer.passes.rewrite import Log
from clinfer_kernels.expr import Builder, Expr, Line

_CONST = "const"
_Number = int | float | str


@dataclass(frozen=True)
class _Place:
    """One of a node's expressions: the `attr` it has, `lead` operands that stay first."""

    node: Node
    attr: str
    program: Program
    lead: int = 0

    @property
    def key(self) -> Hashable:
        """Equal for places that differ in their literals at most."""
        expr = self.program.expr
        blank = tuple(line._replace(attrs=()) if line.op == _CONST else line for line in expr.lines)
        others = tuple(
            str(self.node.attrs.get(name)) for name in ("prologue", "epilogue") if name != self.attr
        )
        return self.node.kind, self.attr, others, expr.inputs, blank, expr.outputs

    @property
    def literals(self) -> tuple[_Number, ...]:
        return tuple(line.attrs[0] for line in self.program.expr.lines if line.op == _CONST)


def share_programs(graph: Graph, log: Log) -> None:
    """Gives expressions that differ in literals only those literals as operands."""
    for attr in ("expr", "prologue", "epilogue"):
        groups: dict[Hashable, list[_Place]] = defaultdict(list)
        for place in _places(graph, attr):
            groups[place.key].append(place)
        for places in groups.values():
            slots = _differing([place.literals for place in places])
            if not slots:
                continue
            made = [_with_operands(graph, place, slots) for place in places]
            if not all(program.is_small for program in made):
                continue
            for place, program in zip(places, made, strict=True):
                _put(place, program)
                log.fired["fuse", "share-programs"] += 1


def _places(graph: Graph, attr: str) -> Iterator[_Place]:
    for node in graph.nodes:
        if attr not in node.attrs:
            continue
        if attr == "expr" and node.kind == "clinfer.Pointwise":
            yield _Place(node, attr, program_of(node))
        elif attr == "prologue" and node.kind != "clinfer.Conv":
            yield _Place(node, attr, Program(node.attrs[attr], tuple(prologue_inputs(node))))
        elif attr == "epilogue":
            yield _Place(node, attr, epilogue_of(node), lead=1)


def _differing(literals: list[tuple[_Number, ...]]) -> frozenset[int]:
    """The numbers of the literals that are not the same in all."""
    texts = [tuple(map(repr, numbers)) for numbers in literals]
    return frozenset(i for i, found in enumerate(zip(*texts, strict=True)) if len(set(found)) > 1)


def _with_operands(graph: Graph, place: _Place, slots: frozenset[int]) -> Program:
    """The program with the literals of these numbers as its last operands."""
    expr = place.program.expr
    consts = [line for line in expr.lines if line.op == _CONST]
    chosen = [consts[slot] for slot in sorted(slots)]
    values = [_constant(graph, line) for line in chosen]
    builder = Builder([*expr.inputs, *(line.dtype for line in chosen)])
    numbers = list(range(len(expr.inputs)))
    seen = 0
    taken = 0
    for line in expr.lines:
        if line.op == _CONST:
            seen += 1
            if seen - 1 in slots:
                numbers.append(len(expr.inputs) + taken)
                taken += 1
                continue
        args = (numbers[a] for a in line.args)
        numbers.append(builder.op(line.op, *args, dtype=line.dtype, attrs=line.attrs))
    made: Expr = builder.build(*(numbers[v] for v in expr.outputs))
    return canonical(Program(made, (*place.program.operands, *values)), place.lead)


def _constant(graph: Graph, line: Line) -> Value:
    return graph.constant(np.array(line.attrs[0], dtype=to_numpy(line.dtype)), "literal")


def _put(place: _Place, program: Program) -> None:
    """The node with that program in the place of the old one."""
    node = place.node
    own = node.attrs.get("own", 0)
    operands: list[Value | None] = list(program.operands[place.lead :])
    if place.attr == "epilogue":
        inputs = [*node.inputs[:own], *operands]
    elif place.attr == "prologue":
        inputs = [*operands, *node.inputs[own:]]
        node.attrs["own"] = len(operands)
    else:
        inputs = operands
    for value in node.inputs:
        if value is not None:
            value.users.remove(node)
    for value in inputs:
        if value is not None:
            value.users.append(node)
    node.inputs = inputs
    node.attrs[place.attr] = program.expr
