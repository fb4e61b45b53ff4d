"""LSTM, GRU and RNN: the inputs' products as one MatMul, the recurrence as clinfer.Recurrent.

Weights may be computed: what is rearranged when the model is compiled where they are constants is
then views and copies of the run. Directions whose activations differ are layers of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clinfer.errors import UnsupportedError
from clinfer.graph.activations import ARITY, activations
from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.maker import cast
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.onnx_pointwise import POINTWISE
from clinfer_kernels.recurrent_text import BLOCK, GATES
from clinfer_kernels.terms import Term

_FLOATS = ("float64", "float32", "float16", "bfloat16")


def recurrent(rw: Rewriter, node: Node) -> Outcome:
    """X * W + B for all steps at once, then the steps; narrow floats are computed in float32."""
    x = node.required(0)
    if x.dtype not in _FLOATS:
        return Refusal(f"kernels do not compute recurrent layers in {x.dtype}")
    directions = 2 if node.attrs.get("direction") == "bidirectional" else 1
    hidden = node.attrs.get("hidden_size") or node.required(2).known_shape[2]
    if not isinstance(hidden, int):
        return Refusal("the size of its states is known only in the run")
    functions = _functions(node, directions, "float64" if x.dtype == "float64" else "float32")
    layer = _layer(rw, node, (directions, hidden))
    if len(set(functions)) == 1:
        results = _steps(rw, node, layer, functions[0], node.attrs.get("direction") == "reverse")
    else:
        apart = [
            _steps(rw, node, layer.of_direction(rw, d), functions[d], d == 1)
            for d in range(directions)
        ]
        results = [_side_by_side(rw, parts) for parts in zip(*apart, strict=True)]
    return [_outgoing(rw, node, value) for value in results]


class _Layer(NamedTuple):
    """The node's operands in the dtype it is computed in, the batch second."""

    x: Value
    w: Value
    r: Value
    b: Value | None
    lengths: Value | None
    h: Value | None
    c: Value | None
    peepholes: Value | None
    directions: int
    hidden: int

    def of_direction(self, rw: Rewriter, d: int) -> _Layer:
        """What belongs to direction d."""

        def own(value: Value | None) -> Value | None:
            return None if value is None else _part(rw, value, 0, d)

        return self._replace(
            w=_part(rw, self.w, 0, d),
            r=_part(rw, self.r, 0, d),
            b=own(self.b),
            h=own(self.h),
            c=own(self.c),
            peepholes=own(self.peepholes),
            directions=1,
        )


def _layer(rw: Rewriter, node: Node, sizes: tuple[int, int]) -> _Layer:
    dtype = "float64" if node.required(0).dtype == "float64" else "float32"
    found: list[Value | None] = []
    for index in range(8):
        value = node.input(index) if index < 6 or node.op == "LSTM" else None
        if value is not None and index != 4:
            value = cast(rw, value, dtype)
            if index in (0, 5, 6) and node.attrs.get("layout", 0):
                value = _turned(rw, value, (1, 0, 2))
        found.append(value)
    x, w, r, b, lengths, h, c, peepholes = found
    assert x is not None
    assert w is not None
    assert r is not None
    return _Layer(x, w, r, b, lengths, h, c, peepholes, *sizes)


