"""Products with tiles in local memory, whole or split along K.

Register tiles read as vectors from two tiles in turn, after Nugteren, "CLBlast: A Tuned OpenCL BLAS
Library" (2018), and Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra" (2008). A
split of K, whose parts a second launch adds, is what Osama et al., "Stream-K" (2023), call
fixed-split.
"""

from __future__ import annotations

from collections.abc import Sequence

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.contraction.copies import Copy
from clinfer_kernels.contraction.exact import again
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.matrix_units import UNITS
from clinfer_kernels.contraction.parts import emit_sum, is_wide, part_lines, part_sizes
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.tiles import LocalTile
from clinfer_kernels.contraction.units import LANES, Unit
from clinfer_kernels.contraction.walks import Walk, bits_of
from clinfer_kernels.dims import Dim, ceildiv
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Launch, Target
from clinfer_kernels.tasks import each_task, group_items
from clinfer_kernels.template import block, fill, inside
from clinfer_kernels.types import compute, compute_size, register


def emit_tile(
    product: Product, tile: LocalTile, target: Target, parts: Dim = 1, scratch: int = -1
) -> tuple[Launch, ...]:
    """The launch of a product; with a `scratch` buffer, that of `parts` and the one that adds."""
    if scratch < 0:
        return (_product(product, tile, target, 1, -1),)
    return (
        _product(product, tile, target, parts, scratch),
        emit_sum(product, target, parts, scratch),
    )


def emit_sums(product: Product, tile: LocalTile, target: Target, scratch: int) -> Launch:
    """The launch that leaves sums in a scratch buffer, [batches][M][N], for another to finish."""
    return _product(product, tile, target, 1, scratch)


def _product(product: Product, tile: LocalTile, target: Target, parts: Dim, scratch: int) -> Launch:
    is_split = scratch >= 0
    vec, acc = register(product.acc, LANES), compute(product.acc)
    unit = UNITS[tile.unit]
    a, b = product.a(tile.k_step), product.b
    copies = {"a": _copy("a", a, product, tile, unit), "b": _copy("b", b, product, tile, unit)}
    a, b = copies["a"].walk, copies["b"].walk
    row_tasks, col_tasks = ceildiv(product.m, tile.tile_m), ceildiv(product.n, tile.tile_n)
    tasks = row_tasks * col_tasks * product.batches * parts
    signature = Signature()
    a.declare(signature)
    b.declare(signature)
    sizes: list[tuple[str, Dim]] = [("M", product.m), ("N", product.n), ("K", product.k)]
    sizes += [("row_tasks", row_tasks), ("col_tasks", col_tasks), ("tasks", tasks)]
    if is_split:
        signature.buffer("scratch", scratch, product.acc, "part")
        sizes += part_sizes(product, parts, tile.k_step)
    else:
        product.end.declare(signature)
    product.declare_batch(signature)
    for name, value in (*sizes, *product.scalars):
        signature.scalar(name, value)
    split = "_split" if is_split else ""
    named = "local" if unit.packing is None else tile.unit.replace(" ", "_")
    entry = f"{product.name}_{named}_{tile.tile_m}x{tile.tile_n}{split}{product.suffix}"
    names = product.operands if is_split else (*product.operands, *product.end.names)
    places = ["const int item = get_local_id(0);", *unit.places(tile)]
    anew = _anew(unit, tile, target)
    results = _results(product, tile, unit, target, is_split)
    after = [] if is_split else product.end.after("TILE_M", "a0", "TILE_N", "b0")
    if anew:
        results, after = ["{", *inside([*anew, *results, *after]), "}"], []
    last = _last(unit.step(tile, vec, acc)) if _keeps_loops(target) else []
    text = fill(
        "contraction/local_tile",
        target,
        head="\n".join([*unit.helpers(), *product.helpers, _head(entry, tile, unit)]),
        parameters=signature.text,
        wg_rows=tile.wg_rows,
        wg_cols=tile.wg_cols,
        rows=tile.rows,
        cols=tile.cols,
        k_step=tile.k_step,
        unroll=tile.unroll,
        tiles=2 * (1 if unit.packing is None else unit.packing.count),
        element=acc if unit.packing is None else unit.packing.element,
        align=max(16, LANES * compute_size(product.acc)),
        a_pad="LANES" if unit.packing is None else unit.packing.pad_of(0, tile.tile_m),
        b_pad="LANES" if unit.packing is None else unit.packing.pad_of(1, tile.tile_n),
        places=block([] if anew else places, 1),
        part=block([*anew, *part_lines(is_split)], 2),
        batch=block(product.batch(names), 2),
        a_setup=block(copies["a"].setup(), 2),
        b_setup=block(copies["b"].setup(), 2),
        zero=block(unit.begin(tile, vec), 2),
        again=block(_again(tile, unit, a, b), 2),
        results=block(results, 2),
        a_piece=copies["a"].registers(),
        b_piece=copies["b"].registers(),
        first=block([*_load(copies, "k_begin"), *_put(copies, "0")], 3),
        load=block(_load(copies, "k0 + K_STEP"), 4),
        multiply=block(unit.step(tile, vec, acc), 3),
        put=block(_put(copies, "turn"), 4),
        each_task=each_task(target),
        keep=block(["#pragma unroll 1"] if last else [], 2),
        ahead=" + K_STEP" if last else "",
        is_more="1" if last else "k0 + K_STEP < k_end",
        last=block(last, 2),
        after=block(after, 2),
    )
    items = group_items(tasks, tile.work_group, target)
    group = (tile.work_group,)
    return Launch(entry, text, signature.args, (items,), group, unit.options, flops=product.flops)


