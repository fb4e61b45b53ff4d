"""Attention for class "gpu": a work-group to a block of queries, tiles in local memory.

Few queries over many keys leave most of a device idle, so there the keys are shared out:
work-groups make parts of a result, each over keys of its own, and a second launch joins them,
always in one order (as Flash-Decoding does: Dao, Haziza, Massa, Sizov 2023). Whether a run's sizes
ask for it is an expression over them: a launch that has nothing to do is not made.
"""

from __future__ import annotations

from clinfer_kernels.attention_ends import (
    inverse_lines,
    quotient,
    read_lines,
    row_lines,
    write_lines,
)
from clinfer_kernels.attention_problem import Problem, declare_tensors
from clinfer_kernels.attention_text import causal_lines, mask_lines, mask_tensor, seen
from clinfer_kernels.attention_tiles import WIDTH, LocalTile, parts_of
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import Dim, ceildiv
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import base, element, widen
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.tasks import each_task, group_items
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, compute_size, literal, vector

# Copies of an inner loop's body: AMD's compiler has the loads of all at once, PoCL's takes longer.
_UNROLL = {"amd": 1, "pocl": 1}
_JOIN_GROUP = 64  # work-items of a work-group of the second launch


def emit_local(problem: Problem, tile: LocalTile, target: Target) -> Kernel:
    """One launch, whose tasks are blocks of rows of queries of one head of keys, and for a `split`
    tile parts of the keys; then a second one that joins the parts."""
    shared, parts, chunk = parts_of(problem) if tile.split else (0, 1, 0)
    rows = problem.queries * problem.group
    row_blocks = ceildiv(rows, tile.queries)
    tasks = row_blocks * parts * problem.kv_heads * problem.batch
    acc = problem.acc
    signature = Signature()
    declare_tensors(signature, problem)
    signature.scalar("kv_heads", problem.kv_heads)
    signature.scalar("rows", rows)
    signature.scalar("row_blocks", row_blocks)
    signature.scalar("tasks", tasks)
    if tile.split:
        _declare_parts(signature, acc, parts)
        signature.scalar("chunk", chunk)
    local_size = (tile.wg_cols, tile.wg_rows)
    name = "attention_split" if tile.split else "attention_local"
    entry = f"{name}_{tile.queries}x{tile.keys}"
    text = fill(
        "attention_gpu",
        target,
        head=kernel_head(entry, local_size),
        parameters=signature.text,
        purpose=_SPLIT_PURPOSE if tile.split else _PURPOSE,
        wg_rows=tile.wg_rows,
        wg_cols=tile.wg_cols,
        rows=tile.rows,
        key_cols=tile.key_cols,
        head_size=tile.head_size,
        vec=vector(compute(acc), WIDTH),
        element=compute(acc),
        unroll=_UNROLL.get(target.dialect, 2),
        each_task=each_task(target),
        split=block(_task(tile), 2),
        bases=block([base(name, ("z0", "kv")) for name in "kv"], 2),
        seen=seen(problem, "last" if problem.group == 1 else "((last - 1) / group + 1)"),
        range=block(_range(tile), 2),
        row=block(row_lines(problem), 4),
        row_end=block(row_lines(problem), 3),
        **_loads(problem),
        **_masks(problem),
        scale=literal(problem.scale, acc),
        finish=block(_finish(problem, tile), 3),
        store=block(_store(problem, tile), 4),
    )
    global_size = (group_items(tasks, tile.wg_cols, target), tile.wg_rows)
    first = Launch(entry, text, signature.args, global_size, local_size)
    if not tile.split:
        return Kernel((first,), flops=problem.flops)
    lines = shared * problem.batch * problem.heads * problem.queries
    size = compute_size(acc)
    scratch = (lines * parts * tile.head_size * size, lines * parts * 2 * size)
    second = _join(problem, tile, target, lines, parts)
    return Kernel((first, second), scratch, flops=problem.flops)


_PURPOSE = "// Where every key is masked with -inf, l = 0."
_SPLIT_PURPOSE = """// A task sees `chunk` keys. Of several parts each leaves the sums, its highest
// score and the sum of its weights to a second launch (attention_join)."""


def _declare_parts(signature: Signature, acc: str, parts: Dim) -> None:
    signature.buffer("scratch", 0, acc, "sums")
    signature.buffer("scratch", 1, acc, "tops")
    signature.scalar("parts", parts)


def _task(tile: LocalTile) -> list[str]:
    if not tile.split:
        return ["const int z = task / row_blocks;"]
    return [
        "const int part = task / row_blocks % parts;",
        "const int z = task / row_blocks / parts;",
    ]


def _range(tile: LocalTile) -> list[str]:
    """The keys of a task, from `first` to before `stop`."""
    if not tile.split:
        return ["const int first = 0;", "const int stop = seen;"]
    return [
        "const int first = part * chunk;",
        "const int stop = first + chunk < seen ? first + chunk : seen;",
    ]


_PUT = """#pragma unroll
for (int n = 0; n < FETCHED; ++n) {
    const int e = item + n * WG_SIZE;
    kv_tile[e / DEPTH * PITCH + e % DEPTH] = fetched[n];
}"""


