"""Operators that only say how elements are read: one form for each kind of view."""

from __future__ import annotations

import numpy as np

from clinfer.dtypes import BY_NAME, NARROW_DTYPES, to_numpy
from clinfer.graph.ir import Node, Shape, Value
from clinfer.passes.query import (
    first_index,
    integers,
    is_at_least,
    normal_axis,
    positive_symbols,
    scalar,
    sizes,
)
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, is_static

_NOT_KNOWN = "its sizes are computed from data"


def drop_identity(_: Rewriter, node: Node) -> Outcome:
    """Identity(x) = x."""
    return node.required(0)


def drop_dropout(rw: Rewriter, node: Node) -> Outcome:
    """In inference Dropout is the identity and its mask all true."""
    training = node.input(2)
    if training is not None and scalar(training) is not False:
        return Refusal("it may be in training mode")
    x = node.required(0)
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if mask is None or not (mask.users or rw.graph.is_output(mask)):
        return x
    if mask.dtype != "bool":
        return Refusal("its mask is read and is not boolean")
    ones = rw.constant(np.ones((), dtype=bool))
    return [x, rw.emit("Expand", [ones], "bool", x.shape)]


def drop_cast(rw: Rewriter, node: Node) -> Outcome:
    """Casting to the same dtype is the identity; casting like another value names the dtype."""
    x = node.required(0)
    dtype = str(node.output.dtype)
    if x.dtype == dtype:
        return x
    if node.op == "Cast":
        return None
    attrs = {"to": BY_NAME[dtype].onnx}
    if dtype in NARROW_DTYPES:
        attrs.update({k: v for k, v in node.attrs.items() if k in ("saturate", "round_mode")})
        return rw.emit("Cast", [x], dtype, x.shape, attrs=attrs, version=node.version)
    if x.const is not None:
        return rw.constant(x.const.astype(to_numpy(dtype)))
    return rw.emit("Cast", [x], dtype, x.shape, attrs=attrs, version=13)


def to_reshape(rw: Rewriter, node: Node) -> Outcome:
    """Reshape, Flatten, Squeeze, Unsqueeze become Reshape(x); chains become one."""
    x = node.required(0)
    shape = node.output.known_shape
    index = None if node.op == "Flatten" else 1
    given = None if index is None else node.input(index)
    if given is not None and sizes(given) is None:
        return Refusal(_NOT_KNOWN)
    if x.shape == shape or (x.const is not None and is_static(shape)):
        return rw.reshape(x, shape)
    producer = x.producer
    if producer is not None and producer.kind == "Reshape" and len(producer.inputs) == 1:
        return rw.reshape(producer.required(0), shape)
    if node.op == "Reshape" and len(node.inputs) == 1 and not node.attrs:
        return None
    return rw.reshape(x, shape)


def to_transpose(rw: Rewriter, node: Node) -> Outcome:
    """Transpose has `perm`; chains become one, and one that moves nothing goes."""
    x = node.required(0)
    given = "perm" in node.attrs
    perm: list[int] = list(node.attrs.get("perm", reversed(range(len(x.known_shape)))))
    made = rw.transpose(x, perm)
    same = made.producer is not None and made.producer.inputs == [x]
    return None if given and same else made


def to_expand(rw: Rewriter, node: Node) -> Outcome:
    """Expand(x); sizes are the output's shape."""
    x = node.required(0)
    shape = node.output.known_shape
    if len(node.inputs) > 1 and sizes(node.input(1)) is None:
        return Refusal(_NOT_KNOWN)
    if x.shape == shape:
        return x
    producer = x.producer
    if producer is not None and producer.kind == "Expand" and len(producer.inputs) == 1:
        return rw.emit("Expand", [producer.required(0)], x.dtype, shape)
    if len(node.inputs) == 1:
        return None
    return rw.emit("Expand", [x], x.dtype, shape)


