"""Layouts that matmul_cpu reads in one stream, and the launches that bring a matrix into them.

panels   B as [ceil(n / cols)][k][cols], zeros beyond column n: a register tile walks through memory
         front to back (Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
         2008).
rows     A as [m][k], in the dtype that sums are kept in.

A constant B is packed once, by `pack_constant`; everything else by a launch of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum, product
from clinfer_kernels.matrix import Matrix, distinct
from clinfer_kernels.matrix_text import (
    bases,
    col_stride,
    declare,
    declare_batch,
    element,
    suffix,
)
from clinfer_kernels.packings import MatrixPanels
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Launch, Target
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, vector

MAX_GROUPS = 32768  # work-groups of a launch; PoCL takes fewer than 65536 per dimension
_BLOCK = 64  # rows that a task copies


class Panels(MatrixPanels):
    """Panels of `cols` columns of `dtype`."""

    __slots__ = ()

    def elements(self, k: Dim, n: Dim) -> Dim:
        """How many elements one packed [k, n] matrix takes."""
        return ceildiv(n, self.cols) * self.cols * k


@dataclass(frozen=True)
class Source:
    """What to copy: input `index` of the spec, `rows` x `cols` for each index of `batch`."""

    matrix: Matrix
    index: int
    batch: tuple[Dim, ...]
    rows: Dim
    cols: Dim

    @property
    def distinct(self) -> Source:
        """Without the batch dimensions it only repeats over."""
        strides = tuple(s for s in self.matrix.batch if s != 0)
        matrix = Matrix(
            self.matrix.dtype, self.matrix.offset, strides, self.matrix.row, self.matrix.col
        )
        return Source(matrix, self.index, distinct(self.matrix, self.batch), self.rows, self.cols)


def pack_panels(source: Source, panels: Panels, lanes: int, scratch: int, target: Target) -> Launch:
    """The launch that packs B into scratch buffer `scratch`, in vectors of `lanes`."""
    source = source.distinct
    tasks = product(source.batch) * ceildiv(source.cols, panels.cols) * ceildiv(source.rows, _BLOCK)
    signature = _signature(source, panels.dtype, scratch, tasks, ("K", "N"))
    entry = f"pack_panels_{panels.cols}{suffix(source.matrix)}"
    text = fill(
        "pack_panels",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        cols=panels.cols,
        store=memory.store(panels.dtype, "value", "packed", "to + c", lanes),
        **_parts(source, panels.dtype, lanes),
    )
    return Launch(entry, text, signature.args, (minimum(tasks, MAX_GROUPS),), (1,))


def pack_rows(source: Source, dtype: str, lanes: int, scratch: int, target: Target) -> Launch:
    """The launch that copies A into scratch buffer `scratch`, in vectors of `lanes`."""
    source = source.distinct
    tasks = product(source.batch) * ceildiv(source.cols, lanes) * ceildiv(source.rows, _BLOCK)
    signature = _signature(source, dtype, scratch, tasks, ("M", "K"))
    entry = f"pack_rows{suffix(source.matrix)}"
    text = fill(
        "pack_rows",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        store=memory.store(dtype, "value", "packed", "to", lanes),
        store_part=memory.store_part(dtype, "value", "packed", "to", lanes, "lanes"),
        **_parts(source, dtype, lanes),
    )
    return Launch(entry, text, signature.args, (minimum(tasks, MAX_GROUPS),), (1,))


def _signature(
    source: Source, dtype: str, scratch: int, tasks: Dim, sizes: Sequence[str]
) -> Signature:
    signature = Signature()
    declare(signature, "x", source.matrix, "in", source.index)
    signature.buffer("scratch", scratch, dtype, "packed")
    declare_batch(signature, source.batch)
    for name, value in zip(sizes, (source.rows, source.cols), strict=True):
        signature.scalar(name, value)
    signature.scalar("tasks", tasks)
    return signature


def _parts(source: Source, dtype: str, lanes: int) -> dict[str, str | int]:
    """What both texts have in common: reading `lanes` values at (row, col)."""
    matrix = source.matrix
    stride = col_stride("x", matrix)
    whole = memory.load(matrix.dtype, "x", "at", lanes, stride)
    part = memory.load_part(matrix.dtype, "x", "at", lanes, "lanes", stride)
    types = (compute(dtype), compute(matrix.dtype), lanes)
    return {
        "lanes": lanes,
        "block": _BLOCK,
        "vec": vector(compute(dtype), lanes),
        "batch": block(bases(["x"], len(source.batch)), 2),
        "at": element("x", matrix, "row", "col"),
        "load": memory.convert(whole, *types),
        "load_part": memory.convert(part, *types),
    }
