"""Operators that only rearrange: reshape, slice, split, transpose, concatenate, tile, pad."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.bounds import at_least, at_most, from_front, lower_bound
from clinfer.graph.ir import Shape
from clinfer.graph.shape_call import Call, Rule, Type, UnknownShape
from clinfer_kernels.dims import Dim, Expr, ceildiv, floordiv, maximum, product

_ENDLESS = 2**31 - 1  # slice bounds from here on mean 'to the end'


def reshape(call: Call) -> list[Type]:
    """Reshape: 0 copies a size (without `allowzero`), -1 takes what is left."""
    if call.count < 2:
        return call.keep()
    wanted = call.content(1)
    if wanted is None:
        sizes = call.unknown(call.elements(1))
        return [Type(call.dtype(0), sizes if sizes else reshaped(call, call.value(0).shape, ()))]
    zero_is_zero = bool(call.attr("allowzero", 0))
    source = call.value(0).shape
    dims: list[Dim] = []
    for axis, size in enumerate(wanted.ravel()):
        if size == 0 and not zero_is_zero:
            if source is None:
                raise UnknownShape
            if axis >= len(source):
                raise call.error(f"the shape's element {axis} is 0, but the input has no such axis")
            size = source[axis]
        dims.append(size)
    return [Type(call.dtype(0), reshaped(call, source, dims))]


def reshaped(call: Call, source: Shape | None, dims: Sequence[Dim]) -> Shape:
    """`dims` with its -1 worked out; the number of elements must stay."""
    open_axes = [axis for axis, size in enumerate(dims) if size == -1]
    if len(open_axes) > 1:
        raise call.error(f"the shape {list(dims)} has more than one -1")
    if not open_axes:
        if source is not None:
            call.equal(product(source), product(dims), "the numbers of elements before and after")
        return tuple(dims)
    axis = open_axes[0]
    if source is None:
        size = call.fresh(0, axis)
    else:
        rest = [d for i, d in enumerate(dims) if i != axis]
        size = _left_over(call, source, rest)
    return tuple(size if i == axis else d for i, d in enumerate(dims))


def _left_over(call: Call, source: Shape, rest: Sequence[Dim]) -> Dim:
    """The size of the -1 dimension: common factors are cancelled before dividing."""
    left, right = list(source), []
    for size in rest:
        if size in left and size != 0:
            left.remove(size)
        else:
            right.append(size)
    total, known = product(left), product(right)
    if known == 0:
        return 0
    size = floordiv(total, known)
    call.equal(size * known, total, "the numbers of elements before and after")
    return size


def flatten(call: Call) -> list[Type]:
    """Flatten: [d0 * ... * d(axis-1), d(axis) * ... * d(n-1)]."""
    shape = call.shape(0)
    axis = int(call.attr("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    return [Type(call.dtype(0), (product(shape[:axis]), product(shape[axis:])))]


def _axes_input(call: Call, rank: int) -> list[int] | None:
    if not call.has(1):
        return None
    return [call.normal(a, rank) for a in call.ints(1)]


def squeeze(call: Call) -> list[Type]:
    """Squeeze: drops the axes given, else every dimension of size 1."""
    shape = call.shape(0)
    if call.has(1) and call.content(1) is None:
        return [Type(call.dtype(0), call.unknown(len(shape) - call.elements(1)))]
    axes = _axes_input(call, len(shape))
    if axes is None:
        if any(not isinstance(d, int) for d in shape):
            raise UnknownShape
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    for axis in axes:
        call.equal(shape[axis], 1, f"the size of the squeezed axis {axis} and 1")
    return [Type(call.dtype(0), tuple(d for i, d in enumerate(shape) if i not in axes))]


def unsqueeze(call: Call) -> list[Type]:
    """Unsqueeze: puts sizes of 1 at the axes of the result."""
    shape = call.shape(0)
    if call.content(1) is None:
        return [Type(call.dtype(0), call.unknown(len(shape) + call.elements(1)))]
    given = call.ints(1)
    rank = len(shape) + len(given)
    axes = {call.normal(a, rank) for a in given}
    if len(axes) != len(given):
        raise call.error(f"the axes {given} name a dimension twice")
    rest = iter(shape)
    return [Type(call.dtype(0), tuple(1 if i in axes else next(rest) for i in range(rank)))]


def transpose(call: Call) -> list[Type]:
    """Transpose: result axis i is the input's axis perm[i]; without perm the axes are reversed."""
    shape = call.shape(0)
    perm = call.attr("perm") or list(reversed(range(len(shape))))
    if sorted(perm) != list(range(len(shape))):
        raise call.error(f"perm {perm} is no permutation of the {len(shape)} axes")
    return [Type(call.dtype(0), tuple(shape[p] for p in perm))]


def concat(call: Call) -> list[Type]:
    """Concat: sizes along `axis` add up, the others are equal."""
    shapes = [call.shape(i) for i in range(call.count)]
    rank = max(len(s) for s in shapes)
    axis = call.axis("axis", 1, rank)
    result = list(shapes[0])
    for index, shape in enumerate(shapes[1:], 1):
        if len(shape) != rank or len(result) != rank:
            raise call.error("inputs of one rank expected")
        for i, size in enumerate(shape):
            if i == axis:
                result[i] = result[i] + size
                continue
            call.equal(result[i], size, f"the sizes of axis {i} of inputs 0 and {index}")
            result[i] = size if isinstance(size, int) else result[i]
    return [Type(call.dtype(0), tuple(result))]


