"""Matmul for class "gpu": tiles in local memory, and a schedule for few rows.

Operands are read with the strides they have; which work-item reads what follows the dimension that
is contiguous in memory.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer_kernels.contraction.emit import emit_product
from clinfer_kernels.contraction.ends import MatrixEnd
from clinfer_kernels.contraction.matrix_units import unit_for
from clinfer_kernels.contraction.narrow import narrow_of, narrowed
from clinfer_kernels.contraction.normed import Normed, walk_of
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.tiles import Choice, choices
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.contraction.walks import MatrixWalk, Walk
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import bases, declare_batch, suffix
from clinfer_kernels.spec import Kernel, Pack, Target

if TYPE_CHECKING:
    import numpy as np


GpuTile = Choice


class Rows(NamedTuple):
    """What else becomes of rows: how A's are normalised, and the output for sums of the results'
    (-1: none)."""

    normed: Normed | None = None
    sums: int = -1


NO_ROWS = Rows()


def gpu_tiles(
    problem: Problem, constant_b: bool, target: Target, rows: Rows = NO_ROWS
) -> tuple[GpuTile, ...]:
    """The tiles within the device's limits: the best guess first, a plain one last."""
    return choices(_product(problem, constant_b, target, rows), target, has_rows=True)


def emit_gpu(
    problem: Problem, constant_b: bool, tile: GpuTile, target: Target, rows: Rows = NO_ROWS
) -> Kernel:
    """The launches of all cuts of a tile."""
    return emit_product(_product(problem, constant_b, target, rows), tile, target)


def _product(problem: Problem, constant_b: bool, target: Target, rows: Rows) -> Product:
    """B is packed where its rows are not whole vectors, or are to be rounded for a matrix unit."""
    b, stored = problem.b, (problem.a.dtype, problem.b.dtype)
    packs: tuple[Pack, ...] = ()
    narrow = narrow_of(stored[1], unit_for(stored, target))
    is_padded = _walk_b(problem, b).width == 1 or narrow
    if constant_b and is_padded and isinstance(problem.n, int):
        whole = -(-problem.n // LANES) * LANES
        b = Matrix(narrow or b.dtype, 0, b.batch, whole, 1)
        key = f"rows-{LANES}-{narrow}" if narrow else f"rows-{LANES}"
        packs = (Pack(1, key, partial(_pad_rows, narrow=narrow)),)

    def walk_a(k_step: int) -> Walk:
        walk = MatrixWalk("a", problem.a, "in", 0, problem.m, "M", problem.k, problem.acc)
        return walk_of(walk, rows.normed)

    beside = ("_normed" if rows.normed else "") + ("_sums" if rows.sums >= 0 else "")

    return Product(
        name="matmul",
        suffix=suffix(problem.a) + beside,
        m=problem.m,
        n=problem.n,
        k=problem.k,
        batches=problem.batches,
        acc=problem.acc,
        a=walk_a,
        b=_walk_b(problem, b),
        end=MatrixEnd(problem, rows.sums),
        declare_batch=lambda signature: declare_batch(signature, problem.batch),
        batch=lambda names: bases(names, len(problem.batch)),
        operands=("a", "b"),
        flops=problem.flops,
        packs=packs,
        stored=stored,
    )


def _walk_b(problem: Problem, b: Matrix) -> MatrixWalk:
    """B, [K][N], as places along N; rows that were padded to whole vectors have as many places."""
    is_padded = b is not problem.b
    places = b.row if is_padded else problem.n
    size = "b_row" if is_padded else "N"
    return MatrixWalk("b", b.transposed, "in", 1, places, size, problem.k, problem.acc)


def _pad_rows(array: np.ndarray[Any, Any], narrow: str) -> np.ndarray[Any, Any]:
    """[K][N] with rows of whole vectors, zeros beyond N; `narrow`: a 16-bit dtype, '' for none."""
    import numpy as np

    k, n = array.shape
    padded = np.zeros((k, -(-n // LANES) * LANES), array.dtype)
    padded[:, :n] = array
    return narrowed(padded, narrow) if narrow else padded
