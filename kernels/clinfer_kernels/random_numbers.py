"""Random numbers: uniform or normal, by a generator that counts (see `random.cl`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import RandomSpec
from clinfer_kernels.template import fill


@dataclass(frozen=True)
class RandomTile:
    """local: work-items of a work-group. grain: numbers for which one more work-item is worth it.
    waves: work-groups per compute unit at most."""

    local: int
    grain: int
    waves: int


def candidates(spec: RandomSpec, target: Target) -> tuple[RandomTile, ...]:
    """The tiles that can run `spec`, the best first; the numbers lie side by side."""
    if not all(tensor.is_contiguous for tensor in (*spec.ins, *spec.outs)):
        return ()
    if target.cls == "gpu":
        return (RandomTile(min(target.max_work_group, 256), 4, 32),)
    return (RandomTile(1, 4096, 8),)


def emit(spec: RandomSpec, tile: RandomTile, target: Target) -> Kernel:
    """The kernel of `spec`: one launch."""
    out = spec.outs[0]
    signature = Signature()
    for number, tensor in enumerate(spec.ins):
        signature.buffer("in", number, tensor.dtype, f"x{number}")
        signature.scalar(f"x{number}_o", tensor.offset)
    signature.buffer("out", 0, out.dtype, "y0")
    signature.scalar("y0_o", out.offset)
    signature.scalar("count", out.size)
    name = f"random_{spec.kind}"
    numbers = Path(__file__).with_name(f"random_{spec.kind}.cl").read_text(encoding="utf-8")
    text = fill(
        "random",
        target,
        numbers=numbers.strip("\n"),
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
    )
    most = tile.waves * target.compute_units
    groups = minimum(ceildiv(out.size, tile.grain * tile.local), most)
    return Kernel((Launch(name, text, signature.args, (groups * tile.local,), (tile.local,)),))
