"""Attention for class "gpu": a work-group to a block of queries, tiles in local memory."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.attention_cpu import head_room
from clinfer_kernels.attention_problem import Problem, bases, declare_tensors
from clinfer_kernels.attention_text import mask_lines, seen
from clinfer_kernels.common import kernel_head
from clinfer_kernels.dims import ceildiv, minimum
from clinfer_kernels.matrix_text import element, read
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, compute_size, literal

_GLOBAL_LIMIT = 65535  # work-items along a dimension that PoCL takes


@dataclass(frozen=True)
class LocalTile:
    """A work-group of `wg_rows` x `wg_cols` work-items, each with `rows` queries, `key_cols` keys.

    `head_size`: room for the sizes of a head, a multiple of `wg_cols`.
    """

    head_size: int
    wg_rows: int = 16
    wg_cols: int = 16
    rows: int = 2
    key_cols: int = 2

    @property
    def queries(self) -> int:
        """Queries of a work-group."""
        return self.wg_rows * self.rows

    @property
    def keys(self) -> int:
        """Keys that pass through local memory at a time."""
        return self.wg_cols * self.key_cols

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.wg_rows * self.wg_cols

    def local_bytes(self, size: int) -> int:
        """Local memory for elements of `size` bytes."""
        rows = (self.queries + self.keys) * (self.head_size + 1)
        return size * (rows + self.queries * (self.keys + 1))


def local_tiles(problem: Problem, target: Target) -> tuple[LocalTile, ...]:
    """The tiles within the device's limits, those that reuse most first."""
    room = head_room(problem)
    if room is None:
        return ()
    shapes = ((16, 16, 2, 2), (16, 16, 2, 1), (16, 16, 1, 1), (8, 16, 1, 1), (4, 8, 1, 1))
    tiles = [LocalTile(room, *shape) for shape in shapes]
    size = compute_size(problem.acc)
    return tuple(
        tile
        for tile in tiles
        if tile.work_group <= target.max_work_group and tile.local_bytes(size) <= target.local_mem
    )


def emit_local(problem: Problem, tile: LocalTile, target: Target) -> Kernel:
    """One launch; its tasks are blocks of queries of one head."""
    blocks = ceildiv(problem.queries, tile.queries)
    tasks = blocks * problem.heads * problem.batch
    acc = problem.acc
    signature = Signature()
    declare_tensors(signature, problem)
    signature.scalar("query_blocks", blocks)
    signature.scalar("tasks", tasks)
    local_size = (tile.wg_cols, tile.wg_rows)
    entry = f"attention_local_{tile.queries}x{tile.keys}"
    text = fill(
        "attention_gpu",
        target,
        head=kernel_head(entry, local_size),
        parameters=signature.text,
        wg_rows=tile.wg_rows,
        wg_cols=tile.wg_cols,
        rows=tile.rows,
        key_cols=tile.key_cols,
        head_size=tile.head_size,
        element=compute(acc),
        batch=block(bases(problem), 2),
        load_q=read("q", problem.q, "i", "d", acc),
        load_k=read("k", problem.k, "j", "d", acc),
        load_v=read("v", problem.v, "j", "d", acc),
        scale=literal(problem.scale, acc),
        seen=seen(problem, "(query0 + QUERIES < Sq ? query0 + QUERIES : Sq)"),
        mask=block(mask_lines(problem, 1), 6),
        out_at=element("out", problem.out, "i", "d"),
        store=memory.store(problem.out.dtype, "result", "out", "at"),
    )
    groups = minimum(tasks, _GLOBAL_LIMIT // tile.wg_cols)
    global_size = (groups * tile.wg_cols, tile.wg_rows)
    return Kernel(
        (Launch(entry, text, signature.args, global_size, local_size),), flops=problem.flops
    )
