"""Integer tensors whose content is an affine function of the position.

    x[i, j, ...] = offset + i * steps[0] + j * steps[1] + ...

Exporters write positions, masks and flat indices as chains of Range, Expand, products, sums and
comparisons. Their affine form tells what such a chain computes without running it: a truth value
that is the same everywhere, a slice, a causal mask.

Sizes are taken to be at least 1 here: of an empty tensor no element is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from clinfer.graph.ir import Array, Node, Shape, Value
from clinfer.passes.query import is_at_least, scalar
from clinfer.passes.reshapes import factor
from clinfer_kernels.dims import Dim, Expr, Opaque, maximum, minimum, product, sym

_KINDS = frozenset({"int64", "int32", "bool"})
# Constants up to this many elements are examined.
_EXAMINED = 65536


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


class Forms:
    """Affine forms of values, each found once."""

    def __init__(self) -> None:
        self._known: dict[Value, Affine | None] = {}

    def of(self, value: Value | None) -> Affine | None:
        """The affine form of a value; None where it has none or none is found."""
        if value is None or value.dtype not in _KINDS or value.shape is None:
            return None
        if value not in self._known:
            self._known[value] = None  # while it is being found
            self._known[value] = self._find(value)
        return self._known[value]

    def _find(self, value: Value) -> Affine | None:
        rank = len(value.known_shape)
        if value.const is not None:
            return _of_array(value.const)
        if value.symbolic is not None:
            if value.symbolic.size != 1:
                return None
            return Affine(settled(value.symbolic.reshape(-1)[0]), (0,) * rank)
        node = value.producer
        rule = None if node is None else _FORMS.get(node.kind)
        if node is None or rule is None:
            return None
        found = rule(self, node)
        if found is None:
            return None
        shape = value.known_shape
        steps = [0 if settled(n) == 1 else s for n, s in zip(shape, found.steps, strict=True)]
        return Affine(found.offset, tuple(steps))

    def pair(self, node: Node) -> tuple[Affine, Affine] | None:
        """The forms of a node's two inputs, broadcast to the output's rank."""
        a, b = self.of(node.input(0)), self.of(node.input(1))
        if a is None or b is None:
            return None
        rank = len(node.output.known_shape)
        return a.spread(rank), b.spread(rank)

    def difference(self, node: Node) -> Affine | None:
        """How far a comparison is from its border: it holds where this is >= 0."""
        forms = self.pair(node)
        if forms is None:
            return None
        a, b = forms
        if node.kind in ("Less", "LessOrEqual"):
            a, b = b, a
        away = _sum(a, _times(b, -1))
        strict = node.kind in ("Less", "Greater")
        return Affine(away.offset - 1, away.steps) if strict else away


def settled(dim: Dim) -> Dim:
    """The size with minima and maxima decided where sizes >= 1 decide them."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom, power in monomial:
            base = _settled_opaque(atom) if isinstance(atom, Opaque) else sym(atom.name)
            for _ in range(power):
                term = term * base
        total = total + term
    return total


def _settled_opaque(atom: Opaque) -> Dim:
    left, right = settled(atom.left), settled(atom.right)
    if atom.op in ("min", "max"):
        smaller = atom.op == "min"
        if is_at_least(left - right, 0):
            return right if smaller else left
        if is_at_least(right - left, 0):
            return left if smaller else right
        return minimum(left, right) if smaller else maximum(left, right)
    if isinstance(left, Expr) or isinstance(right, Expr):
        return left // right if atom.op == "floordiv" else left % right
    return left // right if atom.op == "floordiv" else left % right


def least(form: Affine, shape: Shape) -> Dim | None:
    """The smallest element of a tensor of that form and shape; None where it is not certain."""
    total = form.offset
    for step, size in zip(form.steps, shape, strict=True):
        if is_at_least(step * -1, 1):
            total = total + step * (settled(size) - 1)
        elif not is_at_least(step, 0):
            return None
    return total


def _of_array(array: Array) -> Affine | None:
    if array.size == 0 or array.size > _EXAMINED:
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


def _sum(a: Affine, b: Affine) -> Affine:
    steps = tuple(x + y for x, y in zip(a.steps, b.steps, strict=True))
    return Affine(a.offset + b.offset, steps)


def _times(a: Affine, number: Dim) -> Affine:
    return Affine(a.offset * number, tuple(s * number for s in a.steps))


# -- one rule an operator ----------------------------------------------------------------------

Rule = Callable[[Forms, Node], "Affine | None"]


