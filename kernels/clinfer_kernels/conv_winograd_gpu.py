"""Convolution by Winograd's minimal filtering for class "gpu": 3 x 3 windows at stride 1.

F(4 x 4, 3 x 3) as three launches, after Lavin & Gray, "Fast Algorithms for Convolutional Neural
Networks" (2016): B' x B of each tile, a product of matrices for each of 36 points by the schedule
of all products (`contraction`), and A' m A with the epilogue. It multiplies 36 times for what takes
144 multiplications directly, and moves 2.25 times the inputs and results to memory and back: worth
it for many channels and many tiles. Weights take four times their memory. As on CPUs, it costs
about one decimal digit of float32, and an infinity among a tile's inputs makes the tile NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.contraction.emit import launches_of
from clinfer_kernels.contraction.ends import PixelEnd
from clinfer_kernels.contraction.local_tile import emit_sums
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.tiles import LocalTile, choices, clocks_of, launched, streamed
from clinfer_kernels.contraction.walks import MatrixWalk, PanelWalk
from clinfer_kernels.conv_gpu import PANEL, GpuTile, gpu_product
from clinfer_kernels.conv_problem import Problem, problems_of
from clinfer_kernels.conv_winograd import INPUT, OUTPUT, combination
from clinfer_kernels.dims import Dim, at_most, ceildiv, minimum
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import bases, declare_batch
from clinfer_kernels.packings import WinogradPanels, taps_of
from clinfer_kernels.pixels import declare_pixels, finish, locate
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import ConvSpec, ProjectedConvSpec
from clinfer_kernels.tasks import group_items
from clinfer_kernels.template import block, fill

_FLOAT32 = ("f32", "3xtf32", "bf16x3")  # precisions of such results
_OUT = 4  # outputs of a tile along an axis
_SIDE = _OUT + 2  # inputs
_POINTS = _SIDE * _SIDE
_ITEMS = 128  # of a work-group that transforms
_LEAST = 32  # channels and filters
_MOST_BYTES = 1 << 30  # of transformed inputs and sums: beyond, memory may be short
_MANY = 512  # tiles for which the product is cut where only a run says how many there are


@dataclass(frozen=True)
class WinogradGpuTile:
    """How the product is cut; `direct`: what runs instead for sizes at which it is faster."""

    cut: LocalTile
    direct: GpuTile | None = None

    @property
    def work_group(self) -> int:
        """Work-items of the largest work-group."""
        return max(self.cut.work_group, self.direct.work_group if self.direct else 0)

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        return max(self.cut.local_bytes(size), self.direct.local_bytes(size) if self.direct else 0)


def winograd_gpu_tiles(
    spec: ConvSpec, direct: GpuTile | None, target: Target
) -> tuple[WinogradGpuTile, ...]:
    """The tile that beats `direct`, the best direct convolution, at some sizes; none where there
    is no such tile, or the numbers are not float32 from memory to sums.

    None on PoCL, whose few cores take it at batch 1: its plans are to be those of GPUs there.
    """
    if target.dialect == "pocl":
        return ()
    window = (spec.kernel, spec.strides, spec.dilations, spec.groups, spec.transposed)
    if window != ((3, 3), (1, 1), (1, 1), 1, False) or not spec.constant_w or direct is None:
        return ()
    problem = problems_of(spec)[0]
    channels, filters = problem.channels, problem.filters
    if isinstance(spec, ProjectedConvSpec) or not problem.reads_in_place:
        return ()
    if problem.acc != "float32" or target.precision not in _FLOAT32:
        return ()
    if not (isinstance(channels, int) and isinstance(filters, int)):
        return ()
    if channels % 4 or min(channels, filters) < _LEAST or target.max_work_group < _ITEMS:
        return ()
    product = _product(problem)
    many = product if isinstance(product.m, int) else replace(product, m=_MANY)
    cuts = choices(many, target, has_rows=False)
    cut = next((c for c in cuts if isinstance(c, LocalTile) and not c.is_split), None)
    if cut is None:
        return ()
    tile = WinogradGpuTile(cut, direct)
    pays = _pays(spec, problem, tile, target)
    if pays == 0:
        return ()
    return (WinogradGpuTile(cut),) if pays == 1 else (tile,)


def _tiles(problem: Problem) -> tuple[Dim, Dim, Dim]:
    """How many tiles there are along the axes of the result."""
    batch, rows, columns = (axis.out for axis in problem.axes)
    return batch, ceildiv(rows, _OUT), ceildiv(columns, _OUT)


def _count(problem: Problem) -> Dim:
    batch, rows, columns = _tiles(problem)
    return batch * rows * columns


def _pays(spec: ConvSpec, problem: Problem, tile: WinogradGpuTile, target: Target) -> Dim:
    """1 where an estimate of clocks says that the direct convolution takes a fifth more and what
    lies between the launches has room, else 0."""
    assert tile.direct is not None
    direct = clocks_of(gpu_product(spec, target), tile.direct.cut, target)
    moved = problem.axes[0].size * problem.axes[1].size * problem.axes[2].size * problem.channels
    moved = moved + problem.positions * problem.filters
    between = _POINTS * _count(problem) * (problem.channels + problem.filters)
    transforms = streamed(4 * (moved + between), target) + launched(2)
    own = clocks_of(_product(problem), tile.cut, target) + transforms
    return minimum(at_most(6 * own, 5 * direct), at_most(4 * between, _MOST_BYTES))


def emit_winograd_gpu(spec: ConvSpec, tile: WinogradGpuTile, target: Target) -> Kernel:
    """The three launches, and those of the direct convolution for other sizes."""
    problem = problems_of(spec)[0]
    tiles = _count(problem)
    pays = 1 if tile.direct is None else _pays(spec, problem, tile, target)
    scratch = tuple(4 * _POINTS * tiles * n * pays for n in (problem.channels, problem.filters))
    own = (
        _input(problem, target),
        emit_sums(_product(problem), tile.cut, target, 1),
        _output(problem, target),
    )
    launches = tuple(launch._replace(when=pays) for launch in own)
    assert isinstance(problem.filters, int) and isinstance(problem.channels, int)
    taps = taps_of([problem.taps]) if tile.direct else ()
    weights = WinogradPanels(_OUT, PANEL, taps)
    if tile.direct is not None:
        before = weights.elements(problem.filters, problem.channels)
        product = replace(gpu_product(spec, target), scalars=(("w_o", before),))
        made, parts = launches_of(product, tile.direct.cut, target, len(scratch))
        launches += tuple(x._replace(when=minimum(x.when, 1 - pays)) for x in made)
        scratch += parts
    packs = (Pack(1, weights.key, weights.pack),)
    return Kernel(launches, scratch, packs, problem.flops)


def _product(problem: Problem) -> Product:
    """Tiles by filters, for each point: of transformed inputs [points][tiles][C] in scratch buffer
    0, with transformed weights."""
    tiles, channels = _count(problem), problem.channels
    x = Matrix("float32", 0, (tiles * channels,), channels, 1)
    return Product(
        name=f"conv_winograd{_OUT}",
        suffix="",
        m=tiles,
        n=problem.filters,
        k=channels,
        batches=_POINTS,
        acc="float32",
        a=lambda k_step: MatrixWalk("a", x, "scratch", 0, tiles, "M", channels, "float32"),
        b=PanelWalk(PANEL, "float32", "in", 1, "float32"),
        end=PixelEnd(problem),
        declare_batch=lambda signature: declare_batch(signature, (_POINTS,)),
        batch=lambda names: bases(names, 1),
        operands=("a",),
        flops=2 * _POINTS * tiles * problem.filters * channels,
        scalars=(("w_o", 0),),
        stored=("float32", "float32"),
    )


def _input(problem: Problem, target: Target) -> Launch:
    """B' x B into scratch buffer 0."""
    signature = Signature()
    signature.read("in", 0, "float32", "x")
    signature.buffer("scratch", 0, "float32", "v")
    signature.scalar("x_o", problem.x.offset)
    for number, axis in enumerate(problem.axes):
        signature.scalar(f"x_s{number}", axis.stride)
        if number > 0:
            signature.scalar(f"size{number}", axis.size)
            signature.scalar(f"origin{number}", axis.origin)
    lines = []
    for j in range(_SIDE):
        names = [f"x{i}" for i in range(_SIDE)]
        read = []
        for i, name in enumerate(names):
            value = memory.load("float32", "from", f"{i} * x_s1 + {j} * x_s2")
            inside = f"(inside1 >> {i}) & (inside2 >> {j}) & 1"
            read.append(f"const float {name} = {inside} ? {value} : 0.0f;")
        lines += _lines([f"t{p}{j}" for p in range(_SIDE)], INPUT[_OUT], names, read)
    for p in range(_SIDE):
        names = [f"t{p}{j}" for j in range(_SIDE)]
        for q, row in enumerate(INPUT[_OUT]):
            at = f"(long){p * _SIDE + q} * each"
            lines.append(memory.store("float32", combination(row, names), "to", at))
    return _transform("input", signature, lines, problem, problem.channels, target)


