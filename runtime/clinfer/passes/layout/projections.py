"""Projections of pixels, convolutions with a 1 x 1 window, go where there are fewest pixels.

A projection W is linear and treats pixels alike, a resize R is linear and treats channels alike:

    W Concat(R(a), b) = R(W1 a) + W2 b      W1, W2: the columns of W for a's and for b's channels
    W (x V + v)       = x (V W) + v W       x V: a product of matrices with a constant one

Segmentation heads bring feature maps of several sizes together this way (Xie et al., "SegFormer",
2021, section 3.2): projected first, the small ones stay small. Products of weights are taken in
float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.layout.sink import weight
from clinfer.passes.rewrite import Outcome, Rewriter, Rule
from clinfer_kernels.dims import product

# A resize is moved behind a projection that leaves fewer elements than so many times its own, ...
_MOST_WIDENED = 2
# ... where it makes so many times as many pixels at least.
_LEAST_ENLARGED = 2


def before_resize(rw: Rewriter, node: Node) -> Outcome:
    """W Concat(R(a), b, ...) = R(W1 a) + W2 Concat(b, ...)."""
    weights = _projection(node)
    if weights is None:
        return None
    parts = _parts(rw, node)
    if parts is None:
        return None
    small = [part for part in parts if _is_worth_moving(rw, part, weights.shape[0])]
    if not small:
        return None
    whole = [part for part in parts if part not in small]
    terms = [_project(rw, node, _joined(rw, whole), weights, whole)] if whole else []
    for part in small:
        resize = part.value.producer
        assert resize is not None
        made = _project(rw, node, resize.required(0), weights, [part])
        shape = (*part.value.known_shape[:-1], weights.shape[0])
        terms.append(rw.emit("Resize", [made], made.dtype, shape, attrs=resize.attrs))
    total = terms[0]
    for term in terms[1:]:
        total = rw.emit("Add", [total, term], total.dtype, node.output.shape)
    return total


@dataclass(frozen=True)
class Part:
    """One value that a projection reads: all its channels, or those from `start` on."""

    value: Value
    user: Node
    start: int
    channels: int

    def of(self, weights: Array) -> Array:
        """The columns of [M, C, 1, ...] for its channels."""
        return weights[:, self.start : self.start + self.channels]


def _projection(node: Node) -> Array | None:
    """The weights [M, C, 1, ...] of a convolution that is one; None for others."""
    weights = node.required(1).const
    window = (*node.attrs["kernel"], *node.attrs["strides"], node.attrs["group"])
    if weights is None or any(n != 1 for n in window) or any(node.attrs["pads"]):
        return None
    is_float = weights.dtype in (np.float32, np.float64)
    return weights if is_float and "own" not in node.attrs else None


def _parts(rw: Rewriter, node: Node) -> list[Part] | None:
    """What is concatenated before the projection, or its input alone."""
    x = node.required(0)
    joined = x.producer
    values, user = [x], node
    last = len(x.known_shape) - 1
    if joined is not None and joined.kind == "Concat" and joined.attrs["axis"] == last:
        if rw.graph.sole_user(x) is not node:
            return None
        values, user = [v for v in joined.inputs if v is not None], joined
    parts = []
    start = 0
    for value in values:
        channels = value.known_shape[-1]
        if not isinstance(channels, int):
            return None
        parts.append(Part(value, user, start, channels))
        start += channels
    return parts


def _is_worth_moving(rw: Rewriter, part: Part, filters: int) -> bool:
    """Whether the part is an enlarged map, read here only, that projected does not grow much."""
    resize = part.value.producer
    if resize is None or resize.kind != "Resize" or "scales" not in resize.attrs:
        return False
    if rw.graph.sole_user(part.value) is not part.user or "own" in resize.attrs:
        return False
    source = resize.required(0)
    last = len(source.known_shape) - 1
    if last in resize.attrs["axes"] or source.known_shape[-1] != part.channels:
        return False
    enlarged = weight(part.value) >= _LEAST_ENLARGED * weight(source)
    return enlarged and filters <= _MOST_WIDENED * part.channels


def _joined(rw: Rewriter, parts: Sequence[Part]) -> Value:
    values = [part.value for part in parts]
    if len(values) == 1:
        return values[0]
    shape = (*values[0].known_shape[:-1], sum(part.channels for part in parts))
    attrs = {"axis": len(shape) - 1}
    return rw.emit("Concat", values, values[0].dtype, shape, attrs=attrs)


def _project(rw: Rewriter, node: Node, x: Value, weights: Array, parts: Sequence[Part]) -> Value:
    """The projection of `x` by the columns for these parts."""
    columns = np.concatenate([part.of(weights) for part in parts], axis=1)
    shape = (*x.known_shape[:-1], weights.shape[0])
    inputs = [x, rw.constant(columns)]
    return rw.emit("Conv", inputs, x.dtype, shape, attrs=node.attrs, domain="clinfer")


def into_product(rw: Rewriter, node: Node) -> Outcome:
    """W (x V + v) = x (V W) + v W, where that is less work."""
    weights = _projection(node)
    if weights is None:
        return None
    found = _affine(rw, node)
    if found is None:
        return None
    x, matrix, shift = found
    k, c = matrix.shape
    w = weights.reshape(len(weights), c).T.astype(np.float64)
    m = w.shape[1]
    if k * m > k * c + c * m:
        return None
    merged = (matrix.astype(np.float64) @ w).astype(matrix.dtype)
    shape = (*x.known_shape[:-1], m)
    made = rw.emit("MatMul", [x, rw.constant(merged)], x.dtype, shape)
    if shift is not None:
        moved = (shift.astype(np.float64) @ w).astype(shift.dtype)
        made = rw.emit("Add", [made, rw.constant(moved)], x.dtype, shape)
    return rw.reshape(made, node.output.known_shape)


def _affine(rw: Rewriter, node: Node) -> tuple[Value, Array, Array | None] | None:
    """(x, V, v) where the projection reads x V + v, which nothing else does, reshaped at most."""
    value, user = node.required(0), node
    shift: Array | None = None
    while True:
        producer = value.producer
        if producer is None or rw.graph.sole_user(value) is not user:
            return None
        if producer.kind == "Reshape" and _keeps_channels(producer):
            value = producer.required(0)
        elif producer.kind == "Add" and shift is None:
            found = _shifted(producer)
            if found is None:
                return None
            value, shift = found
        elif producer.kind == "MatMul" and len(producer.inputs) == 2:
            matrix = producer.required(1).const
            if matrix is None or matrix.ndim != 2 or matrix.dtype not in (np.float32, np.float64):
                return None
            return producer.required(0), matrix, shift
        else:
            return None
        user = producer


def _keeps_channels(node: Node) -> bool:
    before, after = node.required(0).known_shape, node.output.known_shape
    if not before or not after or before[-1] != after[-1]:
        return False
    return product(before[:-1]) == product(after[:-1])


def _shifted(node: Node) -> tuple[Value, Array] | None:
    """(x, v) of x + v with v constant in all but the last dimension, which it fills."""
    for index in (0, 1):
        x, other = node.required(index), node.required(1 - index)
        if other.const is None or x.shape != node.output.shape:
            continue
        if other.const.size == x.known_shape[-1] == other.const.shape[-1]:
            return x, other.const.reshape(-1)
    return None


RULES = (
    Rule("before-resize", ("clinfer.Conv",), before_resize),
    Rule("into-product", ("clinfer.Conv",), into_product),
)
