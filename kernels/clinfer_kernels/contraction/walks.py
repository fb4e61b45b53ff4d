"""Which element of an operand a tile wants: the addresses of its pieces (`copies`).

Places beyond an operand's end are read as the last one, so that only k needs a test, and that only
where a step may go beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from clinfer_kernels import memory
from clinfer_kernels.contraction.units import LANES
from clinfer_kernels.conv_problem import Problem as Convolution
from clinfer_kernels.conv_prologue import declare as declare_prologue
from clinfer_kernels.conv_prologue import prepared
from clinfer_kernels.dims import Dim
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import declare as declare_matrix
from clinfer_kernels.nest import advance, stride_kind
from clinfer_kernels.signature import Signature
from clinfer_kernels.template import inside
from clinfer_kernels.types import compute, size_of, storage
from clinfer_kernels.window import (
    WindowAxis,
    declare_axes,
    decode_position,
    decode_taps,
    index,
    windowed,
)


class Walk(Protocol):
    """An operand's addresses in text, as `local_tile.cl` needs them.

    `along` is 'k' or 'place', `width` the elements of a piece. Statements see `item`, the group's
    first place as `place0`, the batch index `z`, and what `declare` declared.
    """

    @property
    def along(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def dtype(self) -> str: ...

    @property
    def is_stored(self) -> bool:
        """Whether elements are multiplied as they lie in memory; else see `StoredWalk`."""
        ...

    @property
    def outside(self) -> int:
        """What an element counts as whose condition does not hold."""
        ...

    def values(self) -> tuple[str, ...]: ...

    def beside(self) -> tuple[tuple[str, str], ...]: ...

    def load_beside(self, k: str) -> list[str]: ...

    def finish(self, piece: str, number: str) -> tuple[list[str], str]: ...

    def rows(self, rows: Sequence[tuple[str, str]]) -> list[str]: ...

    def keep(self, place: str, number: str, condition: str) -> list[str]: ...

    def single_value(
        self, value: str, number: str, k: str, prefix: str
    ) -> tuple[list[str], str]: ...

    def bits(self) -> Walk:
        """The same elements as unsigned numbers, as they are stored; for 8 and 16 bits."""
        ...

    def single(self) -> Walk:
        """The same elements, one at a time and in any order."""
        ...

    def declare(self, signature: Signature) -> None:
        """The operand's parameters."""
        ...

    def begin(self) -> list[str]:
        """Statements of a task, before its pieces' places are known."""
        ...

    def place(self, place: str, number: str) -> list[str]:
        """Statements that keep where place `place` begins; `number`: the piece, '' for all."""
        ...

    def kept(self) -> tuple[str, ...]:
        """The names of the numbers that `place` keeps, each followed by that of the piece."""
        ...

    def ahead(self, k: str) -> list[str]:
        """Statements that move what `place` keeps on by `k`, for pieces along places."""
        ...

    def step(self, k: str) -> list[str]:
        """Statements of a step, before its pieces; `k`: where they begin, if all at the same."""
        ...

    def advance(self) -> list[str]:
        """Statements that go on to the next step, after its pieces."""
        ...

    def load(self, k: str, number: str) -> tuple[list[str], str, str]:
        """Statements, the condition on which it is read ('' for always), and the piece itself."""
        ...


