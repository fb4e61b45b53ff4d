"""Attention: softmax(q @ k^T * scale + mask) @ v as one operator.

    MatMul( guard( Softmax( mask( MatMul(q, k^T) ) ) ), v )

The scale may stand on the scores, on q, on k or on several of them. `mask` is an Add, or a Where
with a very negative number; `guard` puts 0 for rows that see no key, as the operator does where
there may be such rows. What brings q, k and v into shape stays as nodes: these are views.

Vaswani et al., "Attention Is All You Need", 2017; the form torch's exporters write.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clinfer.graph.ir import Array, Node, Shape, Value
from clinfer.passes.affine import settled
from clinfer.passes.forms import COMPARISONS
from clinfer.passes.patterns.scores import MASKED, find_scores, unexpanded
from clinfer.passes.patterns.weights import find_weights
from clinfer.passes.query import fits, is_at_least, positive_symbols, scalar
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim
from clinfer_kernels.specs import LARGEST_HEAD

# One operator rounds once, which in bfloat16 is seen: its pieces stay as the model has them.
_FLOATS = frozenset({"float16", "float32", "float64"})


def attention(rw: Rewriter, node: Node) -> Outcome:
    """Root: the product of the attention weights and v."""
    weights = find_weights(node.required(0))
    if weights is None:
        return None
    if weights.is_read_elsewhere(rw, node):
        return Refusal("its weights are read by more than the product with v")
    scores = find_scores(rw, weights.softmax.required(0))
    if isinstance(scores, Refusal):
        return scores
    guarded = weights.is_guarded(scores.added)
    if isinstance(guarded, Refusal):
        return guarded
    v = node.required(1)
    q, k = scores.q, _transposed(rw, scores.keys)
    ranks = {len(value.known_shape) for value in (q, k, v)}
    if q.dtype not in _FLOATS:
        return Refusal(f"each of its steps rounds to {q.dtype}")
    if len(ranks) != 1 or not ranks <= {2, 3, 4}:
        return Refusal("q, k and v are not of one rank up to 4")
    sizes = (q.known_shape[-1], v.known_shape[-1])
    if not all(isinstance(size, int) and size <= LARGEST_HEAD for size in sizes):
        return Refusal(f"heads of {sizes[0]} and {sizes[1]} are two products and a softmax")
    q, k, v = (_rank4(rw, value) for value in (q, k, v))
    pair = _unrepeated(rw, q, k, v)
    if pair is None:
        return Refusal("the batches or heads of q, k and v differ")
    k, v = pair
    mask = scores.mask
    full = (*q.known_shape[:3], k.known_shape[2])
    if mask is not None and not fits(_rank4_shape(mask.known_shape), full):
        return Refusal("the mask enlarges the scores")
    causal, mask = (False, None) if mask is None else _split_causal(rw, mask, full)
    inputs = [q, k, v] if mask is None else [q, k, v, mask]
    shape = (*q.known_shape[:3], v.known_shape[3])
    attrs: dict[str, Any] = {"scale": scores.scale, "causal": causal}
    if guarded and (mask is not None or (causal and not _all_see_a_key(full))):
        attrs["zeroed"] = "nan" if weights.nan_guard else "empty"
    made = rw.emit("Attention", inputs, q.dtype, shape, attrs=attrs, domain="clinfer")
    return rw.reshape(made, node.output.known_shape)


def _all_see_a_key(full: Shape) -> bool:
    """Whether causality leaves a key to every query of scores of that shape."""
    positive = positive_symbols(full)
    more = settled(full[3], positive) - settled(full[2], positive)
    return is_at_least(more, 0, positive)


def _transposed(rw: Rewriter, keys: Value) -> Value:
    """The keys with the last two dimensions swapped."""
    rank = len(keys.known_shape)
    swap = [*range(rank - 2), rank - 1, rank - 2]
    return rw.transpose(keys, swap)


def _rank4(rw: Rewriter, value: Value) -> Value:
    """[..., S, D] as [1, ..., S, D] of rank 4."""
    return rw.reshape(value, _rank4_shape(value.known_shape))


def _rank4_shape(shape: Shape) -> Shape:
    ones: tuple[Dim, ...] = (1,) * (4 - len(shape))
    return (*ones, *shape)


def _unrepeated(rw: Rewriter, q: Value, k: Value, v: Value) -> tuple[Value, Value] | None:
    """k and v such that the heads of q are a multiple of theirs.

    Grouped queries are exported with every head of k and v repeated, as
    Reshape(Expand([B, H, 1, S, D] -> [B, H, r, S, D])); the operator repeats them by itself.
    """
    sources = [s for s in (_before_repeat(k), _before_repeat(v)) if s is not None]
    fewer = [rw.reshape(s, (*s.known_shape[:2], *s.known_shape[-2:])) for s in sources]
    if len(fewer) == 2 and fewer[0].known_shape[1] == fewer[1].known_shape[1]:
        k, v = fewer
    batch, heads = q.known_shape[:2]
    if k.known_shape[:2] != v.known_shape[:2] or k.known_shape[0] != batch:
        return None
    shared = k.known_shape[1]
    if shared == heads:
        return k, v
    whole = isinstance(heads, int) and isinstance(shared, int) and heads % shared == 0
    return (k, v) if whole else None


def _before_repeat(value: Value) -> Value | None:
    """The [B, H, 1, S, D] of which `value` [B, H * r, S, D] is an expansion, reshaped."""
    view = value.producer
    if view is None or view.kind != "Reshape" or view.required(0).producer is None:
        return None
    expand = view.required(0).producer
    if expand is None or expand.kind != "Expand" or len(expand.inputs) != 1:
        return None
    source, wide = expand.required(0), expand.output.known_shape
    if len(wide) != 5 or source.rank != 5 or source.known_shape[2] != 1:
        return None
    same = [i for i in (0, 1, 3, 4) if source.known_shape[i] == wide[i]]
    merged = (wide[0], wide[1] * wide[2], wide[3], wide[4])
    return source if len(same) == 4 and value.known_shape == merged else None


def _split_causal(rw: Rewriter, mask: Value, full: Shape) -> tuple[bool, Value | None]:
    """(whether query i sees key j <= i + (keys - queries) only, what is left of the mask)."""
    if mask.const is not None:
        return (True, None) if _is_causal_array(mask.const, full) else (False, mask)
    condition = mask
    node = mask.producer
    if node is not None and node.kind == "Where" and scalar(node.input(1)) == 0:
        fill = scalar(node.input(2))
        condition = node.required(0) if fill is not None and fill <= MASKED else mask
    if condition.dtype != "bool":
        return False, mask
    if _is_causal(rw, condition, full):
        return True, None
    joined = condition.producer
    if condition is mask and joined is not None and joined.kind == "And":
        for index in (0, 1):
            if _is_causal(rw, unexpanded(joined.required(index)), full):
                return True, unexpanded(joined.required(1 - index))
    return False, mask


def _is_causal(rw: Rewriter, condition: Value, full: Shape) -> bool:
    """Whether a comparison says row - column + (keys - queries) >= 0."""
    node = condition.producer
    if node is None or node.kind not in COMPARISONS:
        return False
    away = rw.forms.difference(node)
    if away is None or len(away.steps) < 2:
        return False
    positive = positive_symbols(full)
    queries, keys = settled(full[2], positive), settled(full[3], positive)
    *lead, row, column = away.steps
    return not any(lead) and (row, column) == (1, -1) and away.offset == keys - queries


def _is_causal_array(content: Array, full: Shape) -> bool:
    """The same of a constant mask, additive or boolean."""
    rows, cols = full[2], full[3]
    if not isinstance(rows, int) or not isinstance(cols, int):
        return False
    if content.shape[-2:] != (rows, cols) or content.size != rows * cols:
        return False
    matrix = content.reshape(rows, cols)
    seen = np.tri(rows, cols, cols - rows, dtype=bool)
    if matrix.dtype == bool:
        return bool(np.array_equal(matrix, seen))
    return bool(np.all(matrix[seen] == 0) and np.all(matrix[~seen] <= MASKED))


RULES = (Rule("attention", ("MatMul",), attention),)
