"""Mixtures of experts: MoE and QMoE.

All experts are one product in and one product out: their first weights stand side by side, their
second ones below each other, and between the two an expert's columns are multiplied by its share of
a token, 0 for those that the router did not choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.contrib.packed import codes_of, decoded
from clinfer.graph.ir import Array, Value

_HALVES = ("swiglu", "geglu")


@dataclass(frozen=True)
class _Layer:
    """Inputs of one of an expert's products, by number: weights, bias, scales, zero points."""

    weights: int
    bias: int
    scales: int = -1
    zeros: int = -1
    bits: str = ""


_FLOATS = (_Layer(2, 3), _Layer(4, 5), _Layer(6, 7))
_CODES = (
    _Layer(2, 4, 3, 11, "fc1_expert_weight_bits"),
    _Layer(5, 7, 6, 12, "fc2_expert_weight_bits"),
    _Layer(8, 10, 9, 13, "fc3_expert_weight_bits"),
)
_ROUTER_WEIGHTS = 14
# A matrix [rows, columns] of all experts from one expert's [E, N, K], and its product with x.
Product = Callable[[Value, _Layer, bool], Value]


def _moe(make: Maker) -> Value:
    """Shares are those of a softmax over all experts, or over the chosen ones."""
    x, experts = _tokens(make), make.size(1, 1, "the number of experts")

    def product(x: Value, layer: _Layer, is_last: bool) -> Value:
        weights = make.x(layer.weights)
        _, rows, inner = (make.size(layer.weights, axis, "a weight's sizes") for axis in range(3))
        if not is_last:
            weights = make.transpose(make.reshape(weights, experts * rows, inner), 1, 0)
        else:
            weights = make.reshape(make.transpose(weights, 0, 2, 1), experts * inner, rows)
        return make("MatMul", x, weights)

    logits = make.x(1)
    if make.attr("normalize_routing_weights", 0):
        chosen, scores = _chosen(make, logits)
        shares = make("Softmax", scores, axis=-1)
    else:
        chosen, shares = _chosen(make, make("Softmax", logits, axis=-1))
    return _mixed(make, x, _dense(make, chosen, shares, experts), _FLOATS, product)


def _quantised(make: Maker) -> Value:
    """Weights in codes; shares of the chosen ones, or given ones."""
    make.only("quant_type", "int")
    make.only("weights_prepacked", -1, 0)
    x, experts = _tokens(make), make.size(1, 1, "the number of experts")
    make.refuse(fc1_global_scale=15, fc2_global_scale=16, fc1_act_scale=17, fc2_act_scale=18)
    make.refuse(fc1_act_block_scale=19, fc2_act_block_scale=20)

    def product(x: Value, layer: _Layer, is_last: bool) -> Value:
        *parts, size = _blocks(make, layer, experts)
        codes, scales, zeros = (_stacked(part, is_last) for part in parts)
        weights = decoded(make, codes, scales, zeros, size, make.x(0).dtype or "float32")
        return make("MatMul", x, weights)

    chosen, scores = _chosen(make, make.x(1))
    given = make.input(_ROUTER_WEIGHTS)
    if given is None:
        shares = make("Softmax", scores, axis=-1)
    else:
        shares = make("GatherElements", given, chosen, axis=1)
        if make.attr("normalize_routing_weights", 0):
            total = make("ReduceSum", shares, make.constant([-1]))
            shares = make("Div", shares, total)
    return _mixed(make, x, _dense(make, chosen, shares, experts), _CODES, product)


def _tokens(make: Maker) -> Value:
    """The tokens [T, H]."""
    make.only("use_sparse_mixer", 0)
    return make.reshape(make.x(0), -1, make.size(0, -1, "the size of a token"))


def _chosen(make: Maker, scores: Value) -> tuple[Value, Value]:
    """The numbers of the k best experts of each token and their scores, [T, k]."""
    best, numbers = make.several("TopK", 2, scores, make.constant([make.attr("k", 1)]), axis=-1)
    return numbers, best


def _dense(make: Maker, chosen: Value, shares: Value, experts: int) -> Value:
    """Each expert's share of each token, [T, E, 1]."""
    sizes = make("Concat", make.dim(chosen, 0), make.constant([experts]), axis=0)
    none = make("Expand", make.like(0, make.x(1)), sizes)
    return make("Unsqueeze", make("ScatterElements", none, chosen, shares, axis=1), _axis(make))


def _axis(make: Maker) -> Value:
    return make.constant([2])


