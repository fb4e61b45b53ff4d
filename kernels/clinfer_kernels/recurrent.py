"""Recurrent layers: LSTM (Hochreiter and Schmidhuber, 1997), GRU (Cho et al., 2014), plain RNN.

The inputs' part of the gates comes from a matrix product over all steps; here is what must go step
by step. One work-group has one sequence in one direction; on class "cpu" it has one work-item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import product
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import RecurrentSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, register

Array = np.ndarray[Any, Any]

# Gates in the order of ONNX: input, output, forget, cell; update, reset, hidden.
GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}
_VECS = {4: 2, 3: 3, 1: 8}  # vectors of a block: enough independent sums


@dataclass(frozen=True)
class RecurrentTile:
    """A block has `vecs` x `lanes` units of each of the work-group's `local` work-items."""

    local: int
    vecs: int
    lanes: int

    @property
    def unit(self) -> int:
        return self.local * self.vecs * self.lanes


def candidates(spec: RecurrentSpec, target: Target) -> tuple[RecurrentTile, ...]:
    """One tile; none where the number of units is not known or the dtype is no plain float."""
    dtype = spec.ins[0].dtype
    if not isinstance(spec.outs[0].shape[-1], int) or dtype not in ("float32", "float64"):
        return ()
    if any(tensor.strides[-1] != 1 for tensor in (*spec.ins, *spec.outs)):
        return ()
    if target.cls == "gpu":
        return (RecurrentTile(min(target.max_work_group, 64), 1, 1),)
    wide = 16 if target.vector_width >= 16 else 8
    return (RecurrentTile(1, _VECS[GATES[spec.kind]], wide // (2 if dtype == "float64" else 1)),)


def emit(spec: RecurrentSpec, tile: RecurrentTile, target: Target) -> Kernel:
    """The one launch, over weights packed in blocks."""
    x, _, h, *state = spec.ins
    y = spec.outs[0]
    steps, directions, batch, units = y.shape
    assert isinstance(units, int)
    gates = GATES[spec.kind]
    blocks = -(-units // tile.unit)
    signature = Signature()
    for index, name in enumerate(("x", "w", "h", "s")[: 3 + len(state)]):
        signature.read("in", index, x.dtype, name)
    for index, name in enumerate(("y", "c")[: len(spec.outs)]):
        signature.buffer("out", index, x.dtype, name)
    for name, tensor in (("x", x), ("h", h), ("y", y)):
        signature.scalar(f"{name}_o", tensor.offset)
        for axis, stride in enumerate(tensor.strides[:-1]):
            signature.scalar(f"{name}_s{axis}", stride)
    for name, value in (
        ("steps", steps),
        ("batch", batch),
        ("units", units),
        ("blocks", blocks),
        ("reversed_from", spec.reversed_from),
    ):
        signature.scalar(name, value)
    _declare_states(signature, spec)
    entry = f"recurrent_{spec.kind}_{tile.vecs}x{tile.lanes}"
    made = _Text(x.dtype, tile.lanes)
    text = fill(
        "recurrent",
        target,
        head=kernel_head(entry, (tile.local,)),
        parameters=signature.text,
        vecs=tile.vecs,
        lanes=tile.lanes,
        local=tile.local,
        gates=gates,
        vec=register(x.dtype, tile.lanes),
        real=compute(x.dtype),
        lane="(int)get_local_id(0)" if tile.local > 1 else "0",
        load_w=memory.load(x.dtype, "next", "g * UNIT + v * LANES", tile.lanes),
        start=block(made.start(spec.kind), 4),
        cell=block(_CELLS[spec.kind](made), 4),
        together=block(["barrier(CLK_GLOBAL_MEM_FENCE);"] if tile.local > 1 else [], 2),
    )
    launch = Launch(entry, text, signature.args, (directions * batch * tile.local,), (tile.local,))
    pack = Pack(1, f"recurrent_{gates}_{tile.unit}", lambda w: packed(w, gates, tile.unit))
    flops = 2 * product([steps, directions, batch, gates * units, units])
    return Kernel((launch,), packs=(pack,), flops=flops)


def _declare_states(signature: Signature, spec: RecurrentSpec) -> None:
    """Offset and strides of the fourth input, and of the cell state as an output."""
    for name, tensors in (("s", spec.ins[3:]), ("c", spec.outs[1:])):
        for tensor in tensors:
            signature.scalar(f"{name}_o", tensor.offset)
            for axis, stride in enumerate(tensor.strides[:-1]):
                signature.scalar(f"{name}_s{axis}", stride)


def packed(w: Array, gates: int, unit: int) -> Array:
    """[directions, gates * units, units] as [directions, blocks, k, gates, unit], zeros behind."""
    directions, _, units = w.shape
    blocks = -(-units // unit)
    apart = w.reshape(directions, gates, units, units)
    room = np.zeros((directions, gates, blocks * unit, units), w.dtype)
    room[:, :, :units] = apart
    cut = room.reshape(directions, gates, blocks, unit, units)
    return np.ascontiguousarray(cut.transpose(0, 2, 4, 1, 3))


@dataclass(frozen=True)
class _Text:
    """Statements on `lanes` units from j, of which `left` exist."""

    dtype: str
    lanes: int

    def read(self, buffer: str, at: str) -> str:
        """The units' values in a buffer."""
        whole = memory.load(self.dtype, buffer, at, self.lanes)
        if self.lanes == 1:
            return whole
        return f"left >= LANES ? {whole} : " + memory.load_part(
            self.dtype, buffer, at, self.lanes, "left"
        )

    def write(self, value: str, buffer: str, at: str) -> list[str]:
        """Stores the units' values."""
        whole = memory.store(self.dtype, value, buffer, at, self.lanes)
        if self.lanes == 1:
            return [whole]
        part = memory.store_part(self.dtype, value, buffer, at, self.lanes, "left")
        return [f"if (left >= LANES) {whole}", f"else {part}"]

    def start(self, kind: str) -> list[str]:
        """The sums begin with the inputs' part; a GRU's last one with a bias of its own."""
        lines = ["#pragma unroll", "for (int g = 0; g < GATES; ++g)"]
        lines.append(f"    sum[v][g] = {self.read('x', 'x_at + g * units + j')};")
        if kind == "gru":
            lines.append(f"sum[v][2] = {self.read('s', 's_o + direction * s_s0 + j')};")
        return lines

    def function(self, name: str, value: str) -> str:
        """A function of the units' values."""
        return f"{name}_{register(self.dtype, self.lanes)}({value})"

    def sigmoid(self, value: str) -> str:
        """1 / (1 + exp(-value))."""
        return f"1 / (1 + {self.function('exp', f'-{value}')})"

    def result(self, value: str) -> list[str]:
        """Stores the new state."""
        return self.write(value, "y", "y_at + t * y_s0 + j")


def _lstm(text: _Text) -> list[str]:
    cell = "c_o + direction * c_s0 + row * c_s1 + j"
    first = text.read("s", "s_o + direction * s_s0 + row * s_s1 + j")
    return [
        f"const vec in = {text.sigmoid('sum[v][0]')};",
        f"const vec out = {text.sigmoid('sum[v][1]')};",
        f"const vec kept = {text.sigmoid('sum[v][2]')};",
        "vec old;",
        f"if (step) old = {text.read('c', cell)};",
        f"else old = {first};",
        f"const vec cell = kept * old + in * {text.function('tanh', 'sum[v][3]')};",
        *text.write("cell", "c", cell),
        f"const vec made = out * {text.function('tanh', 'cell')};",
        *text.result("made"),
    ]


def _gru(text: _Text) -> list[str]:
    return [
        f"const vec update = {text.sigmoid('sum[v][0]')};",
        f"const vec reset = {text.sigmoid('sum[v][1]')};",
        f"const vec hidden = {text.read('x', 'x_at + 2 * units + j')};",
        f"const vec fresh = {text.function('tanh', '(hidden + reset * sum[v][2])')};",
        f"const vec old = {text.read('prev', 'j')};",
        "const vec made = (1 - update) * fresh + update * old;",
        *text.result("made"),
    ]


def _tanh(text: _Text) -> list[str]:
    return [
        f"const vec made = {text.function('tanh', 'sum[v][0]')};",
        *text.result("made"),
    ]


def _relu(text: _Text) -> list[str]:
    return ["const vec made = fmax(sum[v][0], (vec)(0));", *text.result("made")]


_CELLS: dict[str, Callable[[_Text], list[str]]] = {
    "lstm": _lstm,
    "gru": _gru,
    "tanh": _tanh,
    "relu": _relu,
}
