"""Recurrent layers: RNN, GRU, LSTM."""

from __future__ import annotations

from clinfer.graph.shape_call import Call, Rule, Type
from clinfer_kernels.dims import Dim


def recurrent(call: Call) -> list[Type]:
    """Y [seq, directions, batch, hidden] and the last states; batch first with `layout` 1."""
    x = call.shape(0)
    directions: Dim = 2 if call.attr("direction", "forward") == "bidirectional" else 1
    hidden: Dim = call.attr("hidden_size") or call.shape(2)[2]
    dtype = call.dtype(0)
    every: tuple[Dim, ...] = (x[0], directions, x[1], hidden)
    last: tuple[Dim, ...] = (directions, x[1], hidden)
    if call.attr("layout", 0):
        every = (x[0], x[1], directions, hidden)
        last = (x[0], directions, hidden)
    return [Type(dtype, every), Type(dtype, last), Type(dtype, last)]


RULES: dict[str, Rule] = dict.fromkeys(("RNN", "GRU", "LSTM"), recurrent)
