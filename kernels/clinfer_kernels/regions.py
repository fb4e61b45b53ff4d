"""What a kernel touches of each operand: the views of a spec, and which of their sizes are one.

A family's loops take a size from one operand and use it for others, so a launch stays inside its
buffers when two things hold for the sizes of the run: sizes that share a letter here are equal, and
each view listed here lies inside its buffer. `clinfer.lowering.bounds` proves both.

Letters stand for dimensions; `*` for any number of leading ones, the same in every operand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from clinfer_kernels.dims import Dim, floordiv, minimum, product
from clinfer_kernels.spec import Tensor


class Regions(NamedTuple):
    """`views`: (kind, index, view) as `Arg` names buffers. `equal`: pairs of sizes that must be.
    `at_most`: pairs whose first must not exceed the second."""

    views: tuple[tuple[str, int, Tensor], ...]
    equal: tuple[tuple[Dim, Dim], ...]
    at_most: tuple[tuple[Dim, Dim], ...] = ()


def regions(spec: Any) -> Regions:
    """The regions of a spec. `KeyError` for a type of spec that is not in the table."""
    found: Regions = _TABLE[type(spec).__name__](spec)
    return found


def _whole(spec: Any) -> list[tuple[str, int, Tensor]]:
    return [
        *(("in", i, t) for i, t in enumerate(spec.ins)),
        *(("out", i, t) for i, t in enumerate(spec.outs)),
    ]


def _equal(shapes: Sequence[Sequence[Dim]]) -> Iterator[tuple[Dim, Dim]]:
    """Pairs that must be equal for all shapes to be one."""
    for shape in shapes[1:]:
        yield from (pair for pair in zip(shapes[0], shape, strict=True) if pair[0] != pair[1])


def _alike(spec: Any) -> Regions:
    shapes = [t.shape for _, _, t in _whole(spec)]
    return Regions(tuple(_whole(spec)), tuple(_equal(shapes)))


def _named(spec: Any, names: Sequence[str]) -> Iterator[tuple[Dim, Dim]]:
    """Pairs of sizes under one letter; `names` are those of the inputs, then of the outputs."""
    known: dict[str, Dim] = {}
    for (_, _, tensor), letters in zip(_whole(spec), names, strict=True):
        leading = tensor.rank - len(letters.lstrip("*"))
        for axis, size in enumerate(tensor.shape):
            name = f"*{axis}" if axis < leading else letters.lstrip("*")[axis - leading]
            if name != "." and known.setdefault(name, size) != size:
                yield known[name], size


def _by_letters(own: Sequence[str], extra: str) -> Callable[[Any], Regions]:
    """Operands named by `own`, then operands and outputs of the result's form `extra`."""

    def found(spec: Any) -> Regions:
        count = len(spec.ins) - len(own) + len(spec.outs)
        return Regions(tuple(_whole(spec)), tuple(_named(spec, [*own, *[extra] * count])))

    return found


def _encoded(spec: Any) -> Regions:
    """A matrix product; scales and zero points, which come last, are matrices by block."""
    _, *by_block = spec.places
    operands = ["*mn"] * (by_block[0] - 2)
    names = ["*mk", "*kn", *operands, *["bn"] * len(by_block), "*mn"]
    blocks, inner = spec.ins[by_block[0]].shape[0], spec.ins[1].shape[-2]
    return Regions(tuple(_whole(spec)), (*_named(spec, names), (blocks * spec.block, inner)))


def _row_matmul(spec: Any) -> Regions:
    """A matrix product; sums of A's rows and operands along them come last, and after the result
    a row's mean and deviation and the sums of its rows."""
    operands = len(spec.epilogue.inputs) - 1
    names = ["*mk", "*kn", *["*mn"] * operands]
    equal: list[tuple[Dim, Dim]] = []
    if spec.norm is not None:
        names += ["*mc2", *["k"] * (len(spec.norm.inputs) - 1)]
        equal.append((spec.ins[2 + operands].shape[-2] * 64, spec.ins[0].shape[-1]))
    names += ["*mn", *["*m1", "*m1"] * spec.keeps, *["*md2"] * spec.sums]
    if spec.sums:
        equal.append((spec.outs[-1].shape[-2] * 64, spec.outs[0].shape[-1]))
    pairs = (*_named(spec, names), *(pair for pair in equal if pair[0] != pair[1]))
    return Regions(tuple(_whole(spec)), pairs)


def _iota(spec: Any) -> Regions:
    return Regions(tuple(_whole(spec)), ())


