"""Which elements of its operands and results a lane of a matrix instruction has, as numbers.

An instruction makes rows x columns results of a wave of lanes. What manuals give is, of operands,
the `Layout` of a lane's registers, and of results, which rows and columns are a lane's: a `Side`
each. Which place of a tile an instruction's row is, is ours to choose, as long as loads and results
agree; a `Side` says that too, and `Order` the same along k. Everything else follows: where a lane's
registers lie in local memory, and which of its results are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    """The rows of an instruction's result, or the columns, and their places in a wave's tile.

    `lanes` lanes share them, `each` of them being one lane's; `lane` is a lane's number among those
    as C text of `lane`. `is_outer`: index = each lane + own, else own lanes + lane.

    A lane's own number `own` of fragment `f` is one of its `weave each` of `weave` neighbouring
    fragments: (f div weave) weave each + own weave + f mod weave. So numbered, `r` is at place

        lanes height (r div height) + height lane + r mod height

    `height` neighbouring places are one lane's.
    """

    lanes: int
    each: int
    lane: str
    is_outer: bool = False
    height: int = 1
    weave: int = 1

    @property
    def count(self) -> int:
        """Indices of an instruction."""
        return self.lanes * self.each

    def index(self, own: str) -> str:
        """The index of a lane's own number, as text."""
        if self.is_outer:
            return f"({self.lane}) * {self.each} + {own}"
        return f"({own}) * {self.lanes} + {self.lane}"

    def number(self, own: int, fragment: int) -> int:
        """What a lane calls its own index of a fragment, among those of the whole tile."""
        first = fragment // self.weave * self.weave * self.each
        return first + own * self.weave + fragment % self.weave

    def place(self, index: int, fragment: int) -> int:
        """Of an instruction's index, the place in the wave's tile."""
        outer, inner = divmod(index, self.each if self.is_outer else self.lanes)
        lane, own = (outer, inner) if self.is_outer else (inner, outer)
        number = self.number(own, fragment)
        block = number // self.height * self.lanes * self.height
        return block + lane * self.height + number % self.height

    def place_text(self, index: str) -> str:
        """`place` of fragment 0, as text."""
        divisor = self.each if self.is_outer else self.lanes
        outer, inner = f"{index} / {divisor}", f"{index} % {divisor}"
        lane, own = (outer, inner) if self.is_outer else (inner, outer)
        if self.each == 1:
            return f"{index} * {self.height}" if self.height > 1 else index
        if self.lanes == 1:
            return index
        number = f"{own} * {self.weave}" if self.weave > 1 else own
        if self.height == 1:
            return f"{number} * {self.lanes} + {lane}"
        block = f"{number} / {self.height} * {self.lanes * self.height}"
        return f"{block} + {lane} * {self.height} + {number} % {self.height}"


@dataclass(frozen=True)
class Layout:
    """An operand's 32-bit registers of a lane.

    Register number i begins at index `index` + registers[i][0] and k `k` + registers[i][1], the
    texts being those of `lane`; its elements are neighbours along k. `together`: neighbouring k
    that lie side by side in local memory, [k / together][place]; with `is_across` a register has no
    more of an index, and goes on with the next. `gap`: elements left free behind every four places,
    so that lanes with four places each read different banks.
    """

    index: str
    k: str
    registers: tuple[tuple[int, int], ...]
    together: int
    is_across: bool = False
    gap: int = 0


@dataclass(frozen=True)
class Order:
    """What k of a tile instruction number `s` multiplies: the sum over digits of its slot's number,

        (slot div stride mod count) place        for each (stride, count, place)

    and `step` s. No digits: the slots' own order.
    """

    step: int
    digits: tuple[tuple[int, int, int], ...] = ()

    def k(self, slot: int, s: int) -> int:
        """The k of a slot of instruction `s`."""
        if not self.digits:
            return slot + s * self.step
        return sum(slot // a % n * place for a, n, place in self.digits) + s * self.step

    def text(self, slot: str) -> str:
        """`k` of instruction 0, as text."""
        if not self.digits:
            return slot
        terms = []
        for stride, count, place in self.digits:
            quotient = f"{slot} / {stride}" if stride > 1 else slot
            terms.append(f"{quotient} % {count}" + (f" * {place}" if place > 1 else ""))
        return " + ".join(terms)


PLAIN = Order(16)
"""The order of slots, of an instruction of 16 k."""
