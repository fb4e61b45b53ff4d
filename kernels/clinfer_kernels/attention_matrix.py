"""Attention for class "gpu" by a matrix unit: scores and results are its products.

Both products are the unit's own step (`contraction.instructions`), of tiles in local memory whose
lengths are HEAD and KEYS. float32 operands are sums of two TF32 (`mma_3xtf32`), so split that an
infinite one stays what it is: the terms of a number that is not 0 have its sign and are not 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinfer_kernels.attention_ends import (
    inverse_lines,
    quotient,
    read_lines,
    row_lines,
    write_lines,
)
from clinfer_kernels.attention_problem import Problem, declare_tensors
from clinfer_kernels.attention_text import mask_lines, seen
from clinfer_kernels.attention_tiles import is_split
from clinfer_kernels.common import kernel_head
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.matrix_units import MATRIX_UNITS, unit_for
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.dims import Dim, ceildiv
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import base, element, widen
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.tasks import group_items
from clinfer_kernels.template import block, fill
from clinfer_kernels.types import literal

_MOST_HEAD = 128  # of more the results do not fit the registers
# Waves of a work-group along queries, and keys of a block: a work-item holds as many of those.
_CUTS = ((4, 32), (2, 32), (1, 16), (1, 32))
_LAYOUT = ((8, 4), (LANES, LANES))  # lanes of a wave, and k side by side: NVIDIA's

# As `packed.HIGH`, but towards zero: the rest has the sign of the whole. It is at least the least
# normal number, of an infinite number too, so that infinity times it is infinity.
_CLOSED = """static uint4 high(uint4 v) { return v & 0xFFFFE000u; }
static uint4 low(uint4 v, uint4 h)
{
    const float4 rest = fmax(fabs(as_float4(v)) - fabs(as_float4(h)), 0x1p-126f);
    return ((as_uint4(rest) & 0x7FFFFFFFu) | (v & 0x80000000u)) & 0xFFFFE000u;
}
// NaN that stays NaN without its last bits.
static float4 quiet(float4 v) { return isnan(v) ? (float4)(NAN) : v; }"""


@dataclass(frozen=True)
class MatrixTile:
    """`waves` waves of a unit along queries, each with `rows` rows a work-item.

    `head_size`: room for the sizes of a head; `keys` of a block.
    """

    unit: str
    head_size: int
    keys: int
    wg_cols: int
    waves: int
    rows: int = 2

    @property
    def wg_rows(self) -> int:
        """Work-items along queries."""
        return self.waves * 8

    @property
    def queries(self) -> int:
        """Queries of a work-group."""
        return self.wg_rows * self.rows

    @property
    def work_group(self) -> int:
        """Work-items of a work-group."""
        return self.wg_rows * self.wg_cols

    @property
    def kv_room(self) -> int:
        """Elements of the tile of keys, or of values."""
        return max(self.head_size * (self.keys + LANES), self.keys * (self.head_size + LANES))

    def local_bytes(self, size: int) -> int:
        """Local memory; elements are those of the unit."""
        elements = (self.head_size + self.keys) * (self.queries + LANES) + self.kv_room
        own = MATRIX_UNITS[self.unit].packing.size
        return elements * own + self.queries * self.wg_cols * 4


@dataclass(frozen=True)
class _Shape:
    """A product of a wave's tiles, as `units.Shape`."""

    rows: int
    cols: int
    wg_rows: int
    wg_cols: int
    k_step: int


