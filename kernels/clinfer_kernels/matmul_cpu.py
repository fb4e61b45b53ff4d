"""Matmul for class "cpu": register tiles over packed panels, one work-item per work-group.

The tile's `b` says how B is read: "packed" (a constant, brought into panels when the model is
compiled), "scratch" (a launch before packs it) or "strided" (in place, for few rows). `a` says how
A is read: "strided" (in place) or "copied" (a launch before makes it dense in the sums' dtype).

Where a run decides how many rows there are, runs of few rows have a launch of their own, whose tile
has few rows and several of the same panels side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinfer_kernels import hints, memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import (
    Dim,
    at_most,
    ceildiv,
    floordiv,
    maximum,
    minimum,
    product,
)
from clinfer_kernels.matmul_epilogue import declare_epilogue, store_lines, tensors
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix import Matrix, copied, distinct
from clinfer_kernels.matrix_text import (
    bases,
    declare,
    declare_batch,
    element,
    read_vector,
    suffix,
    widen,
)
from clinfer_kernels.packing import MAX_GROUPS, Panels, Source, pack_panels, pack_rows
from clinfer_kernels.rows import at_least
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, filled_vectors, register, size_of, storage


@dataclass(frozen=True)
class CpuTile:
    """A register tile of `rows` x (`vecs` x `lanes`) results, and how work is cut into tasks.

    A task has at most `row_groups` groups of `rows` rows, and at most `panels` panels of columns:
    fewer where there would be less than `tasks` tasks per compute unit.
    """

    rows: int = 6
    vecs: int = 2
    lanes: int = 8
    b: str = "packed"  # "packed" | "scratch" | "strided"
    a: str = "strided"  # "strided" | "copied"
    row_groups: int = 8
    panels: int = 4
    tasks: int = 24

    @property
    def cols(self) -> int:
        """Columns of a register tile."""
        return self.vecs * self.lanes


@dataclass(frozen=True)
class FewTile(CpuTile):
    """A tile for runs of few rows, as wide as `beside` panels of a B packed for another tile."""

    beside: int = 1


def cpu_tiles(problem: Problem, constant_b: bool, target: Target) -> tuple[CpuTile, ...]:
    """The best guess first, then other cuts into tasks (of one text), a plain tile last.

    Tiles are two vectors wide where columns fill them. Known few rows are cut evenly, and one or
    two get wider tiles: eight independent sums hide the latency of multiply-add. Few rows do not
    pay for packing B; reading A in place pays where it is contiguous along K and already has the
    dtype of the sums, or is read for few columns only.
    """
    wide = target.vector_width >= 16
    lanes = max(2, min(16, target.vector_width * 4 // size_of(problem.acc)))
    vecs = filled_vectors(problem.n, lanes)
    rows = even_rows(problem.m, (_ROWS_WIDE if wide else _ROWS)[vecs])
    vecs = 4 if rows <= 2 else vecs
    b = "packed" if constant_b and not any(problem.b.batch) else _b_source(problem)
    a = "copied" if _copies_a(problem) else "strided"
    best = CpuTile(rows, vecs, lanes, b, a, row_groups=12 if wide else 8)
    cuts = ((16, 4), (4, 8), (24, 1), (2, 16))
    return (
        best,
        *(replace(best, row_groups=groups, panels=panels) for groups, panels in cuts),
        CpuTile(1, 1, 1, "strided", "strided"),
    )


# Rows of a tile by its vectors: with 16 vector registers for 12 accumulators, with 32 for 16 and
# more. Pointers to more than 8 rows do not fit in registers.
_ROWS = {1: 8, 2: 6, 3: 4}
_ROWS_WIDE = {1: 8, 2: 8, 3: 7}


def even_rows(m: Dim, most: int) -> int:
    """Rows of a register tile that cut few known rows into even groups."""
    if not isinstance(m, int):
        return most
    if m > 4 * most:
        fewer = most - 1
        padded, exact = (-(-m // rows) * rows for rows in (most, fewer))
        return fewer if padded > 1.1 * exact else most
    groups = max(1, -(-m // most))
    return max(1, -(-m // groups))


_FEW = 4  # rows, of which a tile that is made for many computes more in vain than it saves


def _for_few(problem: Problem, tile: CpuTile) -> FewTile | None:
    """The tile for runs of few rows; None where there are none, or `tile` is as good."""
    if isinstance(problem.m, int) or tile.b != "packed" or tile.rows <= _FEW:
        return None
    if at_least(problem.m) > _FEW:
        return None
    beside = max(1, 4 // tile.vecs)
    wide = replace(tile, rows=2, vecs=tile.vecs * beside)
    return FewTile(**vars(wide), beside=beside)


def _b_source(problem: Problem) -> str:
    few = 8 if problem.b.col_kind == "col" else 64
    return "strided" if isinstance(problem.m, int) and problem.m <= few else "scratch"


def _copies_a(problem: Problem) -> bool:
    in_place = problem.a.col_kind != "col" and problem.a.dtype == problem.acc
    return not (in_place or (isinstance(problem.n, int) and problem.n <= 64))


@dataclass(frozen=True)
class Partition:
    """Rows and columns of a task, and how many tasks lie along each."""

    row_block: Dim
    col_block: Dim
    row_tasks: Dim
    col_tasks: Dim
    tasks: Dim


def partition(problem: Problem, tile: CpuTile, target: Target) -> Partition:
    """Cuts the product into tasks of nearly equal size, by arithmetic on sizes only."""
    groups = maximum(ceildiv(problem.m, tile.rows), 1)
    panels = maximum(ceildiv(problem.n, tile.cols), 1)
    row_tasks = ceildiv(groups, tile.row_groups)
    row_groups = ceildiv(groups, row_tasks)
    wanted = target.compute_units * tile.tasks
    fair = floordiv(panels * row_tasks * problem.batches, wanted)
    panel_block = minimum(maximum(fair, 1), tile.panels)
    col_tasks = ceildiv(panels, panel_block)
    some = minimum(problem.m, 1) * minimum(problem.n, 1)  # 0 for an empty result
    return Partition(
        row_groups * tile.rows,
        panel_block * tile.cols,
        row_tasks,
        col_tasks,
        row_tasks * col_tasks * problem.batches * some,
    )


@dataclass(frozen=True)
class Operand:
    """A matrix and the buffer it is read from: `kind` and `index` as in `Arg`."""

    matrix: Matrix
    kind: str
    index: int


def emit_cpu(problem: Problem, tile: CpuTile, target: Target) -> Kernel:
    """The launches: copies where the tile asks for them, then the product."""
    launches: list[Launch] = []
    scratch: list[Dim] = []
    packs: list[Pack] = []
    a = Operand(problem.a, "in", 0)
    b = Operand(problem.b, "in", 1)
    if tile.a == "copied":
        each = problem.m * problem.k
        source = Source(problem.a, 0, problem.batch, problem.m, problem.k)
        launches.append(pack_rows(source, problem.acc, tile.lanes, len(scratch), target))
        dense = copied(problem.a, problem.batch, problem.acc, each, problem.k)
        a = Operand(dense, "scratch", len(scratch))
        scratch.append(_bytes(problem.a, problem, each))
    if tile.b != "strided":
        panels = Panels(problem.acc, tile.cols)
        each = panels.elements(problem.k, problem.n)
        source = Source(problem.b, 1, problem.batch, problem.k, problem.n)
        packed = copied(problem.b, problem.batch, problem.acc, each, 0)
        if tile.b == "packed":
            packs.append(Pack(1, panels.key, panels.pack))
            b = Operand(packed, "in", 1)
        else:
            launches.append(pack_panels(source, panels, tile.lanes, len(scratch), target))
            b = Operand(packed, "scratch", len(scratch))
            scratch.append(_bytes(problem.b, problem, each))
    few = _for_few(problem, tile)
    are_few = 0 if few is None else at_most(problem.m, _FEW)
    many = _product(problem, tile, target, a, b)
    launches.append(many._replace(when=1 - are_few, flops=problem.flops))
    if few is not None:
        other = _product(problem, few, target, a, b)
        launches.append(other._replace(when=are_few, flops=problem.flops))
    in_place = tuple((0, number + 2) for number in problem.in_place)
    every = tuple(launches)
    return Kernel(every, tuple(scratch), tuple(packs), problem.flops, in_place=in_place)


def _bytes(matrix: Matrix, problem: Problem, each: Dim) -> Dim:
    """Bytes of a copy of `each` elements per distinct matrix."""
    return each * size_of(problem.acc) * product(distinct(matrix, problem.batch))


def declared(problem: Problem, cut: Partition, a: Operand, b: Operand) -> Signature:
    """The arguments of a product whose tasks are those of `partition`."""
    signature = Signature()
    declare(signature, "a", a.matrix, a.kind, a.index)
    declare(signature, "b", b.matrix, b.kind, b.index)
    declare_epilogue(signature, problem)
    signature.share(("out", f"e{number}") for number in problem.in_place)
    declare_batch(signature, problem.batch)
    for name, value in (
        ("M", problem.m),
        ("N", problem.n),
        ("K", problem.k),
        ("row_block", cut.row_block),
        ("col_block", cut.col_block),
        ("row_tasks", cut.row_tasks),
        ("col_tasks", cut.col_tasks),
        ("tasks", cut.tasks),
    ):
        signature.scalar(name, value)
    return signature


def _product(problem: Problem, tile: CpuTile, target: Target, a: Operand, b: Operand) -> Launch:
    cut = partition(problem, tile, target)
    signature = declared(problem, cut, a, b)
    layout = "_strided" if tile.b == "strided" else ""
    entry = f"matmul_{tile.rows}x{tile.cols}{layout}{suffix(a.matrix)}"
    names = ["a", "b", *tensors(problem)]
    fetches = tile.b != "strided" and hints.has_hints(target)
    text = fill(
        "matmul_cpu",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=tile.lanes,
        vec=register(problem.acc, tile.lanes),
        acc_type=compute(problem.acc),
        a_type=storage(a.matrix.dtype),
        batch=block(bases(names, len(problem.batch)), 2),
        share=block([_SHARE] if fetches else [], 2),
        panel=block(_panel(b.matrix, tile, fetches), 4),
        fetch=block([hints.will_read_later("ahead", "k * share")] if fetches else [], 5),
        load_a=_load_a(a.matrix, problem),
        load_b=block(_load_b(b.matrix, tile, problem), 6),
        whole=block(whole_tile(problem, tile), 4),
        epilogue=block(store_lines(problem, tile.lanes), 5),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))


def whole_tile(problem: Problem, tile: CpuTile) -> list[str]:
    """Statements that finish a tile of which no row or column is missing."""
    if tile.rows * tile.cols == 1:
        return []
    return [
        "if (M - row >= ROWS && N - col >= COLS) {",
        "    #pragma unroll 1",
        "    for (int r = 0; r < ROWS; ++r) {",
        "        const int i = row + r;",
        "        #pragma unroll",
        "        for (int v = 0; v < VECS; ++v) {",
        "            const int j = col + v * LANES;",
        "            const vec sum = tile[r * VECS + v];",
        *(f"            {line}" for line in store_lines(problem, tile.lanes, is_whole=True)),
        "        }",
        "    }",
        "    continue;",
        "}",
    ]


_SHARE = "const int share = (COLS * ROWS + row_block - 1) / row_block; // of a row of a panel"


def _panel(b: Matrix, tile: CpuTile, fetches: bool) -> list[str]:
    """Statements that point at the panel of b, and at what is fetched while it is multiplied.

    That is a share of the next panel with each group of rows; beyond the last nothing is read.
    """
    if tile.b == "strided":
        return []
    pointer = f"const __global {storage(b.dtype)}*"
    lines = [f"{pointer} panel = b + b_at + (long)(col / COLS) * K * COLS;"]
    if isinstance(tile, FewTile):  # beyond the last panel the first one is read, and not stored
        width = tile.cols // tile.beside
        lines += [
            f"{pointer} panels[{tile.beside}];",
            "#pragma unroll",
            f"for (int p = 0; p < {tile.beside}; ++p)",
            f"    panels[p] = panel + (col + p * {width} < N ? (long)K * p * {width} : 0);",
        ]
    if fetches:
        lines += [
            "const int before = (row - row0) / ROWS * share;",
            f"{pointer} ahead = panel + (long)K * (COLS + before);",
        ]
    return lines


def _load_a(a: Matrix, problem: Problem) -> str:
    index = {"0": "0", "1": "k", "col": "(long)k * a_col"}[a.col_kind]
    return widen(memory.load(a.dtype, "a_rows[r]", index), a, problem.acc)


def _load_b(b: Matrix, tile: CpuTile, problem: Problem) -> list[str]:
    if tile.b != "strided":
        panel, at = "panel", "k * COLS + v * LANES"
        if isinstance(tile, FewTile):
            vecs = tile.vecs // tile.beside
            panel, at = f"panels[v / {vecs}]", f"(k * {vecs} + v % {vecs}) * LANES"
        value = memory.load(b.dtype, panel, at, tile.lanes)
        return [f"y[v] = {widen(value, b, problem.acc, tile.lanes)};"]
    return [
        "const int j = col + v * LANES;",
        "const int lanes = N - j;",
        f"const long at = {element('b', b, 'k', 'j')};",
        read_vector("stored", "b", b, "at", tile.lanes),
        f"y[v] = {widen('stored', b, problem.acc, tile.lanes)};",
    ]
