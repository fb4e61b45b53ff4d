"""Col2Im: columns put back into the image they are blocks of, overlaps added up."""

from __future__ import annotations

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Value
from clinfer.passes.query import integers
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, floordiv

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def col2im(rw: Rewriter, node: Node) -> Outcome:
    """[N, C * block, blocks] -> [N, C, image...].

    Blocks that tile the image are a transpose. Others are a ConvTranspose with a group for each
    channel: its filter takes a block's element from the channel that has it.
    """
    x = node.required(0)
    block = integers(node.required(2))
    if block is None or x.dtype not in _FLOATS:
        return Refusal("its block's shape is computed, or it is not in floating point")
    batch, channels, *image = node.output.known_shape
    rank = len(block)
    strides = list(node.attrs.get("strides", [1] * rank))
    dilations = list(node.attrs.get("dilations", [1] * rank))
    pads = list(node.attrs.get("pads", [0] * (2 * rank)))
    counts: list[Dim] = []
    behind: list[Dim] = []  # what no block reaches
    for a in range(rank):
        room = image[a] + pads[a] + pads[rank + a] - dilations[a] * (block[a] - 1) - 1
        counts.append(floordiv(room, strides[a]) + 1)
        behind.append(room % strides[a])
    whole = all(n * k == size for n, k, size in zip(counts, block, image, strict=True))
    if whole and strides == block and not any(pads) and dilations == [1] * rank:
        return _tiles(rw, x, (batch, channels, *block, *counts), node.output)
    if not all(isinstance(size, int) for size in (channels, *behind)):
        return Refusal("its channels, or what of the image no block reaches, are not known")
    assert isinstance(channels, int)
    taps = int(np.prod(block))
    blocks = rw.reshape(x, (batch, channels * taps, *counts))
    pick = np.tile(np.eye(taps, dtype=to_numpy(x.dtype)), (channels, 1))
    weights = rw.constant(pick.reshape(channels * taps, 1, *block))
    attrs = {
        "kernel_shape": block,
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
        "output_padding": behind,
        "group": channels,
    }
    shape = node.output.shape
    return rw.emit("ConvTranspose", [blocks, weights], x.dtype, shape, attrs=attrs, version=11)


def _tiles(rw: Rewriter, x: Value, apart: tuple[Dim, ...], like: Value) -> Value:
    """[N, C, block..., counts...] -> [N, C, count, block, ...] -> [N, C, image...]."""
    rank = (len(apart) - 2) // 2
    pairs = [axis for a in range(rank) for axis in (2 + rank + a, 2 + a)]
    moved = rw.transpose(rw.reshape(x, apart), (0, 1, *pairs))
    return rw.reshape(moved, like.known_shape)


RULES = (Rule("col2im", ("Col2Im",), col2im),)
