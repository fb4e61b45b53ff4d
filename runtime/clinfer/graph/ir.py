"""The intermediate representation: a graph of nodes over typed values.

A graph is in topological order and in SSA form: a value has one producer (a node, an input or a
constant). Passes change graphs in place through the methods here, which keep `users` right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from clinfer_kernels.dims import Dim

Array = np.ndarray[Any, Any]
Shape = tuple[Dim, ...]


class Declared(NamedTuple):
    """A type that the model's file states for a value: dimensions are sizes, names or None."""

    dtype: str | None
    shape: tuple[int | str | None, ...] | None


class Constraint(NamedTuple):
    """Two sizes that shape propagation took to be equal; checked when inputs bind their symbols."""

    left: Dim
    right: Dim
    message: str


@dataclass(eq=False)
class Value:
    """A tensor (or, with dtype 'sequence', 'optional' or 'string', a host object) in the graph.

    `dtype` is a name of `clinfer.dtypes`, None where unknown; `shape` is None where the rank is
    unknown. `const` is its content where that is known when compiled. `symbolic` is the content of
    an integer tensor computed from sizes: an object array of `Dim`, exact for every input size.
    `rational` is the same for a float tensor on the way from size to size (`graph.numbers`).
    `type_proto` is the encoded ONNX type of what is no tensor (sequence, optional, map).
    """

    name: str
    dtype: str | None = None
    shape: Shape | None = None
    const: Array | None = None
    symbolic: Array | None = None
    producer: Node | None = None
    users: list[Node] = field(default_factory=list)
    rational: Array | None = None
    type_proto: bytes | None = None

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def known_shape(self) -> Shape:
        """The shape, where the caller has made sure that the rank is known."""
        assert self.shape is not None, f"the rank of '{self.name}' is not known"
        return self.shape

    def __repr__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join(map(str, self.shape))
        return f"%{self.name}: {self.dtype}[{sizes}]"