def matrix_tiles(problem: Problem, target: Target) -> tuple[MatrixTile, ...]:
    """The tiles within the device's limits, the best guess first; none where no unit may be used,
    or runs of few queries share out the keys."""
    stored = (problem.q.dtype, problem.k.dtype, problem.v.dtype)
    unit = unit_for(stored, target) if problem.acc == "float32" else None
    sizes = (problem.depth, problem.columns)
    if unit is None or unit.acc != "float32" or is_split(problem):
        return ()
    if ((unit.rows.lanes, unit.cols.lanes), unit.packing.together) != _LAYOUT:
        return ()
    if not all(isinstance(size, int) and size <= _MOST_HEAD for size in sizes):
        return ()
    needed = max(size for size in sizes if isinstance(size, int))
    wg_cols = LANES if needed <= 64 else 2 * LANES
    head = -(-needed // (LANES * wg_cols)) * LANES * wg_cols
    tiles = [MatrixTile(unit.name, head, keys, wg_cols, waves) for waves, keys in _CUTS]
    fitting = [
        tile
        for tile in tiles
        if tile.work_group <= target.max_work_group
        and tile.local_bytes(4) <= target.local_mem
        and tile.keys * head // LANES % (LANES * tile.work_group) == 0
    ]
    return tuple(sorted(fitting, key=lambda tile: _idle_queries(problem, tile, target)))


def _idle_queries(problem: Problem, tile: MatrixTile, target: Target) -> int:
    """0 where a tile keeps the device busy, or sizes are not known; else its queries."""
    rows = problem.queries * problem.group
    groups = ceildiv(rows, tile.queries) * problem.kv_heads * problem.batch
    is_idle = isinstance(groups, int) and groups < target.group_units
    return tile.queries if is_idle else 0


def emit_matrix(problem: Problem, tile: MatrixTile, target: Target) -> Kernel:
    """One launch, whose tasks are blocks of rows of queries of one head of keys."""
    unit = MATRIX_UNITS[tile.unit]
    rows = problem.queries * problem.group
    row_blocks = ceildiv(rows, tile.queries)
    tasks = row_blocks * problem.kv_heads * problem.batch
    signature = Signature()
    declare_tensors(signature, problem)
    for name, value in (
        ("kv_heads", problem.kv_heads),
        ("rows", rows),
        ("row_blocks", row_blocks),
        ("tasks", tasks),
    ):
        signature.scalar(name, value)
    entry = f"attention_{tile.unit.replace(' ', '_')}_{tile.queries}x{tile.keys}"
    scores = _Shape(
        tile.rows, tile.keys // tile.wg_cols, tile.wg_rows, tile.wg_cols, tile.head_size
    )
    results = replace(scores, cols=tile.head_size // tile.wg_cols, k_step=tile.keys)
    wide = max(scores, results, key=lambda shape: shape.cols)
    last = "last" if problem.group == 1 else "((last - 1) / group + 1)"
    text = fill(
        "attention_matrix",
        target,
        head="\n".join([*_helpers(unit), kernel_head(entry, (tile.work_group,))]),
        parameters=signature.text,
        wg_rows=tile.wg_rows,
        wg_cols=tile.wg_cols,
        rows=tile.rows,
        s_cols=scores.cols,
        o_cols=results.cols,
        head_size=tile.head_size,
        keys=tile.keys,
        pad=unit.packing.pad,
        kv_room=tile.kv_room,
        element=unit.packing.element,
        matrices=block([x for x in unit.places(wide) if x.startswith("__local")], 1),
        s_places=block(_scores(_places(unit, scores)), 1),
        o_places=block(_results(_places(unit, results)), 4),
        scores=block(_scores(unit.step(scores, "float4", "float")), 3),
        results=block(_results(unit.step(results, "float4", "float")), 4),
        bases=block([base(name, ("z0", "kv")) for name in "kv"], 2),
        seen=seen(problem, last),
        row=block(row_lines(problem), 4),
        row_end=block(row_lines(problem), 4),
        q_base=block([base("q", ("z0", "z1"))], 4),
        load_q=block(read_lines("q_part", "q", problem.q, "i", problem.depth), 4),
        q_value=widen("q_part", problem.q, problem.acc, LANES),
        scale=literal(problem.scale, problem.acc),
        put_q=_put(unit, "q_tile", "value"),
        put_k=_put(unit, "kv_tile", "fetched[n]"),
        put_p=_put(unit, "p_tile", "weight"),
        put_v=block(_turned(unit), 4),
        first_k=block(_fetch("k", problem.k, ("D", problem.depth), "0"), 2),
        next_k=block(_fetch("k", problem.k, ("D", problem.depth), "key0 + KEYS"), 3),
        fetch_v=block(_fetch("v", problem.v, ("Dv", problem.columns), "key0"), 3),
        row_place=unit.row(),
        col_place=unit.column(),
        mask_row=block(_mask_row(problem), 4),
        mask=block([re.sub(r"\bscore\b", "score_of", x) for x in mask_lines(problem, 1)], 6),
        finish=block([*inverse_lines(problem, "maximum[r]"), base("out", ("z0", "z1"))], 4),
        store=block(_store(problem), 5),
    )
    shape = (group_items(tasks, tile.work_group, target),)
    items = (tile.work_group,)
    launch = Launch(entry, text, signature.args, shape, items, unit.options)
    return Kernel((launch,), flops=problem.flops)


def _helpers(unit: MatrixUnit) -> list[str]:
    helpers = unit.helpers()
    if not unit.is_exact:
        return helpers
    return [_CLOSED if "static uint4 high(" in text else text for text in helpers]


def _places(unit: MatrixUnit, shape: _Shape) -> list[str]:
    return [line for line in unit.places(shape) if not line.startswith("__local")]


def _named(lines: Sequence[str], names: dict[str, str]) -> list[str]:
    """Lines with other names for what a product's text calls so."""
    pattern = re.compile(rf"\b({'|'.join(names)})\b")
    return [pattern.sub(lambda match: names[match[1]], line) for line in lines]


def _scores(lines: Sequence[str]) -> list[str]:
    names = {"COLS": "S_COLS", "K_STEP": "HEAD", "B_PITCH": "K_PITCH", "acc": "score"}
    return _named(lines, {**names, "a_tile": "q_tile", "b_tile": "kv_tile"})


def _results(lines: Sequence[str]) -> list[str]:
    names = {"COLS": "O_COLS", "K_STEP": "KEYS", "B_PITCH": "V_PITCH", "acc": "o"}
    return _named(lines, {**names, "a_tile": "p_tile", "b_tile": "kv_tile"})


def _put(unit: MatrixUnit, tile: str, value: str) -> str:
    """The statement that stores a vector along k at `at`."""
    packing = unit.packing
    made = f"{packing.pack}({value})" if packing.pack else f"quiet({value})"
    return f"*(__local {packing.bits}*)({tile} + at) = {made};"


def _turned(unit: MatrixUnit) -> list[str]:
    """Statements that store four keys' vectors as those of four columns."""
    lines = []
    for place in range(LANES):
        lanes = ", ".join(f"fetched[n + {key}].s{place}" for key in range(LANES))
        put = _put(unit, "kv_tile", f"(float4)({lanes})")
        lines.append(put.replace("+ at)", f"+ at + {place * LANES})"))
    return lines


def _fetch(name: str, matrix: Matrix, size: tuple[str, Dim], start: str) -> list[str]:
    """Statements that begin to read the rows of a tile from row `start` on: keys one by one, and
    of values four neighbours to a work-item."""
    parameter, known = size
    each, row = "(item + n * WG_SIZE)", "{e} / DEPTH"
    if name == "v":
        each, row = "(item + n / LANES * WG_SIZE)", "{e} / DEPTH * LANES + n % LANES"
    return [
        "#pragma unroll",
        "for (int n = 0; n < FETCHED; ++n) {",
        f"    const int j = {start} + {row.format(e=each)};",
        f"    const int d = {each} % DEPTH * LANES;",
        f"    const int lanes = {parameter} - d;",
        "    fetched[n] = 0;",
        "    if (j < stop && lanes > 0) {",
        *(f"        {line}" for line in read_lines(f"{name}_part", name, matrix, "j", known)),
        f"        fetched[n] = {widen(f'{name}_part', matrix, 'float32', LANES)};",
        "    }",
        "}",
    ]


def _mask_row(problem: Problem) -> list[str]:
    if problem.mask is None:
        return row_lines(problem) if problem.causal else []
    return [*row_lines(problem), base("mask", ("z0", "z1"))]


def _store(problem: Problem) -> list[str]:
    return [
        f"const long at = {element('out', problem.out, 'i', 'd')};",
        f"const float4 result = {quotient(problem, 'sums').replace('(vec)', '(float4)')};",
        *write_lines(problem),
    ]