def _reduce(spec: Any) -> Regions:
    """Operands of the prologue have the input's shape; the others that with the axes at 1."""
    count = len(spec.prologue.inputs)
    shape = spec.ins[0].shape
    kept = tuple(1 if i in spec.axes else d for i, d in enumerate(shape))
    equal = [
        *_equal([shape, *(t.shape for t in spec.ins[:count])]),
        *_equal([kept, *(t.shape for t in (*spec.ins[count:], *spec.outs))]),
    ]
    return Regions(tuple(_whole(spec)), tuple(equal))


def _window(spec: Any) -> Regions:
    """Convolutions: batch and channels; kernels test a window's positions against the input."""
    source, weights = spec.ins[:2]
    channels, filters = source.shape[-1], spec.outs[0].shape[-1]
    own = (filters, channels) if not spec.transposed else (channels, filters)
    equal: list[tuple[Dim, Dim]] = [
        (source.shape[0], spec.outs[0].shape[0]),
        (own[0], weights.shape[0]),
        (own[1], weights.shape[1] * spec.groups),
        *zip(spec.kernel, weights.shape[2:], strict=True),
        *_equal([t.shape for t in (spec.outs[0], *spec.ins[2 : spec.count])]),
        *_equal([t.shape for t in (source, *spec.ins[spec.count :])]),
    ]
    return Regions(tuple(_whole(spec)), _different(equal))


def _projected(spec: Any) -> Regions:
    """As a convolution, with what is projected beside it."""
    source, weights, side = spec.ins[0], spec.ins[1], spec.ins[spec.count]
    made = spec.outs[0].shape
    taps = product(spec.kernel)
    equal: list[tuple[Dim, Dim]] = [
        (source.shape[0], made[0]),
        (made[-1], weights.shape[0]),
        (source.shape[-1] * taps + side.shape[-1], weights.shape[1]),
        *_equal([made[:-1], side.shape[:-1]]),
        *_equal([t.shape for t in (spec.outs[0], *spec.ins[2 : spec.count])]),
    ]
    return Regions(tuple(_whole(spec)), _different(equal))


def _pool(spec: Any) -> Regions:
    source, made = spec.ins[0], spec.outs[0]
    equal = [
        (source.shape[0], made.shape[0]),
        (source.shape[-1], made.shape[-1]),
        *_equal([t.shape for t in (*spec.outs, *spec.ins[1:])]),
    ]
    return Regions(tuple(_whole(spec)), _different(equal))


def _resize(spec: Any) -> Regions:
    pairs = enumerate(zip(spec.ins[0].shape, spec.outs[0].shape, strict=True))
    equal = [pair for axis, pair in pairs if axis not in spec.axes]
    equal += _equal([t.shape for t in (*spec.outs, *spec.ins[1:])])
    return Regions(tuple(_whole(spec)), _different(equal))


def _grid_sample(spec: Any) -> Regions:
    """Batch, channels and pixels; some element is read for every one that is written."""
    x, grid, *operands = spec.ins
    made = spec.outs[0]
    equal = [
        (x.shape[0], made.shape[0]),
        (x.shape[-1], made.shape[-1]),
        (grid.shape[-1], x.rank - 2),
        *zip(grid.shape[:-1], made.shape[:-1], strict=True),
        *_equal([made.shape, *(t.shape for t in operands)]),
    ]
    some = tuple((minimum(made.size, 1), size) for size in x.shape[1:-1])
    return Regions(tuple(_whole(spec)), _different(equal), some)


def _attention(spec: Any) -> Regions:
    names = ["bhqd", "bgkd", "bgke", *["bhqk"] * spec.has_mask, "bhqe"]
    heads, groups = spec.ins[0].shape[1], spec.ins[1].shape[1]
    equal = [*_named(spec, names), (floordiv(heads, groups) * groups, heads)]
    return Regions(tuple(_whole(spec)), _different(equal))


def _gather(spec: Any) -> Regions:
    """The data is walked along the result's loops, except along the axes that indices select."""
    from clinfer_kernels.gather import views

    data, indices = spec.ins
    moved, where, _ = views(spec)
    shape = spec.outs[0].shape
    walked = [("in", 0, moved), ("in", 1, where), ("out", 0, spec.outs[0])]
    shapes = [shape, moved.shape, where.shape]
    at_most: tuple[tuple[Dim, Dim], ...] = ()
    if spec.kind == "elements":
        pairs = enumerate(zip(indices.shape, data.shape, strict=True))
        at_most = tuple(pair for axis, pair in pairs if axis != spec.axis)
    else:
        first, count = (
            (spec.axis, 1) if spec.kind == "axis" else (spec.batch_dims, indices.shape[-1])
        )
        behind = data.shape[first + count :]
        shapes.append((*data.shape[:first], *shape[first : len(shape) - len(behind)], *behind))
    return Regions((*walked, *_whole(spec)), tuple(_equal(shapes)), at_most)


