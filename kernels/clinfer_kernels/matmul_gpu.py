"""Matmul for class "gpu": tiles in local memory, and a schedule for few rows.

Operands are read with the strides they have; which work-item reads what follows the dimension that
is contiguous in memory. Tiles in local memory with several results per work-item as in CLBlast
(Nugteren, "CLBlast: A Tuned OpenCL BLAS Library", 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum
from clinfer_kernels.matmul_epilogue import declare_epilogue, store_lines, tensors
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import (
    bases,
    declare,
    declare_batch,
    read,
    suffix,
)
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, compute_size

_GLOBAL_LIMIT = 65535  # work-items along a dimension that PoCL takes
_MANY_UNITS = 16  # compute units from which on a device has registers for the biggest tile


@dataclass(frozen=True)
class GpuTile:
    """A work-group of `wg_rows` x `wg_cols` work-items, each with `rows` x `cols` results."""

    wg_rows: int = 16
    wg_cols: int = 16
    rows: int = 4
    cols: int = 4
    k_step: int = 16

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.wg_rows * self.wg_cols

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        pitches = self.wg_rows * self.rows + 1 + self.wg_cols * self.cols + 1
        return self.k_step * pitches * size


@dataclass(frozen=True)
class DotTile:
    """A work-group makes `cols` results of one row, `slices` work-items to each."""

    cols: int = 64
    slices: int = 4

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.cols * self.slices

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        return self.work_group * size


def gpu_tiles(problem: Problem, target: Target) -> tuple[GpuTile | DotTile, ...]:
    """The tiles within the device's limits: the best guess first, a plain one last.

    Big tiles reuse more, small ones make enough work-groups for the device from small matrices.
    """
    big = (GpuTile(), GpuTile(rows=8), GpuTile(rows=2, cols=2))
    # Intel's compiler has 4 KiB of registers for 16 work-items: 8 x 4 sums each spill 8 KiB there
    # (docs/kernels-checked.md).
    if target.compute_units >= _MANY_UNITS and target.dialect != "intel":
        big = (GpuTile(rows=8), GpuTile(), GpuTile(rows=2, cols=2))
    small = (GpuTile(rows=2, cols=2), GpuTile(8, 8), GpuTile())
    dot = (DotTile(4, 64), DotTile(64, 4)) if _k_first(problem.b) else (DotTile(), DotTile(32, 8))
    ordered: tuple[GpuTile | DotTile, ...]
    if isinstance(problem.m, int) and problem.m <= 4:
        ordered = (*dot, *small)
    elif _few_groups(problem, GpuTile(), target):
        ordered = (*small, *dot)
    else:
        ordered = (*big, *dot)
    size = compute_size(problem.acc)
    fitting = [
        tile
        for tile in ordered
        if tile.work_group <= target.max_work_group and tile.local_bytes(size) <= target.local_mem
    ]
    return (*fitting, DotTile(1, 1))


def _few_groups(problem: Problem, tile: GpuTile, target: Target) -> bool:
    """Whether known sizes give fewer work-groups than keep the device busy."""
    groups = (
        problem.batches
        * ceildiv(problem.m, tile.wg_rows * tile.rows)
        * ceildiv(problem.n, tile.wg_cols * tile.cols)
    )
    return isinstance(groups, int) and groups < 2 * target.compute_units


def _k_first(b: Matrix) -> bool:
    """Whether B is contiguous along K."""
    return b.col_kind == "col" and b.row == 1


def emit_gpu(problem: Problem, tile: GpuTile | DotTile, target: Target) -> Kernel:
    """The one launch of either schedule."""
    make = _tiled if isinstance(tile, GpuTile) else _dot
    return Kernel((make(problem, tile, target),), flops=problem.flops)  # type: ignore[arg-type]


def _tiled(problem: Problem, tile: GpuTile, target: Target) -> Launch:
    row_tasks = ceildiv(problem.m, tile.wg_rows * tile.rows)
    col_tasks = ceildiv(problem.n, tile.wg_cols * tile.cols)
    tasks = row_tasks * col_tasks * problem.batches
    sizes = (("row_tasks", row_tasks), ("col_tasks", col_tasks), ("tasks", tasks))
    k_last = problem.a.col_kind != "col"
    k_first = _k_first(problem.b)
    along_k, across_a, across_b = "e % K_STEP", "e % TILE_M", "e % TILE_N"
    entry = f"matmul_local_{tile.wg_rows * tile.rows}x{tile.wg_cols * tile.cols}"
    return _launch(
        problem,
        target,
        "matmul_gpu",
        entry,
        (tile.wg_cols, tile.wg_rows),
        sizes,
        wg_rows=tile.wg_rows,
        wg_cols=tile.wg_cols,
        rows=tile.rows,
        cols=tile.cols,
        k_step=tile.k_step,
        a_tile_k=along_k if k_last else "e / TILE_M",
        a_tile_row="e / K_STEP" if k_last else across_a,
        b_tile_k=along_k if k_first else "e / TILE_N",
        b_tile_col="e / K_STEP" if k_first else across_b,
        epilogue=block(store_lines(problem, 1), 4),
    )


def _dot(problem: Problem, tile: DotTile, target: Target) -> Launch:
    col_tasks = ceildiv(problem.n, tile.cols)
    tasks = col_tasks * problem.m * problem.batches
    k_first = _k_first(problem.b)
    return _launch(
        problem,
        target,
        "matmul_dot",
        f"matmul_dot_{tile.cols}x{tile.slices}",
        (tile.work_group,),
        (("col_tasks", col_tasks), ("tasks", tasks)),
        cols=tile.cols,
        slices=tile.slices,
        item_col="item / SLICES" if k_first else "item % COLS",
        item_slice="item % SLICES" if k_first else "item / COLS",
        epilogue=block(store_lines(problem, 1), 3),
    )


def _launch(
    problem: Problem,
    target: Target,
    template: str,
    entry: str,
    local_size: tuple[int, ...],
    sizes: tuple[tuple[str, Dim], ...],
    **parts: str | int,
) -> Launch:
    """What both schedules share: parameters, addresses and the grid, flat over all tasks."""
    names = ["a", "b", *tensors(problem)]
    signature = Signature()
    declare(signature, "a", problem.a, "in", 0)
    declare(signature, "b", problem.b, "in", 1)
    declare_epilogue(signature, problem)
    declare_batch(signature, problem.batch)
    for name, value in (("M", problem.m), ("N", problem.n), ("K", problem.k), *sizes):
        signature.scalar(name, value)
    entry = entry + suffix(problem.a)
    text = fill(
        template,
        target,
        head=kernel_head(entry, local_size),
        parameters=signature.text,
        acc_type=compute(problem.acc),
        batch=block(bases(names, len(problem.batch)), 2),
        load_a=read("a", problem.a, "i", "k", problem.acc),
        load_b=read("b", problem.b, "k", "j", problem.acc),
        **parts,
    )
    groups = minimum(dict(sizes)["tasks"], _GLOBAL_LIMIT // local_size[0])
    global_size = (groups * local_size[0], *local_size[1:])
    return Launch(entry, text, signature.args, global_size, local_size)
