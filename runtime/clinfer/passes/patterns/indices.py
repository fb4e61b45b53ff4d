"""Positions and masks that sizes alone decide: what `affine` proves of them is written directly."""

from __future__ import annotations

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Shape, Value
from clinfer.passes.affine import Affine, is_natural
from clinfer.passes.canonicalise.views import take_part
from clinfer.passes.forms import FOLDABLE, index_parts
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim


def same_everywhere(rw: Rewriter, node: Node) -> Outcome:
    """A tensor of equal elements, known now, is one expanded scalar."""
    form = rw.forms.of(node.output)
    if form is None or not form.is_constant or not isinstance(form.offset, int):
        return None
    array = to_numpy(str(node.output.dtype)).type(form.offset)
    return _expanded(rw, rw.constant(array), node.output)


def neutral_operand(rw: Rewriter, node: Node) -> Outcome:
    """x and true, x or false: x, expanded."""
    neutral = 1 if node.op == "And" else 0
    for index in (0, 1):
        form = rw.forms.of(node.required(index))
        if form is not None and form.is_constant and form.offset == neutral:
            return _expanded(rw, node.required(1 - index), node.output)
    return None


def _expanded(rw: Rewriter, value: Value, like: Value) -> Value:
    if value.shape == like.shape:
        return value
    return rw.emit("Expand", [value], value.dtype, like.shape)


def gather_to_slice(rw: Rewriter, node: Node) -> Outcome:
    """Gather at places that follow each other is a Slice and views."""
    x, indices = node.required(0), node.required(1)
    form = rw.forms.of(indices)
    if form is None or (x.const is not None and x.const.size == 0):
        return None
    axis = node.attrs.get("axis", 0) % len(x.known_shape)
    count = _consecutive(form, indices.known_shape)
    if count is None or not is_natural(form, indices.known_shape):
        return None
    part = take_part(rw, node, x, axis, form.offset, count)
    shape = x.known_shape
    kept = [d if s != 0 else 1 for d, s in zip(indices.known_shape, form.steps, strict=True)]
    narrow = rw.reshape(part, (*shape[:axis], *kept, *shape[axis + 1 :]))
    return _expanded(rw, narrow, node.output)


def _consecutive(form: Affine, shape: Shape) -> Dim | None:
    """How many places the form runs through, one after the other; None where it does not."""
    count: Dim = 1
    for size, step in reversed(list(zip(shape, form.steps, strict=True))):
        if step == 0:
            continue
        if step != count:
            return None
        count = count * size
    return count


def gather_nd_to_slices(rw: Rewriter, node: Node) -> Outcome:
    """GatherND whose every index runs along an axis of its own, in order, is Slices and views."""
    x = node.required(0)
    parts = index_parts(rw.forms, node)
    if parts is None:
        return None
    shape = node.output.known_shape
    lead = len(node.required(1).known_shape) - 1
    kept: list[Dim] = [1] * lead
    last = -1
    sliced = x
    for axis, form in enumerate(parts):
        along = [a for a, step in enumerate(form.steps) if step != 0]
        if len(along) > 1 or any(a <= last or form.steps[a] != 1 for a in along):
            return Refusal("its indices do not run along axes in order")
        size: Dim = 1
        if along:
            last = along[0]
            size = shape[last]
            kept[last] = size
        sliced = take_part(rw, node, sliced, axis, form.offset, size)
    narrow = rw.reshape(sliced, (*kept, *x.known_shape[len(parts) :]))
    return _expanded(rw, narrow, node.output)


RULES = (
    Rule("same-everywhere", FOLDABLE, same_everywhere),
    Rule("neutral-operand", ("And", "Or"), neutral_operand),
    Rule("gather-to-slice", ("Gather",), gather_to_slice),
    Rule("gather-nd-to-slices", ("GatherND",), gather_nd_to_slices),
)
