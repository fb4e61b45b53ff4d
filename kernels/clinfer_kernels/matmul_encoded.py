"""Products of floats with a constant of few bits, decoded in registers.

The memory that is read is that of the codes, which is what a product with few rows waits for. A
block along K has a scale and a zero point for each column, as in ONNX Runtime's MatMulNBits and in
DequantizeLinear with blocks. On CPUs the schedule is that of `matmul_cpu`; GPUs have theirs in
`matmul_encoded_gpu`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from clinfer_kernels import matmul_bytes, memory, narrow
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

    from clinfer_kernels.contraction.tiles import Choice as GpuTile

_ROWS = 4  # of a tile, where there are so many


@dataclass(frozen=True)
class EncodedTile(CpuTile):
    """As `CpuTile`."""


if TYPE_CHECKING:
    Tile = EncodedTile | matmul_bytes.BytesTile | GpuTile


def _problem(spec: EncodedMatmulSpec) -> Problem:
    count = 1 + len(spec.epilogue.inputs)
    return simplify(MatmulSpec(True, spec.epilogue, spec.ins[:count], spec.outs))


def candidates(spec: EncodedMatmulSpec, target: Target) -> tuple[Tile, ...]:
    """One row at a time where there is one, else several, of as many columns as registers hold."""
    problem = _problem(spec)
    if target.cls == "gpu":  # a start on a CPU does not import what is for GPUs
        from clinfer_kernels.matmul_encoded_gpu import gpu_tiles

        return gpu_tiles(spec, problem, target)
    a = problem.a
    if a.col != 1 or a.dtype != "float32" or problem.acc != "float32":
        return ()
    lanes = 16 if target.vector_width >= 16 else 8
    rows = problem.m if isinstance(problem.m, int) and problem.m < _ROWS else _ROWS
    tile = EncodedTile(max(1, rows), 4 if rows <= 2 else 2, lanes, row_groups=12)
    return (*matmul_bytes.candidates(spec, problem, target), tile, EncodedTile(1, 1, lanes))


def emit(spec: EncodedMatmulSpec, tile: Tile, target: Target) -> Kernel:
    """The product; codes, scales and zero points are packed when the model is compiled."""
    problem = _problem(spec)
    if target.cls == "gpu":
        from clinfer_kernels.matmul_encoded_gpu import emit_gpu

        return emit_gpu(spec, problem, cast("GpuTile", tile), target)
    if isinstance(tile, matmul_bytes.BytesTile):
        signed = spec.ins[1].dtype == "int8"
        zeros = load_zero(spec, signed << (spec.bits - 1), tile.lanes)
        return matmul_bytes.emit(spec, problem, tile, target, zeros)
    assert isinstance(tile, EncodedTile)
    codes = _Codes(tile.cols, spec.bits, spec.ins[1].dtype == "int8")
    places = spec.places
    panels = [Panels(spec.ins[place].dtype, tile.cols) for place in places[1:]]
    packs = (
        Pack(places[0], codes.key, codes.pack),
        *(Pack(place, p.key, p.pack) for place, p in zip(places[1:], panels, strict=True)),
    )
    launch = _product(spec, problem, codes, tile, target)
    in_place = tuple((0, number + 2) for number in problem.in_place)
    return Kernel((launch,), (), packs, problem.flops, in_place=in_place)


def load_zero(spec: EncodedMatmulSpec, more: int, lanes: int) -> str:
    """The zero points of a vector of columns, plus `more`."""
    if spec.zero is not None:
        return f"(vec)({float(spec.zero + more)}f)"
    dtype = spec.ins[spec.places[2]].dtype
    zero = memory.load(dtype, "zeros", "at_scale + v * LANES", lanes)
    zeros = memory.convert(zero, "float", compute(dtype), lanes)
    return f"{zeros} + {float(more)}f" if more else zeros


@dataclass(frozen=True)
class _Codes:
    """Panels of codes of `bits`, in bytes; signed ones of few bits are made positive."""

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
        flip = self.signed << (self.bits - 1)  # two's complement of few bits as so much more
        packed = panels[:, :: self.packed].view("uint8") & 0
        for place in range(self.packed):
            part = panels[:, place :: self.packed].view("uint8") & ((1 << self.bits) - 1)
            packed |= (part ^ flip) << (self.bits * place)
        return packed


def _product(
    spec: EncodedMatmulSpec,
    problem: Problem,
    codes: _Codes,
    tile: EncodedTile,
    target: Target,
) -> Launch:
    cut = partition(problem, tile, target)
    code_type = "uint8" if codes.bits < 8 else spec.ins[1].dtype
    signature = Signature()
    declare(signature, "a", problem.a, "in", 0)
    signature.read("in", spec.places[0], code_type, "b")
    for place, name in zip(spec.places[1:], ("scales", "zeros"), strict=False):
        signature.read("in", place, spec.ins[place].dtype, name)
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
    form = "" if spec.form == "integer" else f"_{spec.form}"
    entry = f"matmul_q{codes.bits}{form}_{tile.rows}x{tile.cols}{suffix(problem.a)}"
    load = memory.load(code_type, "next_b", "v * LANES", lanes)
    scale_type = spec.ins[spec.places[1]].dtype
    scale = memory.load(scale_type, "scales", "at_scale + v * LANES", lanes)
    more = codes.signed << (codes.bits - 1) if codes.bits < 8 else 0
    text = fill(
        "matmul_encoded",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        rows=tile.rows,
        vecs=tile.vecs,
        lanes=lanes,
        table=_table(spec.form, lanes),
        packed=codes.packed,
        code_type="uchar" if code_type == "uint8" else "char",
        batch=block(bases(["a", *tensors(problem)], len(problem.batch)), 2),
        load_b=memory.convert(load, "int", compute(code_type), lanes),
        code="stored_b"
        if codes.bits == 8
        else f"stored_b >> {codes.bits} * p & {(1 << codes.bits) - 1}",
        decode=_decode(spec.form, lanes),
        load_scale=memory.convert(scale, "float", compute(scale_type), lanes),
        load_zero=load_zero(spec, more, lanes),
        whole=block(whole_tile(problem, tile), 4),
        epilogue=block(store_lines(problem, lanes), 5),
    )
    return Launch(entry, text, signature.args, (minimum(cut.tasks, MAX_GROUPS),), (1,))


def _decode(form: str, lanes: int) -> str:
    """The numbers that a vector of codes stands for."""
    if form == "integer":
        return memory.convert("code", "float", "int", lanes)
    if form in narrow.FORMATS:
        return f"decode_{form}_float{lanes}({memory.convert('code', 'uint', 'int', lanes)})"
    return "look_up(code)"


def _table(form: str, lanes: int) -> str:
    """A function that looks codes up, where they have a table."""
    if form not in narrow.TABLES:
        return ""
    numbers = ", ".join(f"{float.hex(n)}f" for n in narrow.TABLES[form])
    return f"""
static vec look_up(codes code)
{{
    const float known[16] = {{{numbers}}};
    int at[{lanes}];
    float found[{lanes}];
    vstore{lanes}(code, 0, at);
    #pragma unroll
    for (int lane = 0; lane < {lanes}; ++lane) found[lane] = known[at[lane]];
    return vload{lanes}(0, found);
}}"""
