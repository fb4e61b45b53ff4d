"""Attention: softmax(q @ k^T * scale + mask) @ v as one operator.

    MatMul( guard( Softmax( mask( MatMul(q, k^T) ) ) ), v )

The scale may stand on the scores, on q, on k or on several of them. `mask` is an Add, or a Where
with a very negative number; `guard` replaces the NaN of rows that see no key by 0, which the
operator does where its attribute says so. What brings q, k and v into shape stays as nodes: these
are views.

Vaswani et al., "Attention Is All You Need", 2017; the form torch's exporters write.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Array, Node, Shape, Value
from clinfer.passes.affine import settled
from clinfer.passes.forms import COMPARISONS
from clinfer.passes.patterns.match import Any, Apply, Number, find
from clinfer.passes.query import broadcast, fits, positive_symbols, scalar
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim

_GUARD = Apply("Where", Apply("IsNaN", Any("x")), Number(value=0.0), Any("x"))
# A masked score at or below this counts as minus infinity: it outweighs every real score.
_MASKED = -1e30
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True)
class Scores:
    """scale * (q @ keys) + mask, where `keys` is k transposed."""

    q: Value
    keys: Value
    scale: float = 1.0
    mask: Value | None = None


def attention(rw: Rewriter, node: Node) -> Outcome:
    """Root: the product of the attention weights and v."""
    found = _softmax(node.required(0))
    if found is None:
        return None
    soft, guarded = found
    if _is_read_elsewhere(rw, node, soft):
        return Refusal("its weights are read by more than the product with v")
    scores = _scores(rw, soft.required(0))
    if isinstance(scores, Refusal):
        return scores
    v = node.required(1)
    q, k = scores.q, _transposed(rw, scores.keys)
    ranks = {len(value.known_shape) for value in (q, k, v)}
    if q.dtype not in _FLOATS or len(ranks) != 1 or not ranks <= {2, 3, 4}:
        return Refusal("q, k and v are not of one rank up to 4")
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
    made = rw.emit(
        "Attention",
        inputs,
        q.dtype,
        (*q.known_shape[:3], v.known_shape[3]),
        attrs={"scale": scores.scale, "causal": causal, "guarded": guarded},
        domain="clinfer",
    )
    return rw.reshape(made, node.output.known_shape)


def _softmax(value: Value) -> tuple[Node, bool] | None:
    """The softmax over the last dimension that `value` is, and whether it is guarded."""
    guard = find(_GUARD, value)
    inner = value if guard is None else guard.value("x")
    node = inner.producer
    if node is None or node.kind != "clinfer.Softmax":
        return None
    if node.attrs["axes"] != 1 or node.attrs["log"]:
        return None
    return node, guard is not None


def _is_read_elsewhere(rw: Rewriter, root: Node, soft: Node) -> bool:
    """Whether something outside of the pattern reads the softmax or what guards it."""
    weights = root.required(0)
    own = {id(root)}
    for value in (weights, soft.output):
        if rw.graph.is_output(value):
            return True
        own.update(id(n) for n in _above(weights, soft.output))
    return any(id(user) not in own for v in (weights, soft.output) for user in v.users)


def _above(value: Value, stop: Value) -> list[Node]:
    """The guard: the nodes between `stop` and `value`."""
    if value is stop or value.producer is None:
        return []
    guard = value.producer
    return [guard, *(n for v in guard.inputs if v is not None for n in _above(v, stop))]


def _scores(rw: Rewriter, value: Value) -> Scores | Refusal:
    """Peels masks and factors off the scores, down to the product of q and k."""
    node = value.producer
    if node is None:
        return Refusal("its scores are no matrix product")
    if node.kind == "MatMul":
        return _product(node)
    if node.kind in ("Mul", "Div"):
        return _scaled(rw, node)
    if node.kind == "Add":
        for index in (1, 0):
            inner = _scores(rw, node.required(1 - index))
            if isinstance(inner, Scores):
                return _masked(rw, inner, node.required(index))
    if node.kind == "Where":
        return _where(rw, node)
    return Refusal(f"its scores come from {node.kind}")


def _product(node: Node) -> Scores:
    """q @ keys, with the numbers that multiply either of them."""
    scale = 1.0
    sides: list[Value] = []
    for side in (node.required(0), node.required(1)):
        factor, side = _factor(side)
        scale *= factor
        sides.append(side)
    return Scores(sides[0], sides[1], scale)


def _factor(value: Value) -> tuple[float, Value]:
    """(c, x) where `value` is c * x; else (1, value)."""
    node = value.producer
    if node is None or node.kind not in ("Mul", "Div"):
        return 1.0, value
    for index in (1, 0) if node.kind == "Mul" else (1,):
        number = scalar(node.input(index))
        if not number or node.required(1 - index).shape != value.shape:
            continue
        inner, rest = _factor(node.required(1 - index))
        return (inner * number if node.kind == "Mul" else inner / number), rest
    return 1.0, value


def _scaled(rw: Rewriter, node: Node) -> Scores | Refusal:
    factor, rest = _factor(node.output)
    if rest is node.output or rest.producer is None:
        return Refusal("its scores are multiplied by something computed")
    inner = _scores(rw, rest)
    if isinstance(inner, Scores) and inner.mask is not None:
        return Refusal("its scores are masked before they are scaled")
    if isinstance(inner, Refusal):
        return inner
    return replace(inner, scale=inner.scale * factor)


def _masked(rw: Rewriter, inner: Scores, mask: Value) -> Scores | Refusal:
    """Adds a mask to the scores; a second one is added to the first."""
    if mask.shape is None or mask.dtype != inner.q.dtype:
        return Refusal("the mask's dtype is not that of the scores")
    if inner.mask is None:
        return replace(inner, mask=_as_bool(_unexpanded(mask)))
    shape = broadcast([mask.shape, inner.mask.known_shape])
    if shape is None or inner.mask.dtype != mask.dtype:
        return Refusal("it has two masks that do not fit each other")
    return replace(inner, mask=rw.emit("Add", [inner.mask, mask], mask.dtype, shape))


def _as_bool(mask: Value) -> Value:
    """The condition c where the mask is Where(c, 0, -inf): True keeps a score."""
    node = mask.producer
    if node is None or node.kind != "Where":
        return mask
    yes, no = scalar(node.input(1)), scalar(node.input(2))
    return _unexpanded(node.required(0)) if yes == 0 and no == -math.inf else mask


def _unexpanded(mask: Value) -> Value:
    """What is repeated to make the mask: the operator repeats it by itself."""
    node = mask.producer
    if node is not None and node.kind == "Expand" and len(node.inputs) == 1:
        return _unexpanded(node.required(0))
    return mask


def _where(rw: Rewriter, node: Node) -> Scores | Refusal:
    """Where(c, scores, fill): the mask is Where(c, 0, fill), or c alone where fill is -inf."""
    fill = scalar(node.input(2))
    inner = _scores(rw, node.required(1))
    if isinstance(inner, Refusal):
        return inner
    if fill is None or fill > _MASKED or inner.mask is not None:
        return Refusal("its scores are replaced by a number that is not very negative")
    condition = _unexpanded(node.required(0))
    if fill == -math.inf:
        return replace(inner, mask=condition)
    zero = rw.constant(np.zeros((), to_numpy(str(node.output.dtype))))
    operands = [condition, zero, node.required(2)]
    mask = rw.emit("Where", operands, node.output.dtype, condition.shape)
    return replace(inner, mask=mask)


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
        condition = node.required(0) if fill is not None and fill <= _MASKED else mask
    if condition.dtype != "bool":
        return False, mask
    if _is_causal(rw, condition, full):
        return True, None
    joined = condition.producer
    if condition is mask and joined is not None and joined.kind == "And":
        for index in (0, 1):
            if _is_causal(rw, _unexpanded(joined.required(index)), full):
                return True, _unexpanded(joined.required(1 - index))
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
    return bool(np.all(matrix[seen] == 0) and np.all(matrix[~seen] <= _MASKED))


RULES = (Rule("attention", ("MatMul",), attention),)
