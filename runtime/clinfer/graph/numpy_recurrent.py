"""LSTM, GRU and RNN in NumPy, for the bodies of control flow, which run on the host.

All forms that ONNX has; narrow floats are computed in float32. As in ONNX Runtime, what goes into
f and g is clipped and a row without steps ends with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clinfer.graph.activations import ARITY, Activation, activations
from clinfer.graph.ir import Array
from clinfer.graph.numpy_indexing import require

Function = Callable[[Array], Array]

_FUNCTIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "Affine": lambda x, a, b: a * x + b,
    "Elu": lambda x, a, b: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x),
    "HardSigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "LeakyRelu": lambda x, a, b: np.where(x < 0, a * x, x),
    "Relu": lambda x, a, b: np.maximum(x, 0),
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "Sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x, a, b: np.logaddexp(x, 0),
    "Softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "Tanh": lambda x, a, b: np.tanh(x),
    "ThresholdedRelu": lambda x, a, b: np.where(x > a, x, 0),
}


def _function(entry: Activation, dtype: np.dtype[Any]) -> Function:
    formula = _FUNCTIONS[entry.name]
    return lambda x: formula(x, entry.alpha, entry.beta).astype(dtype)


class _Cell(NamedTuple):
    """One direction's weights and functions."""

    r: Array  # [G, H, H]
    late_bias: Array  # [H]
    peepholes: Array  # [3, H]
    functions: list[Function]
    clip: float
    coupled: bool
    late: bool
    rounds: bool = False

    def _apply(self, index: int, x: Array) -> Array:
        return self.functions[index](np.clip(x, -self.clip, self.clip) if self.clip else x)

    def rnn(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return self._apply(0, x[:, 0] + h @ self.r[0].T), c

    def gru(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Gates z, r, h."""
        z = self._apply(0, x[:, 0] + h @ self.r[0].T)
        r = self._apply(0, x[:, 1] + h @ self.r[1].T)
        back = r * (h @ self.r[2].T + self.late_bias) if self.late else (r * h) @ self.r[2].T
        fresh = self._apply(1, x[:, 2] + back)
        return fresh + z * (h - fresh), c

    def lstm(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Gates i, o, f, c."""
        h = _rounded(h) if self.rounds else h
        i, o, f, g = [x[:, k] + h @ self.r[k].T for k in range(4)]
        i = self._apply(0, i + self.peepholes[0] * c)
        f = 1 - i if self.coupled else self._apply(0, f + self.peepholes[2] * c)
        c = f * c + i * self._apply(1, g)
        o = self._apply(0, o + self.peepholes[1] * c)
        return o * self.functions[2](c), c


def _rounded(h: Array) -> Array:
    """Rows as uint8 holds them, each with a scale and a zero point of its own."""
    least, most = np.minimum(h.min(1, initial=0), 0), np.maximum(h.max(1, initial=0), 0)
    scale = np.where(most > least, (most - least) / 255, 1).astype(h.dtype)[:, None]
    zero = np.rint(np.clip(-least[:, None] / scale, 0, 255))
    return np.asarray((np.clip(np.rint(h / scale) + zero, 0, 255) - zero) * scale)


def _run(kind: str, attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    given: list[Any] = [*inputs, *[None] * (8 - len(inputs))]
    x, w, r, b, lengths, h, c, peepholes = given
    result = x.dtype
    dtype = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    batch_first = bool(attrs.get("layout", 0))
    x, w, r = (v.astype(dtype) for v in (x, w, r))
    x = x.swapaxes(0, 1) if batch_first else x
    (steps, batch), (directions, _, hidden) = x.shape[:2], r.shape
    gates = r.shape[1] // hidden
    states = [_states(v, batch_first, (directions, batch, hidden), dtype) for v in (h, c)]
    bias = np.zeros((directions, 2 * gates * hidden), dtype) if b is None else b.astype(dtype)
    if peepholes is None:
        peepholes = np.zeros((directions, 3 * hidden), dtype)
    ends = np.full(batch, steps) if lengths is None else lengths
    require(ends, 0, steps + 1, "a length")
    count = ARITY[kind]
    named = [_function(entry, dtype) for entry in activations(kind, attrs, directions)]
    late = kind == "GRU" and bool(attrs.get("linear_before_reset", 0))
    every = np.zeros((steps, directions, batch, hidden), dtype)
    for d in range(directions):
        own, back = bias[d].reshape(2, gates, hidden).copy()
        late_bias = back[-1].copy()
        if late:
            back[-1] = 0
        cell = _Cell(
            r[d].reshape(gates, hidden, hidden),
            late_bias,
            peepholes[d].astype(dtype).reshape(3, hidden),
            named[d * count : (d + 1) * count],
            float(attrs.get("clip", 0.0)),
            kind == "LSTM" and bool(attrs.get("input_forget", 0)),
            late,
            bool(attrs.get("rounds", 0)),
        )
        sums = (x @ w[d].T).reshape(steps, batch, gates, hidden) + own + back
        backward = attrs.get("direction") == "reverse" or d == 1
        _direction(getattr(cell, kind.lower()), sums, ends, backward, every[:, d], states, d)
    last = [s.swapaxes(0, 1) if batch_first else s for s in states[: 2 if kind == "LSTM" else 1]]
    shown = every.transpose(2, 0, 1, 3) if batch_first else every
    return [v.astype(result) for v in (shown, *last)]


def _direction(
    cell: Callable[[Array, Array, Array], tuple[Array, Array]],
    sums: Array,
    ends: Array,
    backward: bool,
    every: Array,
    states: list[Array],
    d: int,
) -> None:
    """Goes through the steps; fills `every` and the direction's states."""
    rows = np.arange(len(ends))
    for state in states:
        state[d][ends == 0] = 0
    for t in range(len(sums)):
        at = np.where(t < ends, ends - 1 - t, t) if backward else np.full_like(ends, t)
        made = cell(sums[at, rows], states[0][d], states[1][d])
        goes_on = (t < ends)[:, None]
        for state, new in zip(states, made, strict=True):
            state[d] = np.where(goes_on, new, state[d])
        every[at, rows] = np.where(goes_on, made[0], 0)


def _states(
    given: Array | None, batch_first: bool, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """States [D, N, H] to begin with, as an array of our own."""
    if given is None:
        return np.zeros(shape, dtype)
    return np.array(given.swapaxes(0, 1) if batch_first else given, dtype)


def lstm(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    return _run("LSTM", attrs, inputs)


def gru(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    return _run("GRU", attrs, inputs)


def rnn(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    return _run("RNN", attrs, inputs)