def to_slice(rw: Rewriter, node: Node) -> Outcome:
    """Slice(x) with attributes `axes`, `starts`, `steps`."""
    x = node.required(0)
    shape = x.known_shape
    if "steps" in node.attrs:
        return x if shape == node.output.shape and not node.attrs["axes"] else None
    starts = sizes(node.input(1))
    if starts is None or sizes(node.input(2)) is None:
        return Refusal(_NOT_KNOWN)
    axes = list(range(len(starts))) if node.input(3) is None else integers(node.input(3))
    steps = [1] * len(starts) if node.input(4) is None else integers(node.input(4))
    if axes is None or steps is None:
        return Refusal("its axes or steps are computed from data")
    kept: dict[int, tuple[Dim, int]] = {}
    for axis, start, step in zip(axes, starts, steps, strict=True):
        where = normal_axis(axis, len(shape))
        first = first_index(start, where, shape, step)
        whole = step == 1 and shape[where] == node.output.known_shape[where]
        if not whole:
            kept[where] = (first, step)
    return emit_slice(rw, x, kept, node.output)


def emit_slice(rw: Rewriter, x: Value, kept: dict[int, tuple[Dim, int]], like: Value) -> Value:
    """A canonical Slice of the shape of `like`; `kept` maps an axis to (first index, step)."""
    if not kept:
        return x
    axes = sorted(kept)
    attrs = {
        "axes": axes,
        "starts": [kept[a][0] for a in axes],
        "steps": [kept[a][1] for a in axes],
    }
    return rw.emit("Slice", [x], x.dtype, like.shape, attrs=attrs)


def split_to_slices(rw: Rewriter, node: Node) -> Outcome:
    """Each part of a Split becomes a Slice."""
    x = node.required(0)
    parts = [v for v in node.outputs if v is not None]
    if len(parts) < len(node.outputs):
        return Refusal("a part of it is not read, so that its size is not known")
    if node.input(1) is not None and sizes(node.input(1)) is None:
        return Refusal(_NOT_KNOWN)
    axis = normal_axis(node.attrs.get("axis", 0), len(x.known_shape))
    start: Dim = 0
    made: list[Value | None] = []
    for part in parts:
        whole = part.known_shape == x.shape
        made.append(emit_slice(rw, x, {} if whole else {axis: (start, 1)}, part))
        start = start + part.known_shape[axis]
    return made


def gather_to_slice(rw: Rewriter, node: Node) -> Outcome:
    """Gather at one known place, or at consecutive ones, is a Slice (and a Reshape)."""
    x = node.required(0)
    indices = node.required(1)
    places = sizes(indices)
    shape = x.known_shape
    if not places or len(indices.known_shape) > 1:
        return None
    axis = normal_axis(node.attrs.get("axis", 0), len(shape))
    first = places[0]
    if isinstance(first, int) and first < 0:
        first = first + shape[axis]
    if not _in_range(places[0], shape, axis):
        return Refusal("whether its index is negative is not known")
    if any(places[i] != places[0] + i for i in range(len(places))):
        return None
    count = len(places)
    if isinstance(places[0], int) and places[0] < 0 < count + places[0]:
        return None
    part = take_part(rw, node, x, axis, first, count)
    return rw.reshape(part, node.output.known_shape)


def take_part(rw: Rewriter, node: Node, x: Value, axis: int, start: Dim, count: Dim) -> Value:
    """`count` places of x along `axis` from `start` on; every run is required to have them."""
    size = x.known_shape[axis]
    if start == 0 and size == count:
        return x
    if not is_at_least(start, 0, frozenset()):
        message = f"{node.describe()}: its indices begin at {start} along axis {axis}"
        rw.graph.require(0, start, message, "at most")
    rw.graph.require(
        start + count,
        size,
        f"{node.describe()}: its indices reach {start + count} where the data has {size} places "
        f"along axis {axis}",
        "at most",
    )
    shape = (*x.known_shape[:axis], count, *x.known_shape[axis + 1 :])
    return emit_slice(rw, x, {axis: (start, 1)}, Value("", x.dtype, shape))


def _in_range(index: Dim, shape: Shape, axis: int) -> bool:
    """Whether an index is inside, as far as is known; a symbolic one must not be negative."""
    size = shape[axis]
    if not isinstance(index, int):
        return is_at_least(index, 0, positive_symbols(shape))
    return not isinstance(size, int) or -size <= index < size


