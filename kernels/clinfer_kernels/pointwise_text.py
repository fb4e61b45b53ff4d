"""The structural parts of the pointwise kernels' texts, one function a schedule.

Each returns the `$` names of its `.cl` file. Operand x is loaded into v_x.
"""

from __future__ import annotations

from clinfer_kernels import hints, memory, types
from clinfer_kernels.dims import common_factor
from clinfer_kernels.nest import View, address, advance, count_text, decode
from clinfer_kernels.pointwise_problem import Problem
from clinfer_kernels.render import render
from clinfer_kernels.spec import Target
from clinfer_kernels.template import block

Parts = dict[str, str | int]

PIECE = 1024  # elements of a row in one task of the rows schedule
BLOCK_D = 64  # a block of the tiles schedule, in elements
BLOCK_I = 32
_LINE = 64  # bytes of a cache line
_VECTOR = 16  # bytes of a vector of the vectors schedule
SIDE = 32  # a block of the blocks schedule, in elements


def rows(problem: Problem, target: Target) -> Parts:
    """Vectors along the innermost dimension; the last, short one lane by lane."""
    width = types.lanes(target, problem.dtypes)
    outer = range(problem.rank - 1)
    fixed = [v for v in problem.ins if v.inner == "0"]
    moving = [v for v in problem.ins if v.inner != "0"]
    bases = [f"const int {v.name}_at = {address(v.name, outer)};" for v in problem.views]
    bases += [_value(v, width, memory.load(v.dtype, v.name, v.at(), width, "0")) for v in fixed]
    streamed = [v for v in problem.outs if v.inner == "1"] if hints.has_hints(target) else []
    constants, end = _large(problem) if streamed else ([], [])
    if streamed:
        aligned = (hints.is_aligned(v.dtype, v.name, f"{v.name}_at", width) for v in streamed)
        bases.append(f"const int streamed = {' && '.join(['large', *aligned])};")
    return {
        "n": f"n{problem.rank - 1}",
        "piece": PIECE,
        "width": width,
        "rows": count_text(outer),
        "constants": block(constants, 1),
        "indices": block([*_declared(outer), *decode(outer, "row")], 1),
        "bases": block(bases, 2),
        "vector": block(_body(problem, moving, width, False, streamed=bool(streamed)), 3),
        "rest": block(_body(problem, moving, width, True), 3),
        "advance": block(advance(outer), 2),
        "end": block(end, 1),
    }


def tiles(problem: Problem, target: Target) -> Parts:
    """Squares of registers, turned for the operands that are contiguous along d."""
    width = types.lanes(target, problem.dtypes)
    outer = range(problem.rank - 2)
    bases = [f"const int {v.name}_base = {address(v.name, outer)};" for v in problem.views]
    whole_lines = all(v.inner == "1" and _is_line(v, width) for v in problem.outs)
    streamed = whole_lines and hints.has_hints(target)
    constants, end = _large(problem) if streamed else ([], [])
    return {
        "ni": f"n{problem.rank - 1}",
        "nd": f"n{problem.rank - 2}",
        "block_i": BLOCK_I,
        "block_d": BLOCK_D,
        "width": width,
        "rows": count_text(outer),
        "indices": block([*_declared(outer), *decode(outer, "row")], 2),
        "bases": block(bases, 2),
        "constants": block(constants, 1),
        "square": block(_square(problem, width, False, streamed), 5),
        "edge": block(_square(problem, width, True), 5),
        "end": block(end, 1),
    }


def blocks(problem: Problem, target: Target) -> Parts:
    """Blocks of local memory, for the operands that are contiguous along d."""
    outer = range(problem.rank - 2)
    depth = problem.rank - 2
    columns = problem.columns
    others = [v for v in problem.ins if v not in columns]
    read = [
        f"block_{v.name}[k * {SIDE + 1} + x] = "
        + memory.load(v.dtype, v.name, f"{v.name}_base + first_d + x + (first_i + k) * {v.step}")
        + ";"
        for v in columns
    ]
    write = [
        f"const int {v.name}_at = {v.name}_base + d * {v.name}_s{depth};"
        for v in (*others, *problem.outs)
    ]
    write += [_value(v, 1, f"block_{v.name}[x * {SIDE + 1} + k]") for v in columns]
    return {
        "ni": f"n{problem.rank - 1}",
        "nd": f"n{problem.rank - 2}",
        "side": SIDE,
        "step": block_depth(target),
        "rows": count_text(outer),
        "locals": block(
            [
                f"__local {types.register(v.dtype)} block_{v.name}[{SIDE * (SIDE + 1)}];"
                for v in columns
            ],
            1,
        ),
        "indices": block([*_declared(outer), *decode(outer, "row")], 2),
        "bases": block(
            [f"const int {v.name}_base = {address(v.name, outer)};" for v in problem.views], 2
        ),
        "read": block(read, 4),
        "write": block([*write, *_body(problem, others, 1, False)], 4),
    }


def block_depth(target: Target) -> int:
    """Rows of a block that a work-group handles at a time."""
    return min(target.max_work_group, 256) // SIDE


def block_bytes(problem: Problem) -> int:
    """Local memory of the blocks schedule."""
    return sum(types.compute_size(v.dtype) * SIDE * (SIDE + 1) for v in problem.columns)


def grid(problem: Problem, target: Target) -> Parts:
    """One element at a time."""
    every = range(problem.rank)
    bases = [_scalar_base(v, problem.rank) for v in problem.views]
    return {
        "total": count_text(every),
        "indices": block([*_declared(every), *decode(every, "row")], 2),
        "bases": block(bases, 2),
        "scalar": block(_body(problem, problem.ins, 1, False, index=f"i{problem.rank - 1}"), 2),
    }


