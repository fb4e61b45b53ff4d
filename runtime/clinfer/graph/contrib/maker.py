"""What the rules of com.microsoft share: putting operators of ONNX in the place of a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.errors import ShapeError, UnsupportedError
from clinfer.graph import numpy_ops
from clinfer.graph.ir import Array, Node, Shape, Value

if TYPE_CHECKING:
    from clinfer.graph.upgrade import Change

Results = Value | Sequence["Value | None"]
Rule = Callable[["Maker"], Results]
"""Makes operators that stand for a node; its results are the node's, those nobody reads None."""

# What exporters put between a constant and an operator that wants one.
_OF_CONSTANTS = frozenset(
    ["Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose"]
)


class Maker:
    """One node of com.microsoft on its way to operators of ONNX, which go before it.

    Types of its inputs are known, of what is made here not yet.
    """

    def __init__(self, change: Change) -> None:
        self.node: Node = change.node
        self._graph = change.graph
        self._made: list[Node] = []

    def __call__(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        """The one result of a new operator, of ONNX's domain or `clinfer.`."""
        return self.several(op, 1, *inputs, **attrs)[0]

    def several(self, op: str, count: int, *inputs: Value | None, **attrs: Any) -> list[Value]:
        """The results of a new operator that has `count` of them."""
        domain, _, op = op.rpartition(".")
        kept = list(inputs)
        while kept and kept[-1] is None:
            kept.pop()
        outputs = [Value(self._graph.fresh(self.node.name or op)) for _ in range(count)]
        self._made.append(
            self._graph.node(
                op,
                kept,
                outputs=outputs,
                attrs=attrs,
                domain=domain,
                name=self.node.name,
                before=self.node,
            )
        )
        return outputs

    def constant(self, content: Any, dtype: str = "int64") -> Value:
        """A constant."""
        return self._graph.constant(np.array(content, to_numpy(dtype)), self.node.name or "const")

    def like(self, content: Any, value: Value) -> Value:
        """A constant of an input's element type."""
        return self.constant(content, value.dtype or "float32")

    def input(self, index: int) -> Value | None:
        """An input, None where it is absent."""
        return self.node.input(index)

    def x(self, index: int) -> Value:
        """An input that must be there."""
        value = self.node.input(index)
        if value is None:
            raise self.error(f"input {index} must be there in this form")
        return value

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.node.attrs.get(name, default)

    def wanted(self, index: int) -> bool:
        """Whether somebody reads a result."""
        value = self.node.outputs[index] if index < len(self.node.outputs) else None
        return value is not None and bool(value.users or self._graph.is_output(value))

    def shape(self, index: int) -> Shape:
        """An input's shape, whose rank must be known."""
        value = self.x(index)
        if value.shape is None:
            raise self.error(f"an input of known rank expected, found {value!r}")
        return value.shape

    def check_rank(self, index: int, allowed: Sequence[int]) -> None:
        """`ShapeError` where an input is there and has none of these ranks."""
        value = self.input(index)
        if value is not None and value.rank is not None and value.rank not in allowed:
            raise ShapeError(
                f"{self.node.describe()}: input {index}: {' or '.join(map(str, allowed))} "
                f"dimensions expected, found {value!r}"
            )

    def size(self, index: int, axis: int, what: str) -> int:
        """A size of an input that must be fixed."""
        size = self.shape(index)[axis]
        if not isinstance(size, int):
            raise self.error(f"{what} must be fixed, found {self.x(index)!r}")
        return size

    def content(self, index: int) -> Array:
        """The content of an input that must be constant."""
        value = self.x(index)
        content = _known(value)
        if content is None:
            raise self.error(f"input {index} must be constant, found {value!r}")
        return content

    def error(self, what: str) -> UnsupportedError:
        """An error about the node."""
        return UnsupportedError(f"{self.node.describe()}: {what}")

    def refuse(self, **inputs: int) -> None:
        """`UnsupportedError` where one of these inputs is there."""
        for name, index in inputs.items():
            if self.input(index) is not None:
                raise self.error(f"input {index} ('{name}') is not supported; expected none")

    def only(self, name: str, *allowed: Any) -> None:
        """`UnsupportedError` where an attribute is there and holds something else."""
        if self.attr(name, allowed[0]) not in allowed:
            raise self.error(
                f"attribute '{name}': only {' or '.join(map(str, allowed))} supported, found "
                f"{self.attr(name)}"
            )

    def cast(self, value: Value, dtype: str) -> Value:
        """The value in another element type."""
        return self("Cast", value, to=BY_NAME[dtype].onnx)

    def sum(self, *values: Value | None) -> Value:
        """The sum of those that are there."""
        first, *rest = (v for v in values if v is not None)
        for value in rest:
            first = self("Add", first, value)
        return first

    def transpose(self, value: Value, *perm: int) -> Value:
        """The value with its axes in that order."""
        return self("Transpose", value, perm=list(perm))

    def reshape(self, value: Value, *sizes: int) -> Value:
        """The value in another shape: 0 keeps a size, -1 is what remains."""
        return self("Reshape", value, self.constant(sizes))

    def slice(self, value: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
        """A range of an axis."""
        parts = [self.constant([number]) for number in (start, end, axis, step)]
        return self("Slice", value, *parts)

    def dim(self, value: Value, axis: int) -> Value:
        """A size as an int64 of one element."""
        return self("Shape", value, start=axis, end=axis + 1)

    def finish(self, results: Results) -> list[Node]:
        """Gives the node's results to what was made, and takes the node out."""
        node, graph = self.node, self._graph
        found = [results] if isinstance(results, Value) else list(results)
        graph.remove(node)
        for index, wanted in enumerate(node.outputs):
            if wanted is None or not (wanted.users or graph.is_output(wanted)):
                continue
            result = found[index] if index < len(found) else None
            if result is None:
                raise self.error(f"result {index} is not computed")
            self._give(result, wanted)
        return self._made

    def _give(self, result: Value, wanted: Value) -> None:
        maker = result.producer
        if maker is None or not any(maker is made for made in self._made):
            result = self("Identity", result)
            maker = result.producer
            assert maker is not None
        place = next(i for i, v in enumerate(maker.outputs) if v is result)
        self._graph.replace(result, wanted)
        maker.outputs[place] = wanted
        wanted.producer = maker


def _known(value: Value) -> Array | None:
    """The content of a constant, or of what views, casts and the like make of constants."""
    if value.const is not None or value.producer is None:
        return value.const
    node = value.producer
    if node.op not in _OF_CONSTANTS or len(node.outputs) != 1:
        return None
    inputs = [None if v is None else _known(v) for v in node.inputs]
    if any(v is not None and known is None for v, known in zip(node.inputs, inputs, strict=True)):
        return None
    function = numpy_ops.find(node.kind, node.attrs, inputs)
    return None if function is None else np.asarray(function(node.attrs, inputs)[0])


def rewritten(change: Change, rule: Rule, ranks: Mapping[int, Sequence[int]]) -> list[Node]:
    """The nodes that stand for the change's node; `ranks` that its inputs may have."""
    maker = Maker(change)
    for index, allowed in ranks.items():
        maker.check_rank(index, allowed)
    return maker.finish(rule(maker))
