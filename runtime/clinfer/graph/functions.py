"""Functions of a model, and operators that ONNX defines as functions, written out as their bodies.

Works on ONNX's encoding: `instantiate` renames a body's values for one call, `Inliner` replaces
calls of the model's own functions, `expand` replaces nodes of a graph by their definitions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from clinfer.boundary import during
from clinfer.errors import ModelError, UnsupportedError
from clinfer.graph.build import NodeBuilder
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.node_protos import default_attributes, function_body, to_proto
from clinfer.graph.opsets import Opsets, domain_of, imports
from clinfer.graph.protos import subgraphs
from clinfer.graph.schemas import newest_opset
from clinfer.graph.upgrade import typed

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

Key = tuple[str, str, str]  # domain, name, overload
MOST_NODES = 1 << 18
"""Nodes that calls of a model's functions may stand for in all."""
MOST_BYTES = 1 << 30
MOST_NESTED = 30
"""Subgraphs in one another; protocol buffers are read to a depth of a hundred messages."""
_MOST_LABEL = 128
_ON_HOST = ("Loop", "Scan", "Sequence", "Optional")


def function_key(proto: NodeProto | FunctionProto) -> Key:
    """What a call and a function are matched by."""
    name = proto.op_type if hasattr(proto, "op_type") else proto.name
    return domain_of(proto.domain), name, getattr(proto, "overload", "")


def instantiate(function: FunctionProto, call: NodeProto, prefix: str) -> list[NodeProto]:
    """The nodes of `function`'s body for one call; inner names start with `prefix`."""
    names = {"": ""}
    for formals, actuals in ((function.input, call.input), (function.output, call.output)):
        for index, formal in enumerate(formals):
            actual = actuals[index] if index < len(actuals) else ""
            if actual or formals is function.input:
                names[formal] = actual
    given = {a.name: a for a in function.attribute_proto}
    given.update((a.name, a) for a in call.attribute)
    bound = {name: given[name] for name in [*function.attribute, *given] if name in given}
    return [_renamed(node, names, bound, prefix) for node in function.node]


def _renamed(
    node: NodeProto, names: Mapping[str, str], bound: Mapping[str, AttributeProto], prefix: str
) -> NodeProto:
    copy = type(node)()
    copy.CopyFrom(node)
    copy.name = prefix + (node.name or node.op_type)
    copy.input[:] = [names.get(n, prefix + n) for n in node.input]
    copy.output[:] = [names.get(n, prefix + n) for n in node.output]
    del copy.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            copy.attribute.add().CopyFrom(attribute)
        elif attribute.ref_attr_name in bound:
            made = copy.attribute.add()
            made.CopyFrom(bound[attribute.ref_attr_name])
            made.name = attribute.name
    for graph in subgraphs(copy):
        _rename_graph(graph, names, bound, prefix)
    return copy


