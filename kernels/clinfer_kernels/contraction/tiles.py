"""The cuts of a product, and which sizes want which.

Large tiles multiply more for each element they read; small ones, and parts of K, make enough
work-groups for a device from small products. Sizes may be known only in a run: then all cuts of a
`Sized` are in the plan, and conditions on the sizes say which of them runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from clinfer_kernels.contraction.encoded import EncodedWalk
from clinfer_kernels.contraction.few_tiles import FewRows, few_of, least_items, most_few
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.matrix_tiles import cuts_of, has_registers
from clinfer_kernels.contraction.matrix_units import MATRIX_UNITS, UNITS, unit_for
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.dims import Dim, at_most, ceildiv, floordiv, maximum, minimum
from clinfer_kernels.spec import Target
from clinfer_kernels.types import compute_size

K_UNIT = 16  # what parts of K are multiples of, for few rows
_BUSY = 1  # groups for each unit, at least, where K can be cut into parts
_BUSY_ROWS = 4  # of those for few rows, which wait for memory
_LEAST_STEPS = 4  # of K that a part has
_MOST_PARTS = 64
_MOST_GUESSES = 5  # that tuning may try
_FMA_LANES = 128  # multiply-adds of a unit in a clock: SMs, compute units and Xe cores have as many
_AROUND = 90  # other instructions of a step: copies, addresses, the barrier
_LOADED_BYTES = 27  # that a unit gets of the last cache in a clock, all units asking
_LATENCY = 500  # clocks of a step whose loads nothing hides
_LOCAL_BYTES = 128  # of local memory in a clock, where each lane reads bytes of its own
_MADE_BYTES = 64  # of summands that a unit makes of float32 in a clock
_MOST_SUMS = 256  # bytes of sums that a work-item keeps
_ITEMS_AT_ONCE = 512  # work-items of a unit, with some 128 registers each
_CLOCKS_OF = 32  # values of k: a multiple of every tile's step
_LEAST_EXACT = 32  # values of k for which three terms are not worse than float32 in any case
_SPLIT = 8000  # clocks of a further launch


@dataclass(frozen=True)
class LocalTile:
    """A work-group of `wg_rows` x `wg_cols` work-items, each with `rows` x `cols` results.

    `is_split`: K is cut into parts. `unit`: a row of `units`.
    """

    wg_rows: int
    wg_cols: int
    rows: int
    cols: int
    k_step: int = 16
    unroll: int = 16
    unit: str = "fma"
    is_split: bool = False

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.wg_rows * self.wg_cols

    @property
    def tile_m(self) -> int:
        """Rows of a work-group."""
        return self.wg_rows * self.rows

    @property
    def tile_n(self) -> int:
        """Columns of a work-group."""
        return self.wg_cols * self.cols

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes; matrix units have their own."""
        packing, pads = UNITS[self.unit].packing, 2 * LANES
        if packing is not None:
            size = packing.size * packing.count
            pads = packing.pad_of(0, self.tile_m) + packing.pad_of(1, self.tile_n)
        return 2 * self.k_step * (self.tile_m + self.tile_n + pads) * size


@dataclass(frozen=True)
class Sized:
    """`large` where that keeps the device busy, `small` where it does not, split where needed.

    `few`: by rows, those for as many rows as each has at once; the last one for as many as is good.
    """

    large: LocalTile
    small: LocalTile
    few: tuple[FewRows, ...] = ()

    @property
    def _all(self) -> tuple[LocalTile | FewRows, ...]:
        return (self.large, self.small, *self.few)

    @property
    def work_group(self) -> int:
        """Work-items of the largest work-group."""
        return max(tile.work_group for tile in self._all)

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        return max(tile.local_bytes(size) for tile in self._all)


Choice = LocalTile | FewRows | Sized


class Cut(NamedTuple):
    """A tile, the parts of K, and the condition under which it runs: 1 or 0."""

    tile: LocalTile | FewRows
    parts: Dim
    when: Dim


