"""LSTM, GRU and RNN: one launch that goes through all time steps.

The products of the inputs are a matmul before; what is left is a chain of matrix-vector products,
each with the state before. A work-group keeps the states of a few rows in local memory, so that no
other group has to be waited for, and reads the packed recurrent weights once per step and block of
rows: they stay in a core's second-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv
from clinfer_kernels.recurrent_text import (
    BARRIER,
    BLOCK,
    GATES,
    RecurrentTile,
    StepText,
    resets_early,
)
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import RecurrentSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import lanes

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Packing:
    """Weights [D, G * H, H] as [D, P / block, H, G, block], units padded with zeros to P."""

    gates: int
    block: int

    def __call__(self, weights: Array) -> Array:
        directions, _, hidden = weights.shape
        units = -(-hidden // BLOCK) * BLOCK
        full = np.zeros((directions, self.gates, units, hidden), np.float32)
        full[:, :, :hidden] = weights.reshape(directions, self.gates, hidden, hidden)
        blocks = full.reshape(directions, self.gates, units // self.block, self.block, hidden)
        return np.ascontiguousarray(blocks.transpose(0, 2, 4, 1, 3))


def candidates(spec: RecurrentSpec, target: Target) -> tuple[RecurrentTile, ...]:
    """The tiles that can run `spec`, the best first."""
    hidden = spec.outs[0].shape[3]
    if target.cls == "gpu":
        local = min(target.max_work_group, 256)
        fits = isinstance(hidden, int) and _local_bytes(hidden + BLOCK, 1) <= target.local_mem
        return (RecurrentTile(1, 1, 1, local),) if fits else ()
    width = lanes(target, ["float32"])
    several = RecurrentTile(4 if width == 16 else 2, width, 1, 1)
    alone = RecurrentTile(1, width, 2, 1)
    return (alone,) if spec.outs[0].shape[2] == 1 else (several, alone)


def emit(spec: RecurrentSpec, tile: RecurrentTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    steps, batch, directions, gates, _ = spec.ins[0].shape
    hidden = spec.outs[0].shape[3]
    text = StepText(spec, tile)
    signature = _signature(spec, tile)
    marks = [
        spec.kind.lower(),
        *(["late"] if spec.reset_late else []),
        *(["coupled"] if spec.coupled else []),
        f"{tile.rows}x{tile.width * tile.vectors}",
    ]
    name = "_".join(["recurrent", *marks])
    source = fill(
        "recurrent",
        target,
        head=kernel_head(name, (tile.local, 1)),
        parameters=signature.text,
        rows=tile.rows,
        width=tile.width * tile.vectors,
        local=tile.local,
        gates=GATES[spec.kind],
        rows_text=block(list(text.rows()), 1),
        begin=block(list(text.begin()), 2),
        times_text=block(list(text.times()), 2),
        step=block(list(text.step()), 2),
        end=block(list(text.end()), 3),
        sync=block([BARRIER], 1) if tile.local > 1 else "",
        sync_step=block([BARRIER], 2) if tile.local > 1 else "",
    )
    grid = (ceildiv(batch, tile.rows) * tile.local, directions)
    launch = Launch(name, source, signature.args, grid, (tile.local, 1))
    count = GATES[spec.kind]
    pack = Pack(1, f"recurrent_{count}x{tile.block}", _Packing(count, tile.block))
    flops = 2 * steps * batch * directions * gates * hidden * hidden
    return Kernel((launch,), packs=(pack,), flops=flops)


def _signature(spec: RecurrentSpec, tile: RecurrentTile) -> Signature:
    steps, batch, directions, _, units = spec.ins[0].shape
    signature = Signature()
    for index, (name, dtype) in enumerate(_inputs(spec)):
        signature.buffer("in", index, dtype, name)
        signature.scalar(f"{name}_o", spec.ins[index].offset)
    for index, (name, tensor) in enumerate(zip(("y", "last", "last_c"), spec.outs, strict=False)):
        signature.buffer("out", index, "float32", name)
        signature.scalar(f"{name}_o", tensor.offset)
        for axis, stride in enumerate(tensor.strides[:-1]):
            signature.scalar(f"{name}_s{axis}", stride)
    signature.scalar("steps", steps)
    signature.scalar("rows_n", batch)
    signature.scalar("directions", directions)
    signature.scalar("units", units)
    signature.scalar("hidden", spec.outs[0].shape[3])
    signature.scalar("backward_from", spec.backward_from)
    signature.local("float", "state", 2 * 4 * tile.rows * units)
    signature.local("float", "cells", 4 * tile.rows * units)
    if resets_early(spec):
        signature.local("float", "kept", 4 * tile.rows * units)
    return signature


def _inputs(spec: RecurrentSpec) -> list[tuple[str, str]]:
    """Names and dtypes of the inputs, in the spec's order."""
    found = [("x", "float32"), ("r", "float32")]
    found += [("h", "float32")] if spec.has_state else []
    found += [("c", "float32")] if spec.has_cells else []
    found += [("lengths", "int32")] if spec.has_lengths else []
    found += [("peep", "float32")] if spec.has_peepholes else []
    return [*found, ("bias", "float32")] if spec.reset_late else found


def _local_bytes(units: int, rows: int) -> int:
    return 4 * 4 * rows * units
