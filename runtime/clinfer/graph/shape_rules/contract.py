"""Matrix products, einsum and attention."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Shape
from clinfer.graph.shape_call import Call, Rule, Type
from clinfer.operators.values import shortened
from clinfer_kernels.dims import Dim, floordiv


def product_shape(call: Call, left: Shape, right: Shape) -> Shape:
    """The shape of NumPy's matmul: 1-d operands act as a row or a column that is dropped."""
    if not left or not right:
        raise call.error("operands with at least one dimension expected")
    a = (1, *left) if len(left) == 1 else left
    b = (*right, 1) if len(right) == 1 else right
    call.equal(a[-1], b[-2], "the inner sizes of the product")
    result = [*call.broadcast(a[:-2], b[:-2]), a[-2], b[-1]]
    if len(right) == 1:
        del result[-1]
    if len(left) == 1:
        del result[-1 if len(right) == 1 else -2]
    return tuple(result)


def matmul(call: Call) -> list[Type]:
    """MatMul: [..., M, K] @ [..., K, N]."""
    return [Type(call.dtype(0), product_shape(call, call.shape(0), call.shape(1)))]


def matmul_integer(call: Call) -> list[Type]:
    """MatMulInteger: an int32 product."""
    return [Type("int32", product_shape(call, call.shape(0), call.shape(1)))]


def quantized_matmul(call: Call) -> list[Type]:
    """QLinearMatMul: inputs a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero."""
    return [Type(call.dtype(7), product_shape(call, call.shape(0), call.shape(3)))]


def gemm(call: Call) -> list[Type]:
    """Gemm: alpha * op(A) @ op(B) + beta * C."""
    a, b = list(call.shape(0)), list(call.shape(1))
    if call.attr("transA", 0):
        a.reverse()
    if call.attr("transB", 0):
        b.reverse()
    return [Type(call.dtype(0), product_shape(call, tuple(a), tuple(b)))]


def einsum(call: Call) -> list[Type]:
    """Einsum: letters name dimensions; '...' stands for those that broadcast."""
    equation = str(call.attr("equation", "")).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    letters: dict[str, Dim] = {}
    ellipsis: Shape = ()
    for index, term in enumerate(terms.split(",")):
        ellipsis = _read_term(call, index, term, letters, ellipsis)
    if not arrow:
        flat = terms.replace(",", "").replace(".", "")
        once = sorted(letter for letter in set(flat) if flat.count(letter) == 1)
        result = ("..." if "..." in terms else "") + "".join(once)
    before, dots, after = result.partition("...")
    sizes = [letters[x] for x in before] + list(ellipsis if dots else ())
    return [Type(call.dtype(0), (*sizes, *(letters[x] for x in after)))]


def _read_term(
    call: Call, index: int, term: str, letters: dict[str, Dim], ellipsis: Shape
) -> Shape:
    shape = call.shape(index)
    before, dots, after = term.partition("...")
    named = len(before) + len(after)
    if len(shape) < named or (not dots and len(shape) != named):
        raise call.error(f"input {index} does not fit the term {shortened(term)}")
    tail = len(shape) - len(after)
    pairs: list[tuple[str, Dim]] = list(zip(before, shape, strict=False))
    pairs += zip(after, shape[tail:], strict=True)
    for letter, size in pairs:
        known = letters.setdefault(letter, size)
        if known == 1:
            letters[letter] = size
        elif size != 1:
            call.equal(known, size, f"the sizes named '{letter}'")
    return call.broadcast(ellipsis, shape[len(before) : tail]) if dots else ellipsis


def attention(call: Call) -> list[Type]:
    """Attention: Y as Q with V's head size; then the present keys, values, and the scores."""
    q, k, v = call.shape(0), call.shape(1), call.shape(2)
    dtype = call.dtype(0)
    past: Dim = call.shape(4)[2] if call.has(4) else 0
    if len(q) == 4:
        heads, kv_heads = q[1], k[1]
        lengths = (q[2], k[2] + past)
        result: Sequence[Dim] = (q[0], q[1], q[2], v[3])
        head_k, head_v = k[3], v[3]
    else:
        heads, kv_heads = int(call.attr("q_num_heads", 1)), int(call.attr("kv_num_heads", 1))
        head_k, head_v = floordiv(k[2], kv_heads), floordiv(v[2], kv_heads)
        lengths = (q[1], k[1] + past)
        result = (q[0], q[1], heads * head_v)
    return [
        Type(dtype, tuple(result)),
        Type(dtype, (q[0], kv_heads, lengths[1], head_k)),
        Type(dtype, (q[0], kv_heads, lengths[1], head_v)),
        Type(dtype, (q[0], heads, *lengths)),
    ]


def determinant(call: Call) -> list[Type]:
    """Det: the batch dimensions."""
    return [Type(call.dtype(0), call.shape(0)[:-2])]


RULES: dict[str, Rule] = {
    "MatMul": matmul,
    "MatMulInteger": matmul_integer,
    "QLinearMatMul": quantized_matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    "Attention": attention,
    "Det": determinant,
}
