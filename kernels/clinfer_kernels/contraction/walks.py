"""Which element of an operand a tile wants, and how a work-group copies it into local memory.

An operand's tile is TILE places (rows of A, columns of B) by K_STEP values along k. It lies in
local memory as [k][place], and is copied in pieces: `width` elements along the dimension that is
contiguous in memory, `along`. Piece number u of a work-item, `item`, is

    along k        k = item % (K_STEP / width) * width    place = item / (K_STEP / width) + u * ...
    along places   place = item % (TILE / width) * width  k = item / (TILE / width) + u * ...

so that one of the two is the same for all pieces of a work-item. Places beyond the operand's end
are read as the last one, so that only k needs a test, and that only where a step may go beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from clinfer_kernels import memory
from clinfer_kernels.contraction.puts import Pieces, put_lines
from clinfer_kernels.contraction.units import LANES, Packing
from clinfer_kernels.conv_problem import Problem as Convolution
from clinfer_kernels.conv_prologue import declare as declare_prologue
from clinfer_kernels.conv_prologue import prepared
from clinfer_kernels.dims import Dim
from clinfer_kernels.matrix import Matrix
from clinfer_kernels.matrix_text import declare as declare_matrix
from clinfer_kernels.nest import advance, stride_kind
from clinfer_kernels.signature import Signature
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

    def bits(self) -> Walk:
        """The same elements as unsigned numbers, as they are stored; for 8 and 16 bits."""
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

    def step(self, k: str) -> list[str]:
        """Statements of a step, before its pieces; `k`: where they begin, if all at the same."""
        ...

    def advance(self) -> list[str]:
        """Statements that go on to the next step, after its pieces."""
        ...

    def load(self, k: str, number: str) -> tuple[list[str], str, str]:
        """Statements, the condition on which it is read ('' for always), and the piece itself."""
        ...


@dataclass(frozen=True)
class MatrixWalk:
    """A matrix [places][k] (rows of A; B is the transpose of what the product has)."""

    name: str
    matrix: Matrix
    kind: str
    number: int
    places: Dim
    size: str  # the parameter that counts places
    k: Dim
    acc: str

    @property
    def dtype(self) -> str:
        return self.matrix.dtype

    @property
    def along(self) -> str:
        return "place" if self.matrix.row == 1 else "k"

    @property
    def width(self) -> int:
        """16-byte pieces, where all begin at multiples of their size and none goes over an end."""
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
class PanelWalk:
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
class WindowWalk:
    """The inputs that pixels read: places are pixels, k is (tap, channel) flattened.

    `k_step`: where it divides the channels, all pieces of a step are of one tap.
    """

    problem: Convolution
    k_step: int
    transposed: bool
    along: str = "k"

    @property
    def dtype(self) -> str:
        return self.problem.x.dtype

    @property
    def width(self) -> int:
        x, channels = self.problem.x, self.problem.channels
        pixels = Matrix(x.dtype, x.offset, x.strides[:-2], x.strides[-2], x.strides[-1])
        dense = x.strides[-1] == 1 and pixels.is_aligned(LANES)
        return LANES if dense and _is_multiple(channels) and not self.problem.prologue else 1

    @property
    def is_one_tap(self) -> bool:
        """Whether a step never goes beyond a tap."""
        return self.problem.window > 1 and _is_multiple(self.problem.channels, self.k_step)

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
        return replace(self, problem=replace(self.problem, x=x, acc=kind))

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
            *_inside(["a_channel = 0;", *taps]),
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


@dataclass(frozen=True)
class Copy:
    """How a work-group of `work_group` items copies a tile of `tile` places by `k_step`."""

    name: str  # 'a' | 'b'
    walk: Walk
    tile: int
    k_step: int
    work_group: int
    pitch: int
    vec: str
    acc: str
    whole_k: bool
    packing: Packing | None = None

    def __post_init__(self) -> None:
        if not self.is_even:
            raise ValueError(
                f"{self.work_group} work-items cannot share {self.tile} x {self.k_step} elements "
                f"in pieces of {self.walk.width}"
            )

    @property
    def pieces(self) -> int:
        """How many a work-item copies."""
        return self.tile * self.k_step // (self.work_group * self.walk.width)

    @property
    def _row(self) -> int:
        """Pieces side by side."""
        length = self.k_step if self.walk.along == "k" else self.tile
        return length // self.walk.width

    @property
    def is_even(self) -> bool:
        """Whether each work-item has as many pieces, as the formulas above want."""
        each = self.work_group * self.walk.width
        if self._is_turned:
            each *= 2
        return self.tile * self.k_step % each == 0 and self.work_group % self._row == 0

    @property
    def _is_turned(self) -> bool:
        """Whether LANES pieces of neighbouring k become vectors along k."""
        return self.packing is not None and self.walk.along == "place"

    @property
    def _turn(self) -> int:
        """How many pieces of neighbouring k a work-item turns: LANES, or 2 where it has no more."""
        return 2 if self.pieces % LANES else LANES

    def _k(self, steps: int) -> str:
        """Of piece @ along places, its k in the step."""
        if self._is_turned:
            t = self._turn
            return f"{t} * ({self.name}_k + @ / {t} * {steps}) + @ % {t}"
        return f"{self.name}_k + @ * {steps}"

    @property
    def _type(self) -> str:
        return self.vec if self.walk.width > 1 else self.acc

    def _loop(self, body: Sequence[str]) -> list[str]:
        """The statements once a piece, `@` being its number: compilers need not unroll anything."""
        return [line.replace("@", str(u)) for u in range(self.pieces) for line in body]

    def setup(self) -> list[str]:
        """Statements at the beginning of a task: where the work-item's places begin."""
        n, row, width = self.name, self._row, self.walk.width
        side = f"item % {row}" + (f" * {width}" if width > 1 else "")
        lines = self.walk.begin()
        if self.walk.along == "place":
            lines += [f"const int {n}_place = {side};", f"const int {n}_k = item / {row};"]
            kept = self.walk.place(f"{n}0 + {n}_place", "")
            names = ", ".join(self.walk.kept())
            return [*lines, f"int {names};", "{", *_inside(kept), "}"]
        lines += [f"const int {n}_k = {side};", f"const int {n}_place = item / {row};"]
        names = ", ".join(f"{name}{u}" for name in self.walk.kept() for u in range(self.pieces))
        lines.append(f"int {names};")
        place = f"{n}0 + {n}_place + @ * {self.work_group // row}"
        return [*lines, *self._loop(["{", *_inside(self.walk.place(place, "@")), "}"])]

    @property
    def _zero(self) -> str:
        return f"({self.vec})(0)" if self.walk.width > 1 else "0"

    def registers(self) -> str:
        """The declaration of what is on its way to local memory."""
        names = ", ".join(f"{self.name}_piece{u} = {self._zero}" for u in range(self.pieces))
        return f"{self._type} {names};"

    def load(self, k0: str) -> list[str]:
        """Statements that begin to load the pieces of the step at `k0`."""
        n = self.name
        is_along = self.walk.along == "k"
        steps = self.work_group // self._row
        k = f"{k0} + {n}_k" if is_along else f"{k0} + {self._k(steps)}"
        lines, condition, value = self.walk.load(k, "@" if is_along else "")
        conditions = [] if self.whole_k else [f"{k} < k_end"]
        if condition:
            conditions.append(condition)
        if lines:
            head = f"if ({' && '.join(conditions) or '1'}) {{"
            inner = _inside([*lines, f"{n}_piece@ = {value};"])
            body = [f"{n}_piece@ = 0;", head, *inner, "}"]
        elif conditions:
            read = f"if ({' && '.join(conditions)}) {n}_piece@ = {value};"
            body = [f"{n}_piece@ = {self._zero};", read]
        else:
            body = [f"{n}_piece@ = {value};"]
        step = self.walk.step(k) if is_along else []
        made = [*step, *self._loop(body), *self.walk.advance()]
        return ["{", *_inside(made), "}"]

    def put(self, turn: str) -> list[str]:
        """Statements that put the pieces into tile number `turn`."""
        n, steps = self.name, self.work_group // self._row
        to = f"{n}_tile + {turn} * {self.k_step * self.pitch}"
        if self.packing is not None:
            return self._put_packed(to, steps, self.packing)
        if self.walk.along == "place":
            at = f"({n}_k + @ * {steps}) * {self.pitch} + {n}_place"
            if self.walk.width > 1:
                body = [f"*(__local {self.vec}*)({n}_to + {at}) = {n}_piece@;"]
            else:
                body = [f"{n}_to[{at}] = {n}_piece@;"]
        else:
            at = f"{n}_place + @ * {steps}"
            if self.walk.width > 1:
                body = [
                    f"{n}_to[({n}_k + {j}) * {self.pitch} + {at}] = {n}_piece@.s{j};"
                    for j in range(self.walk.width)
                ]
            else:
                body = [f"{n}_to[{n}_k * {self.pitch} + {at}] = {n}_piece@;"]
        made = [f"__local {self.acc}* {n}_to = {to};", *self._loop(body)]
        return ["{", *_inside(made), "}"]

    def _put_packed(self, to: str, steps: int, packing: Packing) -> list[str]:
        """The pieces as vectors along k: [k / LANES][place][LANES]."""
        n, pitch = self.name, self.pitch
        v = packing.together[n == "b"]
        if v < LANES:
            pack = "" if self._is_ready else packing.pack
            counts = (self.pieces, self.walk.width, self.walk.along == "k", self._turn, steps)
            body = put_lines(Pieces(n, *counts, pitch, v, pack, packing.element))
        elif self.walk.along == "k":
            at = f"({n}_k / LANES * {pitch} + {n}_place + @ * {steps}) * LANES"
            if self.walk.width > 1:
                body = self._loop([self._packed(packing, at, f"{n}_piece@")])
            else:
                one = f"({self.vec})({n}_piece@, 0, 0, 0)"
                kept = packing.element
                if not self._is_ready:
                    one = f"{packing.pack}({one})"
                value = f"({kept})({one}).s0"
                if packing.flips and n == "a":
                    value = f"{value} ^ (uchar)0x80"
                body = self._loop([f"{n}_to[{at} + {n}_k % LANES] = {value};"])
        else:
            body = []
            turn = self._turn
            for block in range(0, self.pieces, turn):
                for place in range(self.walk.width):
                    lane = f".s{place}" if self.walk.width > 1 else ""
                    turned = [f"{n}_piece{block + j}{lane}" for j in range(turn)]
                    turned += ["0"] * (LANES - turn)
                    k = f"({n}_k + {block // turn * steps})"
                    if turn == 2:
                        at = f"({k} / 2 * {pitch} + {n}_place + {place}) * LANES + {k} % 2 * 2"
                    else:
                        at = f"({k} * {pitch} + {n}_place + {place}) * LANES"
                    vector = f"({self.vec})({', '.join(turned)})"
                    body.append(self._packed(packing, at, vector, turn))
        return ["{", *_inside([f"__local {packing.element}* {n}_to = {to};", *body]), "}"]

    @property
    def _is_ready(self) -> bool:
        """Whether the pieces are as they are to be: read as bits, or not packed."""
        return self.acc in ("ushort", "uchar") or not (self.packing and self.packing.pack)

    def _packed(self, packing: Packing, at: str, vector: str, count: int = LANES) -> str:
        """The statement that puts `count` neighbouring k, the first lanes of a vector."""
        put, kept = f"{packing.pack}({vector})", packing.bits
        if self._is_ready:
            put, kept = vector, self.vec
        if packing.flips and self.name == "a":
            put = f"({put} ^ (uchar)0x80)"
        if count < LANES:
            put, kept = f"({put}).lo", kept.replace("uint2", "uint").replace("4", "2")
        return f"*(__local {kept}*)({self.name}_to + {at}) = {put};"


def _inside(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
