"""The cuts of products of few rows: what counts is to have the constant's bytes on their way."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels.contraction.encoded import EncodedWalk
from clinfer_kernels.contraction.matrix_units import unit_for
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.spec import Target
from clinfer_kernels.types import compute_size

_MOST_ROWS = 8  # at once: a row more is an element of A more for each vector of B
_SOME_ROWS = 4  # where their number is known in a run only
_ENCODED_ROWS = (1, 4, _MOST_ROWS)  # with codes, of which few rows wait for instructions too
_MANY_ROWS = 32  # with codes and multiply-adds, of which a tile of more rows would waste most
_ITEMS = 256  # of a work-group with codes
_LEAST_TURNS = 2  # of a slice of K


@dataclass(frozen=True)
class FewRows:
    """A work-group of `col_items` x `slices` work-items for `rows` rows, sharing K in slices."""

    rows: int
    col_items: int = 16
    slices: int = 16
    is_split: bool = False

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.col_items * self.slices

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        return self.work_group * self.rows * LANES * size


def few_of(product: Product, target: Target) -> tuple[FewRows, ...]:
    """The cuts for few rows, by rows, as far as the device has room for them."""
    if not isinstance(product.b, EncodedWalk):
        tile = _plain(product, target)
        return () if tile is None else (tile,)
    rows: tuple[int, ...] = _ENCODED_ROWS
    if isinstance(product.m, int):
        rows = (next((n for n in rows if n >= product.m), rows[-1]),)
    tiles = (_encoded(product, n, target) for n in rows)
    return tuple(tile for tile in tiles if tile is not None)


def most_few(product: Product, few: FewRows, target: Target) -> int:
    """The most rows, of the largest cut for few rows, for which it is better than a tile."""
    if not isinstance(product.b, EncodedWalk):
        return _MOST_ROWS if _is_known(product) else min(few.rows, _SOME_ROWS)
    unit = unit_for(product.stored, target)
    is_fast = unit is not None and unit.operand != "float32"
    return few.rows if is_fast else max(few.rows, _MANY_ROWS)


def _is_known(product: Product) -> bool:
    sizes = (product.m, product.n, product.k, product.batches)
    return all(isinstance(size, int) for size in sizes)


def _plain(product: Product, target: Target) -> FewRows | None:
    size, m = compute_size(product.acc), product.m
    rows = min(m, _MOST_ROWS) if isinstance(m, int) else _SOME_ROWS
    columns = max(16, least_items(product))
    for slices in (16, 8, 4):
        tile = FewRows(max(rows, 1), columns, max(1, slices * 16 // columns))
        if tile.work_group <= target.max_work_group and tile.local_bytes(size) <= target.local_mem:
            return tile
    return None


def _encoded(product: Product, rows: int, target: Target) -> FewRows | None:
    """As many columns as leave every unit groups, and the rest of the work-items along K.

    Of one row, which waits for memory, several: compilers keep a work-item's loads few. More rows
    have fewer, which share more of A.
    """
    assert isinstance(product.b, EncodedWalk)
    how, items = product.b.format, min(_ITEMS, target.max_work_group)
    while items * rows * LANES * compute_size(product.acc) > target.local_mem:
        items //= 2
    wanted = target.group_units * 3 // (1 if rows == 1 else 4)
    columns = next((n for n in (16, 8, 4, 2) if how.quads >= n * wanted), 1)
    slices = 1
    while 2 * slices * columns <= items and 2 * slices * _LEAST_TURNS <= how.words:
        slices *= 2
    return FewRows(rows, columns, slices) if items >= columns else None


def least_items(product: Product) -> int:
    """Work-items along the columns for what those of a tile are to be a multiple of."""
    return product.end.multiple // (product.b.width if product.b.along == "place" else 1) or 1
