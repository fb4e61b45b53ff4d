"""Which module makes the kernels of which spec; modules are imported when first asked for.

    kernel = emit_best(PointwiseSpec(...), target)

A family module has `candidates(spec, target)`: the tiles it can cut `spec` into on `target`, the
best first, none if the device cannot run it; and `emit(spec, tile, target)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol, cast

from clinfer_kernels.dims import Dim
from clinfer_kernels.spec import Kernel, Target, Tensor

FAMILIES = {
    "PointwiseSpec": "pointwise",
    "IotaSpec": "iota",
    "RandomSpec": "random_numbers",
    "ReduceSpec": "reduce",
    "SoftmaxSpec": "softmax",
    "NormSpec": "norm",
    "MatmulSpec": "matmul",
    "RowMatmulSpec": "matmul_rows",
    "EncodedMatmulSpec": "matmul_encoded",
    "AttentionSpec": "attention",
    "ConvSpec": "conv",
    "PreparedConvSpec": "conv",
    "ProjectedConvSpec": "conv",
    "PoolSpec": "pool",
    "ResizeSpec": "resize",
    "GridSampleSpec": "grid_sample",
    "GatherSpec": "gather",
    "ScatterSpec": "scatter",
    "PadSpec": "pad",
    "ScanSpec": "scan",
    "TopKSpec": "topk",
    "SuppressSpec": "suppress",
    "RoiAlignSpec": "roi_align",
    "MaxRoiPoolSpec": "max_roi_pool",
    "ForestSpec": "forest",
    "RecurrentSpec": "recurrent",
}


class Family(Protocol):
    """What a family module offers."""

    def candidates(self, spec: Any, target: Target) -> tuple[Any, ...]: ...

    def emit(self, spec: Any, tile: Any, target: Target) -> Kernel: ...


class NoKernelError(ValueError):
    """No family can run the spec on the target; the message says why."""


def family_of(spec: object) -> Family:
    """The module that makes the kernels of `spec`; `KeyError` for an unknown spec type."""
    return cast(Family, import_module(f"clinfer_kernels.{FAMILIES[type(spec).__name__]}"))


def why_not(spec: object, target: Target) -> str | None:
    """Why the target cannot run the spec at all; None where nothing known speaks against it."""
    for tensor in _tensors(spec):
        if tensor.dtype == "float64" and not target.fp64:
            return "the device has no float64 (cl_khr_fp64)"
        if _reach(tensor) >= 2**31:
            return f"a tensor of {tensor.size} elements exceeds the kernels' 32-bit indices"
    return None


def candidates(spec: object, target: Target) -> tuple[Any, ...]:
    """The tiles of the spec's family, the best first; none where the target cannot run it."""
    return () if why_not(spec, target) else family_of(spec).candidates(spec, target)


def emit_best(spec: object, target: Target) -> Kernel:
    """The kernel of the best candidate; `NoKernelError` where there is none."""
    reason = why_not(spec, target)
    if reason is not None:
        raise NoKernelError(f"{type(spec).__name__}: {reason}")
    family = family_of(spec)
    tiles = family.candidates(spec, target)
    if not tiles:
        raise NoKernelError(f"{type(spec).__name__}: no schedule fits this device")
    return family.emit(spec, tiles[0], target)


def _tensors(spec: object) -> Iterator[Tensor]:
    for name in ("ins", "outs"):
        yield from getattr(spec, name, ())


def _reach(tensor: Tensor) -> int:
    """The greatest element index of a view of known sizes; 0 where it is not known."""
    total: Dim = tensor.offset
    for size, stride in zip(tensor.shape, tensor.strides, strict=True):
        if size == 0:
            return 0
        total = total + (size - 1) * stride
    return total if isinstance(total, int) else 0