# By the size of a group's tile. Work-items with 8 x 8 results read least of local memory for each
# multiply-add, those with 8 x 4 need half of the registers.
_LARGE = LocalTile(16, 16, 8, 8)  # 128 x 128
_TALL = LocalTile(16, 16, 8, 4)  # 128 x 64
_TALL_8X8 = LocalTile(16, 8, 8, 8)  # 128 x 64
_SMALL = LocalTile(8, 16, 8, 4)  # 64 x 64
_SMALL_8X8 = LocalTile(8, 8, 8, 8)  # 64 x 64
_NARROW = LocalTile(16, 8, 8, 4)  # 128 x 32
_FLAT = LocalTile(4, 16, 8, 4)  # 32 x 64
_LINE = LocalTile(4, 16, 4, 4)  # 16 x 64
_TINY = LocalTile(8, 8, 4, 4)  # 32 x 32
_LEAST = LocalTile(4, 4, 4, 4)  # 16 x 16


@dataclass(frozen=True)
class Device:
    """What a compiler does well: its tiles, the small one, and how far it is to unroll a step."""

    tiles: tuple[LocalTile, ...]
    small: LocalTile
    unroll: int
    local_bytes: int = 128  # that a unit reads of local memory in a clock
    memory_bytes: int = 7  # that a unit gets of memory in a clock, all units asking, at 80 %

    def clocks(self, tile: LocalTile, size: int) -> int:
        """Of a unit, for a step of a group: instructions, local memory, and memory behind it."""
        matrix = MATRIX_UNITS.get(tile.unit)
        if matrix is not None:
            return _matrix_clocks(tile, size, matrix)
        each = tile.rows * tile.cols + (tile.rows + tile.cols) // LANES
        issued = tile.work_group * (each * tile.k_step + _AROUND) // _FMA_LANES
        read = (tile.rows + tile.cols) * size * tile.k_step * tile.work_group // self.local_bytes
        loaded = (tile.tile_m + tile.tile_n) * size * tile.k_step // _LOADED_BYTES
        return max(issued, read, loaded)