def _output(problem: Problem, target: Target) -> Launch:
    """A' m A of scratch buffer 1, and the epilogue."""
    signature = Signature()
    signature.read("scratch", 1, "float32", "m")
    declare_pixels(signature, problem.pixels)
    for number in (1, 2):
        signature.scalar(f"out{number}", problem.axes[number].out)
    lines = []
    for q in range(_SIDE):
        names = [f"m{p}" for p in range(_SIDE)]
        read = []
        for p, name in enumerate(names):
            value = memory.load("float32", "from", f"(long){p * _SIDE + q} * each")
            read.append(f"const float {name} = {value};")
        lines += _lines([f"t{i}{q}" for i in range(_OUT)], OUTPUT[_OUT], names, read)
    finished = finish(problem.pixels, problem.epilogue, "sum", "channel", 1)
    for i in range(_OUT):
        names = [f"t{i}{q}" for q in range(_SIDE)]
        for j, row in enumerate(OUTPUT[_OUT]):
            lines += [
                f"if (first1 + {i} < out1 && first2 + {j} < out2) {{",
                f"    const float sum = {combination(row, names)};",
                f"    int flat = pixel + {i} * out2 + {j};",
                *(f"    {line}" for line in (*locate(problem.pixels, "flat"), *finished)),
                "}",
            ]
    return _transform("output", signature, lines, problem, problem.filters, target)


