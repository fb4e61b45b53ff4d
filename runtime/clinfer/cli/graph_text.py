"""A graph as `clinfer explain` shows it: nodes, and under them the expressions fused into them."""

from __future__ import annotations

from clinfer.graph.ir import Graph, Node
from clinfer_kernels.expr import Expr

_PARTS = ("prologue", "epilogue", "expr")


def graph_text(graph: Graph) -> str:
    """One line a node; below it, where passes fused others into it, a line an expression."""
    head, *rest = str(graph).splitlines()
    *body, tail = rest
    lines = [head]
    for text, node in zip(body, graph.nodes, strict=True):
        lines.append(text)
        lines += [f"      {part}: {_program(expr)}" for part, expr in _expressions(node)]
    return "\n".join([*lines, tail])


def fused_operations(node: Node) -> list[str]:
    """The scalar operations that the node's kernel does beside its own: ['add', 'max'].

    A pointwise node of one operation is not fused.
    """
    found = _expressions(node)
    names = [line.op for _, expr in found for line in expr.lines if line.op != "const"]
    alone = len(names) == 1 and [part for part, _ in found] == ["expr"]
    return [] if alone else names


def _expressions(node: Node) -> list[tuple[str, Expr]]:
    found = [(part, node.attrs.get(part)) for part in _PARTS]
    return [(part, expr) for part, expr in found if isinstance(expr, Expr)]


def _program(expr: Expr) -> str:
    """'%2 = add %0 %1; %3 = const 0.0; ... -> %4'; operands are %0, %1 ..."""
    first = len(expr.inputs)
    steps = []
    for number, line in enumerate(expr.lines, first):
        words = [line.op, *(f"%{a}" for a in line.args), *map(str, line.attrs)]
        steps.append(f"%{number} = {' '.join(words)}")
    return "; ".join(steps) + " -> " + ", ".join(f"%{v}" for v in expr.outputs)