def _matrix_clocks(tile: LocalTile, size: int, unit: MatrixUnit) -> int:
    """As `Device.clocks`, with the unit's own reads of local memory."""
    results = tile.tile_m * tile.tile_n
    put = (tile.tile_m + tile.tile_n) * tile.k_step * unit.packing.size * unit.packing.count
    local = (unit.read_bytes(tile) + put) // _LOCAL_BYTES
    loaded = (tile.tile_m + tile.tile_n) * size * tile.k_step // _LOADED_BYTES
    made = put // _MADE_BYTES if unit.packing.planes else 0
    return max(results * tile.k_step // unit.rate + made, local, loaded) + _AROUND


_EVERY = (_SMALL, _NARROW, _FLAT, _LINE, _TINY, _LEAST)
_PLAIN = Device((_TALL, *_EVERY), _SMALL, 4)
_DEVICES = {
    "pocl": Device((_TALL, *_EVERY), _SMALL, 1),  # a compiler of loops over work-items
    "nvidia": Device((_LARGE, _TALL, *_EVERY), _SMALL, 16, 256, 10),
    # A work-item of 8 x 4 is bound by its reads of local memory: 128 bytes a clock for 64 lanes.
    "amd": Device((_LARGE, _TALL_8X8, _SMALL_8X8, *_EVERY), _SMALL_8X8, 4),
    # With 8 x 8 in groups below 256 work-items clang 15 spills (docs/gpu.md).
    # Units are counted in pairs there, whose clocks are taken for those of one.
    "rdna": Device((replace(_LARGE, k_step=8), _TALL, *_EVERY), _SMALL, 4, memory_bytes=3),
    # 4 KiB of registers for 16 work-items, or for 8.
    "intel": _PLAIN,
}


def _device(target: Target) -> Device:
    kind = "rdna" if target.architecture.startswith("gfx1") else target.dialect
    return _DEVICES.get(kind, _PLAIN)


def choices(product: Product, target: Target, has_rows: bool) -> tuple[Choice, ...]:
    """The cuts within the device's limits, the best guess first.

    `has_rows`: the operands are matrices, so that there is a schedule for few rows.
    """
    found, matrix = _fitting(product, target), _matrix_tiles(product, target)
    few = few_of(product, target) if has_rows else ()
    plain = (FewRows(1, least_items(product), 1),) if has_rows else ()
    if not found:
        return plain
    sizes = (product.m, product.n, product.k, product.batches)
    if all(isinstance(size, int) for size in sizes):
        guesses: tuple[Choice, ...] = ()
        rivals = [*matrix, *found] if _is_exact(matrix) else matrix
        for tiles in filter(None, (rivals, found)):
            ordered = sorted(_with_splits(tiles), key=lambda tile: _clocks(product, tile, target))
            guesses += tuple(tile for tile in ordered[:_MOST_GUESSES] if tile not in guesses)
        if few and isinstance(product.m, int) and product.m <= most_few(product, few[0], target):
            parts = parts_of(product, few[0], target)
            return (replace(few[0], is_split=parts != 1), *guesses, *plain)
        return (*guesses, *plain)
    if few and isinstance(product.m, int) and product.m > most_few(product, few[-1], target):
        few = ()
    sized = Sized(found[0], _small(product, found, target), few)
    if matrix:
        size = compute_size(product.acc)
        square = [t for t in matrix if (t.tile_m, t.tile_n) == (64, 64)] or matrix[-1:]
        small = min(square, key=lambda tile: _device(target).clocks(tile, size))
        return (Sized(matrix[0], small, few), *matrix, sized, *plain)
    return (sized, *list(dict.fromkeys((sized.small, *found)))[:_MOST_GUESSES], *plain)


def _fitting(product: Product, target: Target) -> list[LocalTile]:
    """The device's tiles that fit, the largest first; 8-byte sums take half as many."""
    size, device = compute_size(product.acc), _device(target)
    unit = target.units[-1] if product.acc == "float32" else "fma"
    return [
        replace(tile, unit=unit, unroll=device.unroll)
        for tile in device.tiles
        if tile.work_group <= target.max_work_group
        and tile.local_bytes(size) <= target.local_mem
        and tile.rows * tile.cols * size <= _MOST_SUMS
        and tile.tile_n % product.end.multiple == 0
    ]


def _matrix_tiles(product: Product, target: Target) -> list[LocalTile]:
    """The tiles of the matrix unit that the product may use, the largest first; where that one adds
    several terms to float32's results, those of a unit that multiplies float32 itself behind them.
    """
    unit = unit_for(product.stored, target)
    if unit is None or not unit.is_exact:
        return _tiles_of(unit, product, target)
    is_short = isinstance(product.k, int) and product.k < _LEAST_EXACT
    own = unit_for(product.stored, target._replace(precision="f32"))
    found = [] if is_short else _tiles_of(unit, product, target)
    return [*found, *_tiles_of(own, product, target)]


def _tiles_of(unit: MatrixUnit | None, product: Product, target: Target) -> list[LocalTile]:
    """The tiles of a unit, the largest first."""
    if unit is None or unit.acc != product.acc:
        return []
    tiles = [LocalTile(*cut, unit=unit.name) for cut in cuts_of(unit)]
    found = [
        tile
        for tile in tiles
        if tile.work_group <= target.max_work_group and tile.local_bytes(4) <= target.local_mem
    ]
    held = [t for t in found if has_registers(unit, t, product.a(t.k_step), product.b)]
    return held or found


def _is_exact(tiles: Sequence[LocalTile]) -> bool:
    """Whether tiles of a matrix unit give what multiply-adds of float32 do."""
    return bool(tiles) and MATRIX_UNITS[tiles[0].unit].operand == "float32"


def _with_splits(tiles: list[LocalTile]) -> Iterator[LocalTile]:
    yield from tiles
    yield from (replace(tile, is_split=True) for tile in tiles)


def _small(product: Product, fitting: list[LocalTile], target: Target) -> LocalTile:
    """The tile for few results: as wide as the columns are, where that is known."""
    wanted = _device(target).small
    if isinstance(product.n, int) and product.n <= _NARROW.tile_n:
        wanted = _NARROW
    elif isinstance(product.m, int) and product.m <= _FLAT.tile_m:
        wanted = _FLAT if product.m > _LINE.tile_m else _LINE
    shape = (wanted.tile_m, wanted.tile_n)
    return next((t for t in fitting if (t.tile_m, t.tile_n) == shape), fitting[-1])


def cuts(product: Product, choice: Choice, target: Target) -> tuple[Cut, ...]:
    """What may run, each with its condition; those that never hold are left out."""
    if not isinstance(choice, Sized):
        return (Cut(choice, parts_of(product, choice, target) if choice.is_split else 1, 1),)
    large, small, few = choice.large, choice.small, choice.few
    parts = parts_of(product, small, target)
    split = minimum(1, floordiv(parts, 2))
    fewer = at_most(_whole_clocks(product, large, target), _whole_clocks(product, small, target))
    every = [
        Cut(large, 1, (1 - split) * fewer),
        Cut(small, 1, (1 - split) * (1 - fewer)),
        Cut(replace(small, is_split=True), parts, split),
    ]
    taken: Dim = 0
    for tile in few:
        most = most_few(product, tile, target) if tile is few[-1] else tile.rows
        are_few = at_most(product.m, most)
        count = parts_of(product, tile, target)
        every.append(Cut(replace(tile, is_split=count != 1), count, are_few - taken))
        taken = are_few
    if few:
        every[:3] = [cut._replace(when=cut.when * (1 - taken)) for cut in every[:3]]
    return tuple(cut for cut in every if cut.when != 0)


def parts_of(product: Product, tile: LocalTile | FewRows, target: Target) -> Dim:
    """How many parts of K keep the device busy: at least 1, each of several steps."""
    if isinstance(tile, FewRows):
        if isinstance(product.b, EncodedWalk):
            return 1
        groups = maximum(product.groups(tile.rows, tile.col_items * LANES), 1)
        wanted = floordiv(_BUSY_ROWS * target.group_units, groups)
        least = tile.slices * _LEAST_STEPS
    else:
        groups = maximum(product.groups(tile.tile_m, tile.tile_n), 1)
        wanted = floordiv(_BUSY * target.group_units, groups)
        least = tile.k_step * _LEAST_STEPS
    most = minimum(floordiv(product.k, least), _MOST_PARTS)
    return maximum(minimum(wanted, most), 1)


def clocks_of(product: Product, choice: Choice, target: Target) -> Dim:
    """An estimate of a product's clocks, to compare ways to the same results: with known sizes as
    tiles are chosen, with others by the tiles alone."""
    if isinstance(choice, LocalTile) and isinstance(product.m, int):
        return _clocks(product, choice, target)
    steps = ceildiv(product.k, _CLOCKS_OF)
    if isinstance(choice, Sized):
        parts = parts_of(product, choice.small, target)
        small = floordiv(_whole_clocks(product, choice.small, target), parts)
        return minimum(_whole_clocks(product, choice.large, target), small) * steps
    assert isinstance(choice, LocalTile)
    return _whole_clocks(product, choice, target) * steps


def streamed(nbytes: Dim, target: Target) -> Dim:
    """Clocks in which the device's memory moves so many bytes."""
    return ceildiv(nbytes, _device(target).memory_bytes * target.group_units)


def launched(count: int) -> int:
    """Clocks of so many further launches."""
    return count * _SPLIT


def _whole_clocks(product: Product, tile: LocalTile, target: Target) -> Dim:
    """Of _CLOCKS_OF values of k, of all groups on the busiest unit."""
    groups = product.groups(tile.tile_m, tile.tile_n)
    clocks = _device(target).clocks(tile, compute_size(product.acc))
    return ceildiv(groups, target.group_units) * (max(clocks, _LATENCY) * _CLOCKS_OF // tile.k_step)


def _clocks(product: Product, tile: LocalTile, target: Target) -> int:
    """An estimate of a product of known sizes, to compare cuts of it."""
    parts = parts_of(product, tile, target) if tile.is_split else 1
    if tile.is_split and parts == 1:
        return 1 << 62
    groups = product.groups(tile.tile_m, tile.tile_n)
    each = ceildiv(groups * parts, target.group_units)
    steps = ceildiv(ceildiv(product.k, tile.k_step), parts)
    assert isinstance(parts, int) and isinstance(each, int) and isinstance(steps, int)
    at_once = max(1, min(each, _ITEMS_AT_ONCE // tile.work_group))
    size = compute_size(product.acc)
    busy = each * _device(target).clocks(tile, size)
    clocks = steps * max(busy, -(-each // at_once) * _LATENCY)
    if parts == 1:
        return clocks
    traffic = 2 * parts * product.batches * product.m * product.n * size
    shared = traffic // (_LOADED_BYTES * target.group_units)
    assert isinstance(shared, int)
    return clocks + _SPLIT + shared
