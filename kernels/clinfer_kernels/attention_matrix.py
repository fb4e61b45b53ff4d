"""Attention for class "gpu" by a matrix unit: scores and results are its products.

Both products are the unit's own step (`contraction.instructions`), of tiles in local memory whose
lengths are HEAD and KEYS. float32 operands are sums of two TF32 (`mma_3xtf32`), so split that an
infinite one stays what it is: the terms of a number that is not 0 have its sign and are not 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinfer_kernels.attention_ends import read_lines, row_lines
from clinfer_kernels.attention_matrix_tiles import MatrixTile, Shape
from clinfer_kernels.attention_problem import Problem, declare_tensors
from clinfer_kernels.attention_sums import entries, finished, masked, weighed
from clinfer_kernels.attention_text import seen
from clinfer_kernels.common import kernel_head
from clinfer_kernels.contraction.chained import chained
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.puts import put_turned, put_vector
from clinfer_kernels.contraction.units import LANES, Packing
from clinfer_kernels.dims import Dim, ceildiv
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import base, widen
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Kernel, Launch, Target
from clinfer_kernels.tasks import each_task, group_items
from clinfer_kernels.template import block, fill, inside

# As `summands.HIGH`, but towards zero: the rest has the sign of the whole. It is at least the least
# normal number, of an infinite number too, so that infinity times it is infinity.
_CLOSED = """static uint4 high(uint4 v) { return v & 0xFFFFE000u; }
static uint4 low(uint4 v, uint4 h)
{
    const float4 rest = fmax(fabs(as_float4(v)) - fabs(as_float4(h)), 0x1p-126f);
    return ((as_uint4(rest) & 0x7FFFFFFFu) | (v & 0x80000000u)) & 0xFFFFE000u;
}
// NaN that stays NaN without its last bits.
static float4 quiet(float4 v) { return isnan(v) ? (float4)(NAN) : v; }"""


def emit_matrix(problem: Problem, tile: MatrixTile, target: Target) -> Kernel:
    """One launch, whose tasks are blocks of rows of queries of one head of keys."""
    unit = tile.own
    packing = replace(unit.packing, pack="quiet") if unit.is_exact else unit.packing
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
    scores = _Product(tile.scores, tile.scores_shape, tile.is_turned, "scores")
    results = _Product(unit, tile.results_shape, tile.is_turned, "results")
    wide = max(scores.shape, results.shape, key=lambda shape: shape.rows * shape.cols)
    last = "last" if problem.group == 1 else "((last - 1) / group + 1)"
    text = fill(
        "attention_matrix",
        target,
        head="\n".join([*_helpers(unit), _head(unit, entry, tile)]),
        parameters=signature.text,
        queries=tile.queries,
        wg_size=tile.work_group,
        sharers=tile.sharers,
        head_size=tile.head_size,
        keys=tile.keys,
        pad=packing.pad,
        kv_room=tile.kv_room,
        element=packing.element,
        shared=block(_shared(tile, unit, wide), 1),
        s_places=block(scores.places(), 1),
        x=block(_own_place(tile, scores), 1),
        each_task=each_task(target),
        bases=block([base(name, ("z0", "kv")) for name in "kv"], 2),
        seen=seen(problem, last),
        row=block(row_lines(problem), 4),
        q_base=block([base("q", ("z0", "z1"))], 4),
        load_q=block(read_lines("q_part", "q", problem.q, "i", problem.depth), 4),
        q_value=widen("q_part", problem.q, problem.acc, LANES),
        put_q=block(_put_q(tile, packing), 3),
        begin_o=block(results.begin(), 2),
        begin_sums=block(_begin(tile), 2),
        first_k=block(_fetch(tile, "k", problem.k, ("D", problem.depth), "0"), 2),
        put_k=block(_put_k(tile, packing), 3),
        entries=block(entries(problem, tile), 3),
        fetch_v=block(_fetch(tile, "v", problem.v, ("Dv", problem.columns), "key0"), 3),
        begin_s=block(scores.begin(), 3),
        scores=block(scores.step(), 3),
        masked=block(masked(problem, tile), 3),
        put_v=block(_put_v(tile, packing), 3),
        weighed=block(weighed(tile, packing, _exponential(unit, target)), 3),
        next_k=block(_fetch(tile, "k", problem.k, ("D", problem.depth), "key0 + KEYS"), 3),
        o_places=block(results.places(), 4),
        results=block(results.step() if tile.path == "local" else results.chained(tile), 4),
        totals=block(_totals(tile), 2),
        finish=block(finished(problem, tile), 3),
    )
    shape = (group_items(tasks, tile.work_group, target),)
    items = (tile.work_group,)
    launch = Launch(entry, text, signature.args, shape, items, unit.options)
    return Kernel((launch,), flops=problem.flops)


@dataclass(frozen=True)
class _Product:
    """One of the two products as its unit's text, under the names of this one's."""

    unit: MatrixUnit
    shape: Shape
    is_turned: bool
    of: str

    def places(self) -> list[str]:
        """But for the matrices of an emulation. Where keys are rows, each wave has all of them."""
        places = self.unit.places(self.shape)
        if self.is_turned and self.of == "scores":
            first = "const int wave_row"
            places = [f"{first} = 0;" if line.startswith(first) else line for line in places]
        return self._named([line for line in places if not line.startswith("__local")])

    def begin(self) -> list[str]:
        return self._named(self.unit.begin(self.shape, "float4"))

    def step(self) -> list[str]:
        return self._named(self.unit.step(self.shape, "float4", "float"))

    def chained(self, tile: MatrixTile) -> list[str]:
        """The step, whose other operand is the scores' results."""
        name = "b" if self.is_turned else "a"
        return self._named(
            chained(
                tile.scores,
                self.unit,
                name,
                self.shape,
                lambda query, key: f"score{tile.sum_at(tile.scores, query, key)}",
            )
        )

    def _named(self, lines: Sequence[str]) -> list[str]:
        """A is the queries' operand, B that of keys or values, unless turned."""
        other, one = "ab" if self.is_turned else "ba"
        is_first = self.of == "scores"
        names = {
            "ROWS": str(self.shape.rows),
            "COLS": str(self.shape.cols),
            "WG_COLS": str(self.shape.wg_cols),
            "K_STEP": "HEAD" if is_first else "KEYS",
            "acc": "score" if is_first else "o",
            f"{one}_tile": "q_tile" if is_first else "p_tile",
            f"{one.upper()}_PITCH": "Q_PITCH",
            f"{other}_tile": "kv_tile",
            f"{other.upper()}_PITCH": "K_PITCH" if is_first else "V_PITCH",
        }
        pattern = re.compile(rf"\b({'|'.join(names)})\b")
        return [pattern.sub(lambda match: names[match[1]], line) for line in lines]


