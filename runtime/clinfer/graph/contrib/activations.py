"""Activations with bias, and what is fused behind products."""

from __future__ import annotations

from clinfer.graph.contrib.maker import Maker, Rule
from clinfer.graph.ir import Value

_MOST = 2**31 - 1
_NUMBERS = {
    **dict.fromkeys(("LeakyRelu", "Elu", "ThresholdedRelu"), ("alpha",)),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
}


def _gelu(make: Maker) -> Value:
    return make("Gelu", make.sum(make.x(0), make.input(1)))


def _fast_gelu(make: Maker) -> Value:
    return make("Gelu", make.sum(make.x(0), make.input(1)), approximate="tanh")


def quick(make: Maker, x: Value, alpha: float) -> Value:
    """x * sigmoid(alpha * x)."""
    return make("Swish", x, alpha=alpha)


def _quick_gelu(make: Maker) -> Value:
    return quick(make, make.x(0), make.attr("alpha", 1.702))


def _bias_split_gelu(make: Maker) -> Value:
    """The first half of the channels times Gelu of the second."""
    half = make.size(1, 0, "the number of channels") // 2
    biased = make.sum(make.x(0), make.x(1))
    gate = make("Gelu", make.slice(biased, -1, half, _MOST))
    return make("Mul", make.slice(biased, -1, 0, half), gate)


def _bias_add(make: Maker) -> Value:
    return make.sum(make.x(0), make.x(1), make.x(2))


def _bias_softmax(make: Maker) -> Value:
    """Softmax over all dimensions from `axis` on of data + bias."""
    rank = len(make.shape(0))
    axis = make.attr("axis", 1)
    axis += rank if axis < 0 else 0
    bias = make.x(1)
    missing = rank - len(make.shape(1))
    if not make.attr("is_inner_broadcast", 1) and missing > 0:
        raise make.error("a bias of the data's rank expected for an outer broadcast")
    total = make.sum(make.x(0), bias)
    if axis == rank - 1:
        return make("Softmax", total, axis=-1)
    flat = make("Softmax", make("Flatten", total, axis=axis), axis=-1)
    return make("Reshape", flat, make("Shape", make.x(0)))


def activated(make: Maker, x: Value, like: Value, kind: str, numbers: list[float | None]) -> Value:
    """A fused activation by its name and up to two numbers; '' is none."""
    if not kind:
        return x
    if "float" not in (like.dtype or "float32"):
        raise make.error(f"floats expected for the activation '{kind}', found {like!r}")
    if kind == "Clip":
        low, high = (None if n is None else make.like(n, like) for n in (*numbers, None, None)[:2])
        return make("Clip", x, low, high)
    pairs = zip(_NUMBERS.get(kind, ()), numbers, strict=False)
    return make(kind, x, **{name: n for name, n in pairs if n is not None})


RULES: dict[str, Rule] = {
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "BiasSplitGelu": _bias_split_gelu,
    "BiasAdd": _bias_add,
    "BiasSoftmax": _bias_softmax,
}
