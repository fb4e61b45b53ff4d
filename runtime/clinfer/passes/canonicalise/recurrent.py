"""LSTM, GRU and RNN: the inputs' products as one MatMul, the recurrence as clinfer.Recurrent."""

from __future__ import annotations

from typing import Any

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.canonicalise.maker import cast
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.onnx_pointwise import POINTWISE
from clinfer_kernels.recurrent_text import BLOCK, GATES
from clinfer_kernels.terms import Term

_FUNCTIONS = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}
_FLOATS = ("float32", "float16", "bfloat16")
_KNOWN = (
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
)


def recurrent(rw: Rewriter, node: Node) -> Outcome:
    """X * W + B for all steps at once, then the steps; of any float, in float32."""
    x, w, r, b, lengths, h = (node.input(i) for i in range(6))
    c, peepholes = (node.input(6), node.input(7)) if node.op == "LSTM" else (None, None)
    assert x is not None
    assert r is not None
    if x.dtype not in _FLOATS:
        return Refusal(f"its kernel computes in float32, not {x.dtype}")
    if any(v is not None and v.const is None for v in (w, r, b, peepholes)):
        return Refusal("its weights are computed")
    functions = _functions(node)
    if isinstance(functions, Refusal):
        return functions
    if lengths is not None and lengths.dtype != "int32":
        return Refusal(f"its lengths are {lengths.dtype}, not int32")
    late = node.op == "GRU" and bool(node.attrs.get("linear_before_reset", 0))
    constants = [None if v is None else v.const for v in (w, r, b, peepholes)]
    weights, bias, late_bias, peep = _weights(node.op, late, constants)
    x, h, c = (None if v is None else _incoming(rw, node, v) for v in (x, h, c))
    assert x is not None
    steps, batch = x.known_shape[:2]
    directions, count, units = bias.shape
    shape = (steps, batch, directions * count * units)
    product = rw.emit("MatMul", [x, rw.constant(weights)], "float32", shape)
    moved = rw.emit("Add", [product, rw.constant(bias.reshape(-1))], "float32", shape)
    sums = rw.reshape(moved, (steps, batch, directions, count, units))
    inputs = [sums, cast(rw, r, "float32"), *(v for v in (h, c, lengths) if v is not None)]
    inputs += [rw.constant(v) for v in (peep, late_bias) if v is not None]
    last = (directions, batch, r.known_shape[2])
    shapes = [(steps, directions, batch, r.known_shape[2]), last]
    shapes += [last] if node.op == "LSTM" else []
    outputs = [Value(rw.graph.fresh("recurrent"), "float32", found) for found in shapes]
    attrs = {
        "kind": node.op,
        "functions": functions,
        "backward_from": 0 if node.attrs.get("direction", "forward") == "reverse" else 1,
        "has_state": h is not None,
        "has_cells": c is not None,
        "has_lengths": lengths is not None,
        "has_peepholes": peep is not None,
        "reset_late": late,
        "coupled": bool(node.attrs.get("input_forget", 0)),
        "clip": float(node.attrs.get("clip", 0.0)),
    }
    rw.insert(Node("Recurrent", [*inputs], [*outputs], attrs, node.name, "clinfer"))
    return [_outgoing(rw, node, v) for v in outputs]


def _incoming(rw: Rewriter, node: Node, value: Value) -> Value:
    """Inputs and states as float32 with the batch second."""
    value = cast(rw, value, "float32")
    return rw.transpose(value, (1, 0, 2)) if node.attrs.get("layout", 0) else value


def _outgoing(rw: Rewriter, node: Node, value: Value) -> Value:
    """A result as the node has it: in its dtype, with the batch first where the layout says so."""
    if node.attrs.get("layout", 0):
        first = (2, 0, 1, 3) if len(value.known_shape) == 4 else (1, 0, 2)
        value = rw.transpose(value, first)
    return cast(rw, value, str(node.required(0).dtype))


def _functions(node: Node) -> tuple[Expr, ...] | Refusal:
    """The activations f, g, h; the same ones in all directions."""
    count = len(_FUNCTIONS[node.op])
    names = [_text(name) for name in node.attrs.get("activations", ())]
    names = names or list(_FUNCTIONS[node.op]) * 2
    alphas, betas = (list(node.attrs.get(f"activation_{n}", ())) for n in ("alpha", "beta"))
    found = []
    for name in names:
        attrs = {}
        # ONNX gives the lists values only for the functions that take them, in their order.
        for key, values in (("alpha", alphas), ("beta", betas)):
            if key in _PARAMETERS.get(name, ()) and values:
                attrs[key] = float(values.pop(0))
        made = _function(name, attrs)
        if made is None:
            return Refusal(f"the activation {name} has no kernel")
        found.append(made)
    first = tuple(found[:count])
    if node.attrs.get("direction") == "bidirectional" and tuple(found[count:]) != first:
        return Refusal("its directions have different activations")
    return first


_PARAMETERS = {
    "Affine": ("alpha", "beta"),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "ScaledTanh": ("alpha", "beta"),
    "ThresholdedRelu": ("alpha",),
}


def _function(name: str, attrs: dict[str, Any]) -> Expr | None:
    builder = Builder(["float32"])
    x = Term(builder, 0)
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 0.0)
    known = {key.lower(): key for key in _KNOWN}.get(name.lower())
    if name == "Affine":
        return builder.build((x * alpha + beta).number)
    if name == "ScaledTanh":
        inner = x * attrs.get("beta", 1.0)
        return builder.build((inner.op("tanh") * alpha).number)
    return None if known is None else builder.build(POINTWISE[known].build(builder, [0], attrs))


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _weights(
    kind: str, late: bool, constants: list[Array | None]
) -> tuple[Array, Array, Array | None, Array | None]:
    """W as [I, D * G * P], both biases as [D, G, P].

    And of a GRU that resets late the bias [D, P] of the recurrence of h, the peepholes [D, 3, P].
    Units are padded with zeros to P: they stay 0.
    """
    w, r, b, peepholes = constants
    assert w is not None
    assert r is not None
    directions, _, size = w.shape
    hidden, count = r.shape[2], GATES[kind]
    blocks = -(-hidden // BLOCK)
    full = np.zeros((directions, count, blocks * BLOCK, size), np.float32)
    full[:, :, :hidden] = w.reshape(directions, count, hidden, size)
    bias = np.zeros((directions, 2, count, blocks * BLOCK), np.float32)
    if b is not None:
        bias[..., :hidden] = b.reshape(directions, 2, count, hidden)
    late_bias = None
    if late:
        late_bias = bias[:, 1, 2].copy()
        bias[:, 1, 2] = 0
    peep = None
    if peepholes is not None:
        peep = np.zeros((directions, 3, blocks * BLOCK), np.float32)
        peep[..., :hidden] = peepholes.reshape(directions, 3, hidden)
    return (
        np.ascontiguousarray(full.reshape(-1, size).T),
        bias.sum(1),
        late_bias,
        peep,
    )


RULES = (Rule("recurrent", tuple(GATES), recurrent),)
