"""Products of bfloat16 for class "cpu": two at once (`pair_dot`).

The schedule is that of `matmul_cpu`. B is a constant, packed when the model is compiled, in two
bytes a number. A is read in place, or brought to bfloat16 by a launch before: so are operands of
float32 where `Target.precision` allows that. Sums are float32. Few rows are done in the time that
reading B takes, which is half of float32's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv, minimum, product
from clinfer_kernels.matmul_cpu import CpuTile, Operand, declared, even_rows, partition, whole_tile
from clinfer_kernels.matmul_epilogue import store_lines, tensors
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix import copied, distinct
from clinfer_kernels.matrix_text import bases, suffix
from clinfer_kernels.packing import MAX_GROUPS, Source, pack_rows
from clinfer_kernels.pair_dot import STORED, are_pairs, sums_of
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.template import block, fill

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class PairsTile(CpuTile):
    """As `CpuTile`."""


def pair_tiles(problem: Problem, constant_b: bool, target: Target) -> tuple[PairsTile, ...]:
    """The best guess first; none where operands are not bfloat16, and may not be rounded to it."""
    if not are_pairs((problem.a.dtype, problem.b.dtype), target) or problem.acc != "float32":
        return ()
    if not constant_b or any(problem.b.batch):
        return ()
    lanes, sums = sums_of(target)
    vecs = 4 if isinstance(problem.m, int) and problem.m <= 2 else 3
    rows = even_rows(problem.m, sums // vecs)
    in_place = problem.a.dtype == STORED and problem.a.col == 1
    return (PairsTile(rows, vecs, lanes, a="strided" if in_place else "copied", row_groups=8),)


@dataclass(frozen=True)
class PairPanels:
    """Panels of `cols` columns as ints of two numbers, one after the other along K."""

    cols: int

    def elements(self, k: Dim, n: Dim) -> Dim:
        """How many ints one packed [k, n] matrix takes."""
        return ceildiv(n, self.cols) * self.cols * ceildiv(k, 2)

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"pair-panels-{self.cols}"

    def pack(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """[k, n] as [ceil(n / cols), ceil(k / 2), cols] of int32, rounded to nearest even."""
        import ml_dtypes
        import numpy as np

        k, n = array.shape
        panels, steps = -(-n // self.cols), -(-k // 2)
        padded = np.zeros((steps * 2, panels * self.cols), np.uint16)
        padded[:k, :n] = array.astype(ml_dtypes.bfloat16).view(np.uint16)
        two = padded.reshape(steps, 2, panels, self.cols).transpose(2, 0, 3, 1)
        packed: np.ndarray[Any, Any] = np.ascontiguousarray(two).view(np.int32)
        return packed[..., 0]


def emit_pairs(problem: Problem, tile: PairsTile, target: Target) -> Kernel:
    """The launches: A's rows as bfloat16 where the tile asks for them, then the product."""
    launches: list[Launch] = []
    scratch: list[Dim] = []
    a = Operand(problem.a, "in", 0)
    if tile.a == "copied":
        each = problem.m * problem.k
        source = Source(problem.a, 0, problem.batch, problem.m, problem.k)
        launches.append(pack_rows(source, STORED, tile.lanes, len(scratch), target))
        dense = copied(problem.a, problem.batch, STORED, each, problem.k)
        a = Operand(dense, "scratch", len(scratch))
        scratch.append(2 * each * product(distinct(problem.a, problem.batch)))
    panels = PairPanels(tile.cols)
    each = panels.elements(problem.k, problem.n)
    b = Operand(copied(problem.b, problem.batch, "int32", each, 0), "in", 1)
    launches.append(_product(problem, tile, target, a, b))
    return Kernel(
        tuple(launches),
        tuple(scratch),
        (Pack(1, panels.key, panels.pack),),
        problem.flops,
        in_place=tuple((0, number + 2) for number in problem.in_place),
    )


def _product(problem: Problem, tile: PairsTile, target: Target, a: Operand, b: Operand) -> Launch:
    cut = partition(problem, tile, target)
    signature = declared(problem, cut, a, b)
    entry = f"matmul_pairs_{tile.rows}x{tile.cols}{suffix(a.matrix)}"
    text = fill(
        "matmul_pairs",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=tile.lanes,
        batch=block(bases(["a", "b", *tensors(problem)], len(problem.batch)), 2),
        load_b=memory.load("int32", "next_b", "v * LANES", tile.lanes),
        whole=block(whole_tile(problem, tile), 4),
        epilogue=block(store_lines(problem, tile.lanes), 5),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))
