"""Pointwise chains join the operator before them as its epilogue, or after them as its prologue."""

from __future__ import annotations

from typing import Any

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM, REDUCTIONS
from clinfer.passes.fuse.pointwise import BYTES, CHEAP
from clinfer.passes.fuse.program import Program, inline, program_of
from clinfer.passes.query import broadcast
from clinfer.passes.rewrite import Outcome, Rewriter, Rule
from clinfer_kernels.expr import identity

# Operators that take an epilogue, with the number of inputs of their own.
_ANCHORS = {
    "MatMul": 2,
    "clinfer.EncodedMatMul": 4,
    "clinfer.RowMatMul": 2,
    "clinfer.Conv": 2,
    "clinfer.ConvTranspose": 2,
    "clinfer.ProjectedConv": 3,
    "clinfer.Pool": 1,
    "clinfer.Norm": 1,
    "clinfer.Softmax": 1,
    "clinfer.GridSample": 2,
    "Resize": 1,
    **dict.fromkeys(REDUCTIONS, 1),
}
# Softmax and Norm read each element several times: what they recompute must cost little.
_PROLOGUE_COST = {"clinfer.Softmax": 8, "clinfer.Norm": 8, "clinfer.Conv": 16}
_PICTURE_CHANNELS = 4
_VIEWS = ("Transpose", "Reshape")


def keep_reduced(rw: Rewriter, node: Node) -> Outcome:
    """Reduce*(keepdims=0) = Reshape(Reduce*(keepdims=1)): only this form takes an epilogue."""
    if node.attrs.get("keepdims", 1) or "axes" not in node.attrs:
        return None
    x = node.required(0)
    axes = set(node.attrs["axes"])
    shape = tuple(1 if i in axes else d for i, d in enumerate(x.known_shape))
    attrs = {**node.attrs, "keepdims": 1}
    dtype = node.output.dtype
    made = rw.emit(node.op, [x], dtype, shape, attrs=attrs, version=ATTRIBUTE_FORM)
    return rw.reshape(made, node.output.known_shape)


def to_epilogue(rw: Rewriter, node: Node) -> Outcome:
    """f(anchor(x), y...) as the anchor's epilogue; of several anchors the last one takes it."""
    program = program_of(node)
    shape = node.output.shape
    found: list[Node] = []
    for value in program.operands:
        anchor = value.producer
        if anchor is None or not takes_epilogue(rw, anchor, value, node):
            continue
        if value.shape == shape:
            found.append(anchor)
    if not found:
        return None
    anchor = max(found, key=rw.rank)
    if _widens(anchor.output, node) and program.cost <= CHEAP and _are_pointwise(node.output):
        return None
    own = anchor.attrs.get("own", _ANCHORS[anchor.kind])
    inner = epilogue_of(anchor)
    whole = inline(program, {id(anchor.output): inner}, lead=inner.operands[:1])
    if not whole.is_small:
        return None
    return _anchored(rw, anchor, anchor.inputs[:own], whole, node.output)


def _widens(value: Value, node: Node) -> bool:
    """Whether a quantised value becomes floats, which then its readers do: memory holds bytes."""
    return value.dtype in BYTES and value.dtype != node.output.dtype


def _are_pointwise(value: Value) -> bool:
    return bool(value.users) and all(user.kind == "clinfer.Pointwise" for user in value.users)


def epilogue_of(anchor: Node) -> Program:
    """The anchor's epilogue; its first operand stands for the operator's own result."""
    own = anchor.attrs.get("own", _ANCHORS[anchor.kind])
    expr = anchor.attrs.get("epilogue") or identity(str(anchor.output.dtype))
    rest = tuple(v for v in anchor.inputs[own:] if v is not None)
    return Program(expr, (Value("result", expr.inputs[0]), *rest))


def takes_epilogue(rw: Rewriter, anchor: Node, value: Value, node: Node) -> bool:
    """Whether `anchor` makes `value` for `node` alone and may apply more to it."""
    if anchor.kind not in _ANCHORS or value is not anchor.outputs[0]:
        return False
    if len([v for v in anchor.outputs if v is not None]) > 1 or rw.graph.is_output(value):
        return False
    if anchor.kind == "Resize" and "scales" not in anchor.attrs:
        return False
    if anchor.kind in REDUCTIONS and not _is_canonical_reduction(anchor):
        return False
    return value.users.are(node)


def _is_canonical_reduction(node: Node) -> bool:
    return "axes" in node.attrs and node.attrs.get("keepdims", 0) == 1


def _anchored(
    rw: Rewriter, anchor: Node, own: list[Value | None], epilogue: Program, like: Value
) -> Value:
    """The anchor once more, in the place of the last node of its epilogue."""
    attrs: dict[str, Any] = {**anchor.attrs, "own": len(own), "epilogue": epilogue.expr}
    return rw.emit(
        anchor.op,
        [*own, *epilogue.operands[1:]],
        epilogue.expr.output_dtypes[0],
        like.shape,
        attrs=attrs,
        domain=anchor.domain,
        version=anchor.version,
    )


