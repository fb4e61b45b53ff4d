"""Factors and shifts by channel behind a convolution go into its weights and bias.

    conv(x, W) * s + t = conv(x, W * s) + t, with s and t constant in all but the channel dimension

The products are taken in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np

from clinfer.graph.ir import Array, Node, Value
from clinfer.mapping import drop_pages
from clinfer.passes.canonicalise.norms import batch_norm_factors
from clinfer.passes.query import integers
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def fold_batch_norm(rw: Rewriter, node: Node) -> Outcome:
    """BatchNormalization(conv(x))."""
    conv = _convolution(node.required(0))
    if conv is None or node.attrs.get("training_mode", 0):
        return None
    if any(v is not None and v.users for v in node.outputs[1:]):
        return None
    factors = batch_norm_factors(node)
    if factors is None:
        return Refusal("its statistics are not constant")
    return _folded(rw, conv, node, *factors, keep_outputs=True)


def fold_mul(rw: Rewriter, node: Node) -> Outcome:
    """conv(x) * s, conv(x) / s."""
    found = _with_constant(node)
    if found is None:
        return None
    conv, content = found
    factor = content.astype(np.float64)
    if node.op == "Div":
        if np.any(factor == 0):
            return Refusal("it divides by zero")
        factor = 1.0 / factor
    return _folded(rw, conv, node, factor, np.zeros(1))


def fold_add(rw: Rewriter, node: Node) -> Outcome:
    """conv(x) + t, conv(x) - t."""
    found = _with_constant(node)
    if found is None:
        return None
    conv, content = found
    shift = content.astype(np.float64)
    return _folded(rw, conv, node, np.ones(1), -shift if node.op == "Sub" else shift)


def fold_pad(rw: Rewriter, node: Node) -> Outcome:
    """conv(pad(x, zeros)): the convolution pads by itself."""
    pad = node.required(0).producer
    if pad is None or pad.kind != "Pad" or pad.attrs.get("mode", "constant") != "constant":
        return None
    x = pad.required(0)
    pads = integers(pad.required(1))
    if pads is None or pad.input(3) is not None:
        return Refusal("the padding is not constant, or names its axes")
    fill = pad.input(2)
    if fill is not None and not _is_zero(fill):
        return Refusal("it pads with something else than zeros")
    rank = len(x.known_shape)
    begins, ends = pads[:rank], pads[rank:]
    if any([*begins[:2], *ends[:2]]) or any(p < 0 for p in pads):
        return Refusal("it pads other dimensions than the spatial ones, or crops")
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return Refusal("the convolution computes its own padding")
    own = node.attrs.get("pads", [0] * (2 * (rank - 2)))
    total = [a + b for a, b in zip([*begins[2:], *ends[2:]], own, strict=True)]
    attrs = {**node.attrs, "pads": total, "auto_pad": "NOTSET"}
    return _like(rw, node, [x, *node.inputs[1:]], attrs, node.output)


def _is_zero(value: Value) -> bool:
    return value.const is not None and not value.const.any()


def _convolution(value: Value) -> Node | None:
    """The convolution with constant weights that makes `value` for one reader only."""
    conv = value.producer
    if conv is None or conv.kind not in _CONVOLUTIONS or len(value.users) != 1:
        return None
    weights, bias = conv.required(1), conv.input(2)
    if weights.const is None or (bias is not None and bias.const is None):
        return None
    return conv if weights.dtype in ("float32", "float64") else None


def _with_constant(node: Node) -> tuple[Node, Array] | None:
    """The convolution and the factor by channel (one element, or as many as channels)."""
    for index in (0, 1) if node.op in ("Mul", "Add") else (0,):
        other = node.required(1 - index)
        conv = _convolution(node.required(index))
        if conv is None or other.const is None:
            continue
        shape = conv.output.known_shape
        if node.output.shape != shape or other.const.ndim > len(shape):
            continue
        full = (1,) * (len(shape) - other.const.ndim) + other.const.shape
        if any(d != 1 for axis, d in enumerate(full) if axis != 1):
            continue
        if full[1] not in (1, shape[1]):
            continue
        return conv, other.const.reshape(-1)
    return None


def _folded(
    rw: Rewriter,
    conv: Node,
    node: Node,
    factor: Array,
    shift: Array,
    keep_outputs: bool = False,
) -> Outcome:
    if rw.graph.is_output(conv.output):
        return Refusal("the convolution's result is an output of the model")
    x, weights, bias = conv.required(0), conv.required(1), conv.input(2)
    assert weights.const is not None
    array = weights.const
    if np.any(factor != 1.0):
        scaled = _scale_weights(conv, array, factor)
        weights = rw.constant(scaled)
        drop_pages(array)
    old = 0.0 if bias is None or bias.const is None else bias.const.astype(np.float64)
    moved = np.asarray(old * factor + shift, dtype=np.float64)
    inputs: list[Value | None] = [x, weights]
    if bias is not None or np.any(moved != 0.0):
        count = _channels(conv, array)
        full = np.broadcast_to(moved, (count,)).astype(array.dtype)
        inputs.append(rw.constant(full))
    made = _like(rw, conv, inputs, conv.attrs, node.output)
    return [made] if keep_outputs else made


def _like(
    rw: Rewriter,
    conv: Node,
    inputs: list[Value | None],
    attrs: dict[str, object],
    output: Value,
) -> Value:
    return rw.emit(conv.op, inputs, output.dtype, output.shape, attrs=attrs, version=conv.version)


def _channels(conv: Node, weights: Array) -> int:
    """How many channels come out."""
    if conv.op == "Conv":
        return int(weights.shape[0])
    return int(weights.shape[1]) * int(conv.attrs.get("group", 1))


def _scale_weights(conv: Node, weights: Array, factor: Array) -> Array:
    """Weights [M, C / group, ...] (of a ConvTranspose [C, M / group, ...]) times factor[M]."""
    ones = (1,) * (weights.ndim - 2)
    out = np.empty_like(weights)
    if conv.op == "Conv":
        wide = factor.reshape(-1, 1, *ones)
        return np.multiply(weights, wide, out=out, casting="same_kind")
    group = int(conv.attrs.get("group", 1))
    full = np.broadcast_to(factor, (_channels(conv, weights),))
    apart = weights.reshape(group, -1, *weights.shape[1:])
    wide = full.reshape(group, 1, -1, *ones)
    np.multiply(apart, wide, out=out.reshape(apart.shape), casting="same_kind")
    return out


RULES = (
    Rule("fold-batch-norm", ("BatchNormalization",), fold_batch_norm),
    Rule("fold-factor", ("Mul", "Div"), fold_mul),
    Rule("fold-shift", ("Add", "Sub"), fold_add),
    Rule("fold-pad", _CONVOLUTIONS[:1], fold_pad),
)
