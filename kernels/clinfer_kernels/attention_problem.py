"""Attention as its kernels see it: every tensor as matrices, one for each batch index and head."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels.dims import Dim, floordiv
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import base, declare
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor
from clinfer_kernels.specs import AttentionSpec
from clinfer_kernels.types import is_float


@dataclass(frozen=True)
class Problem:
    """softmax(q k^T scale + mask) v for each of `batch` x `heads`.

    `group`: query heads that share one of the `kv_heads` heads of keys and values. `acc` is what
    sums are kept in. `zeroed` as in `AttentionSpec`.
    """

    scale: float
    causal: bool
    batch: Dim
    heads: Dim
    kv_heads: Dim
    group: Dim
    queries: Dim
    keys: Dim
    depth: Dim
    columns: Dim
    q: Matrix
    k: Matrix
    v: Matrix
    mask: Matrix | None
    out: Matrix
    acc: str
    zeroed: str

    @property
    def flops(self) -> Dim:
        """Multiplications and additions of both products."""
        rows = self.batch * self.heads * self.queries
        return 2 * rows * self.keys * (self.depth + self.columns)


def simplify(spec: AttentionSpec) -> Problem:
    """The problem of a spec."""
    q, k, v = spec.ins[:3]
    batch, heads, queries, depth = q.shape
    return Problem(
        scale=spec.scale,
        causal=spec.causal,
        batch=batch,
        heads=heads,
        kv_heads=k.shape[1],
        group=floordiv(heads, k.shape[1]),
        queries=queries,
        keys=k.shape[2],
        depth=depth,
        columns=v.shape[3],
        q=_matrix(q),
        k=_matrix(k),
        v=_matrix(v),
        mask=_matrix(spec.ins[3]) if spec.has_mask else None,
        out=_matrix(spec.outs[0]),
        acc="float64" if q.dtype == "float64" else "float32",
        zeroed=spec.zeroed,
    )


def takes(spec: AttentionSpec) -> bool:
    """Whether the family has kernels for these dtypes: floats, and bool for a mask."""
    masks = {t.dtype for t in spec.ins[3:]}
    return all(is_float(t.dtype) for t in (*spec.ins[:3], *spec.outs)) and all(
        d == "bool" or is_float(d) for d in masks
    )


def _matrix(tensor: Tensor) -> Matrix:
    strides = tensor.strides
    return Matrix(tensor.dtype, tensor.offset, strides[:2], strides[2], strides[3])


def declare_tensors(signature: Signature, problem: Problem) -> None:
    """Parameters for all tensors and sizes."""
    declare(signature, "q", problem.q, "in", 0)
    declare(signature, "k", problem.k, "in", 1)
    declare(signature, "v", problem.v, "in", 2)
    if problem.mask is not None:
        declare(signature, "mask", problem.mask, "in", 3)
    declare(signature, "out", problem.out, "out", 0)
    for name, value in (
        ("heads", problem.heads),
        ("group", problem.group),
        ("Sq", problem.queries),
        ("Sk", problem.keys),
        ("D", problem.depth),
        ("Dv", problem.columns),
    ):
        signature.scalar(name, value)


def bases(problem: Problem) -> list[str]:
    """Statements giving each tensor's start for batch index z0, query head z1, key head kv."""
    lines = [base("q", ("z0", "z1")), base("k", ("z0", "kv")), base("v", ("z0", "kv"))]
    if problem.mask is not None:
        lines.append(base("mask", ("z0", "z1")))
    return [*lines, base("out", ("z0", "z1"))]
