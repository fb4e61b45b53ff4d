"""Products of bytes with a constant of few bits, for class "cpu": the left side quantised by block.

What ONNX Runtime calls accuracy level 4: each block of a row of A, as long as the blocks of scales
along K, becomes signed bytes with a scale of its own, and codes are multiplied as they are
(`integer_dot`), four at once. A launch before quantises A.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import floordiv, minimum
from clinfer_kernels.integer_dot import unit
from clinfer_kernels.matmul_cpu import CpuTile, partition, whole_tile
from clinfer_kernels.matmul_epilogue import declare_epilogue, store_lines, tensors
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix_text import bases, declare
from clinfer_kernels.packing import MAX_GROUPS, Panels
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import EncodedMatmulSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute

if TYPE_CHECKING:
    import numpy as np

_ROWS = 4  # of a tile, where there are so many
_STEP = 8  # numbers of A that are quantised at once; blocks are whole such steps


@dataclass(frozen=True)
class BytesTile(CpuTile):
    """As `CpuTile`."""


def candidates(spec: EncodedMatmulSpec, problem: Problem, target: Target) -> tuple[BytesTile, ...]:
    """The best guess first; none where A may not be quantised, or nothing is gained by it."""
    how = unit(target)
    if not spec.quantised or how.name == "plain" or problem.batch or spec.block % _STEP:
        return ()
    if spec.form != "integer" or spec.bits == 2:
        return ()
    rows = problem.m if isinstance(problem.m, int) and problem.m < _ROWS else _ROWS
    vecs = 4 if rows <= 2 else 2
    return (BytesTile(max(1, rows), vecs, how.lanes, row_groups=12),)


def emit(
    spec: EncodedMatmulSpec, problem: Problem, tile: BytesTile, target: Target, load_zero: str
) -> Kernel:
    """Two launches: A's rows as bytes, and the product; `load_zero` reads zero points."""
    places = spec.places
    signed = spec.ins[1].dtype == "int8"
    codes = Codes(tile.cols, spec.bits, signed)
    packs = (
        Pack(places[0], codes.key, codes.pack),
        *(
            Pack(place, panels.key, panels.pack)
            for place in places[1:]
            for panels in [Panels(spec.ins[place].dtype, tile.cols)]
        ),
    )
    blocks = floordiv(problem.k, spec.block)
    scratch = (problem.m * problem.k, problem.m * blocks * 8)
    launches = (
        _quantise(spec, problem, target),
        _product(spec, problem, tile, target, load_zero),
    )
    in_place = tuple((0, number + 2) for number in problem.in_place)
    return Kernel(launches, scratch, packs, problem.flops, in_place=in_place)


@dataclass(frozen=True)
class Codes:
    """Panels of unsigned codes of `bits`, an int a column and step along K; see the text."""

    cols: int
    bits: int
    signed: bool

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"dot-codes-{self.bits}-{self.cols}"

    def pack(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """[k, n] of a code each as [ceil(n / cols), steps, cols] of int32."""
        import numpy as np

        panels = Panels(array.dtype.name, self.cols).pack(array).view(np.uint8)
        count, inner, cols = panels.shape
        if self.bits == 4:
            low = (panels & 15) ^ (8 * self.signed)
            halves = low.reshape(count, inner // 8, 2, 4, cols)
            four = halves[:, :, 0] | halves[:, :, 1] << 4
        else:
            four = (panels ^ (128 * self.signed)).reshape(count, inner // 4, 4, cols)
        packed: np.ndarray[Any, Any] = np.ascontiguousarray(four.swapaxes(2, 3)).view(np.int32)
        return packed[..., 0]


def _quantise(spec: EncodedMatmulSpec, problem: Problem, target: Target) -> Launch:
    signature = Signature()
    declare(signature, "x", replace(problem.a, batch=()), "in", 0)
    signature.buffer("scratch", 0, "uint8", "q")
    signature.buffer("scratch", 1, "float32", "parts")
    for name, value in (("K", problem.k), ("block", spec.block), ("tasks", problem.m)):
        signature.scalar(name, value)
    text = fill(
        "quantise_rows",
        target,
        head=kernel_head("quantise_rows"),
        parameters=signature.text,
    )
    groups = minimum(problem.m, MAX_GROUPS)
    return Launch("quantise_rows", text, signature.args, (groups,), (1,))


def _product(
    spec: EncodedMatmulSpec,
    problem: Problem,
    tile: BytesTile,
    target: Target,
    load_zero: str,
) -> Launch:
    cut = partition(problem, tile, target)
    signature = Signature()
    signature.read("scratch", 0, "uint8", "q")
    signature.read("scratch", 1, "float32", "parts")
    signature.read("in", spec.places[0], "int32", "b")
    for place, name in zip(spec.places[1:], ("scales", "zeros"), strict=False):
        signature.read("in", place, spec.ins[place].dtype, name)
    declare_epilogue(signature, problem)
    signature.share(("out", f"e{number}") for number in problem.in_place)
    for name, value in (
        ("M", problem.m),
        ("N", problem.n),
        ("K", problem.k),
        ("block", spec.block),
        ("row_block", cut.row_block),
        ("col_block", cut.col_block),
        ("row_tasks", cut.row_tasks),
        ("tasks", cut.tasks),
    ):
        signature.scalar(name, value)
    lanes = tile.lanes
    four = spec.bits == 4
    scale_type = spec.ins[spec.places[1]].dtype
    scale = memory.load(scale_type, "scales", "at_scale + v * LANES", lanes)
    entry = f"matmul_bytes_q{spec.bits}_{tile.rows}x{tile.cols}"
    text = fill(
        "matmul_bytes",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=lanes,
        packed=8 // spec.bits,
        batch=block(bases(tensors(problem), 0), 2),
        load_b=memory.load("int32", "next_b", "v * LANES", lanes),
        code="stored >> 4 * p & 0x0f0f0f0f" if four else "stored",
        load_scale=memory.convert(scale, "float", compute(scale_type), lanes),
        load_zero=load_zero,
        sums=memory.convert("sums[r][v]", "float", "int", lanes),
        whole=block(whole_tile(problem, tile), 4),
        epilogue=block(store_lines(problem, lanes), 5),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))
