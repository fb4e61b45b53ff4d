"""What is computed of rows beside a product: the spec of `matmul_rows`."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels.expr import Expr
from clinfer_kernels.spec import Tensor
from clinfer_kernels.specs import Spec

CHUNK = 64
"""Columns that sums are of: rows have a multiple of them, and so have tiles."""


@dataclass(frozen=True)
class RowMatmulSpec(Spec):
    """outs[0] = epilogue(f(a) @ b, operands), with b [K, N] a constant, all else as `MatmulSpec`.

    ins = (a, b, *operands of the epilogue) and, with `norm`, (sums of a, *columns): f(a) = norm(n,
    columns) of n = (a - mean) / sqrt(variance + eps) along K, or a / sqrt(mean of squares + eps)
    where it is `rms`; columns are views of shape (K,). `keeps` adds outs for each row's mean (0
    for rms) and 1 / sqrt(...), `sums` one for what a product that normalises outs[0] reads:
    float32 [rows, N / 64, 2], mean and sum of squared distances to it of 64 columns. K, N, where
    sums are of them, are known multiples of 64.
    """

    norm: Expr | None
    rms: bool
    eps: float
    keeps: bool
    sums: bool
    epilogue: Expr
    ins: tuple[Tensor, ...]
    outs: tuple[Tensor, ...]
