"""How attention's tiled schedules read rows, and what they make of a row's sums."""

from __future__ import annotations

from clinfer_kernels.attention_problem import Problem
from clinfer_kernels.attention_text import zeroed
from clinfer_kernels.attention_tiles import WIDTH
from clinfer_kernels.dims import Dim
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import element, read_vector, write_vector
from clinfer_kernels.types import compute


def row_lines(problem: Problem) -> list[str]:
    """Statements giving query and head of row `row`."""
    if problem.group == 1:
        return ["const int i = row;", "const int z1 = kv;"]
    return ["const int i = row / group;", "const int z1 = kv * group + row % group;"]


def is_aligned(matrix: Matrix, size: Dim) -> bool:
    """Whether vectors along rows of `size` elements lie at multiples of their own size."""
    whole = isinstance(size, int) and size % WIDTH == 0
    return whole and matrix.col_kind == "1" and matrix.is_aligned(WIDTH)


def read_lines(target: str, name: str, matrix: Matrix, index: str, size: Dim) -> list[str]:
    """Statements declaring `target`: elements (index, d), ...; `lanes` of them exist."""
    at = element(name, matrix, index, "d")
    whole = isinstance(size, int) and size % WIDTH == 0
    return [read_vector(target, name, matrix, at, WIDTH, whole, is_aligned(matrix, size))]


def inverse_lines(problem: Problem, highest: str) -> list[str]:
    """Statements declaring what a row is multiplied by, and `none` where it may be 0."""
    value = compute(problem.acc)
    none = zeroed(problem, highest, "weights")
    if none:
        return [f"const {value} inverse = 1 / weights;", f"const int none = {none};"]
    return [f"const {value} inverse = {highest} == -INFINITY ? NAN : 1 / weights;"]


def quotient(problem: Problem, sums: str) -> str:
    """A vector of the result, of its sums."""
    return f"none ? (vec)(0) : {sums} * inverse" if problem.zeroed else f"{sums} * inverse"


def write_lines(problem: Problem) -> list[str]:
    """Statements that store the vector `result`; `lanes` of it exist."""
    matrix, size = problem.out, problem.columns
    whole = isinstance(size, int) and size % WIDTH == 0
    aligned = is_aligned(matrix, size)
    return write_vector("result", "out", matrix, "at", WIDTH, whole, aligned)