def split(call: Call) -> list[Type]:
    """Split: sizes from input 1, else equal parts with a smaller last one."""
    shape = call.shape(0)
    axis = call.axis("axis", 0, len(shape))
    count = len(call.node.outputs)
    if call.has(1) and call.content(1) is None:
        parts = [call.fresh(index, axis) for index in range(count)]
    elif call.has(1):
        parts = call.dims(1)
        call.equal(sum(parts, start=0), shape[axis], f"the sum of the parts and axis {axis}")
    else:
        parts = equal_parts(shape[axis], int(call.attr("num_outputs", count)))
    if len(parts) != count:
        raise call.error(f"{len(parts)} parts expected, found {count} outputs")
    dtype = call.dtype(0)
    return [Type(dtype, (*shape[:axis], part, *shape[axis + 1 :])) for part in parts]


def equal_parts(size: Dim, count: int) -> list[Dim]:
    """`count` parts of ceil(size / count), the last one what is left."""
    part = ceildiv(size, count)
    if floordiv(size, count) * count == size:
        return [floordiv(size, count)] * count
    return [part] * (count - 1) + [size - part * (count - 1)]


def slice_(call: Call) -> list[Type]:
    """Slice: starts, ends and steps per axis, clamped to the axis as in Python."""
    if call.count < 3:
        return call.keep()
    shape = list(call.shape(0))
    axes = call.ints(3) if call.has(3) else list(range(len(call.unknown(call.elements(1)))))
    starts, ends = call.content(1), call.content(2)
    steps = call.ints(4) if call.has(4) else [1] * len(axes)
    for number, given in enumerate(axes):
        axis = call.normal(given, len(shape))
        if starts is None or ends is None:
            shape[axis] = call.fresh(0, axis)
            continue
        bounds = (starts.ravel()[number], ends.ravel()[number])
        size = slice_size(shape[axis], *bounds, steps[number])
        if isinstance(size, Expr) and _is_one_place(*bounds, steps[number]):
            call.equal(size, 1, f"the size of a slice of one place of axis {axis} and 1")
            size = 1
        shape[axis] = call.fresh(0, axis) if size is None else size
    return [Type(call.dtype(0), tuple(shape))]


def _is_one_place(start: Dim, end: Dim, step: int) -> bool:
    """Whether start:end:step is one place wherever there is such a place."""
    if not isinstance(start, int) or not isinstance(end, int) or step < 0:
        return False
    if start == -1:
        return end >= _ENDLESS
    return end == start + 1


def slice_size(size: Dim, start: Dim, end: Dim, step: int) -> Dim | None:
    """How many elements start:end:step takes of an axis; None for a step of 0."""
    if step == 0:
        return None
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first, last = clamped(start, size, low, high), clamped(end, size, low, high)
    if last == size and isinstance(start, int) and 0 <= start < step:
        return ceildiv(size - start, step)  # of an empty axis 0, too: -start > -step
    span = last - first if step > 0 else first - last
    least = lower_bound(span)
    count = ceildiv(span, abs(step))
    return count if least is not None and least >= 0 else maximum(count, 0)


def clamped(index: Dim, size: Dim, low: Dim, high: Dim) -> Dim:
    """A slice bound counted from the front and kept within [low, high]."""
    if isinstance(index, int) and abs(index) >= _ENDLESS:
        return high if index > 0 else low
    if index == size:
        return high
    return at_most(at_least(from_front(index, size), low), high)


def expand(call: Call) -> list[Type]:
    """Expand: broadcast with the shape in input 1."""
    if call.count < 2:
        return call.keep()
    wanted = call.content(1)
    if wanted is None:
        rank = max(call.elements(1), call.rank(0))
        return [Type(call.dtype(0), call.unknown(rank))]
    return [Type(call.dtype(0), call.broadcast(call.shape(0), tuple(wanted.ravel())))]


def tile(call: Call) -> list[Type]:
    """Tile: each size times its repeats."""
    if call.count < 2:
        return call.keep()
    shape = call.shape(0)
    repeats = call.content(1)
    if repeats is None:
        return [Type(call.dtype(0), call.unknown(len(shape)))]
    pairs = zip(shape, repeats.ravel(), strict=True)
    return [Type(call.dtype(0), tuple(d * r for d, r in pairs))]


def pad(call: Call) -> list[Type]:
    """Pad: begins and ends added to each axis named (all without an axes input)."""
    if call.count < 2:
        return call.keep()
    shape = list(call.shape(0))
    pads = call.content(1)
    if pads is None:
        return [Type(call.dtype(0), call.unknown(len(shape)))]
    amounts = list(pads.ravel())
    axes = call.ints(3) if call.has(3) else list(range(len(shape)))
    for number, given in enumerate(axes):
        axis = call.normal(given, len(shape))
        shape[axis] = shape[axis] + amounts[number] + amounts[number + len(axes)]
    return [Type(call.dtype(0), tuple(shape))]


def depth_to_space(call: Call) -> list[Type]:
    """DepthToSpace: [N, C / b^2, H * b, W * b]."""
    n, c, h, w = call.shape(0)
    block = int(call.attr("blocksize", 1))
    return [Type(call.dtype(0), (n, floordiv(c, block * block), h * block, w * block))]


def space_to_depth(call: Call) -> list[Type]:
    """SpaceToDepth: [N, C * b^2, H / b, W / b]."""
    n, c, h, w = call.shape(0)
    block = int(call.attr("blocksize", 1))
    shape = (n, c * (block * block), floordiv(h, block), floordiv(w, block))
    return [Type(call.dtype(0), shape)]


RULES: dict[str, Rule] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
