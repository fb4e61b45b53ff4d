"""The convolution family: channels last, grouped, depthwise, transposed, 1 to 3 axes."""

from __future__ import annotations

from clinfer_kernels.conv_cpu import CpuTile, cpu_tile, emit_cpu
from clinfer_kernels.depthwise_cpu import DepthwiseTile, depthwise_tile, emit_depthwise
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import ConvSpec

Tile = CpuTile | DepthwiseTile


def candidates(spec: ConvSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles for `spec` within the target's limits, the best guess first, a plain one last."""
    depthwise = depthwise_tile(spec, target)
    general = cpu_tile(spec, target)
    return (general,) if depthwise is None else (depthwise, general)


def emit(spec: ConvSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec` cut as `tile` says."""
    if isinstance(tile, DepthwiseTile):
        return emit_depthwise(spec, tile, target)
    return emit_cpu(spec, tile, target)