def _shared(tile: MatrixTile, unit: MatrixUnit, wide: Shape) -> list[str]:
    """Declarations of what else is in local memory."""
    lines = [line for line in unit.places(wide) if line.startswith("__local")]
    if tile.sharers > 1:
        lines.append("__local float tree[QUERIES * SHARERS];")
    if tile.path == "local":
        lines.append(
            f"__local {unit.packing.element} p_tile[KEYS * Q_PITCH] __attribute__((aligned(16)));"
        )
    return lines


def _own_place(tile: MatrixTile, scores: _Product) -> list[str]:
    """The work-item's number among those that share its queries."""
    if tile.sharers == 1:
        return []
    side = scores.unit.cols
    if tile.across == 1:
        return ["const int x = lane_col;"]
    return [f"const int x = wave_col / {side.lanes * scores.shape.cols} * {side.lanes} + lane_col;"]


def _begin(tile: MatrixTile) -> list[str]:
    sums = range(tile.rows)
    lines = [f"float maximum{u} = -INFINITY, total{u} = 0;" for u in sums]
    return [*lines, *(f"float4 fetched{n};" for n in range(tile.fetched))]


def _totals(tile: MatrixTile) -> list[str]:
    """What the work-items that share queries tell each other at the end."""
    if tile.sharers == 1:
        return []
    each = [f"tree[({tile.query_place(u)}) * SHARERS + x] = total{u};" for u in range(tile.rows)]
    return [*each, "barrier(CLK_LOCAL_MEM_FENCE);"]


