"""Col2Im: columns put back into the image they are blocks of, overlaps added up."""

from __future__ import annotations

from math import prod

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.maker import Maker, count
from clinfer.passes.canonicalise.told import Told, is_known, is_readable
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.query import integers
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, floordiv, product

_MOST_TAPS = 1024  # of a block: the filters that pick its elements are as many, squared
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def col2im(rw: Rewriter, node: Node) -> Outcome:
    """[N, C * block, blocks] -> [N, C, image...].

    Blocks that tile the image are a transpose. Others are a ConvTranspose with a group for each
    channel: its filter takes a block's element from the channel that has it.
    """
    x = node.required(0)
    block = integers(node.required(2))
    if x.dtype not in _FLOATS:
        return Refusal("it is not in floating point")
    if block is None or not is_known(node.required(1)):
        return _added(rw, node)
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
    taps = prod(block)
    if taps > _MOST_TAPS:
        return Refusal(f"its block has more than {_MOST_TAPS} elements")
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


def _added(rw: Rewriter, node: Node) -> Outcome:
    """The image's or the block's shape in data: every element is added where it belongs.

    Element (tap, block) of an axis is at block * stride + tap * dilation - pad; what is beside the
    image goes into a place behind it.
    """
    x, image, block = (node.required(index) for index in range(3))
    if not (is_readable(image) and is_readable(block)):
        return Refusal("its sizes are computed from data")
    make, told = Maker(rw), Told(rw, node)
    batch, channels, *sizes = node.output.known_shape
    rank = len(sizes)
    strides, dilations = (node.attrs.get(n, [1] * rank) for n in ("strides", "dilations"))
    pads = node.attrs.get("pads", [0] * (2 * rank))
    told.give_all(sizes, told.content(image))
    taps = [n if is_known(block) else told.size(n) for n in told.content(block)]
    told.give(channels, floordiv(x.known_shape[1], product(taps)))
    told.require(channels * product(taps), x.known_shape[1], "channels times a block's elements")
    told.emit()
    counts: list[Dim] = []
    flat: Value | None = None
    inside: Value | None = None
    for a in range(rank):
        room = sizes[a] + pads[a] + pads[rank + a] - dilations[a] * (taps[a] - 1) - 1
        counts.append(floordiv(room, strides[a]) + 1)
        forms: list[list[Dim]] = [[1] * (2 * rank), [1] * (2 * rank)]
        forms[0][a], forms[1][rank + a] = taps[a], counts[a]
        tap = make("Mul", count(rw, taps[a], tuple(forms[0])), dilations[a])
        start = make("Mul", count(rw, counts[a], tuple(forms[1])), strides[a])
        place = make("Sub", make("Add", tap, start), pads[a])
        low = make("GreaterOrEqual", place, 0, dtype="bool")
        fits = make("And", low, make("Less", place, make.size(sizes[a]), dtype="bool"))
        inside = fits if inside is None else make("And", inside, fits)
        flat = place if flat is None else make("Add", make("Mul", flat, make.size(sizes[a])), place)
    assert flat is not None
    assert inside is not None
    total, lines = product(sizes), batch * channels
    each = product(taps) * product(counts)
    slots = make("Where", inside, flat, make.size(total), dtype="int64")
    spread = rw.emit("Expand", [rw.reshape(slots, (1, each))], "int64", (lines, each))
    zero = rw.constant(np.zeros((1, 1), to_numpy(str(x.dtype))))
    empty = rw.emit("Expand", [zero], x.dtype, (lines, total + 1))
    attrs = {"axis": 1, "reduction": "add", "positions": "natural"}
    inputs = [empty, spread, rw.reshape(x, (lines, each))]
    added = rw.emit("ScatterElements", inputs, x.dtype, (lines, total + 1), attrs=attrs, version=18)
    kept = emit_slice(rw, added, {1: (0, 1)}, Value("", x.dtype, (lines, total)))
    return rw.reshape(kept, node.output.known_shape)


def _tiles(rw: Rewriter, x: Value, apart: tuple[Dim, ...], like: Value) -> Value:
    """[N, C, block..., counts...] -> [N, C, count, block, ...] -> [N, C, image...]."""
    rank = (len(apart) - 2) // 2
    pairs = [axis for a in range(rank) for axis in (2 + rank + a, 2 + a)]
    moved = rw.transpose(rw.reshape(x, apart), (0, 1, *pairs))
    return rw.reshape(moved, like.known_shape)


RULES = (Rule("col2im", ("Col2Im",), col2im),)
