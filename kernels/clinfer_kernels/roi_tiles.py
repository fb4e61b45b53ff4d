"""How kernels that pool regions of images are shared out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clinfer_kernels.spec import Target, Tensor
from clinfer_kernels.types import is_float


@dataclass(frozen=True)
class RoiTile:
    """local: work-items of a work-group. waves: work-groups per compute unit at most. channels: of
    a task."""

    local: int
    waves: int
    channels: int = 1


def roi_tiles(x: Tensor, others: Iterable[Tensor], target: Target) -> tuple[RoiTile, ...]:
    """The one tile; none for operands that are not dense, or images `x` that are not of floats."""
    if not all(t.is_contiguous and t.offset == 0 for t in (x, *others)):
        return ()
    if not is_float(x.dtype):
        return ()
    return (RoiTile(1, 8) if target.cls == "cpu" else RoiTile(min(128, target.max_work_group), 32),)
