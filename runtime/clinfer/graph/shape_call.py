"""What a shape rule sees of one node, and how it answers.

A rule is a function from a `Call` to one `Type` per output. Where a rule asks for something that is
not known (`UnknownShape` is raised for it), the driver falls back to ONNX's own inference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from clinfer.boundary import Signal
from clinfer.dtypes import BY_NAME
from clinfer.errors import ShapeError
from clinfer.graph.ir import Array, Graph, Node, Shape, Value
from clinfer_kernels.broadcasts import join, joined
from clinfer_kernels.dims import RELATIONS, Dim, sym

MOST_AXES = 64  # as NumPy has it
CONTENT_LIMIT = 1024  # elements of an integer tensor that rules and `symbolic` look into


class Type(NamedTuple):
    """An output's element type and shape; None where unknown."""

    dtype: str | None
    shape: Shape | None


class UnknownShape(Signal):
    """A rule needs a shape or content that is not known."""


class Call:
    """One node whose output types are asked for."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node

    @property
    def op(self) -> str:
        return self.node.op

    @property
    def count(self) -> int:
        """How many inputs there are, captured ones not counted."""
        return len(self.node.inputs) - self.node.captures

    def has(self, index: int) -> bool:
        """Whether the input is there."""
        return self.node.input(index) is not None

    def value(self, index: int) -> Value:
        """The input; `ShapeError` where the operator lacks it."""
        value = self.node.input(index)
        if value is None:
            raise self.error(f"input {index} is missing")
        return value

    def shape(self, index: int) -> Shape:
        """The input's shape."""
        shape = self.value(index).shape
        if shape is None:
            raise UnknownShape
        return shape

    def rank(self, index: int) -> int:
        return len(self.shape(index))

    def dtype(self, index: int) -> str | None:
        return self.value(index).dtype

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute as the model gives it, else `default`."""
        return self.node.attrs.get(name, default)

    def axis(self, name: str, default: int, rank: int) -> int:
        """An axis attribute, counted from the front."""
        return self.normal(int(self.attr(name, default)), rank)

    def normal(self, axis: int, rank: int) -> int:
        """`axis` counted from the front; `ShapeError` where there is no such dimension."""
        if not -rank <= axis < rank:
            raise self.error(f"axis {axis} expected in [-{rank}, {rank})")
        return axis + rank if axis < 0 else axis

    def content(self, index: int) -> Array | None:
        """The input's integers where they are known: an object array of `Dim`."""
        value = self.node.input(index)
        if value is None:
            return None
        if value.symbolic is not None:
            return value.symbolic
        if value.const is None or value.const.size > CONTENT_LIMIT:
            return None
        return value.const.astype(object) if value.const.dtype.kind in "iub" else None

    def dims(self, index: int) -> list[Dim]:
        """The elements of an integer input that must be known, in order."""
        content = self.content(index)
        if content is None:
            raise UnknownShape
        return list(content.ravel())

    def ints(self, index: int) -> list[int]:
        """The elements of an integer input that must be constant, in order."""
        dims = self.dims(index)
        if not all(isinstance(d, (int, np.integer)) for d in dims):
            raise UnknownShape
        return [int(d) for d in dims]  # type: ignore[arg-type]

    def elements(self, index: int) -> int:
        """How many elements an input of one dimension (or a scalar) has, which must be known."""
        shape = self.shape(index)
        size = shape[0] if shape else 1
        if not isinstance(size, int):
            raise UnknownShape
        return size

    def fresh(self, output: int, axis: int) -> Dim:
        """The symbol of a dimension that only a run can tell."""
        named = [v for v in (self.node.outputs[output], *self.node.outputs) if v is not None]
        return sym(f"{named[0].name}.{axis}")

    def unknown(self, rank: int, output: int = 0) -> Shape:
        """A shape of which the rank alone is known: what a model's own number of sizes says."""
        if rank > MOST_AXES:
            raise self.error(f"a result of {rank} dimensions; {MOST_AXES} at most expected")
        return tuple(self.fresh(output, axis) for axis in range(rank))

    def keep(self) -> list[Type]:
        """The types the outputs have already: the pass that made the node knew them."""
        return [
            Type(None, None) if v is None else Type(v.dtype, v.shape) for v in self.node.outputs
        ]

    def equal(self, left: Dim, right: Dim, what: str) -> None:
        """Requires two sizes to be equal; checked at run time where that is not known now."""
        self._hold(left, right, "equal", f"{what} must be equal")

    def fits(self, left: Dim, right: Dim, what: str) -> None:
        """Requires `left` to be 1 or equal to `right`, as what broadcasts to a given size is."""
        self._hold(left, right, "fits", f"{what}: the first must be 1 or equal to the second")

    def at_most(self, left: Dim, right: Dim, what: str) -> None:
        """Requires `left` <= `right`."""
        self._hold(left, right, "at most", f"{what}: the first must be at most the second")

    def _hold(self, left: Dim, right: Dim, relation: str, what: str) -> None:
        message = f"{self.node.describe()}: {what}"
        if isinstance(left, int) and isinstance(right, int):
            if not RELATIONS[relation](left, right):
                raise ShapeError(f"{message}, found {left} and {right}")
        else:
            self.graph.require(left, right, message, relation)

    def broadcast(self, *shapes: Shape) -> Shape:
        """NumPy's broadcast shape; what only a run can tell becomes a constraint."""
        rank = max((len(s) for s in shapes), default=0)
        result: list[Dim] = [1] * rank
        for shape in shapes:
            offset = rank - len(shape)
            for axis, dim in enumerate(shape, offset):
                result[axis] = self._joined(result[axis], dim, axis - rank)
        return tuple(result)

    def _joined(self, left: Dim, right: Dim, axis: int) -> Dim:
        result = join(left, right)
        what = f"the sizes of dimension {axis} that are broadcast"
        if result is None:
            raise self.error(f"{what} must be equal or 1, found {left} and {right}")
        known = self.graph.joins.get(result, result)
        if known == result and known not in (left, right):
            self._hold(left, right, "join", f"{what} must be equal or 1")
        for size in (left, right):
            if size != 1 and size not in joined(known):
                self.fits(size, known, what)
        return known

    def error(self, message: str) -> ShapeError:
        """An error that names the node and its inputs."""
        inputs = ", ".join("-" if v is None else repr(v) for v in self.node.inputs)
        return ShapeError(f"{self.node.describe()}: {message}; its inputs are {inputs or 'none'}")


Rule = Callable[[Call], "list[Type]"]


def same(call: Call) -> list[Type]:
    """The first output is like the first input."""
    if call.dtype(0) not in BY_NAME:
        raise UnknownShape
    return [Type(call.dtype(0), call.node.required(0).shape)]
