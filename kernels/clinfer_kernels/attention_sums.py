"""What attention by a matrix unit does to sums: statements on each, written out.

A lane has `rows` queries, and of each some keys' scores and some columns' results. The statements
are those of attention_matrix.cl's names; which sum is where comes from the unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

from clinfer_kernels.attention_ends import inverse_lines, quotient, row_lines, write_lines
from clinfer_kernels.attention_matrix_tiles import MatrixTile
from clinfer_kernels.attention_problem import Problem
from clinfer_kernels.attention_text import causal_lines, mask_lines, mask_tensor
from clinfer_kernels.contraction.puts import put_vector
from clinfer_kernels.contraction.units import LANES, Packing
from clinfer_kernels.matrix_text import base, element
from clinfer_kernels.template import inside
from clinfer_kernels.types import literal


def masked(problem: Problem, tile: MatrixTile) -> list[str]:
    """Scale and mask the scores, and find the lane's highest of each query."""
    unit = tile.scores
    own, inner_mask = _mask_rows(problem), _mask(problem)
    keys = range(0, tile.keys // tile.sharers, LANES)
    lines = [
        f"const float4 entry{key} = *(const __local float4*)(entries + {tile.place(unit, key)});"
        for key in keys
    ]
    for u in range(tile.rows):
        inner = [f"const int row = min(row0 + {tile.query_place(u)}, rows - 1);"] if own else []
        inner += own
        for key, n in product(keys, range(LANES)):
            score = f"score{tile.sum_at(unit, u, key + n)}"
            scale = literal(problem.scale, problem.acc)
            scored = [f"float score_of = {score} * {scale} + entry{key}.s{n};"]
            if inner_mask:
                place = tile.place(unit, key + n)
                scored += [f"const int j = min(key0 + {place}, stop - 1);", *inner_mask]
            highest = f"highest{u} = fmax(highest{u}, score_of);"
            inner += _block([*scored, f"{score} = score_of;", highest])
        lines += [f"float highest{u} = maximum{u};", *_block(inner)]
        if tile.sharers > 1:
            lines.append(f"tree[({tile.query_place(u)}) * SHARERS + x] = highest{u};")
    return lines


def entries(problem: Problem, tile: MatrixTile) -> list[str]:
    """What the mask adds to a key's scores where all queries share it; keys that are not there have
    -INFINITY."""
    lines = []
    for first in range(0, tile.keys, tile.work_group):
        is_whole = tile.keys - first >= tile.work_group
        inner = [f"const int e = item + {first};", *_entry(problem)]
        lines += _block(inner) if is_whole else [f"if (item < {tile.keys - first})", *_block(inner)]
    return lines


def _entry(problem: Problem) -> list[str]:
    mask = problem.mask
    if mask is None or not _is_shared(problem):
        return ["entries[e] = key0 + e < stop ? 0.0f : -INFINITY;"]
    return [
        base("mask", ("z0", "kv") if problem.group == 1 else ("z0",)),
        "const int i = 0;",
        "const int j = key0 + e;",
        "float score_of = -INFINITY;",
        "if (j < stop) {",
        "    score_of = 0;",
        *inside(_renamed(mask_tensor(mask, problem.acc, 1))),
        "}",
        "entries[e] = score_of;",
    ]


def _is_shared(problem: Problem) -> bool:
    """Whether all queries of a task have one mask."""
    mask = problem.mask
    if mask is None or mask.row != 0:
        return False
    return problem.group == 1 or mask.batch[1] == 0


def _mask_rows(problem: Problem) -> list[str]:
    if problem.mask is not None and not _is_shared(problem):
        return [*row_lines(problem), base("mask", ("z0", "z1"))]
    return row_lines(problem) if problem.causal else []


def _mask(problem: Problem) -> list[str]:
    """How a score is masked, but for what `entries` have."""
    lines = causal_lines(problem, 1) if _is_shared(problem) else mask_lines(problem, 1)
    return _renamed(lines)


def _renamed(lines: Iterable[str]) -> list[str]:
    return [re.sub(r"\bscore\b", "score_of", line) for line in lines]


def weighed(tile: MatrixTile, packing: Packing, exp: str) -> list[str]:
    """The weights of the scores, in their place or put into `p_tile`, and results and sums of
    weights as they are under the new highest score; `exp`: the function that makes them."""
    lines = []
    for u in range(tile.rows):
        columns = range(tile.head_size // tile.parts)
        inner = [
            *_joined(tile, u, f"highest{u} = @;", f"highest{u} = fmax(highest{u}, @);"),
            f"const float shift = highest{u} == -INFINITY ? 0 : highest{u};",
            f"const float correction = {exp}(maximum{u} - shift);",
            f"maximum{u} = highest{u};",
            f"total{u} *= correction;",
            *(f"o{tile.sum_at(tile.own, u, column)} *= correction;" for column in columns),
        ]
        for key in range(0, tile.keys // tile.sharers, LANES):
            each = [f"score{tile.sum_at(tile.scores, u, key + n)}" for n in range(LANES)]
            weights = [f"weight.s{n}" for n in range(LANES)]
            made = [f"{w} = {exp}({s} - shift);" for w, s in zip(weights, each, strict=True)]
            put = [f"{s} = {w};" for w, s in zip(weights, each, strict=True)]
            if tile.path != "local" and packing.pack == "quiet":
                put.insert(0, "weight = quiet(weight);")
            if tile.path == "local":
                place = f"({tile.query_place(u)})"
                made.append(f"const int key = {tile.place(tile.scores, key)};")
                put = put_vector(packing, 0, "p_tile", "Q_PITCH", ("weight", "key", place))
            total = f"total{u} += (weight.s0 + weight.s2) + (weight.s1 + weight.s3);"
            inner += _block(["float4 weight;", *made, total, *put])
        lines += _block(inner)
    return lines


def finished(problem: Problem, tile: MatrixTile) -> list[str]:
    """Divide by the sums of weights, and store."""
    lines = []
    for u in range(tile.rows):
        inner = [
            f"float weights = total{u};",
            *_joined(tile, u, "weights = @;", "weights += @;"),
            f"const int row = row0 + {tile.query_place(u)};",
            "if (row < rows) {",
            *inside(row_lines(problem)),
            *inside(inverse_lines(problem, f"maximum{u}")),
            f"    {base('out', ('z0', 'z1'))}",
        ]
        for column in range(0, tile.head_size // tile.parts, LANES):
            each = [f"o{tile.sum_at(tile.own, u, column + n)}" for n in range(LANES)]
            result = quotient(problem, "sums").replace("(vec)", "(float4)")
            stored = [
                f"const int d = {tile.place(tile.own, column)};",
                "const int lanes = Dv - d;",
                "if (lanes > 0) {",
                f"    const float4 sums = (float4)({', '.join(each)});",
                f"    const long at = {element('out', problem.out, 'i', 'd')};",
                f"    const float4 result = {result};",
                *inside(write_lines(problem)),
                "}",
            ]
            inner += inside(_block(stored))
        lines += _block([*inner, "}"])
    return lines


def _joined(tile: MatrixTile, u: int, first: str, statement: str) -> list[str]:
    """The statements for what all lanes of a query have in `tree`."""
    if tile.sharers == 1:
        return []
    each = [f"tree[({tile.query_place(u)}) * SHARERS + {n}]" for n in range(tile.sharers)]
    return [first.replace("@", each[0]), *(statement.replace("@", x) for x in each[1:])]


def _block(lines: Iterable[str]) -> list[str]:
    return ["{", *inside(lines), "}"]