class StoredWalk:
    """An operand that is multiplied as it lies in memory: nothing is made of its elements."""

    is_stored = True
    outside = 0

    def ahead(self, k: str) -> list[str]:
        """None: pieces are along k."""
        return []

    def values(self) -> tuple[str, ...]:
        """As `kept`, of numbers of the sums' type."""
        return ()

    def beside(self) -> tuple[tuple[str, str], ...]:
        """(C type, name) of what is read once for all pieces of a step along k."""
        return ()

    def load_beside(self, k: str) -> list[str]:
        """Statements that begin to load it."""
        return []

    def finish(self, piece: str, number: str) -> tuple[list[str], str]:
        """Statements, and the elements to be multiplied, of a piece that has been loaded."""
        return [], piece

    def rows(self, rows: Sequence[tuple[str, str]]) -> list[str]:
        """Statements that set `values` of rows, each given by its place and its number."""
        return []

    def keep(self, place: str, number: str, condition: str) -> list[str]:
        """Statements that store what others want to know of a place, on a condition."""
        return []

    def single_value(self, value: str, number: str, k: str, prefix: str) -> tuple[list[str], str]:
        """Statements, and the element to be multiplied, of the one at `k` that is `value`."""
        return [], value


@dataclass(frozen=True)
class MatrixWalk(StoredWalk):
    """A matrix [places][k] (rows of A; B is the transpose of what the product has)."""

    name: str
    matrix: Matrix
    kind: str
    number: int
    places: Dim
    size: str  # the parameter that counts places
    k: Dim
    acc: str
    is_single: bool = False

    @property
    def dtype(self) -> str:
        return self.matrix.dtype

    @property
    def along(self) -> str:
        return "place" if self.matrix.row == 1 else "k"

    @property
    def width(self) -> int:
        """16-byte pieces, where all begin at multiples of their size and none goes over an end."""
        if self.is_single:
            return 1
        along_k = self.along == "k"
        if along_k and self.matrix.col != 1:
            return 1
        lines = self.matrix if along_k else self.matrix.transposed
        length = self.k if along_k else self.places
        whole = lines.is_aligned(LANES) and _is_multiple(length)
        return LANES if whole else 1

    def bits(self) -> Walk:
        kind = bits_of(self.dtype)
        return replace(self, matrix=replace(self.matrix, dtype=kind), acc=kind)

    def single(self) -> Walk:
        return replace(self, is_single=True)

    def declare(self, signature: Signature) -> None:
        matrix = self.matrix if self.along == "k" else self.matrix.transposed
        declare_matrix(signature, self.name, matrix, self.kind, self.number)

    def begin(self) -> list[str]:
        n = self.name
        return [f"const __global {storage(self.dtype)}* {n}_z = {n} + {n}_at;"]

    def kept(self) -> tuple[str, ...]:
        return (f"{self.name}_from",)

    def element(self, place: str, k: str) -> str:
        """One element, whatever the width."""
        n = self.name
        if self.along == "place":
            at = f"{place} + {k} * {n}_row"
        else:
            step = {"0": "", "1": f" + {k}"}.get(self.matrix.col_kind, f" + {k} * {n}_col")
            at = f"{place} * {n}_row{step}"
        value = memory.load(self.dtype, f"{n}_z", at)
        return memory.convert(value, compute(self.acc), compute(self.dtype), 1)

    def place(self, place: str, number: str) -> list[str]:
        last = f"min({place}, {self.size} - {self.width if self.along == 'place' else 1})"
        step = f" * {self.name}_row" if self.along == "k" else ""
        return [f"{self.name}_from{number} = {last}{step};"]

    def ahead(self, k: str) -> list[str]:
        return [f"{self.name}_from += ({k}) * {self.name}_row;"]

    def step(self, k: str) -> list[str]:
        return []

    def advance(self) -> list[str]:
        return []

    def load(self, k: str, number: str) -> tuple[list[str], str, str]:
        n = self.name
        if self.along == "place":
            step = f" + ({k}) * {n}_row"
        else:
            step = {"0": "", "1": f" + {k}"}.get(self.matrix.col_kind, f" + ({k}) * {n}_col")
        at = f"{n}_from{number}{step}"
        value = memory.load(self.dtype, f"{n}_z", at, self.width, "1", is_aligned=True)
        types = (compute(self.acc), compute(self.dtype), self.width)
        return [], "", memory.convert(value, *types)


