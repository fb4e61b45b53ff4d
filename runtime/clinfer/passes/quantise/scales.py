"""Behind products and sums of decoded values QuantizeLinear's scale goes into theirs.

    Q(c * k + b)       = Q1(c * (k / s) + b / s)           of what an integer product has made
    Q(D(a) + D(b))     = Q1(D'(a) + D'(b))                 D' with the scale of D over that of Q
    Q(x)               = Q1(x * (1 / s))                   of other ends of a product

Q1 has the scale 1. Such sums are rounded already; what is given or decoded by itself is divided, as
ONNX defines it, and so are sums whose scales have simple ratios to Q's: many of them lie halfway
between two integers, and the definition's own rounding decides where they go. A factor passes Relu,
LeakyRelu and Clip, whose bounds it changes.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.quantise.encoded import encoding
from clinfer.passes.rewrite import Outcome, Rewriter, Rule

_LARGEST = 128  # denominators beyond make halves rare
_DEPTH = 6  # operators between a product and the end that quantises
_PASSED = ("LeakyRelu", "Relu")  # f(x * k) = f(x) * k for positive k
_BETWEEN = ("Add", "Cast", "Clip", "LeakyRelu", "Mul", "Relu", "Sigmoid")


def scale_once(rw: Rewriter, node: Node) -> Outcome:
    """Q(x) of what is rounded already: x / scale as products made when the model is compiled."""
    scale = node.required(1).const
    if encoding(node) is None or scale is None or scale.reshape(-1)[0] == 1:
        return None
    factor = np.asarray(np.float32(1) / scale.reshape(()))
    x = node.required(0)
    if not np.isfinite(factor) or factor <= 0 or not _is_rounded(x, factor, _DEPTH):
        return None
    scaled = _scaled(rw, x, factor, _DEPTH)
    if scaled is None:
        scaled = rw.emit("Mul", [x, rw.constant(factor)], "float32", x.shape)
    inputs = [scaled, rw.constant(np.float32(1).reshape(())), *node.inputs[2:]]
    return rw.emit(
        node.op,
        inputs,
        node.output.dtype,
        node.output.shape,
        attrs=node.attrs,
        version=node.version,
    )


def _is_rounded(value: Value, factor: Array, depth: int) -> bool:
    """Whether an integer product made it, or a sum or product of decoded values."""
    node = value.producer
    if node is None or depth == 0:
        return False
    if node.op in ("MatMulInteger", "ConvInteger"):
        return True
    if node.op in ("Add", "Mul") and all(map(_is_decoded, node.inputs)):
        return not _has_halves(node, factor)
    if node.op not in _BETWEEN:
        return False
    return any(v is not None and _is_rounded(v, factor, depth - 1) for v in node.inputs)


def _has_halves(node: Node, factor: Array) -> bool:
    """Whether a sum or product of decoded values, by `factor`, often is an integer and a half."""
    scales: list[Array | None] = []
    for value in node.inputs:
        decoding = None if value is None else value.producer
        scales.append(None if decoding is None else decoding.required(1).const)
    if any(scale is None or scale.size != 1 for scale in scales):
        return False
    numbers = [float(np.float64(s.reshape(-1)[0]) * factor) for s in scales if s is not None]
    if node.op == "Mul":
        numbers = [numbers[0] * numbers[1] / float(factor)]
    return all(_is_simple(number) for number in numbers)


def _is_simple(number: float) -> bool:
    """Whether it is a fraction of small integers, as near as float32 holds one."""
    near = Fraction(number).limit_denominator(_LARGEST)
    return abs(number - near) <= 2.0**-21 * abs(number)


def _is_decoded(value: Value | None) -> bool:
    node = None if value is None else value.producer
    return node is not None and node.kind == "DequantizeLinear" and node.output.dtype == "float32"


def _scaled(rw: Rewriter, x: Value, factor: Array, depth: int) -> Value | None:
    """x * factor without a product more than x has; None where x does not take the factor in."""
    if x.const is not None:
        return rw.constant(np.asarray(x.const * factor)) if x.dtype == "float32" else None
    node = x.producer
    if node is None or depth == 0 or x.dtype != "float32":
        return None
    if _is_decoded(x):
        return _decoded(rw, node, factor)
    if len(x.users) != 1 or rw.graph.is_output(x):
        return None
    operands: list[Value | None]
    if node.op in _PASSED:
        operands = [_scaled(rw, node.required(0), factor, depth - 1)]
    elif node.op == "Mul":
        operands = _one_scaled(rw, node, factor, depth - 1)
    elif node.op == "Add" or (node.op == "Clip" and len(node.inputs) == 3):
        operands = [v and _scaled(rw, v, factor, depth - 1) for v in node.inputs]
    else:
        return None
    if any(v is None for v in operands):
        return None
    return rw.emit(node.op, operands, x.dtype, x.shape, attrs=node.attrs, version=node.version)


def _decoded(rw: Rewriter, node: Node, factor: Array) -> Value | None:
    """DequantizeLinear with a constant scale times `factor`."""
    scale = node.required(1).const
    if scale is None or scale.dtype != np.float32:
        return None
    product = np.asarray(scale * factor)
    if not np.isfinite(product).all():
        return None
    inputs = [node.inputs[0], rw.constant(product), *node.inputs[2:]]
    shape = node.output.shape
    return rw.emit(node.op, inputs, "float32", shape, attrs=node.attrs, version=node.version)


def _one_scaled(rw: Rewriter, node: Node, factor: Array, depth: int) -> list[Value | None]:
    """The operands of a Mul, the first of them that takes the factor in with it."""
    a, b = node.required(0), node.required(1)
    for one, other in ((b, a), (a, b)) if b.const is not None else ((a, b), (b, a)):
        scaled = _scaled(rw, one, factor, depth)
        if scaled is not None:
            return [scaled, other]
    return [None]


RULES = (Rule("scale-once", ("QuantizeLinear",), scale_once),)