@dataclass(eq=False)
class Node:
    """An operator applied to values. Optional inputs that are absent are None; so are outputs.

    `domain` '' is ONNX's; 'clinfer' holds the operators that passes make (docs/ir.md lists them).
    `attrs` are plain Python values (int, float, str, list, ndarray, Expr); subgraphs stay encoded
    in `proto`. `version` is the operator-set version the node was written for. `captures` counts
    the trailing inputs that only the node's subgraphs read.
    """

    op: str
    inputs: list[Value | None]
    outputs: list[Value | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    version: int = 0
    proto: bytes | None = None
    captures: int = 0

    @property
    def kind(self) -> str:
        """'Op' for ONNX's own operators, 'domain.Op' for the rest."""
        return f"{self.domain}.{self.op}" if self.domain else self.op

    @property
    def output(self) -> Value:
        """The first output."""
        value = self.outputs[0]
        assert value is not None
        return value

    def input(self, index: int) -> Value | None:
        """The input at `index`, None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> Value:
        """The input at `index`, which the operator must have."""
        value = self.input(index)
        assert value is not None, f"{self}: input {index} is missing"
        return value

    def describe(self) -> str:
        """'Conv "layer1/conv"', for messages."""
        label = self.name or (self.outputs[0].name if self.outputs and self.outputs[0] else "")
        return f'{self.kind} "{label}"'

    def __repr__(self) -> str:
        outs = ", ".join(map(repr, self.outputs))
        ins = ", ".join("-" if v is None else f"%{v.name}" for v in self.inputs)
        return f"{outs} = {self.kind}({ins})"


@dataclass(eq=False)
class Graph:
    """Nodes in topological order, with the graph's inputs and outputs.

    `declared` holds types that the file states, by value name; inference falls back on them.
    """

    name: str = "model"
    nodes: list[Node] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    output_names: list[str] = field(default_factory=list)
    constraints: list[Constraint] = field(default_factory=list)
    declared: dict[str, Declared] = field(default_factory=dict)
    _counter: int = 0

    def fresh(self, hint: str) -> str:
        """A value name not used before."""
        self._counter += 1
        return f"{hint}~{self._counter}"

    def require_equal(self, left: Dim, right: Dim, message: str) -> None:
        """Records that two sizes must be equal in every run; `message` says where and why."""
        constraint = Constraint(left, right, message)
        if left != right and all(c[:2] != constraint[:2] for c in self.constraints):
            self.constraints.append(constraint)

    def constant(self, array: Array, hint: str = "const") -> Value:
        """A new constant value."""
        content = np.asarray(array)
        dtype = "string" if content.dtype.kind in "OUS" else content.dtype.name
        return Value(self.fresh(hint), dtype, tuple(content.shape), const=content)

    def node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        *,
        like: Value | None = None,
        dtype: str | None = None,
        shape: Shape | None = None,
        outputs: Sequence[Value | None] | None = None,
        attrs: Mapping[str, Any] | None = None,
        domain: str = "",
        name: str = "",
        before: Node | None = None,
    ) -> Node:
        """Makes a node, with one new output unless `outputs` are given, and inserts it.

        It goes before the node `before`, at the end without one. `like` gives dtype and shape.
        """
        if outputs is None:
            if like is not None:
                dtype = dtype or like.dtype
                shape = like.shape if shape is None else shape
            outputs = [Value(self.fresh(name or op), dtype, shape)]
        made = Node(op, list(inputs), list(outputs), dict(attrs or {}), name, domain)
        self.insert(made, before)
        return made

    def insert(self, node: Node, before: Node | None = None) -> None:
        """Puts a finished node before `before`, at the end without one."""
        at = len(self.nodes) if before is None else self.nodes.index(before)
        self.nodes.insert(at, node)
        for value in node.inputs:
            if value is not None:
                value.users.append(node)
        for value in node.outputs:
            if value is not None:
                value.producer = node

    def remove(self, node: Node) -> None:
        """Takes out a node whose outputs nothing uses."""
        self.nodes.remove(node)
        for value in node.inputs:
            if value is not None:
                value.users.remove(node)
        for value in node.outputs:
            if value is not None and value.producer is node:
                value.producer = None

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Replaces one input of a node."""
        old = node.inputs[index]
        if old is not None:
            old.users.remove(node)
        node.inputs[index] = value
        if value is not None:
            value.users.append(node)

    def append_input(self, node: Node, value: Value) -> None:
        """Adds an input at the end."""
        node.inputs.append(value)
        value.users.append(node)

    def replace(self, old: Value, new: Value) -> None:
        """Lets every user of `old` (the graph's outputs too) read `new`.

        The names of the model's outputs stay in `output_names`, by position.
        """
        for node in list(old.users):
            for index, value in enumerate(node.inputs):
                if value is old:
                    self.set_input(node, index, new)
        self.outputs = [new if v is old else v for v in self.outputs]

    def is_output(self, value: Value) -> bool:
        """Whether the graph returns `value`."""
        return any(v is value for v in self.outputs)

    def sole_user(self, value: Value) -> Node | None:
        """The one node that reads `value` once, where nothing else does and it is no output."""
        if len(value.users) == 1 and not self.is_output(value):
            return value.users[0]
        return None

    def values(self) -> Iterator[Value]:
        """Every value once: inputs, constants and results."""
        seen: set[int] = set()
        for value in self._all_values():
            if id(value) not in seen:
                seen.add(id(value))
                yield value

    def _all_values(self) -> Iterable[Value]:
        yield from self.inputs
        for node in self.nodes:
            yield from (v for v in node.inputs if v is not None)
            yield from (v for v in node.outputs if v is not None)
        yield from self.outputs

    def forget_contents(self) -> None:
        """Lets go of the constants' contents, now and not when the garbage collector finds them.

        The graph is of no use afterwards.
        """
        for value in self.values():
            value.const = None

    def clone(self) -> Graph:
        """A copy with nodes and values of its own; the arrays of constants are shared."""
        values = {id(v): replace(v, producer=None, users=[]) for v in self.values()}

        def mapped(value: Value | None) -> Value | None:
            return None if value is None else values[id(value)]

        copy = replace(
            self,
            nodes=[],
            inputs=[values[id(v)] for v in self.inputs],
            outputs=[values[id(v)] for v in self.outputs],
            opsets=dict(self.opsets),
            metadata=dict(self.metadata),
            output_names=list(self.output_names),
            constraints=list(self.constraints),
            declared=dict(self.declared),
        )
        for node in self.nodes:
            inputs = [mapped(v) for v in node.inputs]
            outputs = [mapped(v) for v in node.outputs]
            attrs = dict(node.attrs)
            copy.insert(replace(node, inputs=inputs, outputs=outputs, attrs=attrs))
        return copy

    def __str__(self) -> str:
        head = f"graph {self.name}({', '.join(map(repr, self.inputs))})"
        tail = f"return {', '.join('%' + v.name for v in self.outputs)}"
        return "\n".join([head, *(f"  {node!r}" for node in self.nodes), f"  {tail}"])
