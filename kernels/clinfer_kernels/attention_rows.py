"""Attention one query to a work-item: for few queries, and for heads of sizes not known before."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels.attention_cpu import MAX_GROUPS, head_room
from clinfer_kernels.attention_problem import Problem, bases, declare_tensors
from clinfer_kernels.attention_text import exp_below, mask_lines, seen, zeroed
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.matrix_text import element, read_vector, widen, write_vector
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, compute_size, literal, vector

_WIDEST = 256  # output columns that one work-item keeps


@dataclass(frozen=True)
class RowTile:
    """A work-item makes `vecs` vectors of `lanes` output columns of one query."""

    vecs: int
    lanes: int = 8


def row_tile(problem: Problem, target: Target) -> RowTile:
    """One pass over the keys where the output columns are known and not too many."""
    lanes = max(1, min(16, target.vector_width * 4 // compute_size(problem.acc)))
    columns = min(head_room(problem) or 64, _WIDEST)
    return RowTile(-(-columns // lanes), lanes)


def emit_rows(problem: Problem, tile: RowTile, target: Target) -> Kernel:
    """One launch; its tasks are chunks of output columns of one query."""
    chunks = ceildiv(problem.columns, tile.vecs * tile.lanes)
    tasks = chunks * problem.queries * problem.heads * problem.batch
    acc = problem.acc
    width = tile.lanes
    signature = Signature()
    declare_tensors(signature, problem)
    signature.scalar("chunks", chunks)
    signature.scalar("tasks", tasks)
    entry = f"attention_rows_{tile.vecs * width}"
    none = zeroed(problem, "maximum", "weights")
    element_type = compute(acc)
    inverse = [f"const {element_type} inverse = maximum == -INFINITY ? NAN : 1 / weights;"]
    if none:
        inverse = [f"const {element_type} inverse = 1 / weights;", f"const int none = {none};"]
    text = fill(
        "attention_rows",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        lanes=width,
        vecs=tile.vecs,
        vec=vector(compute(acc), width),
        element=element_type,
        batch=block(bases(problem), 2),
        seen=seen(problem, "(i + 1)"),
        dot=block(_dot(problem, width), 5),
        exp_below=exp_below(acc, width),
        sum=_sum("products", width),
        total=_sum("total", width),
        scale=literal(problem.scale, acc),
        mask=block(mask_lines(problem, 1), 4),
        inverse=block(inverse, 2),
        quotient="none ? (vec)(0) : o[w] * inverse" if none else "o[w] * inverse",
        weigh=block(_weigh(problem, width), 5),
        out_at=element("out", problem.out, "i", "d"),
        store=block(write_vector("result", "out", problem.out, "at", width), 3),
    )
    launch = Launch(entry, text, signature.args, (minimum(tasks, MAX_GROUPS),), (1,))
    return Kernel((launch,), flops=problem.flops)


def _dot(problem: Problem, width: int) -> list[str]:
    q = widen("q_part", problem.q, problem.acc, width)
    k = widen("k_part", problem.k, problem.acc, width)
    return [
        f"const long q_index = {element('q', problem.q, 'i', 'd')};",
        f"const long k_index = {element('k', problem.k, 'j', 'd')};",
        read_vector("q_part", "q", problem.q, "q_index", width),
        read_vector("k_part", "k", problem.k, "k_index", width),
        f"products += {q} * {k};",
    ]


def _weigh(problem: Problem, width: int) -> list[str]:
    return [
        f"const long v_index = {element('v', problem.v, 'j', 'd')};",
        read_vector("v_part", "v", problem.v, "v_index", width),
        f"o[w] += step[n] * {widen('v_part', problem.v, problem.acc, width)};",
    ]


def _sum(name: str, width: int) -> str:
    """The sum of a vector's lanes."""
    return name if width == 1 else " + ".join(f"{name}.s{lane:x}" for lane in range(width))