def _same(forms: Forms, node: Node) -> Affine | None:
    return forms.of(node.required(0)) if node.output.dtype in _KINDS else None


def _cast(forms: Forms, node: Node) -> Affine | None:
    found = forms.of(node.required(0))
    if found is None or node.output.dtype != "bool" or node.required(0).dtype == "bool":
        return found
    if not found.is_constant or not isinstance(found.offset, int):
        return None
    return Affine(int(found.offset != 0), found.steps)


def _range(forms: Forms, node: Node) -> Affine | None:
    start, step = forms.of(node.required(0)), forms.of(node.required(2))
    if start is None or step is None:
        return None
    return Affine(start.offset, (step.offset,))


def _add(forms: Forms, node: Node) -> Affine | None:
    pair = forms.pair(node)
    return None if pair is None else _sum(*pair)


def _sub(forms: Forms, node: Node) -> Affine | None:
    pair = forms.pair(node)
    return None if pair is None else _sum(pair[0], _times(pair[1], -1))


def _mul(forms: Forms, node: Node) -> Affine | None:
    pair = forms.pair(node)
    if pair is None:
        return None
    for a, b in (pair, pair[::-1]):
        if b.is_constant:
            return _times(a, b.offset)
    return None


def _neg(forms: Forms, node: Node) -> Affine | None:
    found = forms.of(node.required(0))
    return None if found is None else _times(found, -1)


def _compare(forms: Forms, node: Node) -> Affine | None:
    """A comparison that holds everywhere or nowhere."""
    away = forms.difference(node)
    shape = node.output.known_shape
    if away is None:
        return None
    low = least(away, shape)
    high = least(_times(away, -1), shape)
    if low is not None and is_at_least(low, 0):
        return Affine(1, (0,) * len(shape))
    if high is not None and is_at_least(high, 1):
        return Affine(0, (0,) * len(shape))
    return None


def _equal(forms: Forms, node: Node) -> Affine | None:
    found = _sub(forms, node)
    shape = node.output.known_shape
    if found is None:
        return None
    if found.is_constant and found.offset == 0:
        return Affine(1, found.steps)
    for away in (found, _times(found, -1)):
        low = least(away, shape)
        if low is not None and is_at_least(low, 1):
            return Affine(0, (0,) * len(shape))
    return None


def _not(forms: Forms, node: Node) -> Affine | None:
    found = forms.of(node.required(0))
    if found is None or not found.is_constant:
        return None
    return Affine(1 - found.offset, found.steps)


def _junction(decisive: int) -> Rule:
    """And (decided by a 0), Or (decided by a 1)."""

    def rule(forms: Forms, node: Node) -> Affine | None:
        known = [forms.of(v) for v in node.inputs]
        constants = [f.offset for f in known if f is not None and f.is_constant]
        zeros = (0,) * len(node.output.known_shape)
        if decisive in constants:
            return Affine(decisive, zeros)
        return Affine(1 - decisive, zeros) if len(constants) == len(known) else None

    return rule


def _expand(forms: Forms, node: Node) -> Affine | None:
    found = forms.of(node.required(0))
    if found is None or len(node.inputs) > 1:
        return None
    return found.spread(len(node.output.known_shape))


def _transpose(forms: Forms, node: Node) -> Affine | None:
    found = forms.of(node.required(0))
    if found is None:
        return None
    return Affine(found.offset, tuple(found.steps[p] for p in node.attrs["perm"]))


def _reshape(forms: Forms, node: Node) -> Affine | None:
    """Within a part of the reshape the elements must follow each other evenly."""
    found = forms.of(node.required(0))
    if found is None or len(node.inputs) > 1:
        return None
    source = [settled(d) for d in node.required(0).known_shape]
    target = [settled(d) for d in node.output.known_shape]
    if found.is_constant:
        return Affine(found.offset, (0,) * len(target))
    parts = factor(source, target)
    if parts is None:
        return None
    steps: list[Dim] = [0] * len(target)
    for sources, targets in parts:
        base = found.steps[sources[-1]]
        rows = _row_major([source[i] for i in sources], base)
        if rows != [found.steps[i] for i in sources]:
            return None
        inner = _row_major([target[j] for j in targets], base)
        for j, step in zip(targets, inner, strict=True):
            steps[j] = step
    return Affine(found.offset, tuple(steps))


def _row_major(sizes: Sequence[Dim], base: Dim) -> list[Dim]:
    return [base * product(sizes[i + 1 :]) for i in range(len(sizes))]


