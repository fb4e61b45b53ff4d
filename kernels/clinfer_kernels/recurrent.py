"""LSTM, GRU and RNN: one launch that goes through all time steps.

The products of the inputs are a matmul before; what is left is a chain of matrix-vector products,
each with the state before. A work-group keeps the states of a few rows in local memory (in global
memory where they are too many), so that no other group has to be waited for, and reads the packed
recurrent weights once per step and block of rows: they stay in a core's second-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv
from clinfer_kernels.recurrent_text import (
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
from clinfer_kernels.types import lanes, register, size_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Packing:
    """Weights [D, G * H, H] as [D, P / block, H, G, block], units padded with zeros to P."""

    gates: int
    block: int

    def __call__(self, weights: Array) -> Array:
        directions, _, hidden = weights.shape
        units = -(-hidden // BLOCK) * BLOCK
        full = np.zeros((directions, self.gates, units, hidden), weights.dtype)
        full[:, :, :hidden] = weights.reshape(directions, self.gates, hidden, hidden)
        blocks = full.reshape(directions, self.gates, units // self.block, self.block, hidden)
        return np.ascontiguousarray(blocks.transpose(0, 2, 4, 1, 3))


def candidates(spec: RecurrentSpec, target: Target) -> tuple[RecurrentTile, ...]:
    """The tiles that can run `spec`, the best first."""
    dtype = spec.ins[0].dtype
    if dtype == "float64" and not target.fp64:
        return ()
    if target.cls == "gpu":
        tiles: tuple[RecurrentTile, ...] = (
            RecurrentTile(1, 1, 1, min(target.max_work_group, 256)),
        )
    else:
        width = lanes(target, [dtype])
        several = RecurrentTile(4 if width == 16 else 2, width, 1, 1, alone=2)
        alone = RecurrentTile(1, width, 2, 1)
        tiles = (alone,) if spec.outs[0].shape[2] == 1 else (several, alone)
    fitting = tuple(tile for tile in tiles if _fits(spec, tile, target))
    return fitting or (replace(tiles[-1], spilled=True),)


def _fits(spec: RecurrentSpec, tile: RecurrentTile, target: Target) -> bool:
    """Whether local memory holds the states of a group."""
    units = spec.ins[0].shape[4]
    needed = _states(spec) * tile.rows * size_of(spec.ins[0].dtype) * units
    return isinstance(needed, int) and needed <= target.local_mem


def _states(spec: RecurrentSpec) -> int:
    """The vectors of units that a row keeps: states before and after a step, cells, more."""
    return 4 if resets_early(spec) or spec.rounds else 3


def emit(spec: RecurrentSpec, tile: RecurrentTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    steps, batch, directions, gates, units = spec.ins[0].shape
    hidden = spec.outs[0].shape[3]
    text = StepText(spec, tile)
    signature = _signature(spec, tile)
    marks = [
        spec.kind.lower(),
        *(["late"] if spec.reset_late else []),
        *(["coupled"] if spec.coupled else []),
        *(["rounds"] if spec.rounds else []),
        *(["packed"] if spec.packed else []),
        *(["spilled"] if tile.spilled else []),
        *(f"{body.rows}x{tile.width * body.vectors}" for body in tile.bodies),
    ]
    name = "_".join(["recurrent", *marks])
    source = fill(
        "recurrent",
        target,
        head=kernel_head(name, (tile.local, 1)),
        parameters=signature.text,
        rows=tile.rows,
        local=tile.local,
        gates=GATES[spec.kind],
        real=register(text.dtype),
        places=block(_places(spec, tile), 1),
        rows_text=block(list(text.rows()), 1),
        begin=block(list(text.begin()), 2),
        loops=block(_loops(spec, tile), 1),
        end=block(list(text.end()), 3),
        sync=block([tile.barrier], 1) if tile.local > 1 else "",
    )
    groups = ceildiv(batch, tile.rows)
    grid = (groups * tile.local, directions)
    launch = Launch(name, source, signature.args, grid, (tile.local, 1))
    count, width = GATES[spec.kind], tile.block(spec)
    pack = Pack(1, f"recurrent_{count}x{width}", _Packing(count, width))
    flops = 2 * steps * batch * directions * gates * hidden * hidden
    spilled = _states(spec) * size_of(text.dtype) * tile.rows * units * groups * directions
    scratch = (spilled,) if tile.spilled else ()
    return Kernel((launch,), scratch, () if spec.packed else (pack,), flops)


def _loops(spec: RecurrentSpec, tile: RecurrentTile) -> list[str]:
    """The steps of a group; where a kernel has two texts of them, its number of rows decides."""
    several, *alone = (list(StepText(spec, b).loop(tile.rows)) for b in tile.bodies)
    if not alone:
        return several
    first, second = ([f"    {line}" for line in lines] for lines in (several, alone[0]))
    return ["if (rows_n - first > 1) {", *first, "} else {", *second, "}"]


def _signature(spec: RecurrentSpec, tile: RecurrentTile) -> Signature:
    steps, batch, directions, _, units = spec.ins[0].shape
    signature = Signature()
    for index, (name, dtype) in enumerate(_inputs(spec)):
        signature.buffer("in", index, dtype, name)
        signature.scalar(f"{name}_o", spec.ins[index].offset)
    for index, (name, tensor) in enumerate(zip(("y", "last", "last_c"), spec.outs, strict=False)):
        signature.buffer("out", index, spec.outs[0].dtype, name)
        signature.scalar(f"{name}_o", tensor.offset)
        for axis, stride in enumerate(tensor.strides[:-1]):
            signature.scalar(f"{name}_s{axis}", stride)
    signature.scalar("steps", steps)
    signature.scalar("rows_n", batch)
    signature.scalar("directions", directions)
    signature.scalar("units", units)
    signature.scalar("hidden", spec.outs[0].shape[3])
    signature.scalar("backward_from", spec.backward_from)
    if spec.has_lengths:
        signature.status()
    dtype = spec.ins[0].dtype
    if tile.spilled:
        signature.buffer("scratch", 0, dtype, "spilled")
        return signature
    for name, count in _PARTS[: _states(spec) - 1]:
        size = count * size_of(dtype) * tile.rows * units
        signature.local(register(dtype), name, size)
    return signature


_PARTS = (("state", 2), ("cells", 1), ("kept", 1))


def _places(spec: RecurrentSpec, tile: RecurrentTile) -> list[str]:
    """Where a group's states lie in the memory that all groups share."""
    if not tile.spilled:
        return []
    one, count = register(spec.ins[0].dtype), _states(spec)
    size = f"{tile.rows} * units"
    first = f"((size_t)get_group_id(1) * get_num_groups(0) + get_group_id(0)) * {count} * {size}"
    lines = [f"__global {one}* const state = spilled + {first};"]
    lines.append(f"__global {one}* const cells = state + 2 * {size};")
    return [*lines, f"__global {one}* const kept = state + 3 * {size};"] if count > 3 else lines


def _inputs(spec: RecurrentSpec) -> list[tuple[str, str]]:
    """Names and dtypes of the inputs, in the spec's order."""
    flags = (spec.has_state, spec.has_cells, spec.has_lengths, spec.has_peepholes, spec.reset_late)
    extra = zip(("h", "c", "lengths", "peep", "bias"), flags, strict=True)
    names = ["x", "r", *(name for name, there in extra if there)]
    dtype = spec.ins[0].dtype
    return [(name, "int32" if name == "lengths" else dtype) for name in names]
