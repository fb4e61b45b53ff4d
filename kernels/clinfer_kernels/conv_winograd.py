"""Convolution by Winograd's minimal filtering for class "cpu": 3 x 3 windows at stride 1.

F(4 x 4, 3 x 3) multiplies 36 times for what takes 144 multiplications directly, but has weights
four times as large; F(2 x 2, 3 x 3) multiplies 16 times for 36, with weights not twice as large.
So the first is for large images, the second for smaller ones, and the smallest are done directly.
The transforms of F(4 x 4) cost about one decimal digit of float32. An infinity among the inputs of
a tile makes the whole tile NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.conv_problem import Problem, problems_of, vector_lanes
from clinfer_kernels.dims import Dim, ceildiv, maximum, minimum
from clinfer_kernels.packings import Matrix, WinogradPoints
from clinfer_kernels.pixels import declare_pixels, finish, locate
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import ConvSpec
from clinfer_kernels.tasks import MAX_GROUPS
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import register

# B', G and A' of F(n x n, 3 x 3) by n, for the points 0, 1, -1 (, 2, -2) and infinity.
INPUT: dict[int, Matrix] = {
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    4: (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
}
OUTPUT: dict[int, Matrix] = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    4: (
        (1, 1, 1, 1, 1, 0),
        (0, 1, -1, 2, -2, 0),
        (0, 1, 1, 4, 4, 0),
        (0, 1, -1, 8, -8, 1),
    ),
}
# What the transforms add to the products' time, and how many pixels a weight can be used for in the
# time that reading it from memory takes; measured on ResNet-50's layers, weights out of the caches.
_TRANSFORMS = {2: 1.15, 4: 1.25}
_READING = 27
# Bytes of transformed weights up to which a layer is worth it: a compiled model has 1.8 to 4 times
# the bytes for it, and beyond a few times a core's second cache a fifth of the time is won at most.
_LARGEST = 3 << 20
_FREE = 28  # pixels that an axis of free size is taken for
_ROOM = 512  # channels that private memory has room for


@dataclass(frozen=True)
class WinogradTile:
    """Tiles of `out` x `out` outputs, and register tiles.

    A register tile has `tiles` of them x (`vecs` x `lanes`) filters. A task is as many tiles by
    panels of filters: all, or fewer where there would be less than `tasks` tasks per compute unit.
    Transformed inputs and products lie in private memory of a fixed size or, where `is_local`, in
    local memory, which drivers may restrict less.
    """

    out: int = 4
    tiles: int = 7
    vecs: int = 2
    lanes: int = 16
    tasks: int = 4
    is_local: bool = False

    @property
    def points(self) -> int:
        """Points of a tile."""
        return (self.out + 2) ** 2

    @property
    def cols(self) -> int:
        """Filters of a register tile."""
        return self.vecs * self.lanes

    def has_room(self, channels: int, target: Target) -> bool:
        """Whether the memory it works in suffices for that many channels."""
        needed = self.points * self.tiles * (channels + self.cols) * 4
        return needed <= target.local_mem if self.is_local else channels <= _ROOM


def winograd_tiles(spec: ConvSpec, target: Target) -> tuple[WinogradTile, ...]:
    """The tiles that beat a direct convolution, the best first; none where it does not apply.

    The channels must be known and fill vectors. A free axis counts as a few tiles: what is lost
    on the smallest images is less than what is won on others.
    """
    window = (spec.kernel, spec.strides, spec.dilations, spec.groups, spec.transposed)
    if window != ((3, 3), (1, 1), (1, 1), 1, False) or not spec.constant_w:
        return ()
    problem = problems_of(spec)[0]
    lanes = vector_lanes(target, problem.acc)
    channels, filters = problem.channels, problem.filters
    if not (isinstance(channels, int) and isinstance(filters, int)):
        return ()
    in_place = problem.acc == "float32" and problem.reads_in_place
    if not in_place or channels % lanes or min(channels, filters) < 32:
        return ()
    rows = 7 if target.vector_width >= 16 else 6
    is_local = target.dialect != "pocl"
    tiles = (WinogradTile(out, rows, 2, lanes, is_local=is_local) for out in (4, 2))
    axes = _expected(problem)
    direct = 9 * (prod(axes) + _READING)
    fits = [t for t in tiles if t.has_room(channels, target)]
    fits = [t for t in fits if 4 * t.points * channels * filters <= _LARGEST]
    costs = {tile: _cost(axes, tile) for tile in fits}
    return tuple(sorted((t for t in costs if costs[t] < direct), key=lambda t: costs[t]))


def _expected(problem: Problem) -> tuple[int, int, int]:
    """The sizes of the result, batch first, with guesses for those that a run gives."""
    batch, rows, columns = (axis.out for axis in problem.axes)
    guesses = ((batch, 1), (rows, _FREE), (columns, _FREE))
    first, second, third = (size if isinstance(size, int) else free for size, free in guesses)
    return first, second, third


def _cost(axes: tuple[int, int, int], tile: WinogradTile) -> float:
    """Time by channel and filter, in multiplications."""
    batch, rows, columns = axes
    tiles = batch * -(-rows // tile.out) * -(-columns // tile.out)
    padded = -(-tiles // tile.tiles) * tile.tiles
    return tile.points * (_TRANSFORMS[tile.out] * padded + _READING)


class Points(WinogradPoints):
    """Packed weights; see `WinogradPoints`."""

    __slots__ = ()

    def elements(self, problem: Problem) -> Dim:
        """How many elements the panels take; the zeros are behind them."""
        panels = ceildiv(problem.filters, self.cols)
        return panels * (self.out + 2) ** 2 * problem.channels * self.cols


def emit_winograd(spec: ConvSpec, tile: WinogradTile, target: Target) -> Kernel:
    """The one launch."""
    problem = problems_of(spec)[0]
    weights = Points(tile.out, tile.cols)
    axes = problem.axes
    tiles1, tiles2 = (ceildiv(axis.out, tile.out) for axis in axes[1:])
    tiles = axes[0].out * tiles1 * tiles2
    tile_tasks = ceildiv(tiles, tile.tiles)
    panels = ceildiv(problem.filters, tile.cols)
    wanted = ceildiv(tile.tasks * target.compute_units, maximum(tile_tasks, 1))
    panel_block = ceildiv(panels, minimum(wanted, panels))
    tasks = tile_tasks * ceildiv(panels, panel_block)
    signature = Signature()
    signature.read("in", 0, "float32", "x")
    signature.read("in", 1, "float32", "w")
    declare_pixels(signature, problem.pixels)
    signature.share((o.name, v.name) for o, v in problem.pixels.in_place)
    signature.scalar("x_o", problem.x.offset)
    for number, axis in enumerate(axes):
        signature.scalar(f"x_s{number}", axis.stride)
        if number > 0:
            signature.scalar(f"out{number}", axis.out)
            signature.scalar(f"size{number}", axis.size)
            signature.scalar(f"origin{number}", axis.origin)
    for name, value in (
        ("C", problem.channels),
        ("M", problem.filters),
        ("zeros_at", weights.elements(problem)),
        ("tiles1", tiles1),
        ("tiles2", tiles2),
        ("tiles", tiles),
        ("tile_block", ceildiv(tiles, maximum(tile_tasks, 1))),
        ("tile_tasks", tile_tasks),
        ("panels", panels),
        ("panel_block", panel_block),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    if tile.is_local:
        area = tile.points * tile.tiles * 4
        signature.local("float", "v", area * problem.channels)
        signature.local(register("float32", tile.lanes), "m", area * tile.cols)
    entry = f"conv_winograd{tile.out}_{tile.tiles}x{tile.cols}"
    text = fill(
        "conv_winograd",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        out=tile.out,
        tiles=tile.tiles,
        vecs=tile.vecs,
        lanes=tile.lanes,
        vec=register("float32", tile.lanes),
        space="__local " if tile.is_local else "",
        room=block([] if tile.is_local else _PRIVATE, 1),
        transform_input=block(_transform(INPUT[tile.out], "x"), 1),
        transform_output=block(_transform(OUTPUT[tile.out], "m"), 1),
        load_x=memory.load("float32", "from", "c", tile.lanes),
        load_w=memory.load("float32", "next_w", "s * LANES", tile.lanes),
        locate=block(locate(problem.pixels, "flat"), 6),
        epilogue=block(
            finish(problem.pixels, problem.epilogue, "sum", "channel", tile.lanes, "lanes"), 6
        ),
    )
    launch = Launch(entry, text, signature.args, (minimum(tasks, MAX_GROUPS),), (1,))
    in_place = tuple((o.index, v.index) for o, v in problem.pixels.in_place)
    return Kernel(
        (launch,),
        packs=(Pack(1, weights.key, weights.pack),),
        flops=problem.flops,
        in_place=in_place,
    )


_PRIVATE = (
    f"vec room[POINTS * TILES * {_ROOM} / LANES];",
    "vec m[POINTS * TILES * VECS];",
    "float* v = (float*)room;",
)


def _transform(matrix: Matrix, name: str) -> list[str]:
    """'to[0] = 4.0f * x[0] - 5.0f * x[2] + x[4];' for each row."""
    rows = [(row, [f"{name}[{column}]" for column in range(len(row))]) for row in matrix]
    return [f"to[{n}] = {combination(row, names)};" for n, (row, names) in enumerate(rows)]


def combination(row: Sequence[float], names: Sequence[str]) -> str:
    """'4.0f * x - 5.0f * y + z': the sum of `names`, each times its factor of a row."""
    text = ""
    for factor, name in zip(row, names, strict=True):
        if factor == 0:
            continue
        sign = "-" if factor < 0 else "+"
        size = "" if abs(factor) == 1 else f"{abs(factor):.1f}f * "
        lead = sign if sign == "-" else ""
        text += f" {sign} {size}{name}" if text else f"{lead}{size}{name}"
    return text