@dataclass(frozen=True)
class PanelWalk(StoredWalk):
    """Packed weights of a convolution: panels of `cols` filters, [k][cols] each, zeros beyond."""

    cols: int
    acc: str
    kind: str
    number: int
    dtype: str
    along: str = "place"
    width: int = LANES

    def bits(self) -> Walk:
        kind = bits_of(self.dtype)
        return replace(self, acc=kind, dtype=kind)

    def single(self) -> Walk:
        return replace(self, width=1)

    def declare(self, signature: Signature) -> None:
        signature.read(self.kind, self.number, self.dtype, "b")

    def begin(self) -> list[str]:
        return [
            f"const int panels = (N + {self.cols - 1}) / {self.cols};",
            f"const __global {storage(self.dtype)}* b_z"
            f" = b + w_o + z * panels * (K * {self.cols});",
        ]

    def kept(self) -> tuple[str, ...]:
        return ("b_from",)

    def place(self, place: str, number: str) -> list[str]:
        cols = self.cols
        return [
            f"b_from{number} = min(({place}) / {cols}, panels - 1) * (K * {cols})"
            f" + ({place}) % {cols};"
        ]

    def ahead(self, k: str) -> list[str]:
        return [f"b_from += ({k}) * {self.cols};"]

    def step(self, k: str) -> list[str]:
        return []

    def advance(self) -> list[str]:
        return []

    def load(self, k: str, number: str) -> tuple[list[str], str, str]:
        at = f"b_from{number} + ({k}) * {self.cols}"
        value = memory.load(self.dtype, "b_z", at, self.width, is_aligned=True)
        types = (compute(self.acc), compute(self.dtype), self.width)
        return [], "", memory.convert(value, *types)


