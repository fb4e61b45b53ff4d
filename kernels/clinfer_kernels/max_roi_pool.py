"""MaxRoiPool (Girshick, "Fast R-CNN", 2015): the greatest pixel of each bin of regions of images.

A work-item makes one element and walks its bin; all operands are dense.
"""

from __future__ import annotations

from clinfer_kernels import memory, positions
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.roi_tiles import RoiTile, roi_tiles
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import MaxRoiPoolSpec
from clinfer_kernels.template import fill
from clinfer_kernels.types import compute, literal


def candidates(spec: MaxRoiPoolSpec, target: Target) -> tuple[RoiTile, ...]:
    """The one tile; none for operands that are not dense, or not of floats."""
    return roi_tiles(spec.ins[0], (spec.ins[1], *spec.outs), target)


def emit(spec: MaxRoiPoolSpec, tile: RoiTile, target: Target) -> Kernel:
    """The one launch."""
    x, regions = spec.ins
    out = spec.outs[0]
    signature = Signature()
    for number, (tensor, name) in enumerate(((x, "x"), (regions, "boxes"))):
        signature.buffer("in", number, tensor.dtype, name)
    signature.buffer("out", 0, out.dtype, "y")
    count, channels, rows, columns = out.shape
    for name, value in (
        ("batch", x.shape[0]),
        ("channels", channels),
        ("height", x.shape[2]),
        ("width", x.shape[3]),
        ("regions", count),
        ("rows", rows),
        ("columns", columns),
    ):
        signature.scalar(name, value)
    signature.status()
    fields = {
        name: f"(float){memory.load(regions.dtype, 'boxes', f'region * 5 + {place}')}"
        for place, name in enumerate(("number", "x0", "y0", "x1", "y1"))
    }
    image = "fabs(number) < 9e18f ? (long)number : -1L"
    text = fill(
        "max_roi_pool",
        target,
        head=kernel_head("max_roi_pool", (tile.local,)),
        parameters=signature.text,
        scale=literal(spec.scale, "float32"),
        value=compute(x.dtype),
        place=positions.place("natural", image, "batch"),
        pixel=memory.load(x.dtype, "x", "x_at + i * width + j"),
        store=memory.store(x.dtype, "result", "y", "flat"),
        **fields,
    )
    groups = minimum(ceildiv(out.size, tile.local), tile.waves * target.compute_units)
    launch = Launch("max_roi_pool", text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,))
