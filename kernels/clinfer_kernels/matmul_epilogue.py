"""The end of a matmul in kernel text: operands loaded, the epilogue applied, the result stored."""

from __future__ import annotations

from clinfer_kernels import memory
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import col_stride, declare, element
from clinfer_kernels.render import render
from clinfer_kernels.signature import Signature
from clinfer_kernels.types import register


def declare_epilogue(signature: Signature, problem: Problem) -> None:
    """Parameters for the output and the epilogue's operands."""
    declare(signature, "out", problem.out, "out", 0)
    for number, operand in enumerate(problem.operands):
        declare(signature, f"e{number}", operand, "in", number + 2)


def tensors(problem: Problem) -> list[str]:
    """The names of the output and the operands in the text."""
    return ["out", *(f"e{number}" for number in range(len(problem.operands)))]


def store_lines(problem: Problem, width: int) -> list[str]:
    """Statements that finish `sum`, the results at row `i`, columns `j` to `j + width - 1`.

    Where `lanes`, the columns left, is less than `width`, only so many are read and stored.
    """
    lines = [f"const long at = {element('out', problem.out, 'i', 'j')};"]
    values = ["sum"]
    for number, operand in enumerate(problem.operands):
        lines += _load(number, operand, width)
        values.append(f"x{number}")
    rendered = render(problem.epilogue, values, width)
    return [*lines, *rendered.statements, *_store(rendered.results[0], problem.out, width)]


def _load(number: int, matrix: Matrix, width: int) -> list[str]:
    name = f"e{number}"
    at = f"at{number}"
    stride = col_stride(name, matrix)
    value = memory.load(matrix.dtype, name, at, width, stride)
    if width > 1 and stride != "0":
        part = memory.load_part(matrix.dtype, name, at, width, "lanes", stride)
        value = f"lanes >= {width} ? {value} : {part}"
    return [
        f"const long {at} = {element(name, matrix, 'i', 'j')};",
        f"const {register(matrix.dtype, width)} x{number} = {value};",
    ]


def _store(value: str, out: Matrix, width: int) -> list[str]:
    stride = col_stride("out", out)
    whole = memory.store(out.dtype, value, "out", "at", width, stride)
    if width == 1:
        return [whole]
    part = memory.store_part(out.dtype, value, "out", "at", width, "lanes", stride)
    return [f"if (lanes >= {width}) {{", f"    {whole}", "} else {", f"    {part}", "}"]