def _mixed(
    make: Maker, x: Value, shares: Value, layers: tuple[_Layer, ...], product: Product
) -> Value:
    """Sum over experts e of share[e] * (f(x @ W1[e] + b1[e]) @ W2[e] + b2[e])."""
    first, second, third = layers
    experts = make.size(1, 1, "the number of experts")

    def apart(layer: _Layer) -> Value:
        """x @ W + b of each expert, [T, E, N]."""
        rows = make.size(layer.weights, 1, "a weight's rows")
        found = make.reshape(product(x, layer, False), 0, experts, rows)
        return make.sum(found, make.input(layer.bias))

    gate = apart(first)
    linear = None if make.input(third.weights) is None else apart(third)
    inner = _activated(make, gate, linear, make.size(first.weights, 1, "a weight's rows"))
    seen = make("Greater", shares, make.like(0, make.x(1)))
    weighted = make("Where", seen, make("Mul", inner, shares), make.like(0, make.x(0)))
    result = product(make.reshape(weighted, 0, -1), second, True)
    bias = make.input(second.bias)
    if bias is not None:
        flat = make("Squeeze", shares, _axis(make))
        result = make("Add", result, make("MatMul", flat, bias))
    return make("Reshape", result, make("Shape", make.x(0)))


def _activated(make: Maker, gate: Value, linear: Value | None, rows: int) -> Value:
    """[T, E, I] of what the first products [T, E, N] give."""
    kind, fusion = make.attr("activation_type", "relu"), make.attr("swiglu_fusion", 0)
    if kind in _HALVES and linear is None:
        if fusion == 1:
            gate, linear = (make.slice(gate, 2, start, rows, 2) for start in (0, 1))
        elif fusion == 2:
            gate, linear = (
                make.slice(gate, 2, start, start + rows // 2) for start in (0, rows // 2)
            )
        else:
            raise make.error(
                f"attribute 'swiglu_fusion': 1 or 2 expected where {kind} has no fc3 weights, "
                f"found {fusion}"
            )
    bent = _bent(make, kind, gate)
    if linear is None:
        return bent
    if kind == "swiglu":
        limit = make.attr("swiglu_limit")
        if limit is not None:
            low, high = (make.like(sign * limit, make.x(0)) for sign in (-1, 1))
            linear = make("Clip", linear, low, high)
        beta = make.attr("activation_beta", 0.0)
        linear = linear if beta == 0 else make("Add", linear, make.like(beta, make.x(0)))
    return make("Mul", bent, linear)


def _bent(make: Maker, kind: str, gate: Value) -> Value:
    if kind == "swiglu":
        alpha, limit = make.attr("activation_alpha", 1.0), make.attr("swiglu_limit")
        high = None if limit is None else make.like(limit, make.x(0))
        late = bool(make.attr("swiglu_limit_after_activation", 0))
        if high is not None and not late:
            gate = make("Min", gate, high)
        bent = make("Swish", gate, alpha=alpha)
        return make("Min", bent, high) if high is not None and late else bent
    functions: dict[str, Callable[[Value], Value]] = {
        "relu": lambda x: make("Relu", x),
        "relu2": lambda x: make("Mul", make("Relu", x), make("Relu", x)),
        "gelu": lambda x: make("Gelu", x, approximate="tanh"),
        "geglu": lambda x: make("Gelu", x, approximate="tanh"),
        "silu": lambda x: make("Swish", x, alpha=1.0),
        "identity": lambda x: x,
    }
    return functions[kind](gate)


def _blocks(make: Maker, layer: _Layer, experts: int) -> tuple[Array, Array, Array, int]:
    """Codes [E, N, K], scales and zero points [E, N, K / size], the size of a block."""
    bits = make.attr(layer.bits, make.attr("expert_weight_bits", 4))
    if bits not in (2, 4, 8):
        raise make.error(f"weights of 2, 4 or 8 bits supported, found {bits}")
    codes = codes_of(make.content(layer.weights), bits)
    _, rows, inner = codes.shape
    size = make.attr("block_size", 0)
    size = size if size > 0 else inner
    wanted = (experts, rows, inner // size)
    if inner % size or codes.shape[0] != experts:
        raise make.error(
            f"input {layer.weights}: {experts} experts with rows of whole blocks of {size} "
            f"expected, found codes {list(codes.shape)}"
        )
    scales = _whole(make, layer.scales, make.content(layer.scales), wanted)
    if make.input(layer.zeros) is None:
        return codes, scales, np.full(wanted, 1 << (bits - 1), np.uint8), size
    packed = codes_of(make.content(layer.zeros), bits)
    count = rows if packed.ndim == 2 else wanted[2]
    return codes, scales, _whole(make, layer.zeros, packed[..., :count], wanted), size


def _whole(make: Maker, index: int, content: Array, wanted: tuple[int, ...]) -> Array:
    """What belongs to blocks [E, N, blocks]; where there is one block, [E, N] too."""
    if content.shape != wanted and (*content.shape, 1) != wanted:
        raise make.error(
            f"input {index}: {list(wanted)} expected for codes [experts, rows, columns], found "
            f"{make.x(index)!r}; weights in an order of a GPU's own are not supported"
        )
    return content.reshape(wanted)


def _stacked(part: Array, is_last: bool) -> Any:
    """[E, N, K] side by side, [K, E * N], or below each other, [E * K, N]."""
    if is_last:
        return part.transpose(0, 2, 1).reshape(-1, part.shape[1])
    return part.reshape(-1, part.shape[2]).T


RULES: dict[str, Rule] = {"MoE": _moe, "QMoE": _quantised}