@dataclass(frozen=True)
class WindowWalk(StoredWalk):
    """The inputs that pixels read: places are pixels, k is (tap, channel) flattened.

    `k_step`: where it divides the channels, all pieces of a step are of one tap.
    """

    problem: Convolution
    k_step: int
    transposed: bool
    along: str = "k"
    is_single: bool = False
    outside: int = 0

    @property
    def dtype(self) -> str:
        return self.problem.x.dtype

    @property
    def width(self) -> int:
        if self.is_single:
            return 1
        x, channels = self.problem.x, self.problem.channels
        pixels = Matrix(x.dtype, x.offset, x.strides[:-2], x.strides[-2], x.strides[-1])
        dense = x.strides[-1] == 1 and pixels.is_aligned(LANES)
        return LANES if dense and _is_multiple(channels) and not self.problem.prologue else 1

    @property
    def is_one_tap(self) -> bool:
        """Whether a step never goes beyond a tap."""
        one = _is_multiple(self.problem.channels, self.k_step) and not self.is_single
        return self.problem.window > 1 and one

    @property
    def tested(self) -> tuple[int, ...]:
        """The axes along which a tap may lie in the padding."""
        axes = self.problem.axes
        return tuple(a for a in windowed(len(axes)) if not is_inside(axes[a], self.transposed))

    @property
    def tapped(self) -> tuple[int, ...]:
        """The axes that have more than one tap, in a window that has any."""
        if self.problem.window == 0:
            return ()
        return tuple(a for a in windowed(len(self.problem.axes)) if self.problem.axes[a].taps > 1)

    def bits(self) -> Walk:
        kind = bits_of(self.dtype)
        x = self.problem.x._replace(dtype=kind)
        outside = self.outside & (1 << 8 * size_of(self.dtype)) - 1
        return replace(self, problem=replace(self.problem, x=x, acc=kind), outside=outside)

    def single(self) -> Walk:
        return replace(self, is_single=True)

    def declare(self, signature: Signature) -> None:
        x = self.problem.x
        signature.read("in", 0, x.dtype, "x")
        signature.scalar("x_o", x.offset)
        if stride_kind(x.strides[-1]) == "s":
            signature.scalar("x_c", x.strides[-1])
        declare_prologue(signature, self.problem.prologue)
        declare_axes(signature, self.problem.axes)
        signature.scalar("C", self.problem.channels)

    def begin(self) -> list[str]:
        begin = [f"const __global {storage(self.dtype)}* a_z = x + x_o + z * C{self._times};"]
        if not self.is_one_tap:
            return begin
        taps = ["int tap = k_begin / C;", *decode_taps(self.tapped, "tap")]
        return [*begin, "int a_channel = k_begin % C;", *taps]

    @property
    def _times(self) -> str:
        kind = stride_kind(self.problem.x.strides[-1])
        return {"0": " * 0", "1": ""}.get(kind, " * x_c")

    def kept(self) -> tuple[str, ...]:
        return ("a_from", *(f"first{a}_" for a in self.tested))

    def place(self, place: str, number: str) -> list[str]:
        rank = len(self.problem.axes)
        lines = [f"int position = min({place}, M - 1);", *decode_position(rank, "position")]
        terms = ["o0 * x_s0", *(f"({index(a)}) * x_s{a}" for a in windowed(rank))]
        lines.append(f"a_from{number} = {' + '.join(terms)};")
        return [*lines, *(f"first{a}_{number} = {index(a)};" for a in self.tested)]

    def step(self, k: str) -> list[str]:
        """Which tap and channel `k` is, and how far from the window's first input."""
        if self.problem.window <= 1:
            return [f"const int channel = {k};", "const int tap_at = 0;"]
        taps = self.tapped
        terms = [f"t{a} * tap_step{a} * x_s{a}" for a in taps]
        if self.is_one_tap:
            tap_at = f"const int tap_at = {' + '.join(terms)};"
            return ["const int channel = a_channel + a_k;", tap_at]
        return [
            f"int tap = ({k}) / C;",
            f"const int channel = ({k}) % C;",
            *decode_taps(taps, "tap"),
            f"const int tap_at = {' + '.join(terms)};",
        ]

    def advance(self) -> list[str]:
        if not self.is_one_tap:
            return []
        taps = advance(self.tapped, "t", "taps")
        return [
            f"a_channel += {self.k_step};",
            "if (a_channel == C) {",
            *inside(["a_channel = 0;", *taps]),
            "}",
        ]

    def load(self, k: str, number: str) -> tuple[list[str], str, str]:
        tests = []
        for a in self.tested:
            tap = f" + t{a} * tap_step{a}" if a in self.tapped else ""
            tests.append(f"(uint)(first{a}_{number}{tap}) < (uint)size{a}")
        x, acc = self.problem.x, self.problem.acc
        at = {"0": "", "1": " + channel"}.get(stride_kind(x.strides[-1]), " + channel * x_c")
        value = memory.load(x.dtype, "a_z", f"a_from{number} + tap_at{at}", self.width, "1", True)
        if self.problem.prologue is None:
            made = memory.convert(value, compute(acc), compute(x.dtype), self.width)
            return [], " && ".join(tests), made
        lines, made = prepared(self.problem.prologue, x, value, "z * C + channel", acc)
        return lines, " && ".join(tests), made


def bits_of(dtype: str) -> str:
    """The unsigned integers of a dtype's size."""
    return f"uint{8 * size_of(dtype)}"


def is_inside(axis: WindowAxis, transposed: bool) -> bool:
    """Whether no tap of the axis lies in the padding, for every size."""
    if isinstance(axis.out, int) and isinstance(axis.size, int):
        ends = (axis.origin, axis.origin + (axis.taps - 1) * axis.tap_step)
        return min(ends) >= 0 and max(ends) + (axis.out - 1) * axis.step < axis.size
    return axis.taps == 1 and axis.origin == 0 and (axis.is_plain or not transposed)


def _is_multiple(size: Dim, of: int = LANES) -> bool:
    """Whether the size is known to be such a multiple."""
    return isinstance(size, int) and size % of == 0
