"""Matrix products, sums of products, attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer.operators import Operator, plain
from clinfer.operators.relations import (
    attribute,
    dim,
    multiple,
    rank,
    same,
    shaped,
    spread,
    spread_to,
)
from clinfer.operators.values import (
    NATURAL,
    POSITIVE,
    SWITCH,
    among,
    at_least,
    matching,
    shortened,
    words,
)
from clinfer_kernels.dims import Dim, floordiv

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call

_EQUATION = matching(
    r"(?a:[A-Za-z. ]*(,[A-Za-z. ]*)*(->[A-Za-z. ]*)?)", "letters, '...', ',' and one '->'"
)
_PADDED_MASK = 24  # the first version whose masks may be shorter than the keys


def _gemm_c(call: Call) -> tuple[Dim, ...]:
    a, b = call.shape(0), call.shape(1)
    return a[1 if call.attr("transA", 0) else 0], b[0 if call.attr("transB", 0) else 1]


def _einsum(call: Call) -> None:
    """As many terms as inputs; the result names letters of the terms, each once."""
    equation = str(call.attr("equation", "")).replace(" ", "")
    terms, _, result = equation.partition("->")
    if len(terms.split(",")) != call.count:
        raise call.error(
            f"a term for each of {call.count} inputs expected in {shortened(equation)}"
        )
    letters = result.replace("...", "")
    if len(set(letters)) != len(letters) or not set(letters) <= set(terms.replace(".", "")):
        raise call.error(
            f"the result of {shortened(equation)} names letters of the terms, each once"
        )
    if any("." in t.replace("...", "", 1) for t in (*terms.split(","), result)):
        raise call.error(f"at most one '...' a term expected in {shortened(equation)}")


def _attention(call: Call) -> None:
    """Heads, sizes of heads and lengths of queries, keys, values, past and mask fit each other."""
    batch, heads, queries, size = _heads(call, 0, "q_num_heads")
    _, groups, keys, key_size = _heads(call, 1, "kv_num_heads")
    _, value_groups, values, value_size = _heads(call, 2, "kv_num_heads")
    for index in (1, 2):
        call.equal(call.shape(index)[0], batch, f"the batches of inputs {index} and 0")
    call.equal(key_size, size, "the sizes of the heads of K and Q")
    call.equal(value_groups, groups, "the numbers of heads of V and K")
    call.equal(values, keys, "the lengths of V and K")
    if isinstance(groups, int):
        whole = floordiv(heads, groups) * groups if groups else 0
        call.equal(whole, heads, "the heads of Q, a multiple of K's, and those that share")
    past: Dim = 0
    if call.has(4):
        past = call.shape(4)[2] if call.rank(4) == 4 else 0
        same(call, 4, (batch, groups, past, size), "the past keys")
    if call.has(5):
        same(call, 5, (batch, groups, past, value_size), "the past values")
    if call.has(3):
        _mask(call, (batch, heads, queries, keys + past))


def _heads(call: Call, index: int, name: str) -> tuple[Dim, Dim, Dim, Dim]:
    """[batch, heads, length, size of a head] of queries, keys or values."""
    shape = call.shape(index)
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    count = call.attr(name)
    if count is None:
        raise call.error(f"the attribute '{name}' expected, as input {index} has 3 dimensions")
    multiple(dim(index, 2), attribute(name, 1))(call)
    return shape[0], int(count), shape[1], floordiv(shape[2], int(count))


def _mask(call: Call, scores: tuple[Dim, ...]) -> None:
    own = call.shape(3)
    if not own:
        raise call.error("a mask of at least one dimension expected")
    if 0 < call.node.version < _PADDED_MASK or own[-1] == 1:
        spread_to(call, 3, scores, "the scores [batch, heads, queries, keys]")
        return
    spread_to(call, 3, (*scores[:-1], own[-1]), "the scores [batch, heads, queries, keys]")
    call.at_most(own[-1], scores[-1], "the last axis of the mask and the number of keys")


def _rotary(call: Call) -> None:
    """Caches [positions, half] with position_ids [batch, length], else [batch, length, half]."""
    x = call.shape(0)
    heads = int(call.attr("num_heads", 0))
    if len(x) == 3 and heads < 1:
        raise call.error("'num_heads' expected, as the input has 3 dimensions")
    if len(x) == 3:
        multiple(dim(0, 2), heads)(call)
    batch, length = x[0], x[-2]
    size = x[3] if len(x) == 4 else floordiv(x[2], heads)
    rotated: Dim = int(call.attr("rotary_embedding_dim", 0)) or size
    call.at_most(rotated, size, "'rotary_embedding_dim' and the size of a head")
    half = floordiv(rotated, 2)
    for index in (1, 2):
        cache = call.shape(index)
        wanted = (cache[0], half) if call.has(3) else (batch, length, half)
        same(call, index, wanted, "what is rotated, by halves of heads,")
    if call.has(3):
        same(call, 3, (batch, length), "the batch and its steps")


_LINEAR_KEYS = attribute("kv_num_heads", 1)

OPERATORS = (
    *plain("MatMul"),
    Operator(
        "Det",
        relations=(
            rank(0, least=2),
            lambda c: c.equal(c.shape(0)[-2], c.shape(0)[-1], "the sides"),
        ),
    ),
    Operator("Einsum", {"equation": _EQUATION}, (_einsum,)),
    Operator(
        "Gemm",
        relations=(rank(0, 2), rank(1, 2), spread(2, _gemm_c, "the product [rows, columns]")),
    ),
    Operator(
        "Attention",
        {
            "q_num_heads": POSITIVE,
            "kv_num_heads": POSITIVE,
            "is_causal": SWITCH,
            "qk_matmul_output_mode": among(0, 1, 2, 3),
            "softmax_precision": among(0, 1, 10, 11, 16),
            "left_window_size": at_least(-1),
            "right_window_size": at_least(-1),
        },
        (rank(0, 3, 4), rank(1, 3, 4), rank(2, 3, 4), _attention, shaped(6, dim(0, 0))),
    ),
    Operator(
        "ai.onnx.preview.FlexAttention",
        {"softmax_precision": among(0, 1, 10, 11, 16)},
        (rank(0, 4), rank(1, 4), rank(2, 4), _attention),
    ),
    Operator(
        "RotaryEmbedding",
        {"num_heads": NATURAL, "rotary_embedding_dim": NATURAL, "interleaved": SWITCH},
        (rank(0, 3, 4), _rotary),
    ),
    Operator(
        "LinearAttention",
        {
            "update_rule": words("linear", "gated", "delta", "gated_delta"),
            "q_num_heads": POSITIVE,
            "kv_num_heads": POSITIVE,
            "chunk_size": POSITIVE,
        },
        (
            rank(0, 3),
            multiple(dim(0, 2), attribute("q_num_heads", 1)),
            *(shaped(i, dim(0, 0), dim(0, 1), None) for i in (1, 2, 4, 5)),
            multiple(dim(1, 2), _LINEAR_KEYS),
            multiple(dim(2, 2), _LINEAR_KEYS),
            shaped(3, dim(0, 0), _LINEAR_KEYS, None, None),
        ),
    ),
)
