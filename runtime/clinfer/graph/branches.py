"""A branch of an If whose condition is known, written into the graph in the node's place."""

from __future__ import annotations

from clinfer.graph.build import NodeBuilder
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.protos import ExternalData, captured_names, sparse_array, tensor_array
from clinfer.graph.schemas import encoded
from clinfer.graph.upgrade import typed


def inline_branch(graph: Graph, node: Node) -> list[Node] | None:
    """The nodes of the branch taken, typed; None where the condition is not constant.

    The If goes; readers of its outputs read the branch's.
    """
    condition = node.required(0).const
    if condition is None or node.proto is None:
        return None
    proto = encoded(node.proto)
    name = "then_branch" if condition.item() else "else_branch"
    branch = next(a.g for a in proto.attribute if a.name == name)
    own = len(node.inputs) - node.captures
    captured = captured_names(proto)
    scope = {n: v for n, v in zip(captured, node.inputs[own:], strict=True) if v is not None}
    scope.update((n, v) for n, v in zip(proto.input, node.inputs, strict=False) if v is not None)
    external = ExternalData(None)
    for tensor in branch.initializer:
        array = tensor_array(tensor, external)
        scope[tensor.name] = _constant(graph, tensor.name, array)
    for sparse in branch.sparse_initializer:
        array = sparse_array(sparse, external)
        scope[sparse.values.name] = _constant(graph, sparse.values.name, array)
    builder = NodeBuilder(graph, scope, before=node)
    opsets = {**graph.opsets, "": node.version or graph.opsets.get("", 1)}
    made = [builder.add(p, opsets) for p in branch.node]
    nodes = typed(graph, [n for n in made if n is not None])
    for old, result in zip(node.outputs, branch.output, strict=True):
        if old is not None:
            graph.replace(old, scope[result.name])
    graph.remove(node)
    return nodes


def _constant(graph: Graph, name: str, array: object) -> Value:
    return graph.constant(array, name)  # type: ignore[arg-type]
