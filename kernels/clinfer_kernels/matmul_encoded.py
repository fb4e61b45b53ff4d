"""Products of floats with a constant of few bits, for class "cpu": decoded in registers.

The memory that is read is that of the codes, which is what a product with few rows waits for. The
schedule is that of `matmul_cpu`; a block along K has a scale and a zero point for each column, as
in ONNX Runtime's MatMulNBits and in DequantizeLinear with blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer_kernels import matmul_bytes, memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import minimum
from clinfer_kernels.matmul_cpu import CpuTile, partition, whole_tile
from clinfer_kernels.matmul_epilogue import declare_epilogue, store_lines, tensors
from clinfer_kernels.matmul_problem import Problem, simplify
from clinfer_kernels.matrix_text import bases, declare, declare_batch, suffix
from clinfer_kernels.packing import MAX_GROUPS, Panels
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Pack, Target
from clinfer_kernels.specs import EncodedMatmulSpec, MatmulSpec
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute

if TYPE_CHECKING:
    import numpy as np

_ROWS = 4  # of a tile, where there are so many


@dataclass(frozen=True)
class EncodedTile(CpuTile):
    """As `CpuTile`."""


def _problem(spec: EncodedMatmulSpec) -> Problem:
    count = 1 + len(spec.epilogue.inputs)
    return simplify(MatmulSpec(True, spec.epilogue, spec.ins[:count], spec.outs))


def candidates(
    spec: EncodedMatmulSpec, target: Target
) -> tuple[EncodedTile | matmul_bytes.BytesTile, ...]:
    """One row at a time where there is one, else several, of as many columns as registers hold."""
    problem = _problem(spec)
    a = problem.a
    if target.cls != "cpu" or a.col != 1 or a.dtype != "float32" or problem.acc != "float32":
        return ()
    lanes = 16 if target.vector_width >= 16 else 8
    rows = problem.m if isinstance(problem.m, int) and problem.m < _ROWS else _ROWS
    tile = EncodedTile(max(1, rows), 4 if rows <= 2 else 2, lanes, row_groups=12)
    return (*matmul_bytes.candidates(spec, problem, target), tile, EncodedTile(1, 1, lanes))


def emit(
    spec: EncodedMatmulSpec, tile: EncodedTile | matmul_bytes.BytesTile, target: Target
) -> Kernel:
    """The product; codes, scales and zero points are packed when the model is compiled."""
    problem = _problem(spec)
    if isinstance(tile, matmul_bytes.BytesTile):
        return matmul_bytes.emit(spec, problem, tile, target)
    codes = _Codes(tile.cols, spec.bits, spec.ins[1].dtype == "int8")
    places = (1, 1 + len(spec.epilogue.inputs), 2 + len(spec.epilogue.inputs))
    scales, zeros = Panels("float32", tile.cols), Panels(spec.ins[places[2]].dtype, tile.cols)
    packs = (
        Pack(places[0], codes.key, codes.pack),
        Pack(places[1], scales.key, scales.pack),
        Pack(places[2], zeros.key, zeros.pack),
    )
    launch = _product(spec, problem, codes, tile, target, places)
    in_place = tuple((0, number + 2) for number in problem.in_place)
    return Kernel((launch,), (), packs, problem.flops, in_place=in_place)


@dataclass(frozen=True)
class _Codes:
    """Panels of codes of `bits`, in bytes; signed ones of 4 bits are 8 more."""

    cols: int
    bits: int
    signed: bool

    @property
    def packed(self) -> int:
        """Codes in a byte."""
        return 8 // self.bits

    @property
    def key(self) -> str:
        """The layout's name, for `Pack`."""
        return f"codes-{self.bits}-{self.cols}"

    def pack(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """[k, n] of a code each as [ceil(n / cols), k / packed, cols] of bytes."""
        panels = Panels(array.dtype.name, self.cols).pack(array)
        if self.bits == 8:
            return panels
        low, high = (panels[:, start::2].view("uint8") & 15 for start in (0, 1))
        flip = 8 * self.signed  # two's complement of 4 bits as 8 more
        return (low ^ flip) | (high ^ flip) << 4


def _product(
    spec: EncodedMatmulSpec,
    problem: Problem,
    codes: _Codes,
    tile: EncodedTile,
    target: Target,
    places: tuple[int, int, int],
) -> Launch:
    cut = partition(problem, tile, target)
    code_type = "uint8" if codes.bits == 4 else spec.ins[1].dtype
    zero_type = spec.ins[places[2]].dtype
    signature = Signature()
    declare(signature, "a", problem.a, "in", 0)
    signature.read("in", places[0], code_type, "b")
    signature.read("in", places[1], "float32", "scales")
    signature.read("in", places[2], zero_type, "zeros")
    declare_epilogue(signature, problem)
    signature.share(("out", f"e{number}") for number in problem.in_place)
    declare_batch(signature, problem.batch)
    for name, value in (
        ("M", problem.m),
        ("N", problem.n),
        ("K", problem.k),
        ("block", spec.block),
        ("row_block", cut.row_block),
        ("col_block", cut.col_block),
        ("row_tasks", cut.row_tasks),
        ("col_tasks", cut.col_tasks),
        ("tasks", cut.tasks),
    ):
        signature.scalar(name, value)
    lanes = tile.lanes
    entry = f"matmul_q{codes.bits}_{tile.rows}x{tile.cols}{suffix(problem.a)}"
    zero = memory.load(zero_type, "zeros", "at_scale + v * LANES", lanes)
    load = memory.load(code_type, "next_b", "v * LANES", lanes)
    zeros = memory.convert(zero, "float", compute(zero_type), lanes)
    offset = 8 if codes.bits == 4 and codes.signed else 0
    text = fill(
        "matmul_encoded",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=lanes,
        packed=codes.packed,
        code_type="uchar" if code_type == "uint8" else "char",
        batch=block(bases(["a", *tensors(problem)], len(problem.batch)), 2),
        load_b=memory.convert(load, "int", compute(code_type), lanes),
        code="stored_b >> 4 * p & 15" if codes.bits == 4 else "stored_b",
        decode=memory.convert("code", "float", "int", lanes),
        load_scale=memory.load("float32", "scales", "at_scale + v * LANES", lanes),
        load_zero=f"{zeros} + {float(offset)}f" if offset else zeros,
        whole=block(whole_tile(problem, tile), 4),
        epilogue=block(store_lines(problem, lanes), 5),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))
