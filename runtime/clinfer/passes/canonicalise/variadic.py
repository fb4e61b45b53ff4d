"""Sum, Max, Min and Mean of more inputs than a kernel reads: a tree of operators of fewer."""

from __future__ import annotations

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node
from clinfer.passes.limits import most_operands
from clinfer.passes.query import broadcast
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule


def split_many(rw: Rewriter, node: Node) -> Outcome:
    """f(x1 ... xn) = f(f(x1 ... xk), f(...), ...), k inputs each."""
    values = [v for v in node.inputs if v is not None]
    most = most_operands(values)
    if len(values) <= most:
        return None
    dtype, shape = node.output.dtype, node.output.shape
    if node.op == "Mean":
        total = rw.emit("Sum", values, dtype, shape, version=node.version)
        count = rw.constant(np.array(len(values), to_numpy(str(dtype))))
        return rw.emit("Div", [total, count], dtype, shape, version=node.version)
    parts = [values[i : i + most] for i in range(0, len(values), most)]
    shapes = [broadcast([v.known_shape for v in part]) for part in parts]
    if None in shapes:
        return Refusal("its inputs do not broadcast for sure")
    pairs = zip(parts, shapes, strict=True)
    joined = [rw.emit(node.op, part, dtype, s, version=node.version) for part, s in pairs]
    return rw.emit(node.op, joined, dtype, shape, version=node.version)


RULES = (Rule("split-many", ("Sum", "Max", "Min", "Mean"), split_many),)
