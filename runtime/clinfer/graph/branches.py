"""A branch of an If whose condition is known, written into the graph in the node's place."""

from __future__ import annotations

from clinfer.graph.bodies import define_constants
from clinfer.graph.build import NodeBuilder
from clinfer.graph.ir import Graph, Node
from clinfer.graph.node_protos import encoded
from clinfer.graph.protos import captured_names
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
    define_constants(graph, branch, scope)
    builder = NodeBuilder(graph, scope, before=node)
    opsets = {**graph.opsets, "": node.version or graph.opsets.get("", 1)}
    made = [builder.add(p, opsets) for p in branch.node]
    nodes = typed(graph, [n for n in made if n is not None])
    for old, result in zip(node.outputs, branch.output, strict=True):
        if old is not None:
            graph.replace(old, scope[result.name])
    graph.remove(node)
    return nodes
