"""How a work-group copies a tile of an operand into local memory.

An operand's tile is TILE places (rows of A, columns of B) by K_STEP values along k. It lies in
local memory as [k][place], and is copied in pieces: `width` elements along the dimension that is
contiguous in memory, `along`. Piece number u of a work-item, `item`, is

    along k        k = item % (K_STEP / width) * width    place = item / (K_STEP / width) + u * ...
    along places   place = item % (TILE / width) * width  k = item / (TILE / width) + u * ...

so that one of the two is the same for all pieces of a work-item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinfer_kernels.contraction.puts import Pieces, put_lines
from clinfer_kernels.contraction.units import LANES, Packing
from clinfer_kernels.contraction.walks import Walk
from clinfer_kernels.template import inside


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
        """Whether pieces of neighbouring k become vectors along k."""
        if self.packing is None or self.walk.along != "place":
            return False
        return self.packing.together[self.name == "b"] > 1

    @property
    def _turn(self) -> int:
        """How many pieces of neighbouring k a work-item turns: LANES, or 2 where it has no more."""
        if not self._is_turned:
            return 1
        return 2 if self.pieces % LANES else LANES

    @property
    def _first_k(self) -> str:
        """Of pieces along places, the first one's k in the step."""
        return f"{self._turn} * {self.name}_k" if self._is_turned else f"{self.name}_k"

    def _k(self, steps: int) -> str:
        """Of piece @ along places, how far its k is from the first one's."""
        t = self._turn
        return f"@ / {t} * {t * steps} + @ % {t}" if self._is_turned else f"@ * {steps}"

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
            kept += self.walk.ahead(self._first_k)
            names = ", ".join(self.walk.kept())
            return [*lines, f"int {names};", "{", *inside(kept), "}"]
        lines += [f"const int {n}_k = {side};", f"const int {n}_place = item / {row};"]
        names = ", ".join(f"{name}{u}" for name in self.walk.kept() for u in range(self.pieces))
        lines.append(f"int {names};")
        place = f"{n}0 + {n}_place + @ * {self.work_group // row}"
        values = [f"{name}{u}" for name in self.walk.values() for u in range(self.pieces)]
        if values:
            lines.append(f"{self.acc} {', '.join(values)};")
        begins = f"{n}_k == 0 && b0 == 0 && k_begin == 0"
        places = self._loop(["{", *inside(self.walk.place(place, "@")), "}"])
        if not values:
            return [*lines, *places]
        every = [(place.replace("@", str(u)), str(u)) for u in range(self.pieces)]
        each = self.walk.rows(every)
        for at, number in every:
            each += self.walk.keep(at, number, begins)
        return [*lines, *places, "{", *inside(each), "}"]

    @property
    def _zero(self) -> str:
        value = str(self.walk.outside)
        return f"({self.vec})({value})" if self.walk.width > 1 else value

    def registers(self) -> str:
        """The declaration of what is on its way to local memory."""
        names = ", ".join(f"{self.name}_piece{u} = {self._zero}" for u in range(self.pieces))
        beside = [f"{ctype} {name} = 0;" for ctype, name in self.walk.beside()]
        return " ".join([f"{self._type} {names};", *beside])

    def load(self, k0: str) -> list[str]:
        """Statements that begin to load the pieces of the step at `k0`."""
        n = self.name
        is_along = self.walk.along == "k"
        steps = self.work_group // self._row
        k = f"{k0} + {n}_k" if is_along else f"{k0} + {self._k(steps)}"
        lines, condition, value = self.walk.load(k, "@" if is_along else "")
        own = k if is_along else f"{k} + {self._first_k}"
        conditions = [] if self.whole_k else [f"{own} < k_end"]
        if condition:
            conditions.append(condition)
        if lines:
            head = f"if ({' && '.join(conditions) or '1'}) {{"
            inner = inside([*lines, f"{n}_piece@ = {value};"])
            body = [f"{n}_piece@ = 0;", head, *inner, "}"]
        elif conditions:
            read = f"if ({' && '.join(conditions)}) {n}_piece@ = {value};"
            body = [f"{n}_piece@ = {self._zero};", read]
        else:
            body = [f"{n}_piece@ = {value};"]
        step = self.walk.step(k) if is_along else []
        step = [*step, *self.walk.load_beside(k)]
        made = [*step, *self._loop(body), *self.walk.advance()]
        return ["{", *inside(made), "}"]

    def put(self, turn: str) -> list[str]:
        """Statements that put the pieces into tile number `turn`."""
        return [*self._finished(), *self._put(turn)]

    def _finished(self) -> list[str]:
        """Statements that make of the pieces what is to be multiplied."""
        n = self.name
        lines, value = self.walk.finish(f"{n}_piece@", "@")
        return self._loop(["{", *inside([*lines, f"{n}_piece@ = {value};"]), "}"] if lines else [])

    def _put(self, turn: str) -> list[str]:
        n, steps = self.name, self.work_group // self._row
        size = self.k_step * self.pitch
        if self.packing is not None and self.packing.planes:
            return self._put_planes(turn, size, steps, self.packing)
        to = f"{n}_tile + {turn} * {size}"
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
        return ["{", *inside(made), "}"]

    def _put_planes(self, turn: str, size: int, steps: int, packing: Packing) -> list[str]:
        """The pieces' summands, one after the other: a piece becomes what is left of it."""
        lines = []
        for number, plane in enumerate(packing.planes):
            own = replace(packing, pack=plane.pack, pair=plane.pair, planes=())
            to = f"{self.name}_tile + {turn} * {packing.count * size} + {number * size}"
            lines += replace(self, packing=own)._put_packed(to, steps, own)
            piece = f"{self.name}_piece@"
            rest = f"{plane.rest}({piece})"
            if self.walk.width == 1:
                rest = f"{plane.rest}(({self.vec})({piece}, 0, 0, 0)).s0"
            lines += self._loop([f"{piece} = {rest};"]) if plane.rest else []
        return lines

    def _put_packed(self, to: str, steps: int, packing: Packing) -> list[str]:
        """The pieces as vectors along k: [k / LANES][place][LANES]."""
        n, pitch = self.name, self.pitch
        v = packing.together[n == "b"]
        if v != LANES:
            pack = "" if self._is_ready else packing.pack
            counts = (self.pieces, self.walk.width, self.walk.along == "k", self._turn, steps)
            gap = packing.gaps[n == "b"]
            body = put_lines(Pieces(n, *counts, pitch, v, pack, packing.element, gap, packing.pair))
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
        return ["{", *inside([f"__local {packing.element}* {n}_to = {to};", *body]), "}"]

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