def to_concat(rw: Rewriter, node: Node) -> Outcome:
    """Concat has a non-negative axis and no empty inputs; of one input it is the identity."""
    parts = [v for v in node.inputs if v is not None]
    rank = max(len(v.known_shape) for v in parts)
    axis = normal_axis(node.attrs["axis"], rank)
    kept = [v for v in parts if len(v.known_shape) == rank and v.known_shape[axis] != 0]
    kept = kept or parts[:1]
    if len(kept) == 1:
        return kept[0]
    if len(kept) == len(parts) and node.attrs["axis"] == axis:
        return None
    return rw.emit("Concat", kept, node.output.dtype, node.output.shape, attrs={"axis": axis})


def tile_to_views(rw: Rewriter, node: Node) -> Outcome:
    """Tile(x, r) = Reshape(Expand(Reshape(x, [1, d...]), [r, d...]), [r * d...])."""
    x = node.required(0)
    repeats = sizes(node.required(1))
    if repeats is None:
        return Refusal(_NOT_KNOWN)
    narrow: list[Dim] = []
    wide: list[Dim] = []
    for dim, count in zip(x.known_shape, repeats, strict=True):
        if count != 1 and dim != 1:
            narrow.append(1)
            wide.append(count)
        narrow.append(dim)
        wide.append(count if dim == 1 else dim)
    apart = rw.reshape(x, narrow)
    if narrow != wide:
        apart = rw.emit("Expand", [apart], x.dtype, tuple(wide))
    return rw.reshape(apart, node.output.known_shape)


def depth_to_space(rw: Rewriter, node: Node) -> Outcome:
    """[N, C, H, W] -> [N, b, b, C', H, W] (DCR) or [N, C', b, b, H, W] (CRD) -> [N, C', Hb, Wb]."""
    x = node.required(0)
    n, c, h, w = x.known_shape
    b = node.attrs["blocksize"]
    depth = c // (b * b)
    if node.attrs.get("mode", "DCR") == "DCR":
        apart = rw.reshape(x, (n, b, b, depth, h, w))
        moved = rw.transpose(apart, (0, 3, 4, 1, 5, 2))
    else:
        apart = rw.reshape(x, (n, depth, b, b, h, w))
        moved = rw.transpose(apart, (0, 1, 4, 2, 5, 3))
    return rw.reshape(moved, node.output.known_shape)


def space_to_depth(rw: Rewriter, node: Node) -> Outcome:
    """[N, C, Hb, Wb] -> [N, C, H, b, W, b] -> [N, b, b, C, H, W] (CRD: [N, C, b, b, H, W])."""
    x = node.required(0)
    n, c, h, w = x.known_shape
    b = node.attrs["blocksize"]
    apart = rw.reshape(x, (n, c, h // b, b, w // b, b))
    channels_first = node.attrs.get("mode", "DCR") == "CRD"
    moved = rw.transpose(apart, (0, 1, 3, 5, 2, 4) if channels_first else (0, 3, 5, 1, 2, 4))
    return rw.reshape(moved, node.output.known_shape)


RULES = (
    Rule("drop-identity", ("Identity",), drop_identity, typed=False),
    Rule("drop-dropout", ("Dropout",), drop_dropout),
    Rule("drop-cast", ("Cast", "CastLike"), drop_cast),
    Rule("to-reshape", ("Reshape", "Flatten", "Squeeze", "Unsqueeze"), to_reshape),
    Rule("to-transpose", ("Transpose",), to_transpose),
    Rule("to-expand", ("Expand",), to_expand),
    Rule("to-slice", ("Slice",), to_slice),
    Rule("split-to-slices", ("Split",), split_to_slices),
    Rule("gather-to-slice", ("Gather",), gather_to_slice),
    Rule("to-concat", ("Concat",), to_concat),
    Rule("tile-to-views", ("Tile",), tile_to_views),
    Rule("depth-to-space", ("DepthToSpace",), depth_to_space),
    Rule("space-to-depth", ("SpaceToDepth",), space_to_depth),
)