def _rename_graph(
    graph: GraphProto, names: Mapping[str, str], bound: Mapping[str, AttributeProto], prefix: str
) -> None:
    tensors = [*graph.initializer, *(t.values for t in graph.sparse_initializer)]
    for item in [*graph.input, *graph.output, *graph.value_info, *tensors]:
        item.name = names.get(item.name, prefix + item.name)
    nodes = [_renamed(node, names, bound, prefix) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


class Inliner:
    """Replaces calls of the model's own functions, nested ones too.

    Functions that call others several times can stand for more nodes than any memory holds: what
    would be written out is counted before it is, and again while it is, for bodies given as
    attributes. Raises `ModelError` above `MOST_NODES` or `MOST_BYTES`, and for recursion.
    """

    def __init__(self, functions: Iterable[FunctionProto]) -> None:
        """Of two functions with one key the later one counts."""
        self._functions = {function_key(f): f for f in functions}
        self._count = 0
        self._nodes = 0
        self._bytes = 0

    def calls(
        self, nodes: Sequence[NodeProto], opsets: Opsets
    ) -> Iterator[tuple[NodeProto, Opsets]]:
        """The nodes with calls replaced, each with the operator sets it was written for."""
        if not self._functions:
            yield from ((node, opsets) for node in nodes)
            return
        self._check(nodes)
        yield from self._calls(nodes, opsets, 0)

    def _calls(
        self, nodes: Sequence[NodeProto], opsets: Opsets, level: int
    ) -> Iterator[tuple[NodeProto, Opsets]]:
        """`level` counts the subgraphs that the nodes lie in."""
        bodies = [(iter(nodes), opsets)]
        while bodies:
            inside, versions = bodies[-1]
            node = next(inside, None)
            if node is None:
                bodies.pop()
                continue
            function = self._functions.get(function_key(node))
            if function is not None:
                bodies.append((iter(self._body(function, node)), imports(function.opset_import)))
                continue
            for graph in subgraphs(node):
                self._subgraph(graph, versions, level + 1)
            yield node, versions

    def _body(self, function: FunctionProto, call: NodeProto) -> list[NodeProto]:
        self._count += 1
        label = (call.name or call.op_type)[-_MOST_LABEL:]
        body = instantiate(function, call, f"{label}#{self._count}/")
        self._nodes += len(body)
        self._bytes += sum(node.ByteSize() for node in body)
        if self._nodes > MOST_NODES or self._bytes > MOST_BYTES:
            raise _explosion(function_key(function), f"{self._nodes} nodes or more")
        return body

    def _subgraph(self, graph: GraphProto, opsets: Opsets, level: int) -> None:
        if level > MOST_NESTED:
            raise ModelError(f"subgraphs lie more than {MOST_NESTED} deep in one another")
        inlined = list(self._calls(graph.node, opsets, level))
        for node, versions in inlined:
            domain = domain_of(node.domain)
            if versions.get(domain) != opsets.get(domain):
                raise UnsupportedError(
                    f"node '{node.name}' ({node.op_type}) of a function called inside a subgraph "
                    f"is written for operator set {versions.get(domain)}, the model for "
                    f"{opsets.get(domain)}; export both for one operator set"
                )
        copies = []
        for node, _ in inlined:
            copies.append(type(node)())
            copies[-1].CopyFrom(node)
        del graph.node[:]
        graph.node.extend(copies)

    def _check(self, nodes: Sequence[NodeProto]) -> None:
        """Counts what calls in `nodes` stand for, each function once: after those it calls."""
        own: dict[Key, int] = {}
        called: dict[Key, Counter[Key]] = {}
        sizes: dict[Key, int] = {}
        _, first = self._contents(nodes)
        waiting = [*first]
        while waiting:
            key = waiting[-1]
            if key in sizes:
                waiting.pop()
            elif key in called:
                waiting.pop()
                sizes[key] = own[key] + sum(sizes[k] * n for k, n in called[key].items())
            else:
                own[key], called[key] = self._contents(self._functions[key].node)
                for inner in called[key]:
                    if inner in called and inner not in sizes:  # it waits for this one
                        raise ModelError(
                            f"function '{inner[1]}' of domain '{inner[0]}' calls itself"
                        )
                waiting += called[key]
        total = sum(sizes[key] * count for key, count in first.items())
        if total > MOST_NODES:
            raise _explosion(max(first, key=lambda k: sizes[k]), f"{total} nodes")

    def _contents(self, nodes: Iterable[NodeProto]) -> tuple[int, Counter[Key]]:
        """How many operators are among the nodes, subgraphs included, and which functions."""
        count = 0
        called: Counter[Key] = Counter()
        for node in nodes:
            key = function_key(node)
            if key in self._functions:
                called[key] += 1
            else:
                count += 1
            for graph in subgraphs(node):
                more, inner = self._contents(graph.node)
                count += more
                called.update(inner)
        return count, called


def _explosion(key: Key, found: str) -> ModelError:
    return ModelError(
        f"the calls of function '{key[1]}' of domain '{key[0]}' and others stand for {found}; at "
        f"most {MOST_NODES} nodes or {MOST_BYTES >> 20} MiB are written out; export the model with "
        "fewer nested functions"
    )


def expand(
    graph: Graph,
    keep: Callable[[Node], bool],
    finish: Callable[[Node, list[Node]], None] = lambda node, made: None,
) -> list[str]:
    """Replaces nodes by ONNX's definition of their operator where there is one.

    `keep` says which nodes stay (they have a lowering of their own). Definitions with loops or
    sequences stay too: they would only be more host steps. Types must have been inferred. `finish`
    is called with each node replaced and what it was replaced by. Returns the nodes replaced, as
    `Node.describe` names them.
    """
    done: list[str] = []
    pending = list(graph.nodes)
    while pending:
        node = pending.pop()
        if node.captures or keep(node):
            continue
        made = _expand_node(graph, node)
        if made:
            done.append(node.describe())
            finish(node, made)
            pending.extend(made)
    return done


def _expand_node(graph: Graph, node: Node) -> list[Node]:
    with during("the writing out of its definition", node.describe):
        return _expanded(graph, node)


def _expanded(graph: Graph, node: Node) -> list[Node]:
    body = function_body(node, graph.opsets.get("", newest_opset()))
    if body is None or not _is_plain(body) or not _types_known(node):
        return []
    names = ["" if v is None else f"i{n}" for n, v in enumerate(node.inputs)]
    outputs = ["" if v is None else f"o{n}" for n, v in enumerate(node.outputs)]
    call = to_proto(node, names, outputs)
    call.attribute.extend(default_attributes(node))
    prefix = graph.fresh(node.name or node.op) + "/"
    scope = {n: v for n, v in zip(names, node.inputs, strict=True) if v is not None}
    results = {n: v for n, v in zip(outputs, node.outputs, strict=True) if v is not None}
    builder = NodeBuilder(graph, scope, results=results, before=node)
    opsets = {"": newest_opset(), **graph.opsets, **imports(body.opset_import)}
    made = [builder.add(proto, opsets) for proto in instantiate(body, call, prefix)]
    graph.remove(node)
    return typed(graph, [n for n in made if n is not None])


def _types_known(node: Node) -> bool:
    values: list[Value] = [v for v in node.inputs if v is not None]
    return all(v.dtype is not None for v in values)


def _is_plain(body: FunctionProto) -> bool:
    """Whether the body can run on a device; an If is one of types and sizes, to be decided."""
    return not any(n.op_type.startswith(_ON_HOST) for n in body.node)
