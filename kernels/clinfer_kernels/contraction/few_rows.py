"""Products of few rows with a matrix: decoding, heads of classifiers, recurrent steps."""

from __future__ import annotations

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.contraction.few_tiles import FewRows
from clinfer_kernels.contraction.parts import emit_sum, part_lines, part_sizes
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.tiles import K_UNIT
from clinfer_kernels.contraction.walks import MatrixWalk
from clinfer_kernels.dims import Dim, ceildiv
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Launch, Target
from clinfer_kernels.tasks import each_task, group_items
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute, compute_size, register


def emit_rows(
    product: Product, tile: FewRows, target: Target, parts: Dim, scratch: int
) -> tuple[Launch, ...]:
    """The launch of a product; with a `scratch` buffer, that of `parts` and the one that adds."""
    launch = _rows(product, tile, target, parts, scratch)
    return (launch,) if scratch < 0 else (launch, emit_sum(product, target, parts, scratch))


def _rows(product: Product, tile: FewRows, target: Target, parts: Dim, scratch: int) -> Launch:
    a, b, acc = product.a(K_UNIT), product.b, compute(product.acc)
    assert isinstance(a, MatrixWalk) and isinstance(b, MatrixWalk)
    across = b.along == "place"
    cols_each, k_each = (b.width, 1) if across else (1, b.width)
    row_tasks = ceildiv(product.m, tile.rows)
    col_tasks = ceildiv(product.n, tile.col_items * cols_each)
    tasks = row_tasks * col_tasks * product.batches * parts
    is_split = scratch >= 0
    signature = Signature()
    a.declare(signature)
    b.declare(signature)
    sizes: list[tuple[str, Dim]] = [("M", product.m), ("N", product.n), ("K", product.k)]
    sizes += [("row_tasks", row_tasks), ("col_tasks", col_tasks), ("tasks", tasks)]
    if is_split:
        signature.buffer("scratch", scratch, product.acc, "part")
        sizes += part_sizes(product, parts, K_UNIT)
    else:
        product.end.declare(signature)
    product.declare_batch(signature)
    for name, value in sizes:
        signature.scalar(name, value)
    partial_bytes = tile.slices * tile.rows * tile.col_items * cols_each * compute_size(product.acc)
    signature.local(acc, "partial", partial_bytes)
    split = "_split" if is_split else ""
    cols = tile.col_items * cols_each
    entry = f"{product.name}_rows_{tile.rows}x{cols}{split}{product.suffix}"
    names = product.operands if is_split else (*product.operands, *product.end.names)
    place = f"b0 + col_item * {cols_each}" if cols_each > 1 else "b0 + col_item"
    partial = memory.store(product.acc, "sum", "part", "((long)part_z * M + i) * N + j")
    text = fill(
        "contraction/few_rows",
        target,
        head=kernel_head(entry, (tile.work_group,)),
        parameters=signature.text,
        each_task=each_task(target),
        rows=tile.rows,
        col_items=tile.col_items,
        slices=tile.slices,
        cols_each=cols_each,
        k_each=k_each,
        acc_type=acc,
        col_item="item % COL_ITEMS" if across else "item / SLICES",
        slice="item / COL_ITEMS" if across else "item % SLICES",
        part=block(part_lines(is_split), 2),
        batch=block(product.batch(names), 2),
        setup=block(_setup(a, b, tile, place, register(product.acc, cols_each)), 2),
        piece=register(product.acc, b.width),
        load_b=b.load("k", "")[2],
        multiply=block(_multiply(a, tile, k_each), 3),
        put=block(_put(tile, cols_each), 2),
        row=block([] if is_split else product.end.row(), 3),
        end=block([partial] if is_split else product.end.finish(1), 4),
        after=block([] if is_split else product.end.after("ROWS", "a0", "COLS", "b0"), 2),
    )
    items = group_items(tasks, tile.work_group, target)
    return Launch(entry, text, signature.args, (items,), (tile.work_group,), flops=product.flops)


def _setup(a: MatrixWalk, b: MatrixWalk, tile: FewRows, place: str, sums: str) -> list[str]:
    kept = ", ".join(b.kept())
    lines = [*a.begin(), *b.begin(), f"int {kept};", *b.place(place, "")]
    lines += [f"const int a_place{r} = min(a0 + {r}, M - 1);" for r in range(tile.rows)]
    values = [f"{name}{r}" for r in range(tile.rows) for name in a.values()]
    if values:
        begins = "item == 0 && b0 == 0 && k_begin == 0"
        each = a.rows([(f"a_place{r}", str(r)) for r in range(tile.rows)])
        for r in range(tile.rows):
            each += a.keep(f"(a0 + {r})", str(r), begins)
        lines += [f"{compute(a.acc)} {', '.join(values)};", "{"]
        lines += [*(f"    {line}" for line in each), "}"]
    zeros = ", ".join(f"sum{r} = 0" for r in range(tile.rows))
    return [*lines, f"{sums} {zeros};"]


def _multiply(a: MatrixWalk, tile: FewRows, k_each: int) -> list[str]:
    lines = []
    for r in range(tile.rows):
        for lane in range(k_each):
            value = "b_piece" if k_each == 1 else f"b_piece.s{lane}"
            k = "k" if lane == 0 else f"(k + {lane})"
            read = a.element(f"a_place{r}", k)
            before, element = a.single_value(read, str(r), k, f"n{r}_{lane}")
            lines += [*before, f"sum{r} += {element} * {value};"]
    return lines


def _put(tile: FewRows, cols_each: int) -> list[str]:
    lines = []
    for r in range(tile.rows):
        for lane in range(cols_each):
            value = f"sum{r}.s{lane}" if cols_each > 1 else f"sum{r}"
            at = f"(slice * ROWS + {r}) * COLS + col_item * COLS_EACH + {lane}"
            lines.append(f"partial[{at}] = {value};")
    return lines