def _lines(
    made: Sequence[str],
    matrix: Sequence[Sequence[float]],
    names: Sequence[str],
    before: Sequence[str],
) -> list[str]:
    """Statements declaring `made`, the matrix by `names`, which `before` declares."""
    sums = [f"{name} = {combination(row, names)};" for name, row in zip(made, matrix, strict=True)]
    inner = (f"    {line}" for line in (*before, *sums))
    return [f"float {', '.join(made)};", "{", *inner, "}"]


def _transform(
    kind: str,
    signature: Signature,
    lines: Sequence[str],
    problem: Problem,
    channels: Dim,
    target: Target,
) -> Launch:
    """A launch with a work-item for each tile and channel, neighbours having neighbouring ones."""
    _, tiles1, tiles2 = _tiles(problem)
    tasks = _count(problem) * channels
    sizes = (("tiles1", tiles1), ("tiles2", tiles2), ("C", channels), ("tasks", tasks))
    for name, value in sizes:
        signature.scalar(name, value)
    entry = f"conv_winograd{_OUT}_{kind}"
    text = fill(
        f"conv_winograd_{kind}",
        target,
        head=kernel_head(entry, (_ITEMS,)),
        parameters=signature.text,
        out=_OUT,
        body=block(list(lines), 2),
    )
    items = group_items(ceildiv(tasks, _ITEMS), _ITEMS, target)
    return Launch(entry, text, signature.args, (items,), (_ITEMS,))