def _scatter(spec: Any) -> Regions:
    """The result has the data's shape; updates are walked along the indices' loops."""
    data, indices, updates = spec.ins
    made = spec.outs[0]
    equal = list(_equal([made.shape, data.shape]))
    at_most: tuple[tuple[Dim, Dim], ...] = ()
    if spec.kind == "elements":
        equal += _equal([indices.shape, updates.shape])
        pairs = enumerate(zip(indices.shape, made.shape, strict=True))
        at_most = tuple(pair for axis, pair in pairs if axis != spec.axis)
    else:
        count = int(indices.shape[-1])
        equal += _equal([(*indices.shape[:-1], *data.shape[count:]), updates.shape])
    return Regions(tuple(_whole(spec)), tuple(equal), at_most)


def _pad(spec: Any) -> Regions:
    """Modes other than a constant read some element for every one they write."""
    pairs = zip(spec.outs[0].shape, spec.ins[0].shape, strict=True)
    some = tuple((minimum(made, 1), source) for made, source in pairs)
    return Regions(tuple(_whole(spec)), (), () if spec.mode == "constant" else some)


def _topk(spec: Any) -> Regions:
    source, made = spec.ins[0].shape, spec.outs[0].shape
    pairs = enumerate(zip(source, made, strict=True))
    equal = [pair for axis, pair in pairs if axis != spec.axis]
    equal += _equal([t.shape for t in spec.outs])
    return Regions(tuple(_whole(spec)), _different(equal), ((made[spec.axis], source[spec.axis]),))


def _recurrent(spec: Any) -> Regions:
    """In the order of `RecurrentSpec`; gates are padded to P places, so R has its own letters."""
    flags = (
        (spec.has_state, "dnh"),
        (spec.has_cells, "dnh"),
        (spec.has_lengths, "n"),
        (spec.has_peepholes, "d.p"),
    )
    weights = "d.hg." if spec.packed else "d.h"
    names = ["tndgp", weights, *(name for has, name in flags if has)]
    names += ["dp"] * (len(spec.ins) - len(names))
    names += ["tdnh", "dnh", "dnh"][: len(spec.outs)]
    gates, units = spec.ins[0].shape[3:]
    rows, hidden = spec.ins[1].shape[1:3]
    expected = floordiv(units, spec.ins[1].shape[-1]) if spec.packed else gates * hidden
    equal = [*_named(spec, names), (rows, expected)]
    return Regions(tuple(_whole(spec)), _different(equal))


def _forest(spec: Any) -> Regions:
    """What nodes name is proved where they are made; rows must have their features."""
    names = ["nf", "m4", "r", "v2"][: len(spec.ins)]
    pairs = tuple(_named(spec, [*names, "nt"]))
    return Regions(tuple(_whole(spec)), pairs, ((spec.features, spec.ins[0].shape[1]),))


def _different(pairs: Sequence[tuple[Dim, Dim]]) -> tuple[tuple[Dim, Dim], ...]:
    return tuple(pair for pair in pairs if pair[0] != pair[1])


_TABLE: dict[str, Callable[[Any], Regions]] = {
    "PointwiseSpec": _alike,
    "IotaSpec": _iota,
    "RandomSpec": lambda spec: Regions(tuple(_whole(spec)), ()),
    "ReduceSpec": _reduce,
    "SoftmaxSpec": _alike,
    "NormSpec": _alike,
    "MatmulSpec": _by_letters(("*mk", "*kn"), "*mn"),
    "RowMatmulSpec": _row_matmul,
    "EncodedMatmulSpec": _encoded,
    "AttentionSpec": _attention,
    "ConvSpec": _window,
    "PreparedConvSpec": _window,
    "ProjectedConvSpec": _projected,
    "PoolSpec": _pool,
    "ResizeSpec": _resize,
    "GridSampleSpec": _grid_sample,
    "GatherSpec": _gather,
    "ScatterSpec": _scatter,
    "PadSpec": _pad,
    "ScanSpec": _alike,
    "TopKSpec": _topk,
    "SuppressSpec": _by_letters(("nb4", "ncb", "ncb", "", ""), "nck"),
    "RoiAlignSpec": _by_letters(("nchw", "r4", "r"), "rcyx"),
    "MaxRoiPoolSpec": _by_letters(("nchw", "r5"), "rcyx"),
    "ForestSpec": _forest,
    "RecurrentSpec": _recurrent,
}
