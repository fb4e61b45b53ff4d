"""The convolution family: channels last, grouped, depthwise, transposed, 1 to 3 axes."""

from __future__ import annotations

from clinfer_kernels.conv_cpu import CpuTile, cpu_tile, emit_cpu
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import ConvSpec

Tile = CpuTile


def candidates(spec: ConvSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles for `spec` within the target's limits, the best guess first, a plain one last."""
    return (cpu_tile(spec, target),)


def emit(spec: ConvSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec` cut as `tile` says."""
    return emit_cpu(spec, tile, target)
