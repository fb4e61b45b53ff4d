"""The matmul family: epilogue(A @ B), batched, any strides.

`matmul_problem` brings a spec into its simplest form; a schedule (`matmul_cpu`, `matmul_gpu`) makes
the text; `candidates` lists the tiles worth trying, the best guess first.
"""

from __future__ import annotations

from clinfer_kernels.matmul_cpu import CpuTile, cpu_tiles, emit_cpu
from clinfer_kernels.matmul_problem import simplify
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import MatmulSpec

Tile = CpuTile


def candidates(spec: MatmulSpec, target: Target) -> tuple[Tile, ...]:
    """The tiles for `spec` on `target`, the best guess first, a plain one last."""
    problem = simplify(spec)
    return cpu_tiles(problem, spec.constant_b, target)


def emit(spec: MatmulSpec, tile: Tile, target: Target) -> Kernel:
    """The kernel of `spec` cut as `tile` says."""
    return emit_cpu(simplify(spec), tile, target)
