"""Functions of a model, and operators that ONNX defines as functions, written out as their bodies.

Works on ONNX's encoding: `instantiate` renames a body's values for one call, `Inliner` replaces
calls of the model's own functions, `expand` replaces nodes of a graph by their definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from clinfer.errors import ModelError, UnsupportedError
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.protos import subgraphs
from clinfer.graph.schemas import default_attributes, function_body, newest_opset, to_proto

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

Opsets = Mapping[str, int]
Key = tuple[str, str, str]  # domain, name, overload
_ON_HOST = ("Loop", "Scan", "Sequence", "Optional")


def function_key(proto: NodeProto | FunctionProto) -> Key:
    """What a call and a function are matched by."""
    name = proto.op_type if hasattr(proto, "op_type") else proto.name
    return domain_of(proto.domain), name, getattr(proto, "overload", "")


def domain_of(name: str) -> str:
    """The domain with ONNX's two names for its own operators made one."""
    return "" if name == "ai.onnx" else name


def imports(opset_import: Sequence[object]) -> dict[str, int]:
    """Operator-set versions by domain."""
    return {domain_of(o.domain): o.version for o in opset_import}  # type: ignore[attr-defined]


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
    """Replaces calls of the model's own functions, nested ones too."""

    def __init__(self, functions: Sequence[FunctionProto]) -> None:
        self._functions = {function_key(f): f for f in functions}
        self._count = 0

    def calls(
        self, nodes: Sequence[NodeProto], opsets: Opsets, stack: tuple[Key, ...] = ()
    ) -> Iterator[tuple[NodeProto, Opsets]]:
        """The nodes with calls replaced, each with the operator sets it was written for."""
        for node in nodes:
            function = self._functions.get(function_key(node))
            if function is not None:
                yield from self._body(function, node, stack)
                continue
            if self._functions:
                for graph in subgraphs(node):
                    self._subgraph(graph, opsets, stack)
            yield node, opsets

    def _body(
        self, function: FunctionProto, call: NodeProto, stack: tuple[Key, ...]
    ) -> Iterator[tuple[NodeProto, Opsets]]:
        key = function_key(function)
        if key in stack:
            raise ModelError(f"function '{key[1]}' of domain '{key[0]}' calls itself")
        self._count += 1
        prefix = f"{call.name or call.op_type}#{self._count}/"
        body = instantiate(function, call, prefix)
        yield from self.calls(body, imports(function.opset_import), (*stack, key))

    def _subgraph(self, graph: GraphProto, opsets: Opsets, stack: tuple[Key, ...]) -> None:
        inlined = list(self.calls(graph.node, opsets, stack))
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


def expand(graph: Graph, keep: Callable[[Node], bool]) -> list[str]:
    """Replaces nodes by ONNX's definition of their operator where there is one.

    `keep` says which nodes stay (they have a lowering of their own). Definitions with loops or
    sequences stay too: they would only be more host steps. Types must have been inferred. Returns
    the nodes replaced, as `Node.describe` names them.
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
            pending.extend(made)
    return done


def _expand_node(graph: Graph, node: Node) -> list[Node]:
    from clinfer.graph.build import NodeBuilder
    from clinfer.graph.upgrade import typed

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
    at = graph.nodes.index(node)
    after = graph.nodes[at + 1] if at + 1 < len(graph.nodes) else None
    graph.remove(node)
    builder = NodeBuilder(graph, scope, results=results, before=after)
    opsets = {"": newest_opset(), **graph.opsets, **imports(body.opset_import)}
    made = [builder.add(proto, opsets) for proto in instantiate(body, call, prefix)]
    return typed(graph, [n for n in made if n is not None])


def _types_known(node: Node) -> bool:
    values: list[Value] = [v for v in node.inputs if v is not None]
    return all(v.dtype is not None for v in values)


def _is_plain(body: FunctionProto) -> bool:
    """Whether the body can run on a device; an If is one of types and sizes, to be decided."""
    return not any(n.op_type.startswith(_ON_HOST) for n in body.node)
