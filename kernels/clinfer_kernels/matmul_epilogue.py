"""The end of a matmul in kernel text: operands loaded, the epilogue applied, the result stored."""

from __future__ import annotations

from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix_text import declare, element, read_vector, write_vector
from clinfer_kernels.render import render
from clinfer_kernels.signature import Signature


def declare_epilogue(signature: Signature, problem: Problem) -> None:
    """Parameters for the output and the epilogue's operands."""
    declare(signature, "out", problem.out, "out", 0)
    for number, operand in enumerate(problem.operands):
        declare(signature, f"e{number}", operand, "in", number + 2)


def tensors(problem: Problem) -> list[str]:
    """The names of the output and the operands in the text."""
    return ["out", *(f"e{number}" for number in range(len(problem.operands)))]


def store_lines(
    problem: Problem, width: int, is_whole: bool = False, is_aligned: bool = False
) -> list[str]:
    """Statements that finish `sum`, the results at row `i`, columns `j` to `j + width - 1`.

    Where `lanes`, the columns left, is less than `width`, only so many are read and stored;
    `is_whole` says that there are as many, `is_aligned` that `j` is a multiple of `width`.
    """
    lines = [f"const long at = {element('out', problem.out, 'i', 'j')};"]
    values = ["sum"]
    for number, operand in enumerate(problem.operands):
        name, at = f"e{number}", f"at{number}"
        lines.append(f"const long {at} = {element(name, operand, 'i', 'j')};")
        even = is_aligned and operand.is_aligned(width)
        lines.append(read_vector(f"x{number}", name, operand, at, width, is_whole, even))
        values.append(f"x{number}")
    rendered = render(problem.epilogue, values, width)
    lines += rendered.statements
    even = is_aligned and problem.out.is_aligned(width)
    result = rendered.results[0]
    return lines + write_vector(result, "out", problem.out, "at", width, is_whole, even)
