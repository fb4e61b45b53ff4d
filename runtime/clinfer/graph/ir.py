"""The intermediate representation: a graph of nodes over typed values.

A graph is in topological order and in SSA form: a value has one producer (a node, an input or a
constant). Passes change graphs in place through the methods here, which keep `users` right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinfer.graph.sequences import Nodes, Outputs, Users
from clinfer_kernels.broadcasts import joined
from clinfer_kernels.dims import Dim

if TYPE_CHECKING:
    from clinfer.graph.bodies import Bodies
    from clinfer.operators.custom import CustomOperator

Array = np.ndarray[Any, Any]
Shape = tuple[Dim, ...]

OWN_DOMAIN = "clinfer"
"""The domain of the operators that passes make."""

MOST_ELEMENTS = 1 << 48
"""A tensor of more elements is a fault of the model: no memory holds it."""


class Declared(NamedTuple):
    """A type that the model's file states for a value: dimensions are sizes, names or None."""

    dtype: str | None
    shape: tuple[int | str | None, ...] | None


class Constraint(NamedTuple):
    """What must hold between two sizes; checked when inputs bind their symbols.

    `relation` is a key of `clinfer_kernels.dims.RELATIONS`.
    """

    left: Dim
    right: Dim
    message: str
    relation: str = "equal"


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
    users: Users = field(default_factory=Users)
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
    the trailing inputs that only the node's subgraphs read. `bodies` are an If's as they were last
    asked for (`graph.bodies`).
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
    bodies: Bodies | None = None

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

    @property
    def label(self) -> str:
        """The name, that of the first output where there is none."""
        return self.name or (self.outputs[0].name if self.outputs and self.outputs[0] else "")

    def describe(self) -> str:
        """'Conv "layer1/conv"', for messages."""
        return f'{self.kind} "{self.label}"'

    def __repr__(self) -> str:
        outs = ", ".join(map(repr, self.outputs))
        ins = ", ".join("-" if v is None else f"%{v.name}" for v in self.inputs)
        return f"{outs} = {self.kind}({ins})"


class Graph:
    """Nodes in topological order, with the graph's inputs and outputs.

    `declared` holds types that the file states, by value name; inference falls back on them.
    `joins` maps sizes of broadcasts (`broadcasts.join`) to the one of the joined that they must be.
    `namesakes` has the names in the file of symbols that passes renamed (`graph.namesakes`).
    `custom` are the operators that the program has added, by kind.
    `depth` counts the graphs that it is a body inside of, `given` are the symbols bound there;
    `prefix` tells its own names from theirs.
    `unrolled` counts the nodes that loops have become.
    `typed` gives nodes just added to a body their types; `upgrade.typed` notes it here.
    """

    def __init__(
        self,
        name: str = "model",
        *,
        inputs: Iterable[Value] = (),
        opsets: Mapping[str, int] | None = None,
        custom: Mapping[str, CustomOperator] | None = None,
    ) -> None:
        self.name = name
        self.custom: Mapping[str, CustomOperator] = custom or {}
        self.inputs = list(inputs)
        self.opsets = dict(opsets or {})
        self.metadata: dict[str, str] = {}
        self.output_names: list[str] = []
        self.constraints: list[Constraint] = []
        self.declared: dict[str, Declared] = {}
        self.joins: dict[Dim, Dim] = {}
        self.namesakes: Mapping[str, str] = {}
        self._nodes = Nodes()
        self._outputs = Outputs()
        self._counter = 0
        self._required: set[tuple[Dim, Dim, str]] = set()
        self.depth = 0
        self.prefix = ""
        self.unrolled = 0
        self.given: frozenset[str] = frozenset()
        self.typed: Callable[[Graph, Sequence[Node]], None] | None = None

    @property
    def nodes(self) -> list[Node]:
        """The nodes; a new list after each insertion or removal."""
        return self._nodes.all()

    @nodes.setter
    def nodes(self, nodes: Iterable[Node]) -> None:
        self._nodes = Nodes(nodes)

    @property
    def outputs(self) -> Outputs:
        """The values that the graph returns."""
        return self._outputs

    @outputs.setter
    def outputs(self, values: Iterable[Value]) -> None:
        self._outputs = Outputs(values)

    def fresh(self, hint: str) -> str:
        """A value name not used before, in this graph nor in one that it is a body inside of."""
        self._counter += 1
        return f"{hint}~{self.prefix}{self._counter}"

    def require(self, left: Dim, right: Dim, message: str, relation: str = "equal") -> None:
        """Records what must hold between two sizes in every run; `message` says where and why."""
        if relation == "equal":
            for join, part in ((left, right), (right, left)):
                if part != join and part in joined(join):
                    self.joins[join] = part
        if len(self._required) != len(self.constraints):  # someone has emptied the list
            self._required = {(c.left, c.right, c.relation) for c in self.constraints}
        key = (left, right, relation)
        if left != right and key not in self._required:
            self._required.add(key)
            self.constraints.append(Constraint(left, right, message, relation))

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
        self._nodes.insert(node, before)
        for value in node.inputs:
            if value is not None:
                value.users.append(node)
        for value in node.outputs:
            if value is not None:
                value.producer = node

    def remove(self, node: Node) -> None:
        """Takes out a node whose outputs nothing uses."""
        self._nodes.remove(node)
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
        for node in list(old.users.nodes()):
            for index, value in enumerate(node.inputs):
                if value is old:
                    self.set_input(node, index, new)
        self._outputs.substitute(old, new)

    def is_output(self, value: Value) -> bool:
        """Whether the graph returns `value`."""
        return value in self._outputs

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
        for node in self.nodes:
            bodies, node.bodies = node.bodies, None
            for body in () if bodies is None else bodies.all:
                if body.graph is not None:
                    body.graph.forget_contents()

    def clone(self) -> Graph:
        """A copy with nodes and values of its own; the arrays of constants are shared."""
        values = {id(v): replace(v, producer=None, users=Users()) for v in self.values()}

        def mapped(value: Value | None) -> Value | None:
            return None if value is None else values[id(value)]

        inputs = [values[id(v)] for v in self.inputs]
        copy = Graph(self.name, inputs=inputs, opsets=self.opsets, custom=self.custom)
        copy.outputs = [values[id(v)] for v in self.outputs]
        copy.metadata = dict(self.metadata)
        copy.output_names = list(self.output_names)
        copy.constraints = list(self.constraints)
        copy.declared = dict(self.declared)
        copy.joins, copy.namesakes = dict(self.joins), self.namesakes
        copy.depth, copy.given, copy.unrolled = self.depth, self.given, self.unrolled
        copy.typed = self.typed
        copy._counter = self._counter
        for node in self.nodes:
            made = replace(
                node,
                inputs=[mapped(v) for v in node.inputs],
                outputs=[mapped(v) for v in node.outputs],
                attrs=dict(node.attrs),
                bodies=None,
            )
            copy.insert(made)
        return copy

    def __str__(self) -> str:
        head = f"graph {self.name}({', '.join(map(repr, self.inputs))})"
        tail = f"return {', '.join('%' + v.name for v in self.outputs)}"
        return "\n".join([head, *(f"  {node!r}" for node in self.nodes), f"  {tail}"])
