"""RoiAlign (He et al., "Mask R-CNN", 2017): regions of images pooled by bilinear samples.

A work-item walks the samples of a bin; all operands are dense. On class "cpu" it does so for a
block of channels, whose samples lie at the same places.
"""

from __future__ import annotations

from dataclasses import replace

from clinfer_kernels import memory, positions
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.roi_tiles import RoiTile, roi_tiles
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import RoiAlignSpec
from clinfer_kernels.template import fill
from clinfer_kernels.types import compute, literal

_CHANNELS = 8  # of a task on class "cpu"


def candidates(spec: RoiAlignSpec, target: Target) -> tuple[RoiTile, ...]:
    """The one tile; none for operands that are not dense, or not of floats."""
    tiles = roi_tiles(spec.ins[0], (*spec.ins[1:], *spec.outs), target)
    return tuple(replace(t, channels=_CHANNELS) for t in tiles) if target.cls == "cpu" else tiles


def emit(spec: RoiAlignSpec, tile: RoiTile, target: Target) -> Kernel:
    """The one launch."""
    x, regions, images = spec.ins
    out = spec.outs[0]
    dtype = x.dtype
    signature = Signature()
    for number, (tensor, name) in enumerate(((x, "x"), (regions, "boxes"), (images, "images"))):
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
    real = "float64" if dtype == "float64" else "float32"
    corners = {
        name: memory.load(regions.dtype, "boxes", f"region * 4 + {place}")
        for place, name in enumerate(("x0", "y0", "x1", "y1"))
    }
    pixels = {
        name: memory.load(dtype, "x", f"x_at + {y} * width + {across}")
        for name, y, across in (
            ("a", "top", "left"),
            ("b", "top", "right"),
            ("c", "bottom", "left"),
            ("d", "bottom", "right"),
        )
    }
    result = "(lines && places ? greatest[k] : 0)" if spec.largest else "sum[k] / (real)count"
    name = f"roi_align_{'max' if spec.largest else 'mean'}"
    text = fill(
        "roi_align",
        target,
        head=kernel_head(name, (tile.local,)),
        parameters=signature.text,
        channels=tile.channels,
        real=compute(real),
        shift=literal(0.5 if spec.half else 0.0, real),
        length="last - first" if spec.half else "fmax(last - first, (real)1)",
        count=f"{spec.samples}" if spec.samples > 0 else "(long)ceil(s.step)",
        place=positions.place("natural", "images[region]", "batch"),
        scale=literal(spec.scale, real),
        result=result,
        store=memory.store(dtype, "result", "y", "flat"),
        **corners,
        **pixels,
    )
    tasks = count * ceildiv(channels, tile.channels) * rows * columns
    groups = minimum(ceildiv(tasks, tile.local), tile.waves * target.compute_units)
    launch = Launch(name, text, signature.args, (groups * tile.local,), (tile.local,))
    return Kernel((launch,))
