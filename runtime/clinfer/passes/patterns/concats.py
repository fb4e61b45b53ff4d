"""A constant added to a concatenation is added to its parts.

    Concat(a, x) + c = Concat(a + c[:n], x + c[n:])

With all parts but one constant, one addition is left, and that joins what computes the part: so
class tokens and position embeddings cost nothing of their own.
"""

from __future__ import annotations

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.rewrite import Outcome, Rewriter, Rule


def add_to_parts(rw: Rewriter, node: Node) -> Outcome:
    """Add(Concat(...), constant), where the concatenation is read only here."""
    for index in (0, 1):
        whole, other = node.required(index), node.required(1 - index)
        joined = whole.producer
        if joined is None or joined.kind != "Concat" or other.const is None:
            continue
        if whole.shape != node.output.shape or rw.graph.sole_user(whole) is not node:
            continue
        parts = [v for v in joined.inputs if v is not None]
        if sum(v.const is None for v in parts) != 1:
            return None
        made = _parts(rw, parts, joined.attrs["axis"], other.const, whole)
        if made is None:
            return None
        return rw.emit("Concat", made, whole.dtype, whole.shape, attrs=joined.attrs)
    return None


def _parts(
    rw: Rewriter, parts: list[Value], axis: int, constant: Array, whole: Value
) -> list[Value] | None:
    """Each part with its share of the constant; None where sizes are not known."""
    rank = len(whole.known_shape)
    full = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    start = 0
    made: list[Value] = []
    for part in parts:
        size = part.known_shape[axis]
        if not isinstance(size, int):
            return None
        share = full
        if full.shape[axis] != 1:
            share = np.take(full, range(start, start + size), axis=axis)
        start += size
        if part.const is not None:
            total = part.const + share
            if total.shape != part.shape:
                return None
            made.append(rw.constant(total))
        else:
            operands = [part, rw.constant(share)]
            made.append(rw.emit("Add", operands, part.dtype, part.shape))
    return made


RULES = (Rule("add-to-parts", ("Add",), add_to_parts),)
