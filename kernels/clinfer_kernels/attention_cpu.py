"""Attention for class "cpu": queries in vector lanes, register tiles, one pass over the keys."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.attention_problem import Problem, bases, declare_tensors
from clinfer_kernels.attention_text import exp_below, mask_lines, seen, zeroed
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import col_stride, element, read, widen
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.specs import LARGEST_HEAD
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, compute_size, literal, mask_type, storage, vector

MAX_GROUPS = 32768  # work-groups of a launch; PoCL takes fewer than 65536 per dimension
_ROOMS = (32, 64, 96, 128, 192, 256, LARGEST_HEAD)


@dataclass(frozen=True)
class LaneTile:
    """`vecs` vectors of `lanes` queries; register tiles of `rows` keys or output columns.

    `key_block` keys, a multiple of `rows`, go between two corrections. `head_size`: room for the
    sizes of a head, in the text because it sizes private memory.
    """

    head_size: int
    vecs: int = 2
    lanes: int = 8
    rows: int = 6
    key_block: int = 96

    @property
    def queries(self) -> int:
        """Queries of a task."""
        return self.vecs * self.lanes


def head_room(problem: Problem) -> int | None:
    """The least room for both sizes of a head; None where they are unknown or too large."""
    if not isinstance(problem.depth, int) or not isinstance(problem.columns, int):
        return None
    needed = max(problem.depth, problem.columns)
    return next((size for size in _ROOMS if size >= needed), None)


def lane_tiles(problem: Problem, target: Target) -> tuple[LaneTile, ...]:
    """The best guess first; nothing where the heads' sizes are unknown or too large.

    With 32 vector registers a register tile has 16 accumulators, with 16 registers 12. Small heads
    waste less of a tile of four rows than of one of six, few queries less of a single vector.
    """
    room = head_room(problem)
    if room is None:
        return ()
    lanes = min(16, target.vector_width * 4 // compute_size(problem.acc))
    if target.vector_width >= 16:
        two = LaneTile(room, 2, lanes, 8)
        one = LaneTile(room, 1, lanes, 12)
        few = isinstance(problem.queries, int) and problem.queries <= lanes
        return (one, two) if few else (two, one)
    six = LaneTile(room, 2, lanes, 6)
    four = LaneTile(room, 3, lanes, 4)
    return (four, six) if room <= 32 else (six, four)


def emit_lanes(problem: Problem, tile: LaneTile, target: Target) -> Kernel:
    """One launch; its tasks are blocks of queries of one head."""
    blocks = ceildiv(problem.queries, tile.queries)
    tasks = blocks * problem.heads * problem.batch
    acc = problem.acc
    value = compute(acc)
    signature = Signature()
    declare_tensors(signature, problem)
    signature.scalar("query_blocks", blocks)
    signature.scalar("tasks", tasks)
    entry = f"attention_{tile.rows}x{tile.queries}"
    mask = mask_lines(problem, tile.lanes)
    if mask:
        mask = ["const int j = key0 + n;", "const int i = query0 + w * LANES;", *mask]
    text = fill(
        "attention_cpu",
        target,
        head=kernel_head(entry),
        parameters=signature.text,
        lanes=tile.lanes,
        vecs=tile.vecs,
        rows=tile.rows,
        key_block=tile.key_block,
        head_size=-(-tile.head_size // tile.rows) * tile.rows,
        vec=vector(value, tile.lanes),
        element=value,
        k_type=storage(problem.k.dtype),
        v_type=storage(problem.v.dtype),
        exp_below=exp_below(acc, tile.lanes),
        batch=block(bases(problem), 2),
        scale=literal(problem.scale, acc),
        seen=seen(problem, "(query0 + QUERIES < Sq ? query0 + QUERIES : Sq)"),
        stages=tile.lanes.bit_length() - 1,
        load_q=read("q", problem.q, "i", "d", acc),
        load_q_vector=_queries(problem, tile.lanes),
        load_k=_along(problem.k, "k_rows[r]", _step(problem.k), acc),
        v_start=element("v", problem.v, "key0", "d"),
        load_v=_along(problem.v, "v_cols[r]", "(long)n * v_row", acc),
        mask=block(mask, 5),
        quotients=block(_quotients(problem, tile.lanes), 3),
        out_at=element("out", problem.out, "i", "d"),
        store=memory.store(problem.out.dtype, "result", "out", "at"),
        store_vector=_store(problem.out, tile.lanes),
    )
    launch = Launch(entry, text, signature.args, (minimum(tasks, MAX_GROUPS),), (1,))
    return Kernel((launch,), flops=problem.flops)


def _quotients(problem: Problem, lanes: int) -> list[str]:
    """Statements that divide the sums of query vector `w` by those of their weights."""
    none = zeroed(problem, "maximum[w]", "total[w]")
    if not none:
        return [
            "const vec inverse = maximum[w] == -INFINITY ? (vec)(NAN) : 1 / total[w];",
            "for (int d = 0; d < Dv; ++d) o_t[d * VECS + w] *= inverse;",
        ]
    mask = vector(mask_type(compute(problem.acc)), lanes)
    return [
        "const vec inverse = 1 / total[w];",
        f"const {mask} none = {none};",
        "for (int d = 0; d < Dv; ++d) {",
        "    o_t[d * VECS + w] = none ? (vec)(0) : o_t[d * VECS + w] * inverse;",
        "}",
    ]


def _queries(problem: Problem, lanes: int) -> str:
    """`lanes` elements of query `i` from `d` on."""
    at = element("q", problem.q, "i", "d")
    value = memory.load(problem.q.dtype, "q", at, lanes, col_stride("q", problem.q))
    return widen(value, problem.q, problem.acc, lanes)


def _store(out: Matrix, lanes: int) -> str:
    return memory.store(out.dtype, "result", "out", "at", lanes, col_stride("out", out))


def _along(matrix: Matrix, pointer: str, index: str, acc: str) -> str:
    return widen(memory.load(matrix.dtype, pointer, index), matrix, acc)


def _step(k: Matrix) -> str:
    return {"0": "0", "1": "d", "col": "(long)d * k_col"}[k.col_kind]
