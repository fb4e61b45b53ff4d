"""Two convolutions whose results are added become one product over both inputs' channels.

    (W1 * x + a) + (W2 y + b)   =   [W1 W2] over (windows of x, pixels of y)  +  (a + b)

with W2 a projection, a window of 1 x 1 at any strides: residual blocks that change the size or the
number of channels have such a shortcut. A GPU gets one launch instead of two, and the shortcut's
result is never stored. Weights lie as [M, taps * C + D, 1, ...], the window's as (tap, channel).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.rewrite import Outcome, Rewriter, Rule

_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Term:
    """A convolution with constant weights, and the sum with a constant by channel behind it."""

    conv: Node
    weights: Array
    bias: Array | None

    @property
    def is_projection(self) -> bool:
        """Whether each result is of one pixel."""
        attrs = self.conv.attrs
        return all(n == 1 for n in attrs["kernel"]) and not any(attrs["pads"])

    @property
    def flat(self) -> Array:
        """[M, taps * C]."""
        last = np.moveaxis(self.weights, 1, -1)
        return last.reshape(len(last), -1)


def project(rw: Rewriter, node: Node) -> Outcome:
    """Root: the sum."""
    if len(node.inputs) != 2 or node.required(0) is node.required(1):
        return None
    first, second = (_term(rw, node, node.required(i)) for i in (0, 1))
    if first is None or second is None:
        return None
    if not second.is_projection:
        first, second = second, first
    if not second.is_projection or first.weights.dtype != second.weights.dtype:
        return None
    x, shape = first.conv.required(0), node.output.known_shape
    side = _at_strides(rw, second.conv, shape)
    weights = np.concatenate([first.flat, second.flat], axis=1)
    weights = weights.reshape(*weights.shape, *[1] * (len(shape) - 2))
    inputs = [x, rw.constant(weights), side]
    attrs = dict(first.conv.attrs)
    made = rw.emit("ProjectedConv", inputs, node.output.dtype, shape, attrs=attrs, domain="clinfer")
    biases = [term.bias for term in (first, second) if term.bias is not None]
    if not biases:
        return made
    bias = biases[0] if len(biases) == 1 else (biases[0] + biases[1]).astype(biases[0].dtype)
    return rw.emit("Add", [made, rw.constant(bias)], made.dtype, shape)


def _at_strides(rw: Rewriter, conv: Node, shape: tuple[object, ...]) -> Value:
    """The pixels that a projection reads."""
    x, strides = conv.required(0), conv.attrs["strides"]
    if all(s == 1 for s in strides):
        return x
    axes = list(range(1, len(shape) - 1))
    attrs = {"axes": axes, "starts": [0] * len(axes), "steps": list(strides)}
    sizes = (*conv.output.known_shape[:-1], x.known_shape[-1])
    return rw.emit("Slice", [x], x.dtype, sizes, attrs=attrs)


def _term(rw: Rewriter, root: Node, value: Value) -> Term | None:
    """The term that gives a value which the root alone reads."""
    bias: Array | None = None
    node = value.producer
    if value.shape != root.output.shape or not _is_only(rw, value, root):
        return None
    if node is not None and node.kind == "Add":
        found = _with_bias(rw, node)
        if found is None:
            return None
        node, bias = found
    if node is None or node.kind != "clinfer.Conv" or node.attrs["group"] != 1:
        return None
    weights = node.required(1).const
    plain = node.attrs.keys().isdisjoint(("own", "zero", "prologue"))
    if weights is None or not plain or str(weights.dtype) not in _FLOATS:
        return None
    if not isinstance(node.required(0).known_shape[-1], int):
        return None
    return Term(node, weights, bias)


def _with_bias(rw: Rewriter, add: Node) -> tuple[Node, Array] | None:
    """(convolution, bias) of a sum with a constant by channel, or of one element."""
    for x, other in zip(add.inputs, reversed(add.inputs), strict=True):
        if x is None or other is None or other.const is None or x.producer is None:
            continue
        sizes = (1, *other.known_shape[-1:])
        fits = x.shape == add.output.shape and other.const.size in sizes
        if fits and _is_only(rw, x, add):
            return x.producer, other.const.reshape(-1)
    return None


def _is_only(rw: Rewriter, value: Value, reader: Node) -> bool:
    return value.users.are(reader) and not rw.graph.is_output(value)


RULES = (Rule("projected", ("Add",), project),)
