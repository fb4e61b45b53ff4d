"""Pieces of text that all attention schedules share: masks, and which keys a query sees."""

from __future__ import annotations

from string import Template

from clinfer_kernels import memory
from clinfer_kernels.attention_problem import Problem
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import element, widen
from clinfer_kernels.types import compute, mask_type, vector


def seen(problem: Problem, end: str) -> str:
    """How many keys queries before `end` see."""
    if not problem.causal:
        return "Sk"
    last = f"{end} + Sk - Sq"
    return f"{last} < Sk ? {last} : Sk"


def mask_lines(problem: Problem, width: int) -> list[str]:
    """Statements that mask `score`: key `j`, queries `i` to `i + width - 1` in its lanes."""
    lines = mask_tensor(problem.mask, problem.acc, width) if problem.mask is not None else []
    return lines + causal_lines(problem, width)


def causal_lines(problem: Problem, width: int) -> list[str]:
    """Those of `mask_lines` that keep keys from queries before them."""
    if not problem.causal:
        return []
    if width == 1:
        return ["if (j > i + Sk - Sq) score = -INFINITY;"]
    value = vector(compute(problem.acc), width)
    ids = ", ".join(str(lane) for lane in range(width))
    mask = vector(mask_type(compute(problem.acc)), width)
    return [
        "if (j > i + Sk - Sq) {",
        f"    const {mask} last = i + Sk - Sq + ({mask})({ids});",
        f"    score = last < ({mask})(j) ? ({value})(-INFINITY) : score;",
        "}",
    ]


def mask_tensor(matrix: Matrix, acc: str, width: int) -> list[str]:
    """Those of `mask_lines` that read a mask."""
    value = vector(compute(acc), width)
    stride = "0" if matrix.row == 0 else "mask_row"
    loaded = memory.load(matrix.dtype, "mask", "at", width, stride)
    if width > 1 and stride != "0":
        part = memory.load_part(matrix.dtype, "mask", "at", width, "Sq - i", stride)
        loaded = f"Sq - i >= {width} ? {loaded} : {part}"
    lines = [
        f"const long at = {element('mask', matrix, 'i', 'j')};",
        f"const {vector(compute(matrix.dtype), width)} entry = {loaded};",
    ]
    if matrix.dtype != "bool":
        return [*lines, f"score += {widen('entry', matrix, acc, width)};"]
    lanes = "int" if width == 1 else mask_type(compute(acc))
    kept = memory.convert("entry", lanes, "int", width)
    return [*lines, f"score = {kept} ? score : ({value})(-INFINITY);"]


def zeroed(problem: Problem, maximum: str, total: str) -> str:
    """The C condition of rows whose result is 0, of their highest score and the sum of their
    weights; nothing where there are none."""
    return {
        "": "",
        "empty": f"({maximum} == -INFINITY) & ({total} == {total})",
        "nan": f"({maximum} == -INFINITY) | ({total} != {total})",
    }[problem.zeroed]


# e^x for x <= 0, or NaN. It stays at e^-87 from -87 on, where float32 runs out of normal numbers:
# the others are slow on many processors. e^x = 2^n 2^f, n = round(x / ln 2), |f| <= 1/2; n is added
# to the exponent. Relative error of the polynomial, a minimax fit: 9e-8.
_EXP_BELOW = {
    "float32": """static vec exp_below(vec x) {
    const vec y = x < -87.0f ? (vec)(-87.0f) : x;
    const vec shifted = y * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are n
    const vec f = y * 1.44269504f - (shifted - 12582912.0f);
    vec e = f * 0.00132647273f + 0.00967151299f;
    e = e * f + 0.0555073358f;
    e = e * f + 0.240222424f;
    e = e * f + 0.693147004f;
    e = e * f + 1.0f;
    return as_$V(as_$M(e) + (as_$M(shifted) << 23));
}""",
    "float64": "static vec exp_below(vec x) { return exp(x); }",
}


def exp_below(acc: str, lanes: int) -> str:
    """The function of that name in a text with the type `vec`, `lanes` lanes of `acc`."""
    value = compute(acc)
    names = {"V": vector(value, lanes), "M": vector(mask_type(value), lanes)}
    return Template(_EXP_BELOW[acc]).substitute(names)
