"""Pointwise nodes move before the reshapes they read, so that they meet what they can join."""

from __future__ import annotations

from clinfer.graph.ir import Node, Value
from clinfer.passes.fuse.anchors import epilogue_of, takes_epilogue
from clinfer.passes.fuse.pointwise import emit_pointwise
from clinfer.passes.fuse.program import Program, fits_surely, inline, program_of
from clinfer.passes.reshapes import operand_through
from clinfer.passes.rewrite import Outcome, Rewriter, Rule


def before_reshape(rw: Rewriter, node: Node) -> Outcome:
    """f(Reshape(x), y...) = Reshape(f(x, y'...)), where what computes x then takes f in.

    A node next to something that could take it in does not move, so no node moves twice.
    """
    program = program_of(node)
    shape = node.output.known_shape
    if any(_taker(rw, v, node) is not None and v.shape == shape for v in program.operands):
        return None
    for value in program.operands:
        source = _reshaped(rw, value, node)
        if source is None or value.shape != shape:
            continue
        inner = source.known_shape
        others = [v for v in program.operands if v is not value]
        moved = [operand_through(v.known_shape, shape, inner) for v in others]
        known = [m for m in moved if m is not None]
        if len(known) < len(moved):
            continue
        operands = iter([rw.reshape(v, m) for v, m in zip(others, known, strict=True)])
        bound = tuple(source if v is value else next(operands) for v in program.operands)
        made = inline(Program(program.expr, bound), {})
        result = emit_pointwise(rw, made, Value("", made.expr.output_dtypes[0], inner))
        return rw.reshape(result, shape)
    return None


def _reshaped(rw: Rewriter, value: Value, node: Node) -> Value | None:
    """x where `value` is Reshape(x), read only by `node`, and what computes x can take it in."""
    view = value.producer
    if view is None or view.kind != "Reshape" or rw.graph.is_output(value):
        return None
    if not value.users.are(node):
        return None
    source = view.required(0)
    inner = _taker(rw, source, view)
    if inner is None:
        return None
    program = program_of(node)
    fits = fits_surely(program, [inner]) or inline(program, {id(value): inner}).is_small
    return source if fits else None


def _taker(rw: Rewriter, value: Value, reader: Node) -> Program | None:
    """The program of what makes `value` for `reader` alone, where it can take more in."""
    maker = value.producer
    if maker is None or rw.graph.is_output(value) or not value.users.are(reader):
        return None
    if maker.kind == "clinfer.Pointwise":
        return program_of(maker)
    return epilogue_of(maker) if takes_epilogue(rw, maker, value, reader) else None


RULES = (Rule("before-reshape", ("clinfer.Pointwise",), before_reshape),)