def _exponential(unit: MatrixUnit, target: Target) -> str:
    """e^x: weights that are rounded to fewer bits need no more than the device's own has. The
    library of clang, which stands in for NVIDIA's compiler, lacks it."""
    is_float32 = unit.operand == "float32"
    return "exp_float" if is_float32 or target.dialect == "nvidia" else "native_exp"


def _head(unit: MatrixUnit, entry: str, tile: MatrixTile) -> str:
    head = kernel_head(entry, (tile.work_group,))
    return head.replace("__kernel ", f"__kernel {unit.attribute} ") if unit.attribute else head


def _helpers(unit: MatrixUnit) -> list[str]:
    helpers = unit.helpers()
    if not unit.is_exact:
        return helpers
    return [_CLOSED if "static uint4 high(" in text else text for text in helpers]


def _put_q(tile: MatrixTile, packing: Packing) -> list[str]:
    names = ("value", "e % DEPTH * LANES", "e / DEPTH")
    return put_vector(packing, 1 if tile.is_turned else 0, "q_tile", "Q_PITCH", names)


def _put_k(tile: MatrixTile, packing: Packing) -> list[str]:
    """Statements that store the vectors of keys."""
    lines = []
    for n in range(tile.fetched):
        names = (f"fetched{n}", "e % DEPTH * LANES", "e / DEPTH")
        side = 0 if tile.is_turned else 1
        made = put_vector(packing, side, "kv_tile", "K_PITCH", names)
        lines += _piece(tile, f"item + {n} * WG_SIZE", "KEYS * DEPTH", made)
    return lines


def _put_v(tile: MatrixTile, packing: Packing) -> list[str]:
    """Statements that store the vectors of values, turned: neighbouring keys side by side."""
    lines = []
    for n in range(0, tile.fetched, tile.turn):
        values = [f"fetched{n + i}" for i in range(tile.turn)]
        names = (values, f"(e / DEPTH * {tile.turn})", "e % DEPTH * LANES")
        side = 0 if tile.is_turned else 1
        made = put_turned(packing, side, "kv_tile", "V_PITCH", names)
        end = f"KEYS * DEPTH / {tile.turn}"
        lines += _piece(tile, f"item + {n // tile.turn} * WG_SIZE", end, made)
    return lines


def _piece(tile: MatrixTile, number: str, end: str, lines: Sequence[str]) -> list[str]:
    """The statements for piece `e` of a tile that has `end`."""
    test = "" if tile.is_even else f"if (e < {end}) "
    return ["{", f"    const int e = {number};", f"    {test}{{", *inside(lines), "    }", "}"]


def _fetch(
    tile: MatrixTile, name: str, matrix: Matrix, size: tuple[str, Dim], start: str
) -> list[str]:
    """Statements that begin to read the rows of a tile from row `start` on; neighbouring values,
    `turn` of them, to one work-item."""
    parameter, known = size
    turn = tile.turn if name == "v" else 1
    is_whole = known == tile.head_size
    lines = []
    for n in range(tile.fetched):
        lines += [
            f"fetched{n} = 0;",
            "{",
            f"    const int e = item + {n // turn} * WG_SIZE;",
            f"    const int j = {start} + e / DEPTH * {turn} + {n % turn};",
            "    const int d = e % DEPTH * LANES;",
            f"    const int lanes = {parameter} - d;",
            "    if (j < stop) {" if is_whole else "    if (j < stop && lanes > 0) {",
            *(f"        {line}" for line in read_lines(f"{name}_part", name, matrix, "j", known)),
            f"        fetched{n} = {widen(f'{name}_part', matrix, 'float32', LANES)};",
            "    }",
            "}",
        ]
    return lines
