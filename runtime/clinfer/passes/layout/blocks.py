"""Convolutions of a few filters, which leave most of a vector's lanes empty, get more of them.

A block of neighbouring pixels of the result counts as one pixel with a filter for each of them: the
window is as much wider, with zeros where a pixel's own window does not reach.

    y[w * b + j, m] = sum over t, c of x[(w * b + j) * s + t, c] W[m, c, t]
                    = sum over u, c of x[w * b * s + u, c] W'[j * M + m, c, u]
    W'[j * M + m, c, j * s + t] = W[m, c, t]    s: the stride

A transposed convolution is one of as many filters as its strides have phases, at the input's pixels
(Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016): as rows lie in
memory the phases of the innermost axis are in place.

Zeros are multiplied too: an infinity or NaN makes NaN of all results of the blocks that read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.rewrite import Outcome, Rewriter, Rule
from clinfer_kernels.dims import Dim, ceildiv

# Filters that a block may have: a vector of the widest.
_LANES = 16
_FEW = 4
# A block has to make so many times as much of the lanes, what it multiplies by zero counted.
_LEAST_GAIN = 1.2
# Sums of fewer products are not what such a convolution takes its time for.
_LEAST_DEPTH = 8


def few_filters(rw: Rewriter, node: Node) -> Outcome:
    """A convolution of a few filters, a block of its innermost axis at a time."""
    attrs, weights = node.attrs, _plain(node)
    if weights is None or weights[0].size < _LEAST_DEPTH:
        return None
    filters, taps = weights.shape[0], weights.shape[-1]
    if filters > _FEW:
        return None
    stride = attrs["strides"][-1]
    block = _block(filters, taps, stride)
    reach = taps + stride * (block - 1)
    shape = node.output.known_shape
    width = shape[-2]
    if block < 2 or (isinstance(width, int) and width < 2 * block):
        return None
    wide = np.zeros((block, *weights.shape[:-1], reach), weights.dtype)
    for pixel in range(block):
        wide[pixel, ..., pixel * stride : pixel * stride + taps] = weights
    wide = wide.reshape(block * filters, *wide.shape[2:])
    pads = list(attrs["pads"])
    pads[-1] += stride * (block - 1)
    blocks = ceildiv(width, block)
    changed = {
        **attrs,
        "kernel": [*attrs["kernel"][:-1], reach],
        "strides": [*attrs["strides"][:-1], block * stride],
        "pads": pads,
    }
    made = _convolve(rw, node, wide, (*shape[:-2], blocks, block * filters), changed)
    made = rw.reshape(made, (*shape[:-2], blocks * block, filters))
    return _cut(rw, made, [0] * len(shape), shape)


def _block(filters: int, taps: int, stride: int) -> int:
    """The pixels of a block: those whose lanes do most; 1 where none does enough more than now."""
    blocks = range(1, _LANES // filters + 1)
    kept = {b: filters * b * taps / (taps + stride * (b - 1)) for b in blocks}
    best = max(kept, key=lambda b: kept[b])
    # Half a vector is as fast as a whole one where the rest of it would be empty.
    half = _LANES // 2
    lanes = {b: half if filters * b <= half else _LANES for b in (1, best)}
    gain = kept[best] / lanes[best] / (kept[1] / lanes[1])
    return best if gain >= _LEAST_GAIN else 1


def by_phases(rw: Rewriter, node: Node) -> Outcome:
    """A transposed convolution of a few filters as one with those of all phases."""
    attrs, weights = node.attrs, _plain(node)
    strides = attrs["strides"]
    if weights is None or weights.shape[1] > _FEW or prod(strides) < 2:
        return None
    rank = len(strides)
    source, shape = node.required(0).known_shape, node.output.known_shape
    taps = [-(-attrs["kernel"][a] // strides[a]) for a in range(rank)]
    frames: list[Dim] = []
    starts, pads = [0], [0] * (2 * rank)
    for a in range(rank):
        whole = source[1 + a] + (taps[a] - 1)
        skipped, start = divmod(attrs["pads"][a], strides[a])
        rest = (whole - skipped) * strides[a] - start - shape[1 + a]
        if not isinstance(rest, int) or rest < 0 or skipped >= taps[a]:
            return None
        behind = min(rest // strides[a], taps[a] - 1)
        frames.append(whole - skipped - behind)
        pads[a], pads[rank + a] = taps[a] - 1 - skipped, taps[a] - 1 - behind
        starts.append(start)
    filters = _phases(weights, taps, strides)
    changed = {**attrs, "kernel": taps, "strides": [1] * rank, "pads": pads}
    made = _convolve(rw, node, filters, (source[0], *frames, len(filters)), changed, op="Conv")
    channels = weights.shape[1]
    if rank > 1:
        made = rw.reshape(made, (source[0], *frames, *strides, channels))
        pairs = [i for a in range(rank) for i in (1 + a, 1 + rank + a)]
        made = rw.transpose(made, [0, *pairs, 1 + 2 * rank])
    sizes = [frames[a] * strides[a] for a in range(rank)]
    made = rw.reshape(made, (source[0], *sizes, channels))
    return _cut(rw, made, [*starts, 0], shape)


def _phases(weights: Array, taps: Sequence[int], strides: Sequence[int]) -> Array:
    """[C, M, window...] as [phases * M, C, taps...], the last tap first."""
    rank = len(taps)
    room = [(0, taps[a] * strides[a] - weights.shape[2 + a]) for a in range(rank)]
    full = np.pad(weights, ((0, 0), (0, 0), *room))
    apart = [n for a in range(rank) for n in (taps[a], strides[a])]
    split = full.reshape(*weights.shape[:2], *apart)
    order = [*range(3, 3 + 2 * rank, 2), 1, 0, *range(2, 2 + 2 * rank, 2)]
    turned = np.flip(split.transpose(order), tuple(range(rank + 2, 2 * rank + 2)))
    return np.ascontiguousarray(turned).reshape(-1, weights.shape[0], *taps)


def _plain(node: Node) -> Array | None:
    """The constant weights of one group of floats, with taps side by side; None for others."""
    weights = node.required(1).const
    if weights is None or weights.dtype != np.float32 or node.attrs["group"] != 1:
        return None
    is_plain = set(node.attrs["dilations"]) == {1} and "own" not in node.attrs
    return weights if is_plain and "zero" not in node.attrs else None


def _convolve(
    rw: Rewriter,
    node: Node,
    weights: Array,
    shape: Sequence[Dim],
    attrs: dict[str, Any],
    op: str = "Conv",
) -> Value:
    inputs = [node.required(0), rw.constant(weights)]
    return rw.emit(op, inputs, node.output.dtype, tuple(shape), attrs=attrs, domain="clinfer")


def _cut(rw: Rewriter, x: Value, starts: Sequence[int], shape: Sequence[Dim]) -> Value:
    """`shape` of x from `starts` on."""
    if x.known_shape == tuple(shape):
        return x
    axes = [a for a, size in enumerate(x.known_shape) if size != shape[a] or starts[a]]
    attrs = {"axes": axes, "starts": [starts[a] for a in axes], "steps": [1] * len(axes)}
    return rw.emit("Slice", [x], x.dtype, tuple(shape), attrs=attrs)


RULES = (
    Rule("phases-as-filters", ("clinfer.ConvTranspose",), by_phases),
    Rule("pixels-as-filters", ("clinfer.Conv",), few_filters),
)
