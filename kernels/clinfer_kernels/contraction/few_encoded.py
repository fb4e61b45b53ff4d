"""Products of few rows with a constant matrix of few bits: decoding with language models."""

from __future__ import annotations

from clinfer_kernels import memory
from clinfer_kernels.common import kernel_head
from clinfer_kernels.contraction.few_tiles import FewRows
from clinfer_kernels.contraction.formats import Format
from clinfer_kernels.contraction.product import Product
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.contraction.walks import MatrixWalk
from clinfer_kernels.dims import Dim, ceildiv
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Launch, Target
from clinfer_kernels.tasks import each_task, group_items
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import compute

_AHEAD = 4  # words of a column whose loads are on their way at once, for one row
_BYTES = 16  # of a vector of LANES sums


def emit_encoded_rows(product: Product, how: Format, tile: FewRows, target: Target) -> Launch:
    """The launch of a product of few rows."""
    a = product.a(how.each)
    assert isinstance(a, MatrixWalk) and product.acc == "float32"
    cols = tile.col_items * LANES
    row_tasks, col_tasks = ceildiv(product.m, tile.rows), ceildiv(product.n, cols)
    tasks = row_tasks * col_tasks * product.batches
    signature = Signature()
    a.declare(signature)
    how.declare(signature)
    product.end.declare(signature)
    product.declare_batch(signature)
    sizes: list[tuple[str, Dim]] = [("M", product.m), ("N", product.n), ("K", product.k)]
    sizes += [("row_tasks", row_tasks), ("col_tasks", col_tasks), ("tasks", tasks)]
    for name, value in sizes:
        signature.scalar(name, value)
    signature.local(f"float{LANES}", "partial", tile.work_group * tile.rows * _BYTES)
    ahead = _ahead(how, tile)
    entry = f"{product.name}_rows_{tile.rows}x{cols}{product.suffix}"
    text = fill(
        "contraction/few_encoded",
        target,
        head="\n".join([*product.helpers, kernel_head(entry, (tile.work_group,))]),
        parameters=signature.text,
        rows=tile.rows,
        col_items=tile.col_items,
        slices=tile.slices,
        helpers=_helpers(tile),
        each=how.each,
        ahead=ahead,
        each_task=each_task(target),
        batch=block(product.batch((*product.operands, *product.end.names)), 2),
        setup=block(_setup(a, tile), 2),
        load=block([line for n in range(ahead) for line in _load(how, n)], 3),
        multiply=block([line for n in range(ahead) for line in _multiply(a, how, tile, n)], 3),
        put=block(_put(tile), 2),
        row=block(product.end.row(), 3),
        end=block(product.end.finish(1), 4),
        after=block(product.end.after("ROWS", "a0", "COLS", "b0"), 2),
    )
    items = group_items(tasks, tile.work_group, target)
    return Launch(entry, text, signature.args, (items,), (tile.work_group,), flops=product.flops)


def _helpers(tile: FewRows) -> int:
    """Work-items that add the slices of a result first: about the root of their number."""
    count = 1
    while 4 * count * count <= tile.slices:
        count *= 2
    return count


def _setup(a: MatrixWalk, tile: FewRows) -> list[str]:
    zeros = ", ".join(f"sum{r} = 0" for r in range(tile.rows))
    places = [f"const int a_place{r} = min(a0 + {r}, M - 1);" for r in range(tile.rows)]
    return [*a.begin(), *places, f"float{LANES} {zeros};"]


def _ahead(how: Format, tile: FewRows) -> int:
    """Words of each column in a turn: several where every turn of every slice has as many."""
    count = _AHEAD if tile.rows == 1 else 1
    while count > 1 and how.words % (count * tile.slices):
        count //= 2
    return count


def _k(number: int) -> str:
    """Where word `number` of a turn begins."""
    return f"k + {number} * SLICES * EACH" if number else "k"


def _load(how: Format, number: int) -> list[str]:
    """Statements that begin to load word `number` of a turn, and what belongs to its block."""
    n, k = number, _k(number)
    at = f"({k}) / EACH * LANES"
    zero = how.zeros(f"at_block{n}", LANES)
    words = memory.load("uint32", "b_words_of", at, LANES, "1", True)
    return [
        f"const uint{LANES} words{n} = {words};",
        f"const int at_block{n} = quad * b_blocks + {how.block_of(k)};",
        f"const float{LANES} scale{n} = {how.scales(f'at_block{n}', LANES)};",
        *([f"const float{LANES} zero{n} = {zero};"] if zero else []),
    ]


def _multiply(a: MatrixWalk, how: Format, tile: FewRows, number: int) -> list[str]:
    """Statements that add the products of word `number`. A's elements are read LANES at a time."""
    made = _products(a, how, tile, number)
    return ["{", *(f"    {line}" for line in made), "}"]


def _products(a: MatrixWalk, how: Format, tile: FewRows, n: int) -> list[str]:
    lines = [
        f"const int k_word = {_k(n)};",
        f"const uint{LANES} words = words{n}, words_high = words{n} >> 16;",
        *how.bases(f"zero{n}"),
    ]
    lines.append(f"float{LANES} {', '.join(f'part{r} = 0' for r in range(tile.rows))};")
    for first in range(0, how.each, LANES):
        for r in range(tile.rows):
            value = _elements(a, f"a_place{r}", first, how)
            lines.append(f"const float{LANES} a{r}_{first} = {value};")
        for number in range(first, first + LANES):
            value = how.of_columns("words", number, f"zero{n}")
            lines.append(f"const float{LANES} y{number} = {value};")
            lane = number - first
            lines += [f"part{r} += a{r}_{first}.s{lane} * y{number};" for r in range(tile.rows)]
    return [*lines, *(f"sum{r} += part{r} * scale{n};" for r in range(tile.rows))]


def _elements(a: MatrixWalk, place: str, first: int, how: Format) -> str:
    """LANES elements of A from `k + first` on, zeros beyond K."""
    is_whole = how.k % how.each == 0
    vec = f"float{LANES}"
    if a.width == LANES:
        value = memory.load(a.dtype, "a_z", f"{place} * a_row + k_word + {first}", LANES, "1", True)
        value = memory.convert(value, "float", compute(a.dtype), LANES)
        return value if is_whole or not first else f"k_word + {first} < K ? {value} : ({vec})(0)"
    lanes = []
    for n in range(first, first + LANES):
        one = a.element(place, f"(k_word + {n})")
        lanes.append(one if is_whole or not n else f"k_word + {n} < K ? {one} : 0.0f")
    return f"({vec})({', '.join(lanes)})"


def _put(tile: FewRows) -> list[str]:
    return [
        f"partial[(slice * ROWS + {r}) * COL_ITEMS + col_item] = sum{r};" for r in range(tile.rows)
    ]