def _loads(problem: Problem) -> dict[str, str]:
    """How vectors of q, k and v come into registers, and from there into their tile."""
    acc = problem.acc
    return {
        "q_base": block([base("q", ("z0", "z1"))], 4),
        "load_q": block(read_lines("q_part", "q", problem.q, "i", problem.depth), 4),
        "q_value": widen("q_part", problem.q, acc, WIDTH),
        "first_k": block(_fetch("k", problem.k, acc, ("D", problem.depth), "first"), 2),
        "next_k": block(_fetch("k", problem.k, acc, ("D", problem.depth), "key0 + KEYS"), 3),
        "fetch_v": block(_fetch("v", problem.v, acc, ("Dv", problem.columns), "key0"), 3),
        "put": block(_PUT.splitlines(), 3),
    }


def _fetch(name: str, matrix: Matrix, acc: str, size: tuple[str, Dim], start: str) -> list[str]:
    """Statements that begin to read the rows of a tile from row `start` on; `size`: of a row."""
    parameter, known = size
    return [
        "#pragma unroll",
        "for (int n = 0; n < FETCHED; ++n) {",
        f"    const int j = {start} + (item + n * WG_SIZE) / DEPTH;",
        "    const int d = (item + n * WG_SIZE) % DEPTH * WIDTH;",
        f"    const int lanes = {parameter} - d;",
        "    fetched[n] = 0;",
        "    if (j < stop && lanes > 0) {",
        *(f"        {line}" for line in read_lines(f"{name}_part", name, matrix, "j", known)),
        f"        fetched[n] = {widen(f'{name}_part', matrix, acc, WIDTH)};",
        "    }",
        "}",
    ]


def _masks(problem: Problem) -> dict[str, str]:
    """How `score` of row `row` and key `j` is masked. A mask that all queries share is read once a
    block of keys."""
    matrix = problem.mask
    own = [*row_lines(problem)] if matrix is not None or problem.causal else []
    if matrix is None:
        lines = causal_lines(problem, 1)
        return {"shared_mask": "", "mask_row": block(own, 4), "mask": block(lines, 6)}
    if matrix.row != 0 or (problem.group != 1 and matrix.batch[1] != 0):
        own.append(base("mask", ("z0", "z1")))
        lines = mask_lines(problem, 1)
        return {"shared_mask": "", "mask_row": block(own, 4), "mask": block(lines, 6)}
    value = compute(problem.acc)
    shared = [
        base("mask", ("z0", "kv")) if problem.group == 1 else base("mask", ("z0",)),
        f"{value} masked[KEY_COLS];",
        "#pragma unroll",
        "for (int c = 0; c < KEY_COLS; ++c) {",
        "    const int i = 0;",
        "    const int j = key0 + x + c * WG_COLS;",
        f"    {value} score = 0;",
        "    if (j < stop) {",
        *(f"        {line}" for line in mask_tensor(matrix, problem.acc, 1)),
        "    }",
        "    masked[c] = score;",
        "}",
    ]
    lines = ["score += masked[c];", *causal_lines(problem, 1)]
    own = own if problem.causal else []
    return {
        "shared_mask": block(shared, 3),
        "mask_row": block(own, 4),
        "mask": block(lines, 6),
    }


def _finish(problem: Problem, tile: LocalTile) -> list[str]:
    """What follows from a row's sum of weights."""
    lines = inverse_lines(problem, "maximum[r]")
    if tile.split:
        lines += [
            "const long at_part = (((long)z0 * heads + z1) * Sq + i) * parts + part;",
            "if (parts > 1 && x == 0) {",
            "    tops[2 * at_part] = maximum[r];",
            "    tops[2 * at_part + 1] = weights;",
            "}",
        ]
    return [*lines, base("out", ("z0", "z1"))]


def _store(problem: Problem, tile: LocalTile) -> list[str]:
    lines = [
        f"const long at = {element('out', problem.out, 'i', 'd')};",
        f"const vec result = {quotient(problem, 'o[r][w]')};",
        *write_lines(problem),
    ]
    if not tile.split:
        return lines
    return [
        "if (parts > 1) {",
        "    *(__global vec*)(sums + at_part * HEAD + d) = o[r][w];",
        "    continue;",
        "}",
        *lines,
    ]


def _join(problem: Problem, tile: LocalTile, target: Target, lines: Dim, parts: Dim) -> Launch:
    """The launch that joins the parts of `lines` rows, none where the keys were not shared out."""
    acc = problem.acc
    tasks = lines * (tile.head_size // WIDTH)
    signature = Signature()
    signature.buffer("out", 0, problem.out.dtype, "out")
    for name, value in (
        ("out_offset", problem.out.offset),
        ("out_z0", problem.out.batch[0]),
        ("out_z1", problem.out.batch[1]),
        ("out_row", problem.out.row),
    ):
        signature.scalar(name, value)
    if problem.out.col_kind == "col":
        signature.scalar("out_col", problem.out.col)
    for name, value in (("heads", problem.heads), ("Sq", problem.queries), ("Dv", problem.columns)):
        signature.scalar(name, value)
    _declare_parts(signature, acc, parts)
    signature.scalar("tasks", tasks)
    group = min(_JOIN_GROUP, target.max_work_group)
    text = fill(
        "attention_join",
        target,
        head=kernel_head("attention_join", (group,)),
        parameters=signature.text,
        head_size=tile.head_size,
        vec=vector(compute(acc), WIDTH),
        element=compute(acc),
        out_base=block([base("out", ("z0", "z1"))], 2),
        out_at=element("out", problem.out, "i", "d"),
        finish=block(inverse_lines(problem, "maximum"), 2),
        quotient=quotient(problem, "sum"),
        store=block(write_lines(problem), 2),
    )
    items = group_items(ceildiv(tasks, group), group, target)
    return Launch("attention_join", text, signature.args, (items,), (group,))
