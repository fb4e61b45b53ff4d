"""Sizes that are in data: `clinfer.Sizes`, the node that reads them, in the making (docs/ir.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clinfer.graph.ir import OWN_DOMAIN, Node, Shape, Value
from clinfer.passes.canonicalise.maker import cast
from clinfer.passes.query import sizes
from clinfer.passes.rewrite import Rewriter
from clinfer_kernels.dim_json import to_json
from clinfer_kernels.dims import Dim, differs, maximum, minimum, product, sym

MOST_READ = 64  # elements of a tensor that sizes are read from


@dataclass
class Told:
    """What a run has to read and to compute so that the sizes of a node's result are known.

    Numbers that are read may be negative: they appear in `define`, `give`, `require` and nowhere
    else. What is given is a size like any other.
    """

    rw: Rewriter
    node: Node
    _values: list[Value] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _defined: list[str] = field(default_factory=list)
    _meanings: list[Dim] = field(default_factory=list)
    _given: list[Dim] = field(default_factory=list)
    _checks: list[tuple[Any, ...]] = field(default_factory=list)
    _constraints: list[tuple[Any, ...]] = field(default_factory=list)

    def content(self, value: Value | None, check: tuple[str, Dim, Dim] | None = None) -> list[Dim]:
        """The elements of an integer tensor: numbers where they are known, else to be read.

        `check`: what they are, the least allowed and the first that is too large.
        """
        known = sizes(value)
        if known is not None or value is None:
            return known or []
        count = _known_size(value.known_shape)
        assert count is not None
        self._values.append(value if value.dtype in _READ else cast(self.rw, value, "int64"))
        names = [self.rw.graph.fresh("read") for _ in range(count)]
        self._names += names
        if check is not None:
            what, low, high = check
            text = f"{self.node.describe()}: {what}"
            self._checks += [(name, text, low, high) for name in names]
        return [sym(name) for name in names]

    def define(self, meaning: Dim) -> Dim:
        """A number for short: what an expression would otherwise repeat."""
        if isinstance(meaning, int):
            return meaning
        name = self.rw.graph.fresh("number")
        self._defined.append(name)
        self._meanings.append(meaning)
        return sym(name)

    def size(self, meaning: Dim) -> Dim:
        """A new size."""
        name = self.rw.graph.fresh("size")
        self.give(sym(name), meaning)
        return sym(name)

    def give(self, size: Dim, meaning: Dim) -> None:
        """States what a size is; where it is no symbol, that it is equal."""
        if size == meaning:
            return
        name = to_json(size)
        if not isinstance(name, str):
            self.require(size, meaning, "sizes must be as they were inferred")
        else:
            self._defined.append(name)
            self._meanings.append(meaning)
            self._given.append(size)

    def give_all(self, shape: Sequence[Dim], meanings: Sequence[Dim]) -> None:
        """`give` for each dimension."""
        for size, meaning in zip(shape, meanings, strict=True):
            self.give(size, meaning)

    def require(self, left: Dim, right: Dim, what: str, relation: str = "equal") -> None:
        """What must hold between numbers."""
        self._constraints.append((left, right, f"{self.node.describe()}: {what}", relation))

    def emit(self) -> None:
        """Puts the node before the one that needs the sizes; none where nothing is read."""
        if not self._values and not self._given:
            for left, right, message, relation in self._constraints:
                self.rw.graph.require(left, right, message, relation)
            return
        attrs = {
            "names": self._names,
            "defined": self._defined,
            "values": self._meanings,
            "checks": self._checks,
            "constraints": self._constraints,
            "of": self.node.describe(),
        }
        self.rw.emit(
            "Sizes", self._values, "int64", tuple(self._given), attrs=attrs, domain=OWN_DOMAIN
        )


_READ = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"})


def is_readable(value: Value | None) -> bool:
    """Whether the content is known, or so few numbers that sizes can be read from them."""
    if value is None or sizes(value) is not None:
        return True
    shape = value.shape
    count = None if shape is None or len(shape) > 1 else _known_size(shape)
    return count is not None and count <= MOST_READ


def _known_size(shape: Shape) -> int | None:
    """How many elements a shape has, where that is known."""
    count = product(shape)
    return count if isinstance(count, int) else None


def is_known(*values: Value | None) -> bool:
    """Whether the contents of all are known when compiled, or follow from shapes."""
    return all(value is None or sizes(value) is not None for value in values)


def is_negative(n: Dim) -> Dim:
    """1 where a number is below 0, else 0."""
    return minimum(maximum(0 - n, 0), 1)


def wrapped(n: Dim, size: Dim) -> Dim:
    """A number that may count from the end, from the front."""
    return n + size * is_negative(n)


def equals(a: Dim, b: Dim) -> Dim:
    """1 where two numbers are equal, else 0."""
    return 1 - differs(a, b)


def clamped(n: Dim, low: Dim, high: Dim) -> Dim:
    """The nearest number from `low` to `high`."""
    return minimum(maximum(n, low), high)
