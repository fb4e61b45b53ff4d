"""What quantises at the end of an expression takes its short form."""

from __future__ import annotations

from clinfer.graph.ir import Graph
from clinfer_kernels.requantise import requantised

_EXPRESSIONS = ("expr", "prologue", "epilogue")


def shorten_ends(graph: Graph) -> None:
    """Before scales become operands: the form is for numbers that are known."""
    for node in graph.nodes:
        for name in _EXPRESSIONS:
            expr = node.attrs.get(name)
            if expr is not None:
                node.attrs[name] = requantised(expr)
