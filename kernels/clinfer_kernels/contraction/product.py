"""What a product is made of, whatever it computes: two operands, sizes, and an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clinfer_kernels.contraction.ends import End
from clinfer_kernels.contraction.walks import Walk
from clinfer_kernels.dims import Dim, ceildiv
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Pack


@dataclass(frozen=True)
class Product:
    """end(a @ b) for each of `batches`: `m` x `n` sums over `k`.

    `stored` are the dtypes of what is multiplied, as the model has them; `acc` that of the sums.
    `a(k_step)` gives A's walk. `scalars` are parameters that the walks and the end have in common;
    `batch` are the statements that set, for batch index `z`, where each of the walks' matrices and
    of the end's tensors begins; `operands` names those matrices. `helpers` are functions that the
    walks call.
    """

    name: str
    suffix: str
    m: Dim
    n: Dim
    k: Dim
    batches: Dim
    acc: str
    a: Callable[[int], Walk]
    b: Walk
    end: End
    declare_batch: Callable[[Signature], None]
    batch: Callable[[Sequence[str]], list[str]]
    operands: tuple[str, ...]
    flops: Dim
    scalars: tuple[tuple[str, Dim], ...] = ()
    packs: tuple[Pack, ...] = ()
    stored: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()

    def groups(self, tile_m: int, tile_n: int) -> Dim:
        """Tiles of that size that cover the results."""
        return self.batches * ceildiv(self.m, tile_m) * ceildiv(self.n, tile_n)
