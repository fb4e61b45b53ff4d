"""The bodies of Loop and Scan: what a step reads, gives on and adds to what is stacked.

The inputs of such a body are those that each step gives anew (the number of the step, the states,
parts of what is scanned), then what it captures. A Loop's condition is true inside. A state may
change its sizes from step to step: such a size is a symbol that each step binds anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.dtypes import BY_NAME
from clinfer.errors import ModelError, ShapeError, UnsupportedError
from clinfer.graph.bodies import Bodies, Body, captured_in, fill_body, new_body
from clinfer.graph.bounds import lower_bound
from clinfer.graph.ir import Graph, Node, Shape, Value
from clinfer.graph.node_protos import encoded, outer_places
from clinfer.graph.protos import subgraphs
from clinfer.graph.sequences import Users
from clinfer.operators import elementwise
from clinfer_kernels.dims import Dim, sym, symbols

if TYPE_CHECKING:
    from onnx import GraphProto

_OLDEST_SCAN = 9  # before it a Scan had a batch axis


@dataclass(frozen=True)
class LoopForm:
    """The operands of a Loop or Scan by what they are for.

    `states` are the node's inputs that hold their first values, `scanned` (input, axis, whether
    from the end), `stacked` (axis, whether from the end). Of the body's inputs the states begin at
    `first`, of its results at `given`.
    """

    states: tuple[int, ...]
    scanned: tuple[tuple[int, int, bool], ...]
    stacked: tuple[tuple[int, bool], ...]
    first: int
    given: int


def form_of(node: Node, inputs: int, outputs: int) -> LoopForm:
    """The form of a node whose body has so many inputs and results; `ModelError` if it has none."""
    own = len(node.inputs) - node.captures
    if node.kind == "Loop":
        count = inputs - 2
        stacked = outputs - 1 - count
        found = LoopForm(tuple(range(2, 2 + count)), (), ((0, False),) * stacked, 1, 1)
        fits = count >= 0 and own <= 2 + count
    else:
        if not node.version >= _OLDEST_SCAN:
            raise UnsupportedError("a Scan of operator set 8 has a batch axis")
        parts = int(node.attrs.get("num_scan_inputs", 0))
        count = own - parts
        stacked = outputs - count
        axes = _each(node, "scan_input_axes", parts)
        backwards = _each(node, "scan_input_directions", parts)
        places = _each(node, "scan_output_axes", stacked)
        flips = _each(node, "scan_output_directions", stacked)
        scanned = zip(range(count, own), axes, map(bool, backwards), strict=True)
        ends = zip(places, map(bool, flips), strict=True)
        found = LoopForm(tuple(range(count)), tuple(scanned), tuple(ends), 0, 0)
        fits = count >= 0 and parts > 0 and inputs == own
    if not fits or stacked < 0 or len(node.outputs) != count + stacked:
        raise ModelError(
            f"its body has {inputs} inputs and {outputs} results, the node {own} inputs and "
            f"{len(node.outputs)} results, which do not go together"
        )
    return found


def _each(node: Node, name: str, count: int) -> list[int]:
    found = [int(n) for n in node.attrs.get(name) or [0] * max(count, 0)]
    if len(found) != count:
        raise ModelError(f"{count} numbers expected in '{name}', found {len(found)}")
    return found


def form_of_body(node: Node, body: Body) -> LoopForm:
    """The form of a node that has that body."""
    assert body.graph is not None
    # A Loop's condition is no input of the graph.
    inputs = body.own + (1 if node.kind == "Loop" else 0)
    return form_of(node, inputs, len(body.graph.outputs))


def loop_body(graph: Graph, node: Node, seen: Any) -> Bodies:
    """The body of a Loop or Scan, or the reason why it cannot be a graph."""
    assert node.proto is not None
    proto = encoded(node.proto)
    inner = next(a.g for a in proto.attribute if a.name == "body")
    maker = _Maker(graph, node, inner, outer_places(node, proto))
    return Bodies(seen, (maker.body(),))


class _Maker:
    def __init__(self, graph: Graph, node: Node, proto: GraphProto, places: dict[str, int]) -> None:
        self._graph, self._node, self._proto, self._places = graph, node, proto, places
        self._form = form_of(node, len(proto.input), len(proto.output))
        named = [value.name for value in node.outputs if value is not None]
        self._label = next(iter(named), node.label)
        self._states = [self._first(index) for index in self._form.states]
        before = () if node.bodies is None else node.bodies.all
        self._moving = {(state, axis): name for b in before for name, state, axis in b.sizes}
        """Symbols by state and axis. They stay what they are when the body is made anew."""
        self._reranked: set[int] = set()
        self._ranks: list[int | None] = []
        """Of the body's results, as they are for states of the ranks of their first values."""

    def body(self) -> Body:
        """The body for states of sizes that hold in all steps."""
        while True:
            try:
                made, captured, own = self._made()
            except ShapeError as error:
                if not self._let_move(self._all_sizes()):
                    return Body("body", None, error=str(error))
                continue
            if not self._rerank(made) and not self._let_move(self._changing(made)):
                break
        if self._reranked and _ranks(made) != self._ranks:
            raise UnsupportedError("a state changes its rank, and with it another result's")
        sizes = tuple((name, *where) for where, name in self._moving.items())
        reranked = sorted(self._reranked)
        unread = tuple(number for number in reranked if not self._readers(number))
        return Body("body", made, captured, "", own, sizes, tuple(reranked), unread)

    def _first(self, index: int) -> Value:
        """A state's first value."""
        value = self._node.input(index)
        if value is None:
            raise ModelError(f"the first value of state {index} is missing")
        if value.dtype in BY_NAME and value.shape is None:
            raise UnsupportedError(f"the rank of '{value.name}', a state, is not known")
        return value

    def _let_move(self, places: Iterator[tuple[int, int]]) -> bool:
        """Makes sizes of states symbols; whether some were none before."""
        new = [place for place in places if place not in self._moving]
        for state, axis in new:
            self._moving[state, axis] = f"{self._label}.{state}.{axis}"
        return bool(new)

    def _all_sizes(self) -> Iterator[tuple[int, int]]:
        for number, state in enumerate(self._states):
            if not self._is_kept(number):
                yield from ((number, axis) for axis in range(len(state.shape or ())))

    def _changing(self, body: Graph) -> Iterator[tuple[int, int]]:
        """The sizes of states that a step may change."""
        for number, state in enumerate(self._states):
            result = body.outputs[self._form.given + number]
            if result.dtype != state.dtype:
                raise ModelError(
                    f"state '{result.name}' is {state.dtype} before a step and {result.dtype} after"
                )
            if state.dtype not in BY_NAME:
                continue
            pairs = zip(self._shape(number), result.known_shape, strict=True)
            for axis, (old, new) in enumerate(pairs):
                if old != new:
                    yield number, axis

    def _rerank(self, body: Graph) -> bool:
        """Gives states whose ranks a step changes those of its results; whether there were some.

        First values of one element that only operators on elements read mean the same in any rank.
        """
        outside = body.given - set(self._moving.values())
        self._ranks = self._ranks or _ranks(body)
        found = False
        for number, state in enumerate(self._states):
            result = body.outputs[self._form.given + number]
            if state.dtype not in BY_NAME:
                continue
            shape, first = result.shape, state.known_shape
            if shape is not None and len(shape) == len(first):
                continue
            ones = {*(shape or ()), *first} <= {1} and self._is_elementwise(number)
            unread = not self._readers(number)
            if shape is None or number in self._reranked or not (ones or unread):
                raise UnsupportedError(f"state '{result.name}' changes its rank")
            sizes = tuple(dim if symbols(dim) <= outside else 0 for dim in shape)
            self._states[number] = Value(state.name, state.dtype, sizes)
            self._reranked.add(number)
            found = True
        return found

    def _shape(self, number: int) -> Shape:
        shape = self._states[number].known_shape
        names = [self._moving.get((number, axis)) for axis in range(len(shape))]
        return tuple(
            dim if name is None else sym(name) for name, dim in zip(names, shape, strict=True)
        )

    def _is_kept(self, number: int) -> bool:
        """Whether a step gives a state on as it is."""
        names = self._proto.input[self._first_state + number], self._proto.output
        return bool(names[0].name == names[1][self._form.given + number].name)

    def _readers(self, number: int) -> set[str]:
        """The kinds of the nodes that read a state, in bodies too; a result is read by ''."""
        return set(_readers(self._proto, self._proto.input[self._first_state + number].name))

    def _is_elementwise(self, number: int) -> bool:
        return self._readers(number) <= {operator.kind for operator in elementwise.OPERATORS}

    @property
    def _first_state(self) -> int:
        return 2 if self._node.kind == "Loop" else 0

    def _made(self) -> tuple[Graph, tuple[int, ...], int]:
        body = new_body(self._graph, self._node, "body", self._proto)
        body.given = body.given | set(self._moving.values())
        infos = list(self._proto.input)
        scope: dict[str, Value] = {}
        if self._node.kind == "Loop":
            shapes = [(1,) * _declared_rank(info) for info in infos[:2]]
            scope[infos[0].name] = Value(self._name(infos[0].name), "int64", shapes[0])
            body.inputs.append(scope[infos[0].name])
            scope[infos[1].name] = body.constant(np.ones(shapes[1], bool), "going")
            infos = infos[2:]
        states = zip(infos, self._states, strict=False)
        for number, (info, state) in enumerate(states):
            scope[info.name] = self._state(number, info.name, state)
            body.inputs.append(scope[info.name])
        for info, (index, axis, _) in zip(
            infos[len(self._states) :], self._form.scanned, strict=True
        ):
            scope[info.name] = self._part(info.name, index, axis)
            body.inputs.append(scope[info.name])
        own = len(body.inputs)
        names = {
            name: self._name(name) for node in self._proto.node for name in node.output if name
        }
        captured = fill_body(self._graph, self._node, body, self._proto, self._places, scope, names)
        return body, captured, own

    def _name(self, name: str) -> str:
        return f"{self._label}/{name}"

    def _state(self, number: int, name: str, first: Value) -> Value:
        if self._is_kept(number):
            return captured_in(self._name(name), replace(first, producer=None, users=Users()))
        shape = None if first.dtype not in BY_NAME else self._shape(number)
        return Value(self._name(name), first.dtype, shape, type_proto=first.type_proto)

    def _part(self, name: str, index: int, axis: int) -> Value:
        whole = self._node.required(index)
        if whole.shape is None or whole.dtype not in BY_NAME:
            raise UnsupportedError(f"the rank of '{whole.name}', which is scanned, is not known")
        rank = len(whole.shape)
        if not -rank <= axis < rank:
            raise ShapeError(f"{self._node.describe()}: axis {axis} expected in [-{rank}, {rank})")
        shape = list(whole.shape)
        del shape[axis]
        return Value(self._name(name), whole.dtype, tuple(shape))