def vector_width(problem: Problem) -> int:
    """Elements of a vector of at most 16 bytes: each operand's lie at multiples of their size."""
    if any(view.inner == "s" for view in problem.views):
        return 1
    dense = [view for view in problem.views if view.inner == "1"]
    strides = [d for view in dense for d in (view.offset, *view.strides[:-1])]
    factor = common_factor([problem.sizes[-1], *strides])
    widest = max((types.compute_size(view.dtype) for view in dense), default=_VECTOR)
    return next(w for w in (4, 2, 1) if factor % w == 0 and w * widest <= _VECTOR)


def vectors(problem: Problem, target: Target) -> Parts:
    """Vectors along the innermost dimension, of which there are whole ones only."""
    width = vector_width(problem)
    last = problem.rank - 1
    outer = range(last)
    indices = [f"i{last} = row % (n{last} / {width}) * {width};", f"row /= n{last} / {width};"]
    if not outer:
        indices = [f"i{last} = row * {width};"]
    body = _body(problem, problem.ins, width, False, index=f"i{last}", aligned=True)
    return {
        "total": f"{count_text(range(problem.rank))} / {width}",
        "indices": block([*_declared(range(problem.rank)), *indices, *decode(outer, "row")], 2),
        "bases": block([_scalar_base(v, problem.rank) for v in problem.views], 2),
        "scalar": block(body, 2),
    }


def _scalar_base(view: View, rank: int) -> str:
    return f"const int {view.name}_at = {address(view.name, range(rank - 1))};"


def _body(
    problem: Problem,
    moving: list[View] | tuple[View, ...],
    width: int,
    part: bool,
    index: str = "i",
    streamed: bool = False,
    aligned: bool = False,
) -> list[str]:
    """Loads the moving operands at `index`, computes, stores; `part`: only `left` lanes;
    `streamed`: past the caches where the flag of that name is set; `aligned`: all lie so."""
    lines = []
    for view in moving:
        at = view.at(index)
        if part:
            value = memory.load_part(view.dtype, view.name, at, width, "left", view.step)
        else:
            value = memory.load(view.dtype, view.name, at, width, view.step, aligned)
        lines.append(_value(view, width, value))
    rendered = render(problem.expr, [f"v_{v.name}" for v in problem.ins], width)
    lines += rendered.statements
    for view, result in zip(problem.outs, rendered.results, strict=True):
        at = view.at(index)
        if part:
            store = memory.store_part(view.dtype, result, view.name, at, width, "left", view.step)
        else:
            store = memory.store(view.dtype, result, view.name, at, width, view.step, aligned)
        if streamed and view.inner == "1":
            past = hints.stream(view.dtype, result, view.name, at, width)
            store = f"if (streamed) {past} else {store}"
        lines.append(store)
    return lines


def _large(problem: Problem) -> tuple[list[str], list[str]]:
    """The declaration of the flag `large`, and what ends a kernel that streams."""
    total = count_text(range(problem.rank)).replace("n0", "(long)n0", 1)
    flag = hints.is_large(problem.outs[0].dtype, total)
    return [f"const int large = {flag};"], [hints.fence("large")]


def _is_line(view: View, width: int) -> bool:
    """Whether a vector is a whole cache line, so that lines can be streamed one by one."""
    return width * types.size_of(view.dtype) == _LINE


def _square(problem: Problem, width: int, edge: bool, streamed: bool = False) -> list[str]:
    """Column operands into squares[d], then one row of the square after another."""
    lines: list[str] = []
    depth = problem.rank - 2
    columns = problem.columns
    for view in columns:
        lines += _columns(view, width, edge)
    if streamed:
        aligned = []
        for view in problem.outs:
            first = f"{view.name}_base + d * {view.name}_s{depth} + i"
            aligned.append(hints.is_aligned(view.dtype, view.name, first, width))
            aligned.append(f"{view.name}_s{depth} % {width} == 0")
        lines.append(f"const int streamed = {' && '.join(['large', *aligned])};")
    lines.append(f"for (int r = 0; r < {'depth' if edge else width}; ++r) {{")
    moving = [v for v in problem.ins if v not in columns]
    inside = [
        f"const int {v.name}_at = {v.name}_base + (d + r) * {v.name}_s{depth};"
        for v in (*moving, *problem.outs)
    ]
    inside += [_value(v, width, f"square_{v.name}[r]") for v in columns]
    inside += _body(problem, moving, width, edge, streamed=streamed)
    return [*lines, *(f"    {line}" for line in inside), "}"]


def _columns(view: View, width: int, edge: bool) -> list[str]:
    """Vectors along d of operand `view` at columns i, i + 1, ..., and their transposition."""
    ctype = types.register(view.dtype, width)
    at = f"{view.name}_base + d + (i + c) * {view.step}"
    zero = f"({ctype})(0)"
    if edge:
        value = memory.load_part(view.dtype, view.name, at, width, "depth")
        value = f"c < left ? {value} : {zero}"
    else:
        value = memory.load(view.dtype, view.name, at, width)
    return [
        f"{ctype} square_{view.name}[{width}];",
        f"for (int c = 0; c < {width}; ++c) {{",
        f"    square_{view.name}[c] = {value};",
        "}",
        f"transpose_{ctype}(square_{view.name});",
    ]


def _value(view: View, width: int, value: str) -> str:
    return f"const {types.register(view.dtype, width)} v_{view.name} = {value};"


def _declared(numbers: range) -> list[str]:
    return [f"int i{k};" for k in numbers]
