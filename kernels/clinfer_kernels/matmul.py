"""The matmul family: epilogue(A @ B), batched, any strides.

`matmul_problem` brings a spec into its simplest form; a schedule (`matmul_cpu`, `matmul_integer`,
`matmul_pairs`, `matmul_gpu`) makes the text; `candidates` lists the tiles worth trying. Every tile
is right on every device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer_kernels.matmul_cpu import CpuTile, cpu_tiles, emit_cpu
from clinfer_kernels.matmul_integer import IntegerTile, emit_integer, integer_tiles
from clinfer_kernels.matmul_pairs import PairsTile, emit_pairs, pair_tiles
from clinfer_kernels.matmul_problem import simplify
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import MatmulSpec

if TYPE_CHECKING:
    from clinfer_kernels.matmul_gpu import GpuTile

    Tile = CpuTile | IntegerTile | PairsTile | GpuTile


def candidates(spec: MatmulSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles for `spec` within the target's limits, the best guess first, a plain one last."""
    problem = simplify(spec)
    if target.cls == "gpu":  # a start on a CPU does not import what is for GPUs
        from clinfer_kernels.matmul_gpu import gpu_tiles

        return gpu_tiles(problem, spec.constant_b, target)
    plain = cpu_tiles(problem, spec.constant_b, target)
    special = integer_tiles(problem, spec.constant_b, target) or pair_tiles(
        problem, spec.constant_b, target
    )
    return (*special, plain[-1]) if special else plain


def emit(spec: MatmulSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec` cut as `tile` says."""
    problem = simplify(spec)
    if isinstance(tile, IntegerTile):
        return emit_integer(problem, tile, target)
    if isinstance(tile, PairsTile):
        return emit_pairs(problem, tile, target)
    if isinstance(tile, CpuTile):
        return emit_cpu(problem, tile, target)
    from clinfer_kernels.matmul_gpu import emit_gpu

    return emit_gpu(problem, spec.constant_b, tile, target)
