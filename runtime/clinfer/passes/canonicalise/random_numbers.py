"""Random numbers by a generator that counts: `clinfer.Random` of a key, and arithmetic on it.

With a seed the key is a constant; without one a host step gives a fresh key in each inference.
"""

from __future__ import annotations

from math import isnan

import numpy as np

from clinfer.graph.ir import OWN_DOMAIN, Node, Value
from clinfer.passes.canonicalise.maker import Maker, sizes_value
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim

_BELOW_1 = float(np.float32(1 - 2**-23))


def uniform(rw: Rewriter, node: Node) -> Outcome:
    """RandomUniform(Like): low + u * (high - low)."""
    low = float(node.attrs.get("low", 0.0))
    return _like(rw, node, "uniform", float(node.attrs.get("high", 1.0)) - low, low)


def normal(rw: Rewriter, node: Node) -> Outcome:
    """RandomNormal(Like): mean + n * scale."""
    scale, mean = (float(node.attrs.get(n, d)) for n, d in (("scale", 1.0), ("mean", 0.0)))
    return _like(rw, node, "normal", scale, mean)


def bernoulli(rw: Rewriter, node: Node) -> Outcome:
    """Bernoulli(p): u < p."""
    make, p = Maker(rw), node.required(0)
    drawn = _numbers(rw, node, "uniform", p.known_shape)
    hit = make("Less", drawn, make.cast(p, "float32"), dtype="bool")
    return make.cast(hit, str(node.output.dtype))


def multinomial(rw: Rewriter, node: Node) -> Outcome:
    """Multinomial(logarithms [B, C]): how many running sums of e^x are not above u times the last.

    u times the sum stays below the sum, so that a class of probability 0 is never drawn.
    """
    x = node.required(0)
    rows, classes = x.known_shape
    if classes == 0:
        return Refusal("it has no classes")
    make = Maker(rw)
    x = make.cast(x, "float32")
    axes = {"axes": [1], "keepdims": 1}
    most = rw.emit("ReduceMax", [x], "float32", (rows, 1), attrs=axes, version=12)
    weights = make("Exp", make("Sub", x, most))
    axis = rw.constant(np.array(1, np.int64))
    sums = rw.emit("CumSum", [weights, axis], "float32", x.known_shape, version=14)
    whole = rw.emit("ReduceMax", [sums], "float32", (rows, 1), attrs=axes, version=12)
    samples = int(node.attrs.get("sample_size", 1))
    drawn = make(
        "Mul", _numbers(rw, node, "uniform", (rows, samples)), make("Mul", whole, _BELOW_1)
    )
    spread = rw.reshape(drawn, (rows, samples, 1)), rw.reshape(sums, (rows, 1, classes))
    passed = make.cast(make("GreaterOrEqual", *spread, dtype="bool"), "int32")
    last = {"axes": [2], "keepdims": 0}
    found = rw.emit("ReduceSum", [passed], "int32", (rows, samples), attrs=last, version=12)
    return make.cast(found, str(node.output.dtype))


def _like(rw: Rewriter, node: Node, kind: str, scale: float, shift: float) -> Outcome:
    drawn = _numbers(rw, node, kind, node.output.known_shape, scale, shift)
    return Maker(rw).cast(drawn, str(node.output.dtype))


def _numbers(
    rw: Rewriter,
    node: Node,
    kind: str,
    shape: tuple[Dim, ...],
    scale: float = 1.0,
    shift: float = 0.0,
) -> Value:
    form = rw.constant(np.array([scale, shift], np.float32))
    inputs = [_key(rw, node), form, sizes_value(rw, shape)]
    attrs = {"kind": kind}
    return rw.emit("Random", inputs, "float32", shape, attrs=attrs, domain=OWN_DOMAIN)


def _key(rw: Rewriter, node: Node) -> Value:
    """The bits of the seed, or what a host step gives."""
    seed = node.attrs.get("seed")
    if seed is None or isnan(seed):
        return rw.emit("Seed", [], "uint32", (2,), domain=OWN_DOMAIN)
    return rw.constant(np.array([seed, 0], np.float32).view(np.uint32))


RULES = (
    Rule("random-uniform", ("RandomUniform", "RandomUniformLike"), uniform),
    Rule("random-normal", ("RandomNormal", "RandomNormalLike"), normal),
    Rule("bernoulli-to-less", ("Bernoulli",), bernoulli),
    Rule("multinomial-to-sums", ("Multinomial",), multinomial),
)
