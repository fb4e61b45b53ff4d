"""Chains of pointwise operators become one clinfer.Pointwise."""

from __future__ import annotations

import math

from clinfer.dtypes import NARROW_DTYPES
from clinfer.graph.ir import Node, Value
from clinfer.passes.fuse.program import Program, fits_surely, inline, program_of
from clinfer.passes.query import fits
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.expr import Builder
from clinfer_kernels.onnx_pointwise import POINTWISE
from clinfer_kernels.types import TABLE

# Computing this much again (in additions) is cheaper than writing and reading an element.
CHEAP = 4
BYTES = ("int8", "uint8")
# What more nodes than this read is computed once and written.
MOST_READERS = 64


def to_pointwise(rw: Rewriter, node: Node) -> Outcome:
    """An ONNX operator as an expression; constants of one element become part of it."""
    values = [None if v is None else _unexpanded(v) for v in node.inputs]
    shape = node.output.known_shape
    operands = [v for v in values if v is not None and not _is_literal(v)]
    if not operands or not all(fits(v.known_shape, shape) for v in operands):
        return Refusal("all inputs are constants, or do not broadcast to the result for sure")
    builder = Builder([str(v.dtype) for v in operands])
    waiting = iter(range(len(operands)))
    numbers: list[int | None] = []
    for value in values:
        if value is None:
            numbers.append(None)
        else:
            numbers.append(_literal(builder, value) if _is_literal(value) else next(waiting))
    try:
        expr = builder.build(POINTWISE[node.kind].build(builder, numbers, node.attrs))
    except ValueError as error:
        return Refusal(str(error))
    if expr.output_dtypes[0] != node.output.dtype:
        return Refusal(f"its expression gives {expr.output_dtypes[0]}")
    return emit_pointwise(rw, inline(Program(expr, tuple(operands)), {}), node.output)


def emit_pointwise(rw: Rewriter, program: Program, like: Value) -> Value:
    """A clinfer.Pointwise of the dtype and shape of `like`."""
    return rw.emit(
        "Pointwise",
        program.operands,
        program.expr.output_dtypes[0],
        like.shape,
        attrs={"expr": program.expr},
        domain="clinfer",
    )


def _is_literal(value: Value) -> bool:
    if value.dtype in NARROW_DTYPES or value.dtype == TABLE:
        return False
    return value.const is not None and value.const.size == 1 and value.const.dtype.kind != "O"


def _literal(builder: Builder, value: Value) -> int:
    assert value.const is not None
    element = value.const.reshape(-1)[0].item()
    if isinstance(element, float) and math.isnan(element):
        element = math.nan
    return builder.const(element, str(value.dtype))


def _unexpanded(value: Value) -> Value:
    """What an Expand reads: a pointwise kernel broadcasts its operands by itself."""
    producer = value.producer
    if producer is not None and producer.kind == "Expand" and len(producer.inputs) == 1:
        return _unexpanded(producer.required(0))
    return value


def merge_producers(rw: Rewriter, node: Node) -> Outcome:
    """A chain becomes one node: a producer read only here, or cheap enough to compute again."""
    program = program_of(node)
    chosen: dict[int, Program] = {}
    for value in program.operands:
        producer = value.producer
        if producer is None or producer.kind != "clinfer.Pointwise":
            continue
        inner = program_of(producer)
        if not _worth_it(rw, value, inner, node):
            continue
        candidate = {**chosen, id(value): inner}
        if fits_surely(program, candidate.values()) or inline(program, candidate).is_small:
            chosen = candidate
    if not chosen:
        return None
    return emit_pointwise(rw, inline(program, chosen), node.output)


def _worth_it(rw: Rewriter, value: Value, inner: Program, node: Node) -> bool:
    if rw.graph.is_output(value):
        return False
    cheap = inner.cost <= CHEAP
    if value.dtype in BYTES and not cheap:
        return False  # a quantised value is kept in bytes; its anchor's epilogue makes it
    if value.users.are(node):
        return cheap or value.shape == node.output.shape
    if not cheap or len(inner.operands) > 1 or len(value.users) > MOST_READERS:
        return False
    return all(user.kind == "clinfer.Pointwise" for user in value.users)


TO_POINTWISE = (Rule("to-pointwise", tuple(POINTWISE), to_pointwise),)
CHAIN_RULES = (Rule("merge-chain", ("clinfer.Pointwise",), merge_producers),)
