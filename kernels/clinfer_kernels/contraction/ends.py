"""What becomes of sums: the epilogue and the store, of a matrix product or of a convolution.

Statements see the row `i`, the column `j` and the batch index `z`, and `sum`, `width` values of the
accumulator's type from column `j` on, all of which exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from clinfer_kernels.contraction.normed import row_sums
from clinfer_kernels.conv_problem import Problem as Convolution
from clinfer_kernels.matmul_epilogue import declare_epilogue, store_lines, tensors
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.pixels import declare_pixels, finish, locate
from clinfer_kernels.row_specs import CHUNK
from clinfer_kernels.signature import Signature


class End(Protocol):
    """See the module's text."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors for which a task needs to know where its batch begins."""
        ...

    @property
    def is_dense(self) -> bool:
        """Whether neighbouring columns are stored side by side."""
        ...

    @property
    def multiple(self) -> int:
        """Of what a tile's columns, and the results', are to be a multiple."""
        ...

    def declare(self, signature: Signature) -> None:
        """The parameters."""
        ...

    def after(self, rows: str, row0: str, columns: str, column0: str) -> list[str]:
        """Statements of a group that has stored the results of so many rows and columns, `item`
        being a work-item's number of WG_SIZE."""
        ...

    def row(self) -> list[str]:
        """Statements for a row, before its columns."""
        ...

    def finish(self, width: int) -> list[str]:
        """Statements that finish and store `sum`; with a width above 1 `j` is a multiple of it."""
        ...


@dataclass(frozen=True)
class MatrixEnd:
    """The epilogue of a matrix product."""

    problem: Problem
    sums: int = -1  # the number of the output with sums of rows (`normed`), -1 for none

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tensors(self.problem))

    @property
    def multiple(self) -> int:
        return CHUNK if self.sums >= 0 else 1

    def after(self, rows: str, row0: str, columns: str, column0: str) -> list[str]:
        return row_sums(self.problem, rows, row0, columns, column0) if self.sums >= 0 else []

    @property
    def is_dense(self) -> bool:
        return self.problem.out.col == 1

    def declare(self, signature: Signature) -> None:
        declare_epilogue(signature, self.problem)
        if self.sums >= 0:
            signature.buffer("out", self.sums, "float32", "row_sums")

    def row(self) -> list[str]:
        return []

    def finish(self, width: int) -> list[str]:
        return store_lines(self.problem, width, is_whole=True, is_aligned=True)


@dataclass(frozen=True)
class PixelEnd:
    """The epilogue of a convolution: rows are pixels, columns the filters of group `z`."""

    problem: Convolution

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def multiple(self) -> int:
        return 1

    def after(self, rows: str, row0: str, columns: str, column0: str) -> list[str]:
        return []

    @property
    def is_dense(self) -> bool:
        return self.problem.pixels.outs[0].inner == "1"

    def declare(self, signature: Signature) -> None:
        declare_pixels(signature, self.problem.pixels)

    def row(self) -> list[str]:
        return ["int flat = i;", *locate(self.problem.pixels, "flat")]

    def finish(self, width: int) -> list[str]:
        """The group's first channel is a multiple of the width where the filters are."""
        pixels, epilogue = self.problem.pixels, self.problem.epilogue
        stored = finish(pixels, epilogue, "sum", "channel", width, is_aligned=True)
        return ["const int channel = z * N + j;", *stored]
