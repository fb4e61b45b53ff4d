"""The texts of recurrent kernels: what one step does, by kind of cell and number of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from clinfer_kernels import memory, positions
from clinfer_kernels.render import render
from clinfer_kernels.specs import RecurrentSpec
from clinfer_kernels.types import literal, register

BLOCK = 32
"""Units are padded to a multiple of it: a work-item's vectors together divide it."""

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


Finish = Callable[[int, dict[int, str]], Iterator[str]]


@dataclass(frozen=True)
class RecurrentTile:
    """rows: of the batch in a work-group. width: units in a vector. vectors: of a work-item at a
    time, so that few rows too have sums enough to hide the latency of an addition. local:
    work-items. spilled: the states lie in global memory, where local memory cannot hold them.
    alone: the vectors in a group that turns out to have one row, 0 where it goes as any other."""

    rows: int
    width: int
    vectors: int
    local: int
    spilled: bool = False
    alone: int = 0

    @property
    def space(self) -> str:
        """The address space of the states."""
        return "__global" if self.spilled else "__local"

    @property
    def barrier(self) -> str:
        """What a group waits at until all its items have written their states."""
        return f"barrier(CLK_{'GLOBAL' if self.spilled else 'LOCAL'}_MEM_FENCE);"

    def block(self, spec: RecurrentSpec) -> int:
        """Units in a block of the packed weights: what is read in one step lies together."""
        shared = spec.packed or self.local > 1 or self.alone
        return BLOCK if shared else self.width * self.vectors

    @property
    def bodies(self) -> tuple[RecurrentTile, ...]:
        """The steps a kernel has: of any group, and of one with a single row."""
        return (self, replace(self, rows=1, vectors=self.alone)) if self.alone else (self,)


def resets_early(spec: RecurrentSpec) -> bool:
    """Whether the reset gate works on the states before they are multiplied."""
    return spec.kind == "GRU" and not spec.reset_late


