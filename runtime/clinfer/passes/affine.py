"""Integer tensors whose content is an affine function of the position.

    x[i, j, ...] = offset + i * steps[0] + j * steps[1] + ...

A form holds for the elements that there are: where the tensor is empty it says nothing, so sizes
that make it empty need not be thought of (`positive_symbols`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Array, Shape
from clinfer.passes.query import is_at_least, positive_symbols
from clinfer_kernels.broadcasts import join, repeated
from clinfer_kernels.dims import Dim, Opaque, maximum, minimum, sym

# Constants up to this many elements are examined.
_EXAMINED = 65536
_LARGEST = 1 << 40  # of the elements of a constant: sums of their steps fit int64


@dataclass(frozen=True)
class Affine:
    """See the module's text. Steps along dimensions of size 1 are 0; truth values are 1 and 0."""

    offset: Dim
    steps: tuple[Dim, ...]

    @property
    def is_constant(self) -> bool:
        """Whether all elements are equal."""
        return all(step == 0 for step in self.steps)

    def spread(self, rank: int) -> Affine:
        """The same, broadcast to a higher rank."""
        return Affine(self.offset, (*([0] * (rank - len(self.steps))), *self.steps))


def settled(dim: Dim, positive: frozenset[str]) -> Dim:
    """The size with its minima and maxima decided, where symbols in `positive` are >= 1."""
    if isinstance(dim, int):
        return dim
    sum_: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom, power in monomial:
            base = _settled_opaque(atom, positive) if isinstance(atom, Opaque) else sym(atom.name)
            for _ in range(power):
                term = term * base
        sum_ = sum_ + term
    return sum_


def _settled_opaque(atom: Opaque, positive: frozenset[str]) -> Dim:
    left, right = settled(atom.left, positive), settled(atom.right, positive)
    if atom.op in ("min", "max"):
        smaller = atom.op == "min"
        if is_at_least(left - right, 0, positive):
            return right if smaller else left
        if is_at_least(right - left, 0, positive):
            return left if smaller else right
        return minimum(left, right) if smaller else maximum(left, right)
    if atom.op == "join":
        return join(left, right) or 0
    if atom.op == "step":
        return repeated(right, left, 0)
    return left // right if atom.op == "floordiv" else left % right


def least(form: Affine, shape: Shape) -> Dim | None:
    """The smallest element of a tensor of that form and shape; None where it is not certain."""
    positive = positive_symbols(shape)
    low = form.offset
    for step, size in zip(form.steps, shape, strict=True):
        if is_at_least(step * -1, 0, positive):
            low = low + step * (settled(size, positive) - 1)
        elif not is_at_least(step, 0, positive):
            return None
    return low


def is_natural(form: Affine, shape: Shape) -> bool:
    """Whether no element of a tensor of that form and shape is negative."""
    low = least(form, shape)
    return low is not None and is_at_least(low, 0, positive_symbols(shape))


def of_array(array: Array) -> Affine | None:
    """The form of a constant; None where it has none or is too large to examine."""
    if array.size == 0 or array.size > _EXAMINED:
        return None
    if array.size > 1 and (array.max() > _LARGEST or array.min() < -_LARGEST):
        return None
    first = array[(0,) * array.ndim]
    offset = int(first)
    steps: list[int] = []
    grid = np.full(array.shape, offset, np.int64)
    for axis, size in enumerate(array.shape):
        place = [0] * array.ndim
        place[axis] = min(1, size - 1)
        step = int(array[tuple(place)]) - offset
        steps.append(step)
        shape = [1] * array.ndim
        shape[axis] = size
        grid = grid + (np.arange(size) * step).reshape(shape)
    return Affine(offset, tuple(steps)) if np.array_equal(grid, array.astype(np.int64)) else None


def total(a: Affine, b: Affine) -> Affine:
    """a + b, both of one rank."""
    steps = tuple(x + y for x, y in zip(a.steps, b.steps, strict=True))
    return Affine(a.offset + b.offset, steps)


def times(a: Affine, number: Dim) -> Affine:
    """a * number."""
    return Affine(a.offset * number, tuple(s * number for s in a.steps))
