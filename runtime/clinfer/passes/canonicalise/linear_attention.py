"""LinearAttention over a known number of steps: each decays, corrects and reads a state."""

from __future__ import annotations

from math import sqrt

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.maker import Maker
from clinfer.passes.canonicalise.views import emit_slice
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim

_MOST_STEPS = 128  # that are written out


def linear_attention(rw: Rewriter, node: Node) -> Outcome:
    """Of each key and value head: S = exp(g) S + k (beta (v - S^T k))^T, o = scale S^T q.

    Inputs are [B, T, heads * size]; without a gate g is 0, without a correction it is k v^T.
    Yang et al., "Gated Delta Networks" (2025). The state is kept in float32.
    """
    query, key, value = (node.required(index) for index in range(3))
    past, decay, beta = (node.input(index) for index in (3, 4, 5))
    batch, steps, _ = query.known_shape
    heads, own = int(node.attrs["q_num_heads"]), int(node.attrs["kv_num_heads"])
    if not isinstance(steps, int) or not 1 <= steps <= _MOST_STEPS:
        return Refusal(f"its steps are not known, or more than {_MOST_STEPS}")
    width, depth = query.known_shape[2] // heads, value.known_shape[2] // own
    if not isinstance(width, int):
        return Refusal("the size of its keys is not known when the model is compiled")
    make = Maker(rw)

    def apart(x: Value, count: Dim, size: Dim) -> Value:
        """[B, T, count * size] as [B, count, T, size], in float32."""
        cut = rw.reshape(make.cast(x, "float32"), (batch, steps, count, size))
        return rw.transpose(cut, (0, 2, 1, 3))

    def at(x: Value, step: int, row: bool) -> Value:
        """A step of [B, H, T, size] as a row [B, H, 1, size], or a column [B, H, size, 1]."""
        shape = (*x.known_shape[:2], 1, x.known_shape[3])
        part = emit_slice(rw, x, {2: (step, 1)} if steps > 1 else {}, Value("", x.dtype, shape))
        return part if row else rw.reshape(part, (*shape[:2], shape[3], 1))

    def product(a: Value, b: Value) -> Value:
        shape = (*a.known_shape[:-1], b.known_shape[-1])
        return rw.emit("MatMul", [a, b], "float32", shape)

    q, k, v = apart(query, heads, width), apart(key, own, width), apart(value, own, depth)
    gates = None
    if decay is not None:
        last = decay.known_shape[2]
        gates = apart(decay, own, 1 if last == own else width)
    shares = None if beta is None else apart(beta, beta.known_shape[2], 1)
    state_shape = (batch, own, width, depth)
    if past is None:
        zero = rw.constant(np.zeros((1, 1, 1, 1), np.float32))
        state = rw.emit("Expand", [zero], "float32", state_shape)
    else:
        state = make.cast(past, "float32")
    scale = float(node.attrs.get("scale", 0.0)) or 1.0 / sqrt(width)
    group = heads // own
    outputs: list[Value | None] = []
    for step in range(steps):
        if gates is not None:
            state = make("Mul", state, make("Exp", at(gates, step, row=False)))
        new = at(v, step, row=True)
        if shares is not None:
            new = make("Sub", new, product(at(k, step, row=True), state))
            new = make("Mul", new, at(shares, step, row=True))
        state = make("Add", state, make("Mul", at(k, step, row=False), new))
        rows = rw.reshape(at(q, step, row=True), (batch, own, group, width))
        read = make("Mul", product(rows, state), scale)
        outputs.append(rw.reshape(read, (batch, 1, heads * depth)))
    whole = (batch, steps, heads * depth)
    made = outputs[0]
    if steps > 1:
        made = rw.emit("Concat", outputs, "float32", whole, attrs={"axis": 1})
    assert made is not None
    kind = query.dtype if past is None else past.dtype
    results = [make.cast(made, str(query.dtype)), make.cast(state, str(kind))]
    return results[: len(node.outputs)]


RULES = (Rule("linear-attention-to-steps", ("LinearAttention",), linear_attention),)
