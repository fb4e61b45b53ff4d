"""What chains of integer operators compute, as affine functions of the position.

Exporters write positions, masks and flat indices as chains of Range, Expand, products, sums and
comparisons. Their affine form tells what such a chain computes without running it: a truth value
that is the same everywhere, a slice, a causal mask. Truth values are 1 and 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from clinfer.graph.ir import Node, Value
from clinfer.passes.affine import (
    Affine,
    is_natural,
    least,
    of_array,
    settled,
    times,
    total,
)
from clinfer.passes.query import is_at_least, positive_symbols, scalar
from clinfer.passes.reshapes import factor
from clinfer_kernels.broadcasts import repeated
from clinfer_kernels.dims import Dim, product

_KINDS = frozenset({"int64", "int32", "bool"})


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
            return of_array(value.const)
        if value.symbolic is not None:
            if value.symbolic.size != 1:
                return None
            return Affine(value.symbolic.reshape(-1)[0], (0,) * rank)
        node = value.producer
        rule = None if node is None else _FORMS.get(node.kind)
        if node is None or rule is None:
            return None
        found = rule(self, node)
        if found is None:
            return None
        shape = value.known_shape
        sizes = _sizes(shape, positive_symbols(shape))
        steps = [0 if n == 1 else s for n, s in zip(sizes, found.steps, strict=True)]
        return Affine(found.offset, tuple(steps))

    def pair(self, node: Node) -> tuple[Affine, Affine] | None:
        """The forms of a node's two inputs, broadcast to the output's rank."""
        a, b = self.of(node.input(0)), self.of(node.input(1))
        if a is None or b is None:
            return None
        left = _broadcast(a, node.required(0), node.output)
        right = _broadcast(b, node.required(1), node.output)
        return None if left is None or right is None else (left, right)

    def difference(self, node: Node) -> Affine | None:
        """How far a comparison is from its border: it holds where this is >= 0."""
        forms = self.pair(node)
        if forms is None:
            return None
        a, b = forms
        if node.kind in ("Less", "LessOrEqual"):
            a, b = b, a
        away = total(a, times(b, -1))
        strict = node.kind in ("Less", "Greater")
        return Affine(away.offset - 1, away.steps) if strict else away


# -- one rule an operator ----------------------------------------------------------------------

Rule = Callable[[Forms, Node], "Affine | None"]


def _sizes(shape: Sequence[Dim], positive: frozenset[str]) -> list[Dim]:
    return [settled(d, positive) for d in shape]


def _broadcast(form: Affine, value: Value, to: Value) -> Affine | None:
    """The form of `value` as it is broadcast; None where one place may turn out to repeat."""
    wide = form.spread(len(to.known_shape))
    places = zip(wide.steps[::-1], value.known_shape[::-1], to.known_shape[::-1], strict=False)
    if any(repeated(step, size, wanted) != step for step, size, wanted in places):
        return None
    return wide


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
    return None if pair is None else total(*pair)


def _sub(forms: Forms, node: Node) -> Affine | None:
    pair = forms.pair(node)
    return None if pair is None else total(pair[0], times(pair[1], -1))


def _mul(forms: Forms, node: Node) -> Affine | None:
    pair = forms.pair(node)
    if pair is None:
        return None
    for a, b in (pair, pair[::-1]):
        if b.is_constant:
            return times(a, b.offset)
    return None


def _neg(forms: Forms, node: Node) -> Affine | None:
    found = forms.of(node.required(0))
    return None if found is None else times(found, -1)


def _compare(forms: Forms, node: Node) -> Affine | None:
    """A comparison that holds everywhere or nowhere."""
    away = forms.difference(node)
    shape = node.output.known_shape
    if away is None:
        return None
    positive = positive_symbols(shape)
    low = least(away, shape)
    high = least(times(away, -1), shape)
    if low is not None and is_at_least(low, 0, positive):
        return Affine(1, (0,) * len(shape))
    if high is not None and is_at_least(high, 1, positive):
        return Affine(0, (0,) * len(shape))
    return None


def _equal(forms: Forms, node: Node) -> Affine | None:
    found = _sub(forms, node)
    shape = node.output.known_shape
    if found is None:
        return None
    if found.is_constant and found.offset == 0:
        return Affine(1, found.steps)
    for away in (found, times(found, -1)):
        low = least(away, shape)
        if low is not None and is_at_least(low, 1, positive_symbols(shape)):
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
    return _broadcast(found, node.required(0), node.output)


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
    positive = positive_symbols(node.output.known_shape)
    source = _sizes(node.required(0).known_shape, positive)
    target = _sizes(node.output.known_shape, positive)
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
    positive = positive_symbols(node.output.known_shape)
    for axis, start, step in zip(*columns, strict=True):
        offset = offset + found.steps[axis] * settled(start, positive)
        steps[axis] = found.steps[axis] * step
    return Affine(offset, tuple(steps))


def _concat(forms: Forms, node: Node) -> Affine | None:
    """Pieces that continue each other along the axis."""
    axis = node.attrs["axis"]
    pieces: list[tuple[Affine, Dim, Dim]] = []
    start: Dim = 0
    positive = positive_symbols(node.output.known_shape)
    for value in node.inputs:
        found = forms.of(value)
        if found is None or value is None:
            return None
        size = settled(value.known_shape[axis], positive)
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
    if not is_natural(index, node.required(1).known_shape):
        return None
    axis = node.attrs.get("axis", 0) % len(data.steps)
    moved = times(index, data.steps[axis])
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
    moved = [times(f, step) for f, step in zip(indices, data.steps, strict=True)]
    return reduce(total, moved, Affine(data.offset, (0,) * rank))


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
        if not is_natural(found, value.known_shape):
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
