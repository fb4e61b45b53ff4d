"""Ranges: start + i * step along one axis, repeated along the others."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.nest import address, count_text, declare_sizes, declare_strides, decode
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import IotaSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import register


@dataclass(frozen=True)
class IotaTile:
    """local: work-items of a work-group. grain: elements for which one more work-item is worth it.
    waves: work-groups per compute unit at most."""

    local: int
    grain: int
    waves: int


def candidates(spec: IotaSpec, target: Target) -> tuple[IotaTile, ...]:
    """The tiles that can run `spec`, the best first."""
    if target.cls == "gpu":
        return (IotaTile(min(target.max_work_group, 256), 4, 32),)
    return (IotaTile(1, 4096, 8),)


def emit(spec: IotaSpec, tile: IotaTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    out = spec.outs[0]
    signature = Signature()
    for number, tensor in enumerate(spec.ins):
        signature.buffer("in", number, tensor.dtype, f"x{number}")
        signature.scalar(f"x{number}_o", tensor.offset)
    signature.buffer("out", 0, out.dtype, "y0")
    declare_sizes(signature, out.shape)
    declare_strides(signature, "y0", out.offset, enumerate(out.strides))
    loops = range(out.rank)
    name = f"iota_r{out.rank}"
    text = fill(
        "iota",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        total=count_text(loops),
        type=register(out.dtype),
        start=memory.load(out.dtype, "x0", "x0_o"),
        step=memory.load(out.dtype, "x1", "x1_o"),
        indices=block([*(f"int i{k};" for k in loops), *decode(loops, "row")], 2),
        y_at=address("y0", loops),
        axis=spec.axis,
        store=memory.store(out.dtype, "value", "y0", "y0_at"),
    )
    most = tile.waves * target.compute_units
    groups = minimum(ceildiv(out.size, tile.grain * tile.local), most)
    return Kernel((Launch(name, text, signature.args, (groups * tile.local,), (tile.local,)),))
