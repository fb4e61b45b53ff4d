"""Products with transposed operands, factors and activations."""

from __future__ import annotations

from clinfer.graph.contrib.activations import activated
from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value


def _fused_matmul(make: Maker) -> Value:
    """alpha * op(A) @ op(B)."""
    a, b = (_operand(make, index, letter) for index, letter in enumerate("AB"))
    product = make("MatMul", a, b)
    alpha = make.attr("alpha", 1.0)
    return product if alpha == 1 else make("Mul", product, make.like(alpha, make.x(0)))


def _operand(make: Maker, index: int, letter: str) -> Value:
    """A matrix with its first axis moved behind the batch, and then the last two swapped."""
    rank = len(make.shape(index))
    perm = list(range(rank))
    if make.attr(f"transBatch{letter}", 0) and rank > 2:
        perm = [*perm[1:-1], 0, rank - 1]
    if make.attr(f"trans{letter}", 0) and rank > 1:
        perm[-2:] = perm[:-3:-1]
    if perm == sorted(perm):
        return make.x(index)
    return make.transpose(make.x(index), *perm)


def _fused_gemm(make: Maker) -> Value:
    kept = {n: make.attr(n) for n in ("alpha", "beta", "transA", "transB")}
    attrs = {n: v for n, v in kept.items() if v is not None}
    result = make("Gemm", make.x(0), make.x(1), make.input(2), **attrs)
    numbers = [make.attr(f"activation_{name}") for name in ("alpha", "beta")]
    if make.attr("activation") == "Selu":
        numbers[1] = make.attr("activation_gamma")
    return activated(make, result, make.x(0), make.attr("activation", ""), numbers)


def _conv_attributes(make: Maker) -> dict[str, object]:
    names = ("group", "pads", "strides", "dilations", "kernel_shape", "auto_pad")
    return {n: make.attr(n) for n in names if make.attr(n) is not None}


def _fused_conv(make: Maker) -> Value:
    """Conv, plus Z, through an activation."""
    x = make("Conv", make.x(0), make.x(1), make.input(2), **_conv_attributes(make))
    total = make.sum(x, make.input(3))
    numbers = list(make.attr("activation_params", []))
    return activated(make, total, make.x(0), make.attr("activation", ""), numbers)


def _nhwc_conv(make: Maker) -> Value:
    """The same with channels last, in the weights too."""
    rank = len(make.shape(0))
    first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
    x, w = (make.transpose(make.x(index), *first) for index in (0, 1))
    x = make("Conv", x, w, make.input(2), **_conv_attributes(make))
    total = make.sum(make.transpose(x, *last), make.input(3))
    numbers = list(make.attr("activation_params", []))
    return activated(make, total, make.x(0), make.attr("activation", ""), numbers)


def _fused_matmul_activation(make: Maker) -> Value:
    numbers = [make.attr(f"activation_{name}") for name in ("alpha", "beta")]
    if make.attr("activation") == "Selu":
        numbers[1] = make.attr("activation_gamma")
    if make.attr("activation") == "Softmax":
        return make("Softmax", _fused_matmul(make), axis=make.attr("activation_axis", -1))
    return activated(make, _fused_matmul(make), make.x(0), make.attr("activation"), numbers)


def _fast_gelu(make: Maker) -> Value:
    """Gelu of X @ W + bias by tanh."""
    total = make.sum(make("MatMul", make.x(0), make.x(1)), make.input(2))
    return make("Gelu", total, approximate="tanh")


def _distances(make: Maker) -> Value:
    """Between all rows of two matrices, [M, K]."""
    make.only("metric", "sqeuclidean", "euclidean")
    a, b = (make("Unsqueeze", make.x(i), make.constant([1 - i])) for i in (0, 1))
    apart = make("Sub", a, b)
    squares = make("ReduceSum", make("Mul", apart, apart), make.constant([2]), keepdims=0)
    return squares if make.attr("metric") == "sqeuclidean" else make("Sqrt", squares)


RULES: dict[str, Rule] = {
    "CDist": _distances,
    "FusedMatMulActivation": _fused_matmul_activation,
    "GemmFastGelu": _fast_gelu,
    "NhwcFusedConv": _nhwc_conv,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "FusedGemm": _fused_gemm,
    "FusedConv": _fused_conv,
    "NhwcConv": _nhwc_conv,
}
