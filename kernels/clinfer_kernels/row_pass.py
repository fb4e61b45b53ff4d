"""Runs along rows in kernel text: reduce the elements, store something for each, or both.

A `Pass` is a step applied to every element of a row. It becomes vector loops with several
accumulators (`along_row`, for one work-item), or what work-items that share a row do (`row_group`).
Either way the state's final values are in the variables PREFIX_0, PREFIX_1, ... afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer_kernels import hints, memory, types
from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.fold import Number
from clinfer_kernels.render import render
from clinfer_kernels.rows import RowView, along, nested, row_base
from clinfer_kernels.template import inside

TILE = "tile"
"""The `step` of cells in registers: of `buffer`, an array of vectors, the one at `base`."""


@dataclass(frozen=True)
class Cell:
    """Elements along a row: element j is buffer[base + j * step]; `step` is C text.

    is_aligned: vectors of them lie at multiples of their size.
    """

    dtype: str
    buffer: str
    base: str
    step: str
    is_aligned: bool = False


@dataclass(frozen=True)
class Hints:
    """What a pass tells of memory, where the target has hints (see the module `hints`).

    reads, writes: cells whose lines are fetched, for later passes, to be read or written; `writes`
    only where the C flag `unless` is not set. streamed: the C flag that says whether stores go past
    the caches. Flags are empty where there are none.
    """

    reads: tuple[Cell, ...] = ()
    writes: tuple[Cell, ...] = ()
    unless: str = ""
    streamed: str = ""


@dataclass(frozen=True)
class Pass:
    """step: (state..., position, loads..., given...) -> (state..., stores...).

    state, start, merge as in `Fold`. given: C scalars that every element sees, as (dtype, name).
    prefix: of the variables' names. hints: in whole vectors of `along_row` only.
    """

    prefix: str
    state: tuple[str, ...]
    start: tuple[Number, ...]
    step: Expr
    merge: Expr | None
    loads: tuple[Cell, ...] = ()
    given: tuple[tuple[str, str], ...] = ()
    stores: tuple[Cell, ...] = ()
    positions: bool = False
    hints: Hints = Hints()

    @property
    def masked(self) -> Expr:
        """The step with a bool operand at the end; where it is false the state stays."""
        builder = Builder((*self.step.inputs, "bool"))
        mask = len(self.step.inputs)
        results = list(builder.inline(self.step, range(mask)))
        for place, dtype in enumerate(self.state):
            results[place] = builder.op("where", mask, results[place], place, dtype=dtype)
        return builder.build(*results)

    def accumulators(self, u: int) -> list[str]:
        """The variables of state copy `u`."""
        return [f"{self.prefix}{u}_{s}" for s in range(len(self.state))]

    @property
    def results(self) -> list[str]:
        """The variables of the final state."""
        return [f"{self.prefix}_{s}" for s in range(len(self.state))]


def view_cell(view: RowView) -> Cell:
    """A view's elements along the row, from x_row (see `rows.row_base`)."""
    return Cell(view.dtype, view.name, f"{view.name}_row", view.row_step)


def along_row(
    p: Pass,
    views: Sequence[RowView],
    rank: int,
    width: int,
    unroll: int = 1,
    part: tuple[str, str] | None = None,
    cell: bool = False,
) -> list[str]:
    """Statements of one work-item that runs along the row, `width` elements at a time.

    views: those whose x_row the pass uses. rank: of the row. part: the range of its outermost
    index, where it is not all. cell: whether the variable `cell`, the flat number of the element
    with j = 0, is used. `lane` must be declared (see `lane_numbers`).

    The last vector ends where the row does, and takes some elements once more that the one before
    had: they go into no state, and what is stored for them stays as it is. In rows shorter than a
    vector, and where the pass overwrites what it reads, it is a part of one.
    """
    low, high = part if part and rank == 1 else ("0", f"m{rank - 1}")
    block = unroll * width
    whole = [line for u in range(unroll) for line in _step(p, width, u, _plus("j", u * width))]
    body = [row_base(v, rank - 1) for v in views]
    if cell:
        body.append(f"const int cell = {_cell(rank)};")
    body.append(f"int j = {low};")
    body += [f"for (; j + {block} <= {high}; j += {block}) {{", *inside(whole), "}"]
    if unroll > 1:
        single = _step(p, width, 0, "j")
        body += [f"for (; j + {width} <= {high}; j += {width}) {{", *inside(single), "}"]
    at = "j" if _reads_back(p) else "at"
    rest = [] if at == "j" else [f"const int at = min(j, max({low}, {high} - {width}));"]
    rest.append(f"const int left = min({width}, {high} - {at});")
    if p.state:
        new = "" if at == "j" else " & (lane >= j - at)"
        rest.append(f"const int{width} valid = (lane < left){new};")
    rest += _step(p, width, 0, at, part=True)
    body += [f"if (j < {high}) {{", *inside(rest), "}"]
    lines = [line for u in range(unroll) for line in declare(p, u, width)]
    loops = nested(rank - 1, body, part or ("0", "m0"))
    lines += loops if rank > 1 else ["{", *inside(body), "}"]
    return lines + join(p, unroll, width)


def _reads_back(p: Pass) -> bool:
    """Whether the pass stores to what it loads."""
    return bool({c.buffer for c in p.loads} & {c.buffer for c in p.stores})


def lane_numbers(width: int) -> str:
    """The declaration of `lane`, the lanes' numbers."""
    return f"const int{width} lane = (int{width})({', '.join(map(str, range(width)))});"