def _head(entry: str, tile: LocalTile, unit: Unit) -> str:
    """A kernel's beginning, with what the unit's instruction asks of it."""
    head = kernel_head(entry, (tile.work_group,))
    return head.replace("__kernel ", f"__kernel {unit.attribute} ") if unit.attribute else head


def _load(copies: dict[str, Copy], k0: str) -> list[str]:
    return [*copies["a"].load(k0), *copies["b"].load(k0)]


def _put(copies: dict[str, Copy], turn: str) -> list[str]:
    return [*copies["a"].put(turn), *copies["b"].put(turn)]


def _copy(name: str, walk: Walk, product: Product, tile: LocalTile, unit: Unit) -> Copy:
    """How operand `name` gets into local memory: as it is stored where the unit takes it so."""
    size = tile.tile_m if name == "a" else tile.tile_n
    dtype, packing = product.acc, unit.packing
    as_stored = packing is not None and walk.is_stored and walk.dtype == packing.operand
    as_stored = as_stored and not (packing and packing.planes)
    if packing is not None and (packing.size == 1 or (packing.size == 2 and as_stored)):
        walk, dtype = walk.bits(), bits_of(walk.dtype)
    types = (register(dtype, LANES), compute(dtype))
    whole_k = isinstance(product.k, int) and product.k % tile.k_step == 0
    pitch = size + (LANES if packing is None else packing.pad_of(name == "b", size))
    return Copy(name, walk, size, tile.k_step, tile.work_group, pitch, *types, whole_k, packing)


def _again(tile: LocalTile, unit: Unit, a: Walk, b: Walk) -> list[str]:
    if isinstance(unit, MatrixUnit) and unit.is_exact:
        return again(tile, unit, a, b)
    return []


def _anew(unit: Unit, tile: LocalTile, target: Target) -> list[str]:
    """Statements that find a work-item's places once more, for a task and for its results, where
    the unit's sums leave few registers: Clang would make all that follows from its number before
    the loop over tasks, and keep it in two dozen of them. None for the other units."""
    if not unit.hide or target.dialect != "amd":
        return []
    return ["int item = get_local_id(0);", unit.hide.replace("@", "item"), *unit.places(tile)]


