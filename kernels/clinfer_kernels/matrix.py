"""Tensors as batches of matrices: for each, an offset and a handful of strides.

element (z, i, j) = buffer[offset + sum_d z_d * batch[d] + i * row + j * col]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels.dims import Dim, common_factor


@dataclass(frozen=True)
class Matrix:
    """A tensor as a batch of matrices. Strides and offset count elements."""

    dtype: str
    offset: Dim
    batch: tuple[Dim, ...]
    row: Dim
    col: Dim

    @property
    def col_kind(self) -> str:
        """'0', '1' or 'col': what the text knows of the column stride."""
        return str(self.col) if self.col in (0, 1) else "col"

    def is_aligned(self, width: int) -> bool:
        """Whether every row begins at a multiple of `width` elements."""
        return common_factor((self.offset, *self.batch, self.row)) % width == 0

    @property
    def transposed(self) -> Matrix:
        """The same elements, rows and columns exchanged."""
        return Matrix(self.dtype, self.offset, self.batch, self.col, self.row)


def distinct(matrix: Matrix, batch: Sequence[Dim]) -> tuple[Dim, ...]:
    """The batch dimensions the matrix steps through; over the others it repeats."""
    return tuple(n for n, s in zip(batch, matrix.batch, strict=True) if s != 0)


def copied(matrix: Matrix, batch: Sequence[Dim], dtype: str, each: Dim, row: Dim) -> Matrix:
    """The view of a dense copy: one matrix of `each` elements per distinct batch index."""
    strides: list[Dim] = []
    step = each
    for size, stride in zip(reversed(batch), reversed(matrix.batch), strict=True):
        strides.append(0 if stride == 0 else step)
        step = step if stride == 0 else step * size
    return Matrix(dtype, 0, tuple(reversed(strides)), row, 1)
