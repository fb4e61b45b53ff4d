"""Matrices in kernel text: parameters, and the address of an element.

A matrix `x` in a text of batch rank 2 has the parameters x (the buffer), x_offset, x_z0, x_z1
(batch strides), x_row and, where the text does not know it, x_col. Per task the text computes

    x_at = x_offset + z0 * x_z0 + z1 * x_z1         (z0, z1: the batch indices)

and an element is x[x_at + i * x_row + j * x_col].
"""

from __future__ import annotations

from collections.abc import Sequence

from clinfer_kernels import memory
from clinfer_kernels.dims import Dim
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.signature import Signature
from clinfer_kernels.types import compute, register


def declare_batch(signature: Signature, batch: Sequence[Dim]) -> None:
    """Parameters for the batch sizes; the outermost is not needed to split an index."""
    for axis, size in enumerate(batch):
        if axis > 0:
            signature.scalar(f"batch{axis}", size)


def declare(signature: Signature, name: str, matrix: Matrix, kind: str, index: int) -> None:
    """The parameters of a matrix; buffers of kind 'out' are written, others only read."""
    if kind == "out":
        signature.buffer(kind, index, matrix.dtype, name)
    else:
        signature.read(kind, index, matrix.dtype, name)
    signature.scalar(f"{name}_offset", matrix.offset)
    for axis, stride in enumerate(matrix.batch):
        signature.scalar(f"{name}_z{axis}", stride)
    signature.scalar(f"{name}_row", matrix.row)
    if matrix.col_kind == "col":
        signature.scalar(f"{name}_col", matrix.col)


def split_batch(rank: int) -> list[str]:
    """Statements giving the batch indices z0, z1, ... of the flat index `z`."""
    lines = []
    rest = "z"
    for axis in reversed(range(rank)):
        if axis == 0:
            lines.append(f"const int z0 = {rest};")
        else:
            lines.append(f"const int z{axis} = {rest} % batch{axis};")
            rest = f"{rest} / batch{axis}"
    return lines


def base(name: str, indices: Sequence[str]) -> str:
    """The statement that declares `name`_at, the start of the matrix at these batch indices."""
    terms = [f"(long){index} * {name}_z{axis}" for axis, index in enumerate(indices)]
    return f"const long {name}_at = {' + '.join([f'{name}_offset', *terms])};"


def bases(names: Sequence[str], rank: int) -> list[str]:
    """Statements giving z0, z1, ... of the flat batch index `z`, and the start of each matrix."""
    indices = [f"z{axis}" for axis in range(rank)]
    return [*split_batch(rank), *(base(name, indices) for name in names)]


def col_stride(name: str, matrix: Matrix) -> str:
    """The column stride as a C expression: '0', '1' or the parameter."""
    return f"{name}_col" if matrix.col_kind == "col" else matrix.col_kind


def element(name: str, matrix: Matrix, row: str, col: str) -> str:
    """The index of element (row, col); both are names in the text."""
    step = {"0": "", "1": f" + {col}", "col": f" + (long){col} * {name}_col"}[matrix.col_kind]
    return f"{name}_at + (long){row} * {name}_row{step}"


def widen(value: str, matrix: Matrix, acc: str, width: int = 1) -> str:
    """Register values of a matrix's dtype as values of the dtype `acc`."""
    return memory.convert(value, compute(acc), compute(matrix.dtype), width)


def read(name: str, matrix: Matrix, row: str, col: str, acc: str) -> str:
    """One element as a value of the dtype `acc`."""
    return widen(memory.load(matrix.dtype, name, element(name, matrix, row, col)), matrix, acc)


def read_vector(
    target: str,
    name: str,
    matrix: Matrix,
    at: str,
    width: int,
    is_whole: bool = False,
    is_aligned: bool = False,
) -> str:
    """The statement declaring `target`: up to `width` values of a row; `lanes` of them exist, all
    of them where it `is_whole`. `is_aligned` as in `memory.load`."""
    stride = col_stride(name, matrix)
    value = memory.load(matrix.dtype, name, at, width, stride, is_aligned)
    if width > 1 and stride != "0" and not is_whole:
        part = memory.load_part(matrix.dtype, name, at, width, "lanes", stride)
        value = f"lanes >= {width} ? {value} : {part}"
    return f"const {register(matrix.dtype, width)} {target} = {value};"


def write_vector(
    value: str,
    name: str,
    matrix: Matrix,
    at: str,
    width: int,
    is_whole: bool = False,
    is_aligned: bool = False,
) -> list[str]:
    """Statements that store up to `width` values of a row; `lanes` of them exist, all of them
    where it `is_whole`. `is_aligned` as in `memory.load`."""
    stride = col_stride(name, matrix)
    whole = memory.store(matrix.dtype, value, name, at, width, stride, is_aligned)
    if width == 1 or is_whole:
        return [whole]
    part = memory.store_part(matrix.dtype, value, name, at, width, "lanes", stride)
    return [f"if (lanes >= {width}) {{", f"    {whole}", "} else {", f"    {part}", "}"]


def suffix(*matrices: Matrix) -> str:
    """'_z2' for a batch of rank 2, nothing for one matrix: the batch's part of an entry's name."""
    rank = max(len(m.batch) for m in matrices)
    return f"_z{rank}" if rank else ""
