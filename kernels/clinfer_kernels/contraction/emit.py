"""The kernel of a product: the launches of all its cuts, each with its condition."""

from __future__ import annotations

from clinfer_kernels.contraction.encoded import EncodedWalk
from clinfer_kernels.contraction.few_encoded import emit_encoded_rows
from clinfer_kernels.contraction.few_rows import emit_rows
from clinfer_kernels.contraction.few_tiles import FewRows
from clinfer_kernels.contraction.local_tile import emit_tile
from clinfer_kernels.contraction.parts import parts_bytes
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.tiles import Choice, cuts
from clinfer_kernels.dims import Dim
from clinfer_kernels.spec import Kernel, Launch, Target


def emit_product(product: Product, choice: Choice, target: Target) -> Kernel:
    """The kernel of one product."""
    launches, scratch = launches_of(product, choice, target, 0)
    return Kernel(launches, scratch, product.packs, product.flops)


def launches_of(
    product: Product, choice: Choice, target: Target, first_scratch: int
) -> tuple[tuple[Launch, ...], tuple[Dim, ...]]:
    """The launches of all cuts, and the sizes of their scratch buffers, in bytes."""
    launches: list[Launch] = []
    scratch: list[Dim] = []
    for cut in cuts(product, choice, target):
        number = -1
        if cut.tile.is_split:
            number = first_scratch + len(scratch)
            scratch.append(parts_bytes(product, cut.parts) * cut.when)
        made: tuple[Launch, ...]
        if isinstance(cut.tile, FewRows) and isinstance(product.b, EncodedWalk):
            made = (emit_encoded_rows(product, product.b.format, cut.tile, target),)
        elif isinstance(cut.tile, FewRows):
            made = emit_rows(product, cut.tile, target, cut.parts, number)
        else:
            made = emit_tile(product, cut.tile, target, cut.parts, number)
        launches += (launch._replace(when=cut.when) for launch in made)
    return tuple(launches), tuple(scratch)
