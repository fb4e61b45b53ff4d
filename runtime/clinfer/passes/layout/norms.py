"""Norms of channels-first values that are there channels-last: group and instance norms.

A group norm reaches this pass as Norm(Reshape(Transpose(x))) or as Norm(Transpose(x)). Where what
it reduces trails in x too the transpose moves below it (`sink.below_trailing`); here is the rest.
"""

from __future__ import annotations

from clinfer.graph.ir import Node, Shape, Value
from clinfer.passes.canonicalise.norms import emit_norm, inverse_deviation, mean, moments
from clinfer.passes.layout.sink import transposed
from clinfer.passes.rewrite import Outcome, Rewriter, Rule
from clinfer_kernels.dims import product


def apart(rw: Rewriter, node: Node) -> Outcome:
    """Norm of [N, groups, the rest as one] with the rest's dimensions apart, as a transpose has it.

    With one group its dimension is left out.
    """
    joined = node.required(0)
    producer = joined.producer
    if producer is None or producer.kind != "Reshape" or "own" in node.attrs:
        return None
    whole = producer.required(0)
    shape, before = joined.known_shape, whole.known_shape
    if transposed(whole) is None or len(shape) != 3 or node.attrs["axes"] != 1 or len(before) < 3:
        return None
    groups, channels = shape[1], before[1]
    if not isinstance(groups, int) or not isinstance(channels, int) or groups < 1:
        return None
    each = channels // groups
    if shape[0] != before[0] or channels % groups or shape[2] != each * product(before[2:]):
        return None
    inner = before[1:] if groups == 1 else (groups, each, *before[2:])
    wide = rw.reshape(whole, (before[0], *inner))
    axes = len(before) - 1
    return rw.reshape(emit_norm(rw, wide, axes, node.attrs["eps"], node.attrs["rms"]), shape)


def below_norm(rw: Rewriter, node: Node) -> Outcome:
    """Norm(T(x)) = T of x, normalised over dimensions that do not all trail, by its statistics.

    Mean and variance of each channel are sums of rows; those of a group follow from its channels',
    which have equally many elements: the variance is the mean of their variances and of their
    means' squared distances to the group's (Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances", 1979). Nothing is subtracted that cancels.
    """
    found = transposed(node.required(0))
    if found is None or "own" in node.attrs or node.attrs["rms"]:
        return None
    x, perm = found
    rank = len(perm)
    reduced = set(perm[rank - node.attrs["axes"] :])
    tail = rank
    while tail - 1 in reduced:
        tail -= 1
    rows = sorted(axis for axis in reduced if axis < tail)
    if not rows or tail == 0:
        return None
    shape = x.known_shape
    flat = rw.reshape(x, (*shape[: tail - 1], product(shape[tail - 1 :])))
    center, variance = moments(rw, flat, rows)
    if tail < rank:
        center, variance = _joined(rw, center, variance, shape[tail - 1 :])
    scale = inverse_deviation(rw, variance, node.attrs["eps"])
    # Not the difference that the variance is made of: of two readers it would be kept for both.
    shift = rw.emit("Neg", [center], x.dtype, center.shape)
    away = rw.emit("Add", [flat, shift], x.dtype, flat.shape)
    made = rw.emit("Mul", [away, scale], x.dtype, flat.shape)
    return rw.transpose(rw.reshape(made, shape), perm)


def _joined(rw: Rewriter, center: Value, variance: Value, sizes: Shape) -> tuple[Value, Value]:
    """A group's mean and variance for each of its channels; `sizes` are [groups, in a group...]."""
    flat, dtype = center.known_shape, center.dtype
    wide = (*flat[:-1], *sizes)
    inner = list(range(len(flat), len(wide)))
    center, variance = rw.reshape(center, wide), rw.reshape(variance, wide)
    middle = mean(rw, center, inner)
    away = rw.emit("Sub", [center, middle], dtype, wide)
    squares = rw.emit("Mul", [away, away], dtype, wide)
    whole = mean(rw, rw.emit("Add", [variance, squares], dtype, wide), inner)
    repeated = (rw.emit("Expand", [value], dtype, wide) for value in (middle, whole))
    first, second = (rw.reshape(value, flat) for value in repeated)
    return first, second


APART = Rule("norm-apart", ("clinfer.Norm",), apart)
BELOW_NORM = Rule("below-norm", ("clinfer.Norm",), below_norm)