def _slice(forms: Forms, node: Node) -> Affine | None:
    found = forms.of(node.required(0))
    if found is None or "steps" not in node.attrs:
        return None
    offset = found.offset
    steps = list(found.steps)
    columns = (node.attrs["axes"], node.attrs["starts"], node.attrs["steps"])
    for axis, start, step in zip(*columns, strict=True):
        offset = offset + found.steps[axis] * settled(start)
        steps[axis] = found.steps[axis] * step
    return Affine(offset, tuple(steps))


def _concat(forms: Forms, node: Node) -> Affine | None:
    """Pieces that continue each other along the axis."""
    axis = node.attrs["axis"]
    pieces: list[tuple[Affine, Dim, Dim]] = []
    start: Dim = 0
    for value in node.inputs:
        found = forms.of(value)
        if found is None or value is None:
            return None
        size = settled(value.known_shape[axis])
        pieces.append((found, start, size))
        start = start + size
    first = pieces[0][0]
    longer = [f.steps[axis] for f, _, size in pieces if size != 1]
    step = longer[0] if longer else pieces[1][0].offset - first.offset
    for found, begin, size in pieces:
        if found.offset != first.offset + step * begin:
            return None
        if size != 1 and found.steps[axis] != step:
            return None
        if _without(found.steps, axis) != _without(first.steps, axis):
            return None
    return Affine(first.offset, (*first.steps[:axis], step, *first.steps[axis + 1 :]))


def _without(steps: tuple[Dim, ...], axis: int) -> tuple[Dim, ...]:
    return (*steps[:axis], *steps[axis + 1 :])


def _cum_sum(forms: Forms, node: Node) -> Affine | None:
    found = forms.of(node.required(0))
    axis = scalar(node.input(1))
    if found is None or axis is None or not found.is_constant:
        return None
    if found.offset != 0 and (node.attrs.get("exclusive") or node.attrs.get("reverse")):
        return None
    steps = list(found.steps)
    steps[int(axis)] = found.offset
    return Affine(found.offset, tuple(steps))


def _gather(forms: Forms, node: Node) -> Affine | None:
    data, index = forms.of(node.required(0)), forms.of(node.required(1))
    if data is None or index is None:
        return None
    low = least(index, node.required(1).known_shape)
    if low is None or not is_at_least(low, 0):
        return None
    axis = node.attrs.get("axis", 0) % len(data.steps)
    moved = _times(index, data.steps[axis])
    steps = (*data.steps[:axis], *moved.steps, *data.steps[axis + 1 :])
    return Affine(data.offset + moved.offset, steps)


def _gather_nd(forms: Forms, node: Node) -> Affine | None:
    data = forms.of(node.required(0))
    if data is None or node.attrs.get("batch_dims", 0):
        return None
    rank = len(node.output.known_shape)
    if data.is_constant:
        return Affine(data.offset, (0,) * rank)
    indices = index_parts(forms, node)
    if indices is None or len(indices) != len(data.steps):
        return None
    moved = [_times(f, step) for f, step in zip(indices, data.steps, strict=True)]
    return reduce(_sum, moved, Affine(data.offset, (0,) * rank))


def index_parts(forms: Forms, node: Node) -> list[Affine] | None:
    """The forms of a GatherND's indices, one for each dimension of the data it chooses from.

    The indices are a concatenation of one such part for each; none may be negative.
    """
    indices = node.required(1)
    joined = indices.producer
    if joined is None or joined.kind != "Concat" or node.attrs.get("batch_dims", 0):
        return None
    if joined.attrs["axis"] != len(indices.known_shape) - 1:
        return None
    parts: list[Affine] = []
    for value in joined.inputs:
        found = forms.of(value)
        if found is None or value is None or value.known_shape[-1] != 1:
            return None
        low = least(found, value.known_shape)
        if low is None or not is_at_least(low, 0):
            return None
        parts.append(Affine(found.offset, found.steps[:-1]))
    return parts


_FORMS: dict[str, Rule] = {
    "Identity": _same,
    "Cast": _cast,
    "Range": _range,
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Neg": _neg,
    "Equal": _equal,
    **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual"), _compare),
    "Not": _not,
    "And": _junction(0),
    "Or": _junction(1),
    "Expand": _expand,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Slice": _slice,
    "Concat": _concat,
    "CumSum": _cum_sum,
    "Gather": _gather,
    "GatherND": _gather_nd,
}
COMPARISONS = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
FOLDABLE = tuple(kind for kind in _FORMS if kind not in ("Identity", "Range", "Expand"))
