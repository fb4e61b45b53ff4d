"""K cut into parts: which part a task is of, and the launch that adds their sums.

Several groups make a result together; parts are added in order, so that it is the same in every
run. Osama et al., "Stream-K" (2023), call this a fixed split.
"""

from __future__ import annotations

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.dims import Dim, ceildiv
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Launch, Target
from clinfer_kernels.tasks import group_items
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute_size, register

_SUM_ITEMS = 128  # of a work-group that adds parts
_ROW_ITEMS = 64  # of one whose results are of one row


def parts_bytes(product: Product, parts: Dim) -> Dim:
    """What the partial sums take."""
    each = product.batches * product.m * product.n
    return parts * each * compute_size(product.acc)


def part_sizes(product: Product, parts: Dim, k_step: int) -> list[tuple[str, Dim]]:
    """The parameters of a launch of parts, each a multiple of `k_step` but the last."""
    each = ceildiv(ceildiv(product.k, k_step), parts) * k_step
    return [("batches", product.batches), ("part_k", each)]


def part_lines(is_split: bool) -> list[str]:
    """Which batch index and which part of K a task is of."""
    if not is_split:
        return [
            "const int z = task / row_tasks / col_tasks;",
            "const int k_begin = 0;",
            "const int k_end = K;",
        ]
    return [
        "const int part_z = task / row_tasks / col_tasks;",
        "const int z = part_z % batches;",
        "const int k_begin = part_z / batches * part_k;",
        "const int k_end = min(K, k_begin + part_k);",
    ]


def is_wide(product: Product) -> bool:
    """Whether rows of results are whole vectors."""
    return isinstance(product.n, int) and product.n % LANES == 0


def emit_sum(product: Product, target: Target, parts: Dim, scratch: int) -> Launch:
    """The launch that adds parts and finishes the results."""
    end = product.end
    width = LANES if is_wide(product) and end.is_dense else 1
    items = min(_SUM_ITEMS, target.max_work_group)
    by_rows = end.multiple > 1
    if by_rows:
        items = min(_ROW_ITEMS, target.max_work_group)
    each = width * items if by_rows else width
    col_tasks = ceildiv(product.n, each)
    tasks = col_tasks * product.m * product.batches
    signature = Signature()
    signature.read("scratch", scratch, product.acc, "part")
    end.declare(signature)
    product.declare_batch(signature)
    for name, value in (
        ("M", product.m),
        ("N", product.n),
        ("batches", product.batches),
        ("parts", parts),
        ("col_tasks", col_tasks),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    entry = f"{product.name}_sum_parts{product.suffix}"
    text = fill(
        "contraction/sum_parts",
        target,
        head=kernel_head(entry, (items,)),
        parameters=signature.text,
        width=width,
        items=items,
        first_task="get_group_id(0)" if by_rows else "get_global_id(0)",
        task_step="get_num_groups(0)" if by_rows else "get_global_size(0)",
        vec=register(product.acc, width),
        place=block(_place(by_rows), 2),
        batch=block(product.batch(end.names), 2),
        load_first=memory.load(product.acc, "part", "first", width, "1", True),
        load_part=memory.load(product.acc, "part", "first + p * each", width, "1", True),
        row=block(end.row(), 3),
        end=block(end.finish(width), 4),
        after=block(end.after("1", "i", "WG_SIZE * WIDTH", "j0"), 2),
    )
    groups = tasks if by_rows else ceildiv(tasks, items)
    shape = (group_items(groups, items, target),)
    return Launch(entry, text, signature.args, shape, (items,))


def _place(by_rows: bool) -> list[str]:
    """The work-item's first column and its row: of neighbours' in one row, where all are."""
    if by_rows:
        column = ["const int j0 = task % col_tasks * (WG_SIZE * WIDTH);"]
        column += ["const int j = j0 + item * WIDTH;"]
    else:
        column = ["const int j = task % col_tasks * WIDTH;"]
    return [
        *column,
        "const int i = task / col_tasks % M;",
        "const int z = task / col_tasks / M;",
    ]
