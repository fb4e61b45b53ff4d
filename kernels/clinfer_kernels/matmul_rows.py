"""Products beside which rows are normalised, or summed for a norm, on GPUs.

The schedules are those of `matmul_gpu`: a walk normalises what it reads, an end sums what it has
stored (`contraction.normed`).
"""

from __future__ import annotations

from clinfer_kernels.contraction.normed import Normed
from clinfer_kernels.matmul_gpu import GpuTile, Rows, emit_gpu, gpu_tiles
from clinfer_kernels.matmul_problem import Problem, simplify
from clinfer_kernels.row_specs import RowMatmulSpec
from clinfer_kernels.spec import Kernel, Target
from clinfer_kernels.specs import MatmulSpec


def candidates(spec: RowMatmulSpec, target: Target) -> tuple[GpuTile, ...]:
    """The tiles within the device's limits, the best guess first; none on CPUs."""
    if target.cls != "gpu":
        return ()
    return gpu_tiles(_problem(spec), True, target, _rows(spec))


def emit(spec: RowMatmulSpec, tile: GpuTile, target: Target) -> Kernel:
    """The launches of all cuts of a tile."""
    return emit_gpu(_problem(spec), True, tile, target, _rows(spec))


def _problem(spec: RowMatmulSpec) -> Problem:
    count = 1 + len(spec.epilogue.inputs)
    return simplify(MatmulSpec(True, spec.epilogue, spec.ins[:count], spec.outs[:1]))


def _rows(spec: RowMatmulSpec) -> Rows:
    first = 1 + len(spec.epilogue.inputs)
    normed = None
    if spec.norm is not None:
        columns = tuple(enumerate(spec.ins[first + 1 :], first + 1))
        kept = (1, 2) if spec.keeps else ()
        normed = Normed(spec.norm, spec.rms, spec.eps, first, columns, kept)
    return Rows(normed, len(spec.outs) - 1 if spec.sums else -1)