def _last(multiply: list[str]) -> list[str]:
    """Statements that multiply the last step, which has no next one, behind a loop of the others.

    Where a compiler keeps loops, what is on its way to local memory then has no other value on some
    path, for which it would be copied to and fro.
    """
    return ["if (k_begin < k_end) {", *inside(multiply), "}", "barrier(CLK_LOCAL_MEM_FENCE);"]


def _keeps_loops(target: Target) -> bool:
    """Whether the compiler may keep long loops: then no array is indexed by their counters."""
    return "long loops" in target.features


def _results(
    product: Product, tile: LocalTile, unit: Unit, target: Target, is_split: bool
) -> list[str]:
    """Statements that finish the sums of each row r and block q: written out where the compiler
    keeps loops, and chosen by comparison where no counter may be an index."""
    vec, acc = register(product.acc, LANES), compute(product.acc)
    begin = [f"const int i = a0 + {unit.row()};", "if (i >= M) continue;"]
    begin += [] if is_split else product.end.row()
    place = f"const int j0 = b0 + {unit.column()};"
    end = _partial(product) if is_split else _finish(product, vec, acc)
    rows, columns = range(tile.rows), range(tile.cols // LANES)
    if _keeps_loops(target):
        lines = []
        for r in rows:
            inner: list[str] = []
            for q in columns:
                sums = [f"const {vec} sums = {unit.sums(str(r), str(q), vec)};"]
                inner += _once([f"const int q = {q};", place, *sums, *end])
            lines += _once([f"const int r = {r};", *begin, *inner])
        return lines
    if unit.has_scalars:
        sums = [f"const {vec} sums = {unit.sums('r', 'q', vec)};"]
    else:
        blocks = [(r, q) for r in rows for q in columns]
        sums = [f"{vec} sums = {unit.sums('0', '0', vec)};"]
        sums += [
            f"if (r == {r} && q == {q}) sums = {unit.sums(str(r), str(q), vec)};"
            for r, q in blocks[1:]
        ]
    return [
        "#pragma unroll",
        "for (int r = 0; r < ROWS; ++r) {",
        *inside(begin),
        "    #pragma unroll",
        "    for (int q = 0; q < COLS / LANES; ++q) {",
        *inside(inside([place, *sums, *end])),
        "    }",
        "}",
    ]


def _once(lines: Sequence[str]) -> list[str]:
    """A body that `continue` leaves."""
    return ["do {", *inside(lines), "} while (0);"]


def _finish(product: Product, vec: str, acc: str) -> list[str]:
    """The results at columns j0 and on, as a vector where rows are whole vectors."""
    if is_wide(product) and product.end.is_dense:
        head = [f"const {vec} sum = sums;", "const int j = j0;"]
        return ["if (j0 >= N) continue;", *head, *product.end.finish(LANES)]
    return _lane_by_lane(vec, acc, product.end.finish(1))


def _partial(product: Product) -> list[str]:
    dtype = product.acc
    at = "((long)part_z * M + i) * N + j"
    if is_wide(product):
        stored = memory.store(dtype, "sums", "part", at.replace("+ j", "+ j0"), LANES, "1", True)
        return ["if (j0 >= N) continue;", stored]
    vec, acc = register(dtype, LANES), compute(dtype)
    return _lane_by_lane(vec, acc, [memory.store(dtype, "sum", "part", at)])


def _lane_by_lane(vec: str, acc: str, body: list[str]) -> list[str]:
    lanes = ", ".join(f"sums.s{lane}" for lane in range(LANES))
    return [
        f"const {acc} lanes[LANES] = {{{lanes}}};",
        "#pragma unroll",
        "for (int lane = 0; lane < LANES; ++lane) {",
        "    const int j = j0 + lane;",
        "    if (j >= N) continue;",
        f"    const {acc} sum = lanes[lane];",
        *(f"    {line}" for line in body),
        "}",
    ]
