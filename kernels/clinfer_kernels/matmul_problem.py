"""A matmul as its kernels see it, with as few batch dimensions as its strides allow.

Batch dimensions of size 1 go, neighbours that every tensor steps through as one become one, and
where B is the same for all batches the innermost batch dimension becomes rows: [B, S, K] @ [K, N]
is one product with B * S rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels.dims import Dim, product
from clinfer_kernels.expr import Expr
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.spec import Tensor
from clinfer_kernels.specs import MatmulSpec


@dataclass(frozen=True)
class Problem:
    """epilogue(a @ b, operands): `m` x `n` results over `k`, for each index of `batch`.

    `acc` is the dtype of the sums (operand 0 of the epilogue); float16 and bfloat16 are float32 in
    registers, so that is what they are summed in.
    """

    batch: tuple[Dim, ...]
    m: Dim
    n: Dim
    k: Dim
    a: Matrix
    b: Matrix
    out: Matrix
    operands: tuple[Matrix, ...]
    epilogue: Expr
    acc: str

    @property
    def in_place(self) -> tuple[int, ...]:
        """The numbers of the operands whose elements lie as the output's do."""
        return tuple(i for i, operand in enumerate(self.operands) if operand == self.out)

    @property
    def batches(self) -> Dim:
        """How many products there are."""
        return product(self.batch)

    @property
    def flops(self) -> Dim:
        """Multiplications and additions."""
        return 2 * self.batches * self.m * self.n * self.k


def simplify(spec: MatmulSpec) -> Problem:
    """The problem with as few batch dimensions as its strides allow."""
    out = spec.outs[0]
    axes = _Axes([spec.ins[0], spec.ins[1], *spec.ins[2:], out])
    axes.drop_ones()
    axes.merge_neighbours()
    axes.fold_into_rows()
    a, b, *operands, made = (axes.matrix(i) for i in range(axes.count))
    acc = spec.epilogue.inputs[0]
    return Problem(
        batch=tuple(axes.batch),
        m=axes.m,
        n=out.shape[-1],
        k=spec.ins[0].shape[-1],
        a=a,
        b=b,
        out=made,
        operands=tuple(operands),
        epilogue=spec.epilogue,
        acc="float32" if acc in ("float16", "bfloat16") else acc,
    )


_B = 1  # index of B among the tensors


class _Axes:
    """The batch dimensions and the rows of all tensors, while they are being merged."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        out = tensors[-1]
        self.count = len(tensors)
        self.tensors = tensors
        self.batch: list[Dim] = list(out.shape[:-2])
        self.m = out.shape[-2]
        self.strides = [list(t.strides[:-2]) for t in tensors]
        self.rows = [t.strides[-2] for t in tensors]

    def matrix(self, index: int) -> Matrix:
        tensor = self.tensors[index]
        batch = tuple(self.strides[index])
        return Matrix(tensor.dtype, tensor.offset, batch, self.rows[index], tensor.strides[-1])

    def drop_ones(self) -> None:
        for axis in reversed(range(len(self.batch))):
            if self.batch[axis] == 1:
                self._remove(axis)

    def merge_neighbours(self) -> None:
        for axis in reversed(range(len(self.batch) - 1)):
            size = self.batch[axis + 1]
            if all(s[axis] == s[axis + 1] * size for s in self.strides):
                self.batch[axis] = self.batch[axis] * size
                for strides in self.strides:
                    strides[axis] = strides[axis + 1]
                self._remove(axis + 1)

    def fold_into_rows(self) -> None:
        """Batch dimensions that B does not step through, innermost first, become rows."""
        while self.batch and self.strides[_B][-1] == 0:
            if self.m != 1 and not self._rows_continue():
                return
            if self.m == 1:
                for index, strides in enumerate(self.strides):
                    self.rows[index] = self.rows[index] if index == _B else strides[-1]
            self.m = self.m * self.batch[-1]
            self._remove(len(self.batch) - 1)

    def _rows_continue(self) -> bool:
        return all(
            self.strides[i][-1] == self.rows[i] * self.m for i in range(self.count) if i != _B
        )

    def _remove(self, axis: int) -> None:
        del self.batch[axis]
        for strides in self.strides:
            del strides[axis]
