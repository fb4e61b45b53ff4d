"""Which transposes and reshapes may change places."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.ir import Shape
from clinfer_kernels.dims import Dim

# Axes of one shape and axes of another whose sizes have the same product.
Part = tuple[list[int], list[int]]


def moves_only_units(shape: Sequence[Dim], perm: Sequence[int]) -> bool:
    """Whether transposing by `perm` leaves the elements in order: the larger dimensions stay."""
    order = [p for p in perm if shape[p] != 1]
    return order == sorted(order)


def factor(source: Sequence[Dim], target: Sequence[Dim]) -> list[Part] | None:
    """Cuts a reshape into its smallest independent parts.

    Each part is (axes of `source`, axes of `target`) of equal products; dimensions of size 1 are
    left out. None where a size is 0 or the products never meet.

        [B, S, 768] -> [B, S, 12, 64]   =   B | S | 768 -> 12, 64
    """
    left = [i for i, d in enumerate(source) if d != 1]
    right = [i for i, d in enumerate(target) if d != 1]
    if any(d == 0 for d in (*source, *target)):
        return None
    left_ends = _prefix_products([source[i] for i in left])
    right_ends = {end: j for j, end in enumerate(_prefix_products([target[j] for j in right]))}
    parts: list[Part] = []
    i = j = 0
    for index, end in enumerate(left_ends):
        meets = right_ends.get(end, -1)
        if meets >= j:
            parts.append((left[i : index + 1], right[j : meets + 1]))
            i, j = index + 1, meets + 1
    if i < len(left) or j < len(right):
        return None
    return parts


def _prefix_products(dims: Sequence[Dim]) -> list[Dim]:
    ends: list[Dim] = []
    total: Dim = 1
    for dim in dims:
        total = total * dim
        ends.append(total)
    return ends


def reshape_first(
    shape: Sequence[Dim], perm: Sequence[int], target: Sequence[Dim]
) -> tuple[Shape, list[int]] | None:
    """Reshape(Transpose(x, perm), target) as Transpose(Reshape(x, new_shape), new_perm).

    Possible where every part of the reshape takes dimensions that lie side by side, in the same
    order, in x too. None otherwise.
    """
    moved = [shape[p] for p in perm]
    parts = factor(moved, target)
    if parts is None:
        return None
    wide = [a for a, d in enumerate(shape) if d != 1]
    place = {axis: position for position, axis in enumerate(wide)}
    keyed: list[tuple[int, list[int]]] = []
    for sources, targets in parts:
        positions = [place[perm[i]] for i in sources]
        if positions != list(range(positions[0], positions[0] + len(positions))):
            return None
        keyed.append((positions[0], targets))
    order = _with_units([axes for _, axes in sorted(keyed)], len(target))
    new_shape = tuple(target[axis] for axis in order)
    new_perm = [order.index(axis) for axis in range(len(target))]
    return new_shape, new_perm


def _with_units(groups: list[list[int]], rank: int) -> list[int]:
    """All axes in the order of the groups; one of size 1 follows the axis before it."""
    present = {axis for group in groups for axis in group}
    order = list(range(min(present, default=rank)))
    for group in groups:
        for axis in group:
            order.append(axis)
            following = axis + 1
            while following < rank and following not in present:
                order.append(following)
                following += 1
    return order


def operand_through(
    operand: Sequence[Dim], source: Sequence[Dim], target: Sequence[Dim]
) -> Shape | None:
    """The shape with which an operand that broadcasts to `source` broadcasts to `target` alike.

    `target` is a reshape of `source`. Within each part of the reshape the operand must be whole or
    of size 1 throughout; None otherwise.
    """
    parts = factor(source, target)
    if parts is None:
        return None
    padded = (*([1] * (len(source) - len(operand))), *operand)
    result: list[Dim] = [1] * len(target)
    for sources, targets in parts:
        own = [padded[i] for i in sources]
        if own == [source[i] for i in sources]:
            for j in targets:
                result[j] = target[j]
        elif any(d != 1 for d in own):
            return None
    return tuple(result)