def to_prologue(rw: Rewriter, node: Node) -> Outcome:
    """anchor(f(y...)) with f computed as the anchor reads its input."""
    if node.kind in REDUCTIONS and not _is_canonical_reduction(node):
        return None
    own = node.attrs.get("own", 1)
    before = node.attrs.get("prologue") or identity(str(node.required(0).dtype))
    program = Program(before, tuple(v for v in node.inputs[:own] if v is not None))
    full = broadcast([v.known_shape for v in program.operands])
    for value in program.operands:
        producer = value.producer
        if producer is None or producer.kind != "clinfer.Pointwise" or value.shape != full:
            continue
        if rw.graph.is_output(value) or not value.users.are(node):
            continue
        whole = inline(program, {id(value): program_of(producer)})
        small = whole.is_small and whole.cost <= _PROLOGUE_COST.get(node.kind, 64)
        if not small or broadcast([v.known_shape for v in whole.operands]) != full:
            continue
        attrs = {**node.attrs, "own": len(whole.operands), "prologue": whole.expr}
        inputs = [*whole.operands, *node.inputs[own:]]
        return rw.emit(
            node.op,
            inputs,
            node.output.dtype,
            node.output.shape,
            attrs=attrs,
            domain=node.domain,
            version=node.version,
        )
    return None


def to_conv_prologue(rw: Rewriter, node: Node) -> Outcome:
    """Conv(f(x, y...)) of a picture with f computed as x is read, y being one value or a channel's.

    Each element is read for several results: f must cost little, and channels be few.
    """
    value = node.required(0)
    channels = value.known_shape[-1]
    if (
        not node.attrs.keys().isdisjoint(("prologue", "zero"))
        or not isinstance(channels, int)
        or channels > _PICTURE_CHANNELS
    ):
        return None
    views = _views_between(rw, value, node)
    if views is None:
        return None
    program = program_of(views.pop())
    if program.cost > _PROLOGUE_COST[node.kind]:
        return None
    if not all(v.const is None or v.const.size in (1, channels) for v in program.operands):
        return None
    for view in reversed(views):
        operands = [_viewed(rw, v, view) for v in program.operands]
        known = tuple(v for v in operands if v is not None)
        if len(known) < len(operands):
            return None
        program = Program(program.expr, known)
    read = [v for v in program.operands if v.const is None]
    if len(read) != 1 or read[0].shape != value.shape:
        return None
    if not all(v is read[0] or _is_by_channel(v) for v in program.operands):
        return None
    whole = inline(program, {}, lead=read)
    own = node.attrs.get("own", _ANCHORS[node.kind])
    return rw.emit(
        node.op,
        [read[0], node.required(1), *whole.operands[1:], *node.inputs[own:]],
        node.output.dtype,
        node.output.shape,
        attrs={**node.attrs, "own": own + len(whole.operands) - 1, "prologue": whole.expr},
        domain=node.domain,
        version=node.version,
    )


def _views_between(rw: Rewriter, value: Value, reader: Node) -> list[Node] | None:
    """The views from a reader back to a pointwise node, which comes last; nothing else reads them.

    None where something else makes the value.
    """
    found: list[Node] = []
    while True:
        maker = value.producer
        if maker is None or rw.graph.is_output(value) or not value.users.are(reader):
            return None
        found.append(maker)
        if maker.kind == "clinfer.Pointwise":
            return found
        if maker.kind not in _VIEWS:
            return None
        value, reader = maker.required(0), maker


def _viewed(rw: Rewriter, operand: Value, view: Node) -> Value | None:
    """An operand as it stands behind a view; None where that has no such form."""
    made, const = view.output, operand.const
    if const is None and operand.shape != view.required(0).shape:
        return None
    if const is not None and const.size == 1:
        return operand
    if view.kind == "Reshape":
        return None if const is not None else rw.reshape(operand, made.known_shape)
    if const is not None:
        missing = (1,) * (len(made.known_shape) - const.ndim)
        operand = rw.constant(const.reshape(*missing, *const.shape))
    return rw.transpose(operand, view.attrs["perm"])


def _is_by_channel(value: Value) -> bool:
    if value.const is None:
        return False
    return value.const.size == 1 or value.const.size == value.known_shape[-1]


KEEP_REDUCED = (Rule("keep-reduced", REDUCTIONS, keep_reduced),)
EPILOGUE_RULES = (Rule("epilogue", ("clinfer.Pointwise",), to_epilogue),)
PROLOGUE_RULES = (
    Rule("prologue", ("clinfer.Softmax", "clinfer.Norm", *REDUCTIONS), to_prologue),
    Rule("conv-prologue", ("clinfer.Conv",), to_conv_prologue),
)
