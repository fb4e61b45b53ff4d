"""Non-maximum suppression: a work-item takes the boxes of one class, one after another.

The greedy choice is a chain of decisions; classes and batches are what runs side by side. All
operands are dense.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import SuppressSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, storage

_CENTRED = [
    "box.low0 = a - c / 2;",
    "box.low1 = b - d / 2;",
    "box.high0 = box.low0 + c;",
    "box.high1 = box.low1 + d;",
]
_BY_CORNERS = [
    "box.low0 = fmin(a, c);",
    "box.low1 = fmin(b, d);",
    "box.high0 = fmax(a, c);",
    "box.high1 = fmax(b, d);",
]


@dataclass(frozen=True)
class SuppressTile:
    """local: work-items of a work-group. waves: work-groups per compute unit at most."""

    local: int
    waves: int


def candidates(spec: SuppressSpec, target: Target) -> tuple[SuppressTile, ...]:
    """The one tile; none for operands that are not dense."""
    if not all(t.is_contiguous and t.offset == 0 for t in (*spec.ins, *spec.outs)):
        return ()
    return (SuppressTile(1, 8) if target.cls == "cpu" else SuppressTile(32, 16),)


def emit(spec: SuppressSpec, tile: SuppressTile, target: Target) -> Kernel:
    """The one launch."""
    boxes, scores, order, overlap, least = spec.ins
    batch, kinds, most = spec.outs[0].shape
    dtype = boxes.dtype
    signature = Signature()
    for number, (tensor, name) in enumerate(
        ((boxes, "boxes"), (scores, "scores"), (order, "order"), (overlap, "x3"), (least, "x4"))
    ):
        signature.buffer("in", number, tensor.dtype, name)
    signature.buffer("out", 0, "int32", "taken")
    lines = batch * kinds
    for name, value in (
        ("lines", lines),
        ("kinds", kinds),
        ("many", boxes.shape[1]),
        ("most", most),
    ):
        signature.scalar(name, value)
    corners = {
        name: memory.load(dtype, "boxes", f"at + {place}") for place, name in enumerate("abcd")
    }
    name = f"suppress_{'centres' if spec.centred else 'corners'}"
    text = fill(
        "suppress",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        storage=storage(dtype),
        real=compute(dtype),
        corners=block(_CENTRED if spec.centred else _BY_CORNERS, 1),
        overlap=memory.load(dtype, "x3", "0"),
        least=memory.load(dtype, "x4", "0"),
        score=memory.load(dtype, "scores", "line * many + i"),
        limited="true" if spec.limited else "false",
        **corners,
    )
    groups = minimum(ceildiv(lines, tile.local), tile.waves * target.compute_units)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,))
