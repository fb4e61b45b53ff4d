"""Products of 8-bit integers for class "cpu": int32 register tiles over packed panels of bytes.

A holds uint8 or int8, B int8. The schedule is that of `matmul_cpu`, with four products a lane at
once (`integer_dot`). A constant B is packed when the model is compiled: it takes a byte an element,
and a number a column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels import memory
from clinfer_kernels.byte_packings import FLIP, MatrixBytes
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum, product
from clinfer_kernels.integer_dot import has_matrix_registers, unit
from clinfer_kernels.matmul_cpu import CpuTile, Operand, declared, even_rows, partition, whole_tile
from clinfer_kernels.matmul_epilogue import store_lines, tensors
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix import copied, distinct
from clinfer_kernels.matrix_text import bases, declare, declare_batch, element, suffix
from clinfer_kernels.packing import MAX_GROUPS, Source, pack_rows
from clinfer_kernels.requantise import finished as short_end
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.template import block, fill

BYTES = ("uint8", "int8")
"""What A may hold; B holds int8."""


@dataclass(frozen=True)
class IntegerTile(CpuTile):
    """As `CpuTile`; `lanes` count sums of int32. `b` is "packed" or "scratch".

    `deep`: how many bytes along K are read at once, 64 by matrix registers.
    """

    deep: int = 4


def integer_tiles(problem: Problem, constant_b: bool, target: Target) -> tuple[IntegerTile, ...]:
    """The best guess first; none where the operands are not 8-bit integers summed in int32.

    Of 32 registers 24 hold sums, of 16 twelve: tiles that are three vectors wide read least for
    each product, others leave fewer columns empty. One or two rows get wide tiles.
    """
    if problem.a.dtype not in BYTES or problem.b.dtype != "int8" or problem.acc != "int32":
        return ()
    how = unit(target)
    sums = how.registers * 3 // 4
    vecs = 4 if isinstance(problem.m, int) and problem.m <= 2 else _vectors(problem.n, how.lanes)
    rows = even_rows(problem.m, sums // vecs)
    b = "packed" if constant_b and not any(problem.b.batch) else "scratch"
    a = "strided" if problem.a.col == 1 else "copied"
    best = IntegerTile(rows, vecs, how.lanes, b, a, row_groups=8)
    cuts = ((16, 2), (4, 8), (2, 16))
    others = (best, *(replace(best, row_groups=groups, panels=panels) for groups, panels in cuts))
    return (*_matrix_tiles(problem, best, target), *others)


def _matrix_tiles(problem: Problem, best: IntegerTile, target: Target) -> tuple[IntegerTile, ...]:
    """Tiles of matrix registers, where there are some and the rows fill them."""
    staged = _ROWS * ceildiv(problem.k, _DEEP) * _DEEP
    few = isinstance(problem.m, int) and problem.m < _LEAST_ROWS
    if not has_matrix_registers(target) or few or not isinstance(staged, int):
        return ()
    if staged > target.local_mem:
        return ()
    tile = replace(best, rows=_ROWS, vecs=2, lanes=16, deep=_DEEP, row_groups=8, panels=8)
    return (tile, replace(tile, row_groups=2, panels=8))


_ROWS = 32  # of a tile of matrix registers,
_DEEP = 64  # and its bytes along K
_LEAST_ROWS = 9


def _vectors(columns: Dim, lanes: int) -> int:
    """Vectors of a tile: three, unless known columns leave less empty in others."""
    if not isinstance(columns, int):
        return 3
    return min((3, 4, 2, 1), key=lambda n: -(-columns // (n * lanes)) * (n * lanes + _COST[n]))


# What a tile costs beyond its columns, in columns: the narrower, the more often rows are read.
_COST = {1: 6, 2: 3, 3: 1, 4: 2}


class IntegerPanels(MatrixBytes):
    """Panels of `cols` columns as ints of four bytes; see `MatrixBytes`."""

    __slots__ = ()

    def steps(self, k: Dim) -> Dim:
        """Ints along K."""
        return ceildiv(k, self.deep) * (self.deep // 4)

    def elements(self, k: Dim, n: Dim) -> Dim:
        """How many ints one packed [k, n] matrix takes."""
        return ceildiv(n, self.cols) * self.cols * (self.steps(k) + 1)


def emit_integer(problem: Problem, tile: IntegerTile, target: Target) -> Kernel:
    """The launches: copies where the tile asks for them, then the product."""
    problem = replace(problem, epilogue=short_end(problem.epilogue))
    launches: list[Launch] = []
    scratch: list[Dim] = []
    packs: list[Pack] = []
    a = Operand(problem.a, "in", 0)
    if tile.a == "copied":
        each = problem.m * problem.k
        source = Source(problem.a, 0, problem.batch, problem.m, problem.k)
        launches.append(pack_rows(source, problem.a.dtype, tile.lanes, len(scratch), target))
        dense = copied(problem.a, problem.batch, problem.a.dtype, each, problem.k)
        a = Operand(dense, "scratch", len(scratch))
        scratch.append(each * product(distinct(problem.a, problem.batch)))
    flipped = problem.a.dtype == "int8" and tile.deep == 4
    panels = IntegerPanels(tile.cols, FLIP if flipped else 0, tile.deep)
    each = panels.elements(problem.k, problem.n)
    packed = copied(problem.b, problem.batch, "int32", each, 0)
    if tile.b == "packed":
        packs.append(Pack(1, panels.key, panels.pack))
        b = Operand(packed, "in", 1)
    else:
        source = Source(problem.b, 1, problem.batch, problem.k, problem.n)
        launches.append(_pack_panels(source, panels, len(scratch), target))
        b = Operand(packed, "scratch", len(scratch))
        scratch.append(each * 4 * product(distinct(problem.b, problem.batch)))
    launches.append(_product(problem, tile, target, a, b))
    in_place = tuple((0, number + 2) for number in problem.in_place)
    return Kernel(tuple(launches), tuple(scratch), tuple(packs), problem.flops, in_place=in_place)


_CHEAP = 8  # lines of an epilogue that is written out for each vector of a tile


def _straight(problem: Problem, tile: IntegerTile) -> list[str]:
    """Statements that finish a whole tile from registers, where that is not much code."""
    if len(problem.epilogue.lines) > _CHEAP:
        return []
    return [
        "if (M - row >= ROWS && N - col >= COLS) {",
        "    #pragma unroll",
        "    for (int r = 0; r < ROWS; ++r) {",
        "        const int i = row + r;",
        "        #pragma unroll",
        "        for (int v = 0; v < VECS; ++v) {",
        "            const int j = col + v * LANES;",
        "            const vec sum = acc[r][v];",
        *(f"            {line}" for line in store_lines(problem, tile.lanes, is_whole=True)),
        "        }",
        "    }",
        "    continue;",
        "}",
    ]


def _pack_panels(source: Source, panels: IntegerPanels, scratch: int, target: Target) -> Launch:
    """The launch that packs a B which is no constant."""
    source = source.distinct
    tasks = product(source.batch) * ceildiv(source.cols, panels.cols)
    signature = Signature()
    declare(signature, "x", source.matrix, "in", source.index)
    signature.buffer("scratch", scratch, "int32", "packed")
    declare_batch(signature, source.batch)
    for name, value in (
        ("K", source.rows),
        ("N", source.cols),
        ("steps", panels.steps(source.rows)),
        ("added", panels.added),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    entry = f"integer_pack_{panels.cols}{suffix(source.matrix)}"
    text = fill(
        "integer_pack",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        cols=panels.cols,
        batch=block(bases(["x"], len(source.batch)), 2),
        load=memory.load("int8", "x", element("x", source.matrix, "row", "col")),
    )
    return Launch(entry, text, signature.args, (minimum(tasks, MAX_GROUPS),), (1,))


def _product(problem: Problem, tile: IntegerTile, target: Target, a: Operand, b: Operand) -> Launch:
    cut = partition(problem, tile, target)
    signature = declared(problem, cut, a, b)
    by_matrix = tile.deep == _DEEP
    if by_matrix:
        signature.local("char", "staged", _ROWS * ceildiv(problem.k, _DEEP) * _DEEP)
    kind = "amx_" if by_matrix else ""
    entry = f"matmul_{kind}{a.matrix.dtype}_{tile.rows}x{tile.cols}{suffix(a.matrix)}"
    names = ["a", "b", *tensors(problem)]
    text = fill(
        "matmul_amx" if by_matrix else "matmul_integer",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        dot="tdpbssd" if a.matrix.dtype == "int8" else "tdpbusd",
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=tile.lanes,
        flip="0x80808080" if a.matrix.dtype == "int8" else "0",
        batch=block(bases(names, len(problem.batch)), 2),
        load_begin=memory.load("int32", "panel", "v * LANES", tile.lanes),
        load_b=memory.load("int32", "next_b", "v * LANES", tile.lanes),
        whole=block(whole_tile(problem, tile), 4),
        straight=block([] if by_matrix else _straight(problem, tile), 4),
        epilogue=block(store_lines(problem, tile.lanes), 5),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))