class StepText:
    """The parts of the kernel that depend on the kind and on the number of rows."""

    def __init__(self, spec: RecurrentSpec, tile: RecurrentTile) -> None:
        self.spec = spec
        self.tile = tile
        self.dtype = spec.ins[0].dtype
        self.vec = register(self.dtype, tile.width)
        self.one = register(self.dtype)
        self.count = GATES[spec.kind]
        self._temporaries = 0

    def rows(self) -> Iterator[str]:
        """Each row's number in the batch, and its length."""
        for r in range(self.tile.rows):
            yield f"const int n{r} = min(first + {r}, rows_n - 1);"
            yield f"const int len{r} = {self._length(f'n{r}')};"

    def _length(self, row: str) -> str:
        """How many steps a row of the batch takes."""
        if not self.spec.has_lengths:
            return "steps"
        found = positions.place("natural", f"lengths[lengths_o + {row}]", "steps + 1")
        return f"max({found}, 0)"

    def begin(self) -> Iterator[str]:
        """The states before the first step; 0 where there is none."""
        for name, local, there in (
            ("h", "state", self.spec.has_state),
            ("c", "cells", self.spec.has_cells),
        ):
            start = f"{name}[{name}_o + (d * rows_n + n) * hidden + j]"
            goes = "j < hidden && " + self._length("n") + " > 0"
            yield f"{local}[i] = {f'{goes} ? {start} : 0' if there else '0'};"

    def loop(self, whole: int) -> Iterator[str]:
        """All steps. `whole` rows have room in the states."""
        yield "for (int t = 0; t < steps; ++t) {"
        yield f"    const {self.tile.space} {self.one}* const old = state + now;"
        yield f"    now = now ? 0 : {whole} * units;"
        yield f"    {self.tile.space} {self.one}* const new = state + now;"
        yield from (f"    {line}" for line in (*self.times(), *self.step()))
        if self.tile.local > 1:
            yield f"    {self.tile.barrier}"
        yield "}"

    def times(self) -> Iterator[str]:
        """For each row the time it is at, and where its inputs are."""
        for r in range(self.tile.rows):
            yield f"const int at{r} = backward && t < len{r} ? len{r} - 1 - t : t;"
            place = f"((at{r} * rows_n + n{r}) * directions + d) * {self.count} * units"
            yield f"const __global {self.one}* const x{r} = x + x_o + {place};"

    def step(self) -> Iterator[str]:
        """All units of one step; of a GRU that resets early the gates come first."""
        if not resets_early(self.spec):
            source = "kept" if self.spec.rounds else "old"
            if self.spec.rounds:
                yield from self._round()
            yield from self._loop(range(self.count), source, self._finish)
            return
        yield from self._loop(range(2), "old", self._reset)
        if self.tile.local > 1:
            yield self.tile.barrier
        yield from self._loop(range(2, 3), "cells", self._mix)

    def _round(self) -> Iterator[str]:
        """Keeps the states as 8 bits hold them: 0 is one of 256 even steps from least to most."""
        one = self.one
        for r in range(self.tile.rows):
            yield "{"
            yield f"    {one} least = 0, most = 0;"
            yield "    for (int k = 0; k < hidden; ++k) {"
            yield f"        least = fmin(least, old[{r} * units + k]);"
            yield f"        most = fmax(most, old[{r} * units + k]);"
            yield "    }"
            yield f"    const {one} size = most > least ? (most - least) / 255 : 1;"
            yield f"    const {one} zero = rint(clamp(-least / size, ({one})0, ({one})255));"
            yield f"    for (int k = item; k < hidden; k += {self.tile.local}) {{"
            yield f"        const {one} code = rint(old[{r} * units + k] / size) + zero;"
            yield f"        const {one} kept_code = clamp(code, ({one})0, ({one})255);"
            yield f"        kept[{r} * units + k] = (kept_code - zero) * size;"
            yield "    }"
            yield "}"
        if self.tile.local > 1:
            yield self.tile.barrier

    def end(self) -> Iterator[str]:
        """The last states."""
        yield "last[last_o + d * last_s0 + n * last_s1 + j] = state[now + i];"
        if self.spec.kind == "LSTM":
            yield "last_c[last_c_o + d * last_c_s0 + n * last_c_s1 + j] = cells[i];"

    def _loop(self, gates: range, source: str, finish: Finish) -> Iterator[str]:
        """Sums of the given gates over the states in `source`, then what is done with them."""
        tile, width = self.tile, self.tile.width
        late, block = self.spec.reset_late, tile.block(self.spec)
        apart = [(r, v) for r in range(tile.rows) for v in range(tile.vectors)]
        yield f"for (int j0 = {self._first}; j0 < units; j0 += {tile.local * self._each}) {{"
        inner: list[str] = []
        for r, v in apart:
            for g in gates:
                start = memory.load(self.dtype, f"x{r}", f"{g} * units + j0 + {v * width}", width)
                if late and g == 2:
                    at = f"bias_o + d * units + j0 + {v * width}"
                    start = memory.load(self.dtype, "bias", at, width)
                inner.append(f"{self.vec} a{r}_{v}_{g} = {start};")
        inner.append(
            f"const __global {self.one}* w = weights "
            f"+ j0 / {block} * hidden * {self.count * block} + j0 % {block};"
        )
        inner.append(f"for (int k = 0; k < hidden; ++k, w += {self.count * block}) {{")
        one = self.one
        inner += [f"    const {one} h{r} = {source}[{r} * units + k];" for r in range(tile.rows)]
        for v in range(tile.vectors):
            for g in gates:
                load = memory.load(self.dtype, "w", str(g * block + v * width), width)
                inner.append(f"    const {self.vec} w{v}_{g} = {load};")
        inner += [f"    a{r}_{v}_{g} += h{r} * w{v}_{g};" for r, v in apart for g in gates]
        inner.append("}")
        for r, v in apart:
            sums = {g: f"a{r}_{v}_{g}" for g in gates}
            inner += ["{", f"    const int j = j0 + {v * width};"]
            inner += [f"    {line}" for line in finish(r, sums)]
            inner.append("}")
        yield from (f"    {line}" for line in inner)
        yield "}"

    @property
    def _each(self) -> int:
        """Units that a work-item takes at a time."""
        return self.tile.width * self.tile.vectors

    @property
    def _first(self) -> str:
        return "item" if self._each == 1 else f"item * {self._each}"

    # -- after the sums ---------------------------------------------------------------------------

    def _local(self, buffer: str, row: int) -> str:
        """A row's units j .. in local memory, as a vector or scalar to be read or written."""
        if self.tile.width == 1:
            return f"{buffer}[{row} * units + j]"
        return f"*({self.tile.space} {self.vec}*)({buffer} + {row} * units + j)"

    def _apply(self, index: int, value: str) -> tuple[list[str], str]:
        """Activation `index` of a clipped value."""
        lines = []
        if self.spec.clip:
            bound = literal(self.spec.clip, self.dtype)
            value = f"clamp({value}, ({self.vec})(-{bound}), ({self.vec})({bound}))"
        self._temporaries += 1
        name = f"v{self._temporaries}"
        lines.append(f"const {self.vec} {name} = {value};")
        done = render(self.spec.functions[index], [name], self.tile.width, f"{name}_")
        return [*lines, *done.statements], done.results[0]

    def _named(self, name: str, index: int, value: str) -> list[str]:
        lines, result = self._apply(index, value)
        return [*lines, f"const {self.vec} {name} = {result};"]

    def _keep(self, row: int, state: str) -> Iterator[str]:
        """The new state where the row goes on, else the old one; and the output."""
        width = self.tile.width
        yield f"const {self.vec} before = {self._local('old', row)};"
        yield f"const int goes_on = t < len{row};"
        yield f"{self._local('new', row)} = goes_on ? {state} : before;"
        yield f"if (first + {row} < rows_n && j < hidden) {{"
        place = f"y_o + at{row} * y_s0 + d * y_s1 + n{row} * y_s2 + j"
        yield f"    const {self.vec} shown = goes_on ? {state} : ({self.vec})(0);"
        whole = memory.store(self.dtype, "shown", "y", place, width)
        if width == 1:
            yield f"    {whole}"
        else:
            part = memory.store_part(self.dtype, "shown", "y", place, width, "hidden - j")
            yield f"    if (j + {width} <= hidden) {whole}"
            yield f"    else {part}"
        yield "}"

    def _finish(self, row: int, sums: dict[int, str]) -> Iterator[str]:
        kinds = {"LSTM": self._lstm, "GRU": self._gru_late, "RNN": self._rnn}
        yield from kinds[self.spec.kind](row, sums)

    def _rnn(self, row: int, sums: dict[int, str]) -> Iterator[str]:
        yield from self._named("made", 0, sums[0])
        yield from self._keep(row, "made")

    def _lstm(self, row: int, sums: dict[int, str]) -> Iterator[str]:
        """Gates i, o, f, c."""
        sums = dict(sums)
        yield f"const {self.vec} c_old = {self._local('cells', row)};"
        if self.spec.has_peepholes:
            for g in range(3):
                at = f"peep_o + (d * 3 + {g}) * units + j"
                load = memory.load(self.dtype, "peep", at, self.tile.width)
                yield f"const {self.vec} p{g} = {load};"
            sums[0] += " + p0 * c_old"
            sums[2] += " + p2 * c_old"
        yield from self._named("gate_i", 0, sums[0])
        if self.spec.coupled:
            yield f"const {self.vec} gate_f = 1 - gate_i;"
        else:
            yield from self._named("gate_f", 0, sums[2])
        yield from self._named("fresh", 1, sums[3])
        yield f"const {self.vec} c_new = gate_f * c_old + gate_i * fresh;"
        if self.spec.has_peepholes:
            sums[1] += " + p1 * c_new"
        yield from self._named("gate_o", 0, sums[1])
        yield f"{self._local('cells', row)} = t < len{row} ? c_new : c_old;"
        lines = render(self.spec.functions[2], ["c_new"], self.tile.width, "out_")
        yield from lines.statements
        yield f"const {self.vec} made = gate_o * {lines.results[0]};"
        yield from self._keep(row, "made")

    def _gru_late(self, row: int, sums: dict[int, str]) -> Iterator[str]:
        """Gates z, r, h; the reset gate multiplies the hidden gate's recurrence."""
        at = memory.load(self.dtype, f"x{row}", "2 * units + j", self.tile.width)
        yield from self._named("gate_z", 0, sums[0])
        yield from self._named("gate_r", 0, sums[1])
        yield from self._named("fresh", 1, f"{at} + gate_r * {sums[2]}")
        yield from self._mixed(row, "gate_z")

    def _reset(self, row: int, sums: dict[int, str]) -> Iterator[str]:
        yield from self._named("gate_z", 0, sums[0])
        yield from self._named("gate_r", 0, sums[1])
        yield f"{self._local('kept', row)} = gate_z;"
        yield f"{self._local('cells', row)} = gate_r * {self._local('old', row)};"

    def _mix(self, row: int, sums: dict[int, str]) -> Iterator[str]:
        yield from self._named("fresh", 1, sums[2])
        yield f"const {self.vec} gate_z = {self._local('kept', row)};"
        yield from self._mixed(row, "gate_z")

    def _mixed(self, row: int, gate: str) -> Iterator[str]:
        old = self._local("old", row)
        yield f"const {self.vec} made = fresh + {gate} * ({old} - fresh);"
        yield from self._keep(row, "made")