def _ranks(body: Graph) -> list[int | None]:
    return [None if v.shape is None else len(v.shape) for v in body.outputs]


def _readers(graph: GraphProto, name: str) -> Iterator[str]:
    for node in graph.node:
        if name in node.input:
            yield node.op_type if not node.domain else f"{node.domain}.{node.op_type}"
        for inner in subgraphs(node):
            yield from _readers(inner, name)
    if any(info.name == name for info in graph.output):
        yield ""


def _declared_rank(info: Any) -> int:
    """The rank that a body declares for an input: exporters write [1] for scalars too."""
    declared = info.type.tensor_type
    return len(declared.shape.dim) if declared.HasField("shape") else 0


def stays_true(body: Graph) -> bool:
    """Whether a Loop's body always goes on."""
    content = body.outputs[0].const
    return content is not None and bool(content.all())


def steps_of(node: Node, body: Graph, form: LoopForm) -> Dim | None:
    """How many steps there are, where sizes tell."""
    if node.kind == "Scan":
        counts: Sequence[Dim] = [
            node.required(index).known_shape[axis] for index, axis, _ in form.scanned
        ]
        return counts[0]
    limit, going = node.input(0), node.input(1)
    if going is not None and (going.const is None or not going.const.all()):
        return 0 if going.const is not None else None
    if limit is None or not stays_true(body):
        return None
    if limit.const is not None and limit.const.size == 1:
        return max(int(limit.const.item()), 0)
    if limit.symbolic is not None and limit.symbolic.size == 1:
        count: Dim = limit.symbolic.item()
        least = lower_bound(count)
        return count if least is not None and least >= 0 else None
    return None
