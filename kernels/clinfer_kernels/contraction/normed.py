"""Rows of A that are normalised as they are read, and sums of rows of results for that.

A product whose result a norm reads leaves, for every row and every CHUNK columns, their mean and
the sum of squared distances to it, of what it stored (`row_sums`). The product that reads the
norm's result has mean and variance of a row from those (Chan, Golub & LeVeque, "Updating Formulae
and a Pairwise Algorithm for Computing Sample Variances", 1979) and makes

    f((a[i][k] - mean[i]) / sqrt(variance[i] + eps), column operands at k)

on the elements' way from registers to local memory: the norm has no launch. Rows are numbered
through all batches, z M + i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinfer_kernels import memory
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.contraction.walks import MatrixWalk, Walk
from clinfer_kernels.dims import common_factor
from clinfer_kernels.expr import Expr
from clinfer_kernels.matmul_problem import Problem
from clinfer_kernels.matrix_text import col_stride, element, widen
from clinfer_kernels.nest import stride_kind
from clinfer_kernels.render import render
from clinfer_kernels.row_specs import CHUNK
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor
from clinfer_kernels.types import literal, register


@dataclass(frozen=True)
class Normed:
    """How rows are normalised: `expr` of the normalised value and of operands along the row.

    `rms`: without the mean. `sums` is the number of the input with the rows' sums; `columns` are
    those of the operands with their views, of shape (K,); `kept` the numbers of the outputs that
    get each row's mean and 1 / sqrt(variance + eps), or none.
    """

    expr: Expr
    rms: bool
    eps: float
    sums: int
    columns: tuple[tuple[int, Tensor], ...]
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class NormedWalk(MatrixWalk):
    """Rows of A, [places][k], normalised; K is a multiple of CHUNK, sums are float32."""

    normed: Normed | None = None

    is_stored = False

    @property
    def _how(self) -> Normed:
        assert self.normed is not None
        return self.normed

    def declare(self, signature: Signature) -> None:
        super().declare(signature)
        how = self._how
        signature.read("in", how.sums, "float32", "a_sums")
        for index, (number, view) in enumerate(how.columns):
            signature.read("in", number, view.dtype, f"a_c{index}")
            signature.scalar(f"a_c{index}_o", view.offset)
            if stride_kind(view.strides[-1]) == "s":
                signature.scalar(f"a_c{index}_s", view.strides[-1])
        for name, number in zip(("a_means", "a_inverses"), how.kept, strict=False):
            signature.buffer("out", number, "float32", name)

    def values(self) -> tuple[str, ...]:
        return ("a_scale",) if self._how.rms else ("a_shift", "a_scale")

    def rows(self, rows: Sequence[tuple[str, str]]) -> list[str]:
        """One loop for all rows, so that their sums are on the way together.

        Means are taken less that of the first chunk, and so are squares: they are sums of as many
        chunks as a row has, and cancel by no more than that factor.
        """
        begin, each, end = [], [], []
        for place, n in rows:
            begin += [
                f"const int a_number{n} = z * M + min({place}, M - 1);",
                f"const __global float* a_of{n} = a_sums + (long)a_number{n} * (K / {CHUNK} * 2);",
                f"const float a_first{n} = a_of{n}[0];",
                f"float a_mean{n} = 0, a_square{n} = 0;",
            ]
            each += [
                f"    const float away{n} = a_of{n}[2 * c] - a_first{n};",
                f"    a_mean{n} += away{n};",
                f"    a_square{n} += a_of{n}[2 * c + 1] + {CHUNK} * (away{n} * away{n});",
            ]
            spread = f"(a_square{n} - K * (a_mean{n} * a_mean{n}))"
            end += [f"a_mean{n} /= K / {CHUNK};"]
            if self._how.rms:
                mean = f"(a_mean{n} + a_first{n})"
                spread += f" + K * {mean} * {mean}"
            end += [f"a_scale{n} = 1 / sqrt(({spread}) / K + {self._eps});"]
            end += [] if self._how.rms else [f"a_shift{n} = a_mean{n} + a_first{n};"]
        return [*begin, f"for (int c = 0; c < K / {CHUNK}; ++c) {{", *each, "}", *end]

    @property
    def _eps(self) -> str:
        return literal(self._how.eps, "float32")

    def keep(self, place: str, number: str, condition: str) -> list[str]:
        if not self._how.kept:
            return []
        return [
            f"if ({condition} && {place} < M) {{",
            f"    a_means[a_number{number}] = {'0' if self._how.rms else f'a_shift{number}'};",
            f"    a_inverses[a_number{number}] = a_scale{number};",
            "}",
        ]

    def beside(self) -> tuple[tuple[str, str], ...]:
        return tuple(
            (register(view.dtype, self.width), f"a_column{index}")
            for index, (_, view) in enumerate(self._how.columns)
        )

    def load_beside(self, k: str) -> list[str]:
        return [f"a_column{i} = {self._column(i, k)};" for i in range(len(self._how.columns))]

    def _column(self, index: int, k: str) -> str:
        view = self._how.columns[index][1]
        kind = stride_kind(view.strides[-1])
        stride = f"a_c{index}_s" if kind == "s" else kind
        step = {"0": "", "1": f" + ({k})"}.get(kind, f" + ({k}) * {stride}")
        even = common_factor((view.offset,)) % LANES == 0
        at = f"a_c{index}_o{step}"
        return memory.load(view.dtype, f"a_c{index}", at, self.width, stride, even)

    def finish(self, piece: str, number: str) -> tuple[list[str], str]:
        columns = [name for _, name in self.beside()]
        return self._made(piece, number, columns, self.width, "n")

    def single_value(self, value: str, number: str, k: str, prefix: str) -> tuple[list[str], str]:
        alone = replace(self, is_single=True)
        columns = [alone._column(i, k) for i in range(len(self._how.columns))]
        return alone._made(value, number, columns, 1, prefix)

    def _made(
        self, value: str, number: str, columns: Sequence[str], width: int, prefix: str
    ) -> tuple[list[str], str]:
        away = value if self._how.rms else f"({value} - a_shift{number})"
        normal = f"const {register('float32', width)} {prefix}_normal = {away} * a_scale{number};"
        made = render(self._how.expr, [f"{prefix}_normal", *columns], width, f"{prefix}_")
        return [normal, *made.statements], made.results[0]


def walk_of(walk: MatrixWalk, normed: Normed | None) -> Walk:
    """The walk, of normalised rows where they are to be."""
    if normed is None:
        return walk
    facts = (walk.name, walk.matrix, walk.kind, walk.number, walk.places, walk.size, walk.k)
    return NormedWalk(*facts, walk.acc, normed=normed)


def row_sums(problem: Problem, rows: str, row0: str, columns: str, column0: str) -> list[str]:
    """Statements of all work-items of a group, `item` being the number of one and WG_SIZE how many
    there are: the sums of `rows` rows and `columns` columns of `out`, which the group has stored.
    """
    out, stride = problem.out, col_stride("out", problem.out)
    even = out.is_aligned(LANES) and stride == "1"
    parts = range(CHUNK // LANES)
    vec = register("float32", LANES)
    read = [
        memory.load(out.dtype, "out", f"at + {n * LANES} * {stride}", LANES, stride, even)
        for n in parts
    ]
    total = " + ".join(f"v{n}" for n in parts)
    away = " + ".join(f"v{n} * v{n}" for n in parts)
    return [
        f"const int sum_row = {row0}, sum_column = {column0};",
        "barrier(CLK_GLOBAL_MEM_FENCE);",
        f"for (int e = item; e < {rows} * ({columns} / {CHUNK}); e += WG_SIZE) {{",
        f"    const int i = sum_row + e % ({rows});",
        f"    const int j = sum_column + e / ({rows}) * {CHUNK};",
        "    if (i >= M || j >= N) continue;",
        f"    const long at = {element('out', out, 'i', 'j')};",
        *(f"    {vec} v{n} = {widen(x, out, 'float32', LANES)};" for n, x in enumerate(read)),
        f"    const {vec} all = {total};",
        f"    const float mean = ((all.s0 + all.s2) + (all.s1 + all.s3)) / {CHUNK};",
        *(f"    v{n} -= mean;" for n in parts),
        f"    const {vec} square = {away};",
        f"    const long to = (((long)z * M + i) * (N / {CHUNK}) + j / {CHUNK}) * 2;",
        "    row_sums[to] = mean;",
        "    row_sums[to + 1] = (square.s0 + square.s2) + (square.s1 + square.s3);",
        "}",
    ]