def _steps(
    rw: Rewriter, node: Node, layer: _Layer, functions: tuple[Expr, ...], backward: bool
) -> list[Value]:
    """The layer's results: every state [T, D, N, H], the last one [D, N, H], and cells."""
    x, dtype, count = layer.x, layer.x.dtype, GATES[node.op]
    steps, batch = x.known_shape[:2]
    directions, hidden = layer.directions, layer.hidden
    late = node.op == "GRU" and bool(node.attrs.get("linear_before_reset", 0))
    wide = -(-hidden // BLOCK) * BLOCK
    sums = rw.emit(
        "MatMul",
        [x, _input_weights(rw, layer, count, wide)],
        dtype,
        (steps, batch, directions * count * wide),
    )
    bias, late_bias = _biases(rw, layer, count, wide, late)
    if bias is not None:
        sums = rw.emit("Add", [sums, bias], dtype, sums.shape)
    packed = layer.r.const is None
    peep = layer.peepholes
    if peep is not None:
        peep = _padded(rw, rw.reshape(peep, (directions, 3, hidden)), 2, wide)
    extra = [layer.h, layer.c, layer.lengths, peep, late_bias]
    inputs = [
        rw.reshape(sums, (steps, batch, directions, count, wide)),
        _packed(rw, layer, count, wide) if packed else layer.r,
        *(v for v in extra if v is not None),
    ]
    last: tuple[Dim, ...] = (directions, batch, hidden)
    shapes = [(steps, directions, batch, hidden), last] + [last] * (node.op == "LSTM")
    outputs = [Value(rw.graph.fresh("recurrent"), dtype, shape) for shape in shapes]
    attrs = {
        "kind": node.op,
        "functions": functions,
        "backward_from": 0 if backward else 1,
        "has_state": layer.h is not None,
        "has_cells": layer.c is not None,
        "has_lengths": layer.lengths is not None,
        "has_peepholes": peep is not None,
        "packed": packed,
        "reset_late": late,
        "coupled": node.op == "LSTM" and bool(node.attrs.get("input_forget", 0)),
        "rounds": bool(node.attrs.get("rounds", 0)),
        "clip": float(node.attrs.get("clip", 0.0)),
    }
    rw.insert(Node("Recurrent", [*inputs], [*outputs], attrs, node.name, "clinfer"))
    return outputs


def _side_by_side(rw: Rewriter, parts: Sequence[Value]) -> Value:
    """Results of single directions as one: [T, D, N, H] or [D, N, H]."""
    axis = len(parts[0].known_shape) - 3
    shape = list(parts[0].known_shape)
    shape[axis] = len(parts)
    return rw.emit("Concat", parts, parts[0].dtype, tuple(shape), attrs={"axis": axis})


def _outgoing(rw: Rewriter, node: Node, value: Value) -> Value:
    """A result as the node has it: in its dtype, with the batch first where the layout says so."""
    if node.attrs.get("layout", 0):
        first = (2, 0, 1, 3) if len(value.known_shape) == 4 else (1, 0, 2)
        value = rw.transpose(value, first)
    return cast(rw, value, str(node.required(0).dtype))


# -- weights; units are padded with zeros to P, a multiple of BLOCK ------------------------------


def _input_weights(rw: Rewriter, layer: _Layer, count: int, wide: int) -> Value:
    """W [D, G * H, I] as [I, D * G * P]."""
    directions, hidden, size = layer.directions, layer.hidden, layer.x.known_shape[2]
    full = _padded(rw, rw.reshape(layer.w, (directions, count, hidden, size)), 2, wide)
    return _turned(rw, rw.reshape(full, (directions * count * wide, size)), (1, 0))


def _packed(rw: Rewriter, layer: _Layer, count: int, wide: int) -> Value:
    """R [D, G * H, H] as [D, P / BLOCK, H, G, BLOCK]."""
    directions, hidden = layer.directions, layer.hidden
    full = _padded(rw, rw.reshape(layer.r, (directions, count, hidden, hidden)), 2, wide)
    blocks = rw.reshape(full, (directions, count, wide // BLOCK, BLOCK, hidden))
    return rw.transpose(blocks, (0, 2, 4, 1, 3))


def _biases(
    rw: Rewriter, layer: _Layer, count: int, wide: int, late: bool
) -> tuple[Value | None, Value | None]:
    """Both biases together [D * G * P], and that of a late reset's recurrence alone [D, P]."""
    directions, hidden = layer.directions, layer.hidden
    if layer.b is None:
        zeros = np.zeros((directions, wide), layer.x.dtype)
        return None, rw.constant(zeros) if late else None
    both = _padded(rw, rw.reshape(layer.b, (directions, 2, count, hidden)), 3, wide)
    shape = (directions, count, wide)
    own, back = (rw.reshape(_part(rw, both, 1, k), shape) for k in (0, 1))
    apart = None
    if late:
        apart = rw.reshape(_part(rw, back, 1, 2), (directions, wide))
        back = _padded(rw, _part(rw, back, 1, 0, 2), 1, count)
    if own.const is not None and back.const is not None:
        total = rw.constant(own.const + back.const)
    else:
        total = rw.emit("Add", [own, back], own.dtype, shape)
    return rw.reshape(total, (directions * count * wide,)), apart


def _padded(rw: Rewriter, value: Value, axis: int, size: int) -> Value:
    """`value` with zeros behind along an axis, up to that size."""
    shape = value.known_shape
    missing = size - shape[axis]
    if not isinstance(missing, int) or not missing:
        return value
    pads = [(0, missing if k == axis else 0) for k in range(len(shape))]
    if value.const is not None:
        return rw.constant(np.pad(value.const, pads))
    amounts = rw.constant(np.array(pads, np.int64).T.reshape(-1))
    wide = (*shape[:axis], size, *shape[axis + 1 :])
    return rw.emit("Pad", [value, amounts], value.dtype, wide, version=21)


def _part(rw: Rewriter, value: Value, axis: int, start: int, count: int = 1) -> Value:
    """`count` places along an axis."""
    if value.const is not None:
        return rw.constant(value.const.take(range(start, start + count), axis))
    shape = value.known_shape
    like = Value("", value.dtype, (*shape[:axis], count, *shape[axis + 1 :]))
    return emit_slice(rw, value, {axis: (start, 1)}, like)


def _turned(rw: Rewriter, value: Value, perm: tuple[int, ...]) -> Value:
    """A transpose; a constant of any size is laid out anew."""
    if value.const is not None:
        return rw.constant(np.ascontiguousarray(value.const.transpose(perm)))
    return rw.transpose(value, perm)


# -- activations ---------------------------------------------------------------------------------


def _functions(node: Node, directions: int, dtype: str) -> list[tuple[Expr, ...]]:
    """The activations f, g, h of each direction."""
    try:
        found = activations(node.op, node.attrs, directions)
    except ValueError as error:
        raise UnsupportedError(f"{node.describe()}: {error}") from error
    made = [_function(name, alpha, beta, dtype) for name, alpha, beta in found]
    count = ARITY[node.op]
    return [tuple(made[d * count : (d + 1) * count]) for d in range(directions)]


def _function(name: str, alpha: float, beta: float, dtype: str) -> Expr:
    builder = Builder([dtype])
    x = Term(builder, 0)
    if name == "Affine":
        return builder.build((x * alpha + beta).number)
    if name == "ScaledTanh":
        return builder.build(((x * beta).op("tanh") * alpha).number)
    attrs = {"alpha": alpha, "beta": beta}
    return builder.build(POINTWISE[name].build(builder, [0], attrs))


RULES = (Rule("recurrent", tuple(GATES), recurrent),)