def declare(p: Pass, u: int, width: int) -> list[str]:
    """Copy `u` of the state, at its start."""
    lines = []
    for name, dtype, start in zip(p.accumulators(u), p.state, p.start, strict=True):
        sign = "-" if dtype == "bool" and width > 1 else ""
        lines.append(
            f"{types.register(dtype, width)} {name} = {sign}{types.literal(start, dtype)};"
        )
    return lines


def load_cell(cell: Cell, width: int, index: str, part: bool) -> str:
    """The elements at `index`; `part`: only `left` of them exist."""
    if cell.step == TILE:
        return f"{cell.buffer}[{cell.base}]"
    if not index:
        return memory.load(cell.dtype, cell.buffer, cell.base)
    at = along(cell.base, index, cell.step)
    value = memory.load(cell.dtype, cell.buffer, at, width, cell.step, cell.is_aligned)
    if not part or cell.step == "0":
        return value
    short = memory.load_part(cell.dtype, cell.buffer, at, width, "left", cell.step)
    return f"left >= {width} ? {value} : {short}"


def store_cell(
    cell: Cell, value: str, width: int, index: str, part: bool, streamed: str = ""
) -> list[str]:
    """Stores the elements at `index`; `part`: only `left` of them; `streamed`: as in `Hints`."""
    if cell.step == TILE:
        return [f"{cell.buffer}[{cell.base}] = {value};"]
    if not index:
        return [memory.store(cell.dtype, value, cell.buffer, cell.base)]
    at = along(cell.base, index, cell.step)
    whole = memory.store(cell.dtype, value, cell.buffer, at, width, cell.step, cell.is_aligned)
    if not part and streamed and cell.step == "1":
        past = hints.stream(cell.dtype, value, cell.buffer, at, width)
        return [f"if ({streamed}) {{", f"    {past}", "} else {", f"    {whole}", "}"]
    if not part:
        return [whole]
    short = memory.store_part(cell.dtype, value, cell.buffer, at, width, "left", cell.step)
    return [f"if (left >= {width}) {{", f"    {whole}", "} else {", f"    {short}", "}"]


def step_lines(
    p: Pass,
    width: int,
    u: int,
    index: str,
    position: str,
    part: bool,
    masked: bool,
    guard: str = "",
) -> list[str]:
    """One step on the elements at `index`, into copy `u` of the state.

    guard: the C condition on which buffers are stored to, if any.
    """
    lines = [] if part or not index else _hint_lines(p.hints, index)
    values = []
    for number, cell in enumerate(p.loads):
        value = load_cell(cell, width, index, part)
        lines.append(f"const {types.register(cell.dtype, width)} v{number} = {value};")
        values.append(f"v{number}")
    for dtype, name in p.given:
        values.append(f"({types.register(dtype, width)})({name})" if width > 1 else name)
    operands = [*p.accumulators(u), position, *values, *(["valid"] if masked else [])]
    rendered = render(p.masked if masked else p.step, operands, width)
    lines += rendered.statements
    count = len(p.state)
    for name, result in zip(p.accumulators(u), rendered.results[:count], strict=True):
        lines.append(f"{name} = {result};")
    stores: list[str] = []
    for cell, result in zip(p.stores, rendered.results[count:], strict=True):
        put = store_cell(cell, result, width, index, part, p.hints.streamed)
        stores += [f"if ({guard}) {{", *inside(put), "}"] if guard and cell.step != TILE else put
    return ["{", *inside([*lines, *stores]), "}"]


def _hint_lines(told: Hints, index: str) -> list[str]:
    lines = [hints.will_read(c.buffer, along(c.base, index, c.step)) for c in told.reads]
    for cell in told.writes:
        line = hints.will_write(cell.buffer, along(cell.base, index, cell.step))
        lines.append(f"if (!{told.unless}) {line}" if told.unless else line)
    return lines


def merge_lines(p: Pass, into: Sequence[str], other: Sequence[str], width: int) -> list[str]:
    """Joins the state `other` into `into`."""
    assert p.merge is not None
    rendered = render(p.merge, [*into, *other], width)
    sets = [f"{n} = {r};" for n, r in zip(into, rendered.results, strict=True)]
    return ["{", *inside([*rendered.statements, *sets]), "}"]


def join(p: Pass, unroll: int, width: int, into: Sequence[str] = ()) -> list[str]:
    """All copies of the state into one, then its lanes by halves; `into`: the variables' names,
    where they are not the results'."""
    lines: list[str] = []
    if not p.state:
        return lines
    for u in range(1, unroll):
        lines += merge_lines(p, p.accumulators(0), p.accumulators(u), width)
    source = p.accumulators(0)
    while width > 1:
        width //= 2
        halves = [f"{p.prefix}_half{width}_{s}" for s in range(len(p.state))] if width > 1 else []
        halves = halves or list(into or p.results)
        for half, whole, dtype in zip(halves, source, p.state, strict=True):
            scalar_bool = " & 1" if dtype == "bool" and width == 1 else ""
            lines.append(f"{types.register(dtype, width)} {half} = {whole}.lo{scalar_bool};")
        lines += merge_lines(p, halves, [f"{whole}.hi" for whole in source], width)
        source = halves
    return lines


def _step(p: Pass, width: int, u: int, index: str, part: bool = False) -> list[str]:
    position = f"(lane + ({index}))" if p.positions else "0"
    return step_lines(p, width, u, index, position, part, part and bool(p.state))


def _cell(rank: int) -> str:
    """((r0 * m1 + r1) * m2 + ...) * m of the last index: the flat number where j is 0."""
    text = "0"
    for k in range(rank - 1):
        text = f"r{k}" if k == 0 else f"({text}) * m{k} + r{k}"
    return "0" if rank == 1 else f"({text}) * m{rank - 1}"


def _plus(name: str, amount: int) -> str:
    return f"({name} + {amount})" if amount else name
