"""Pointwise chains join the operator before them as its epilogue, or after them as its prologue."""

from __future__ import annotations

from typing import Any

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM, REDUCTIONS
from clinfer.passes.fuse.program import Program, inline, program_of
from clinfer.passes.query import broadcast
from clinfer.passes.rewrite import Outcome, Rewriter, Rule
from clinfer_kernels.expr import identity

# Operators that take an epilogue, with the number of inputs of their own.
_ANCHORS = {
    "MatMul": 2,
    "clinfer.Conv": 2,
    "clinfer.ConvTranspose": 2,
    "clinfer.Pool": 1,
    "clinfer.Norm": 1,
    "clinfer.Softmax": 1,
    "Resize": 1,
    **dict.fromkeys(REDUCTIONS, 1),
}
# Softmax and Norm read each element several times: what they recompute must cost little.
_PROLOGUE_COST = {"clinfer.Softmax": 8, "clinfer.Norm": 8}


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
    own = anchor.attrs.get("own", _ANCHORS[anchor.kind])
    inner = epilogue_of(anchor)
    whole = inline(program, {id(anchor.output): inner}, lead=inner.operands[:1])
    if not whole.is_small:
        return None
    return _anchored(rw, anchor, anchor.inputs[:own], whole, node.output)


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
    if anchor.kind == "Resize" and "axes" not in anchor.attrs:
        return False
    if anchor.kind in REDUCTIONS and not _is_canonical_reduction(anchor):
        return False
    return all(user is node for user in value.users)


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
        if rw.graph.is_output(value) or any(user is not node for user in value.users):
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


KEEP_REDUCED = (Rule("keep-reduced", REDUCTIONS, keep_reduced),)
EPILOGUE_RULES = (Rule("epilogue", ("clinfer.Pointwise",), to_epilogue),)
PROLOGUE_RULES = (Rule("prologue", ("clinfer.Softmax", "clinfer.Norm", *REDUCTIONS), to_prologue),)
