"""Patterns over the operators above a value, written as data.

    MEAN = Apply("ReduceMean", Any("x"))
    AWAY = Apply("Sub", Any("x"), MEAN)              x - mean(x), both times the same x
    find(AWAY, value)                                {"x": ...} or None

Operands of Add and Mul match in either order. `bind` names the node that an `Apply` meets, so that
a rule can look at its attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clinfer.graph.ir import Node, Value
from clinfer.passes.query import scalar

_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Equal"})


@dataclass(frozen=True)
class Any:
    """Any value; the same name means the same value everywhere in a pattern."""

    name: str


@dataclass(frozen=True)
class Number:
    """A constant of one element, near `value` where that is given."""

    name: str = ""
    value: float | None = None


@dataclass(frozen=True, init=False)
class Apply:
    """The result of an operator ('Op', 'clinfer.Op') on operands that match `args`."""

    kind: str
    args: tuple[Pattern, ...]
    bind: str = ""

    def __init__(self, kind: str, *args: Pattern, bind: str = "") -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "bind", bind)


@dataclass(frozen=True, init=False)
class Either:
    """The first of several forms that matches."""

    forms: tuple[Pattern, ...]

    def __init__(self, *forms: Pattern) -> None:
        object.__setattr__(self, "forms", forms)


Pattern = Any | Number | Apply | Either
Bound = Mapping[str, "Value | Node"]


@dataclass(frozen=True)
class Match:
    """What the names of a pattern stand for."""

    bound: Bound

    def value(self, name: str) -> Value:
        """The value an `Any` or a `Number` met."""
        found = self.bound[name]
        assert isinstance(found, Value)
        return found

    def node(self, name: str) -> Node:
        """The node an `Apply` met."""
        found = self.bound[name]
        assert isinstance(found, Node)
        return found

    def number(self, name: str) -> float:
        """The number a `Number` met."""
        found = scalar(self.value(name))
        assert found is not None
        return float(found)


def find(pattern: Pattern, value: Value | None) -> Match | None:
    """How `pattern` fits what computes `value`; None where it does not."""
    for bound in _find(pattern, value, {}):
        return Match(bound)
    return None


def _find(pattern: Pattern, value: Value | None, bound: Bound) -> Iterator[Bound]:
    if value is None:
        return
    if isinstance(pattern, Any):
        if bound.get(pattern.name, value) is value:
            yield {**bound, pattern.name: value}
    elif isinstance(pattern, Number):
        yield from _number(pattern, value, bound)
    elif isinstance(pattern, Either):
        for form in pattern.forms:
            yield from _find(form, value, bound)
    else:
        yield from _apply(pattern, value, bound)


def _number(pattern: Number, value: Value, bound: Bound) -> Iterator[Bound]:
    found = scalar(value)
    if found is None or (pattern.value is not None and not is_near(found, pattern.value)):
        return
    yield {**bound, pattern.name: value} if pattern.name else bound


def _apply(pattern: Apply, value: Value, bound: Bound) -> Iterator[Bound]:
    node = value.producer
    if node is None or node.kind != pattern.kind or node.outputs[0] is not value:
        return
    if len(node.inputs) != len(pattern.args):
        return
    if pattern.bind:
        bound = {**bound, pattern.bind: node}
    yield from _operands(pattern.args, node.inputs, bound)
    if pattern.kind in _COMMUTATIVE and len(pattern.args) == 2:
        yield from _operands(pattern.args, node.inputs[::-1], bound)


def _operands(
    args: tuple[Pattern, ...], values: list[Value | None], bound: Bound
) -> Iterator[Bound]:
    if not args:
        yield bound
        return
    for inner in _find(args[0], values[0], bound):
        yield from _operands(args[1:], values[1:], inner)


def is_near(found: float, wanted: float) -> bool:
    """Whether a constant of the model is `wanted`, up to how exporters round (float16 included)."""
    return abs(found - wanted) <= 1e-3 * max(abs(wanted), 1e-12)


def factors(value: Value, limit: int = 8) -> tuple[list[Value], float]:
    """`value` as a product: its factors that are no numbers, and the product of those that are.

    Goes through Mul, and Div by a number, as far as their results are read by nothing else.
    """
    others: list[Value] = []
    number = 1.0
    pending = [value]
    while pending and limit:
        limit -= 1
        current = pending.pop(0)
        node = current.producer
        known = scalar(current)
        if known is not None:
            number *= float(known)
        elif node is not None and (current is value or len(current.users) == 1):
            if node.kind == "Mul":
                pending.extend(v for v in node.inputs if v is not None)
            elif node.kind == "Div" and scalar(node.input(1)):
                number /= float(scalar(node.required(1)) or 1.0)
                pending.append(node.required(0))
            else:
                others.append(current)
        else:
            others.append(current)
    return others + pending, number
