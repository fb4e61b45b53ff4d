"""LSTM, GRU and RNN: one MatMul for the inputs of all steps, `clinfer.Recurrent` for the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim
from clinfer_kernels.recurrent import GATES

_ACTIVATIONS = {
    ("LSTM", ("Sigmoid", "Tanh", "Tanh")): "lstm",
    ("GRU", ("Sigmoid", "Tanh")): "gru",
    ("RNN", ("Tanh",)): "tanh",
    ("RNN", ("Relu",)): "relu",
}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_REVERSED_FROM = {"forward": 2, "bidirectional": 1, "reverse": 0}


@dataclass(frozen=True)
class _Layer:
    """A layer's kind and constants: w [D, G * H, I], r [D, G * H, H], biases [D, 2, G * H]."""

    kind: str
    w: Array
    r: Array
    biases: Array

    @property
    def directions(self) -> int:
        return int(self.r.shape[0])

    @property
    def units(self) -> int:
        return int(self.r.shape[2])


def recurrent(rw: Rewriter, node: Node) -> Outcome:
    """Y [T, D, B, H], the last states, and an LSTM's last cell state; batch first with `layout`."""
    layer = _layer(node)
    if isinstance(layer, Refusal):
        return layer
    is_batch_first = bool(node.attrs.get("layout", 0))
    x = node.required(0)
    if is_batch_first:
        x = rw.transpose(x, (1, 0, 2))
    steps, batch, width = x.known_shape
    d, h = layer.directions, layer.units
    rows = rw.reshape(x, (steps * batch, width))
    gates = layer.w.reshape(-1, layer.w.shape[2])
    wide: tuple[Dim, Dim] = (steps * batch, int(gates.shape[0]))
    product = rw.emit("MatMul", [rows, rw.constant(np.ascontiguousarray(gates.T))], x.dtype, wide)
    part = rw.emit("Add", [product, rw.constant(_input_bias(layer))], x.dtype, wide)
    operands = [
        rw.reshape(part, (steps, batch, wide[1])),
        rw.constant(layer.r),
        _state(rw, node.input(5), layer, batch, is_batch_first),
    ]
    if layer.kind == "lstm":
        operands.append(_state(rw, node.input(6), layer, batch, is_batch_first))
    if layer.kind == "gru":
        operands.append(rw.constant(np.ascontiguousarray(layer.biases[:, 1, 2 * h :])))
    every = Value(rw.graph.fresh("states"), x.dtype, (steps, d, batch, h))
    outputs: list[Value | None] = [every]
    if layer.kind == "lstm":
        outputs.append(Value(rw.graph.fresh("cell"), x.dtype, (d, batch, h)))
    direction = str(node.attrs.get("direction", "forward"))
    reversed_from = _REVERSED_FROM[direction]
    attrs = {"kind": layer.kind, "reversed_from": reversed_from}
    rw.insert(Node("Recurrent", list(operands), outputs, attrs, node.name, "clinfer"))
    last = _last(rw, every, reversed_from)
    results = [every, last, *outputs[1:]]
    if is_batch_first:
        results = [rw.transpose(every, (2, 0, 1, 3)), *(_batch_first(rw, v) for v in results[1:])]
    return results[: len(node.outputs)]


def _batch_first(rw: Rewriter, state: Value | None) -> Value:
    assert state is not None
    return rw.transpose(state, (1, 0, 2))


def _layer(node: Node) -> _Layer | Refusal:
    """What is constant about the layer; a `Refusal` for what the kernel does not do."""
    x, lengths = node.required(0), node.input(4)
    w, r = (node.required(index).const for index in (1, 2))
    if w is None or r is None or x.dtype not in ("float32", "float64"):
        return Refusal("its weights are computed, or it is not in float32 or float64")
    bias = node.input(3)
    directions, rows, units = r.shape
    zeros = np.zeros((directions, 2 * rows), to_numpy(str(x.dtype)))
    biases = zeros if bias is None else bias.const
    names = node.attrs.get("activations") or _DEFAULTS[node.op] * directions
    each = len(_DEFAULTS[node.op])
    kinds = {
        _ACTIVATIONS.get((node.op, tuple(str(n).capitalize() for n in names[i : i + each])))
        for i in range(0, len(names), each)
    }
    kind = kinds.pop()
    if kind is None or kinds or node.attrs.get("activation_alpha"):
        return Refusal(f"its activations are {list(names)}")
    if lengths is not None and not _is_whole(lengths, x.known_shape, node):
        return Refusal("its sequences have lengths of their own")
    unusual = [a for a in ("clip", "input_forget") if node.attrs.get(a)]
    if unusual or biases is None or node.input(7) is not None:
        return Refusal("it has peepholes, a clip, coupled gates or computed biases")
    if kind == "gru" and not node.attrs.get("linear_before_reset", 0):
        return Refusal("its reset gate comes before the product")
    assert rows == GATES[kind] * units
    return _Layer(kind, w, r, biases.reshape(directions, 2, rows))


def _is_whole(lengths: Value, shape: tuple[Dim, ...], node: Node) -> bool:
    """Whether all sequences are known to have every step."""
    steps = shape[1] if node.attrs.get("layout", 0) else shape[0]
    return lengths.const is not None and bool((lengths.const == steps).all())


def _input_bias(layer: _Layer) -> Array:
    """[D * G * H]: both biases; a GRU's hidden gate adds its second one behind the reset."""
    total = layer.biases.sum(1)
    if layer.kind == "gru":
        hidden = slice(2 * layer.units, None)
        total[:, hidden] = layer.biases[:, 0, hidden]
    return np.ascontiguousarray(total.reshape(-1))


def _state(
    rw: Rewriter, given: Value | None, layer: _Layer, batch: Dim, is_batch_first: bool
) -> Value:
    """The first state [D, B, H]: zeros where none is given."""
    if given is not None:
        return rw.transpose(given, (1, 0, 2)) if is_batch_first else given
    zeros = rw.constant(np.zeros((1, 1, layer.units), layer.w.dtype))
    shape = (layer.directions, batch, layer.units)
    return rw.emit("Expand", [zeros], zeros.dtype, shape)


def _last(rw: Rewriter, every: Value, reversed_from: int) -> Value:
    """[D, B, H]: the state at the last step, in reversed directions at the first."""
    steps, directions, batch, units = every.known_shape
    parts = []
    assert isinstance(directions, int)
    for direction in range(directions):
        at: Dim = 0 if direction >= reversed_from else steps - 1
        attrs = {"axes": [0, 1], "starts": [at, direction], "steps": [1, 1]}
        part = rw.emit("Slice", [every], every.dtype, (1, 1, batch, units), attrs=attrs)
        parts.append(rw.reshape(part, (1, batch, units)))
    if len(parts) == 1:
        return parts[0]
    return rw.emit("Concat", parts, every.dtype, (directions, batch, units), attrs={"axis": 0})


RULES = (Rule("recurrent", ("LSTM", "GRU", "RNN"), recurrent),)
