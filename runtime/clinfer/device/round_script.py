"""Instructions for the player, and the registers that they begin with, in the making."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from clinfer import dtypes
from clinfer.lowering.binding import Sizes
from clinfer.lowering.plan import (
    Block,
    BranchStep,
    HostValue,
    Plan,
)
from clinfer_kernels.dims import Dim, Sym
from clinfer_kernels.player import (
    COMPUTATIONS,
    COMPUTES,
    COPIES,
    EXCHANGES,
    LOADS,
    NEEDS,
    NOTHING,
    PLAYS,
    SCRATCH,
    STEP_WORDS,
    STORES,
    UNSIGNED,
)

if TYPE_CHECKING:
    from clinfer.device.helpers import Helpers
    from clinfer.device.player import Tables

_RANGES = {"int": (-(1 << 31), (1 << 31) - 1), "uint": (0, (1 << 32) - 1)}
_MOST_READ = 64  # elements that a step reads sizes from
_OPERATIONS = {name: number for number, name in enumerate(COMPUTATIONS)}


class Unplayable(Exception):  # noqa: N818 - says what the loop is
    """A loop has a step that instructions cannot do."""


class Launches(NamedTuple):
    """Launches `first` to `end` - 1 of some tables; `helpers` are let in where there are some.

    `words` are arguments that may be others in each step: their address, C type and size.
    """

    tables: Tables
    first: int
    end: int
    helpers: Helpers | None
    words: Sequence[tuple[int, str, Dim]] = ()


class Stage(Protocol):
    """What the instructions are written from: an instance whose sizes are bound."""

    plan: Plan
    sizes: Sizes
    reports: np.ndarray[Any, Any]

    def row_of_launches(self, first: int, end: int) -> tuple[Launches | None, int]:
        """The launches from step `first` on, before step `end`, and the step behind them."""

    def keep_apart(self, number: int) -> None:
        """Lets a temporary have what it has in memory that no other uses at any time."""

    def slots_of(self, number: int) -> Sequence[int]:
        """The addresses of the arguments that are a buffer's address, of all launches given."""

    def block_taken(self, step: BranchStep) -> Block | None:
        """The block that sizes decide on; None where a run does. Raises `Unplayable`."""


class Script:
    """Instructions in the making, and the registers that they begin with."""

    def __init__(self, stage: Stage) -> None:
        self.words: list[list[int]] = []
        self.numbers = [0] * SCRATCH
        self.addresses: dict[int, int] = {}
        """Registers of the addresses of buffers."""
        self.rows: list[Launches] = []
        self.exchanged: list[tuple[int, int]] = []
        self.plays: list[tuple[int, int]] = []
        self.read: dict[int, list[int]] = {}
        """Registers of what steps of the plan have read."""
        self.stage = stage
        self._constants = {0: NOTHING}
        self.known: dict[Any, int] = {}

    def do(self, operation: int, *operands: int, step: int = 0) -> int:
        """Adds an instruction; its number."""
        operands += (0,) * (STEP_WORDS - 2 - len(operands))
        self.words.append([operation, *operands[: STEP_WORDS - 2], step])
        return len(self.words) - 1

    def register(self, number: int = 0) -> int:
        """A new register that begins with a number."""
        self.numbers.append(number)
        return len(self.numbers) - 1

    def constant(self, number: int) -> int:
        """The register that holds a number."""
        if not -(1 << 63) <= number < 1 << 63:
            raise Unplayable
        if number not in self._constants:
            self._constants[number] = self.register(number)
        return self._constants[number]

    def address(self, buffer: int) -> int:
        """The register of a buffer's address."""
        if buffer not in self.addresses:
            self.addresses[buffer] = self.register()
        return self.addresses[buffer]

    def compute(self, operation: str, left: int, right: int, step: int, to: int = 0) -> int:
        """Adds an operation on two registers; the register of its result."""
        to = to or self.register()
        self.do(COMPUTES, _OPERATIONS[operation], to, left, right, step=step)
        return to

    def need(self, register: int, step: int) -> None:
        """Leaves the instructions before a step where the register holds 0."""
        self.do(NEEDS, register, step=step)

    def copy(
        self, of: int, to: int, nbytes: int, of_at: int = NOTHING, to_at: int = NOTHING
    ) -> None:
        """Copies between buffers, from and to places that registers count in so many bytes."""
        if not nbytes:
            return
        words = [COPIES, self.address(to), to_at, nbytes, self.address(of), of_at, nbytes, nbytes]
        self.words.append(words)

    def exchange(self, of: int, to: int) -> None:
        """Lets two buffers have each other's memory, for launches too."""
        self.exchanged.append((of, to))
        for number in (of, to):
            self.stage.keep_apart(number)
        self.do(EXCHANGES, self.address(of), self.address(to))
        for number in (of, to):
            for slot in self.stage.slots_of(number):
                self.do(STORES, self.constant(slot), self.address(number))

    def play(self, row: Launches) -> None:
        """Plays launches; `prepare` has been called for them, in this step or branch's."""
        for address, _, dim in row.words:
            self.do(STORES, self.constant(address), self.known[dim])
        self.plays.append((self.do(PLAYS, 0, len(self.rows)), len(self.rows)))
        self.rows.append(row)

    def prepare(self, row: Launches, step: int) -> None:
        """Computes the arguments of launches that may be others in each step."""
        for _, ctype, dim in row.words:
            size = self.size(dim, step)
            if ctype in _RANGES:
                low, high = map(self.constant, _RANGES[ctype])
                self.need(self.compute("at most", low, size, step), step)
                self.need(self.compute("at most", size, high, step), step)

    # -- sizes -----------------------------------------------------------------------------------

    def bind(self, name: str, register: int) -> None:
        """Lets a symbol be what is in a register."""
        self.known[name] = register

    def size(self, dim: Dim, step: int) -> int:
        """The register of a size; of symbols that no instruction binds it is what they are now."""
        if isinstance(dim, int):
            return self.constant(dim)
        if dim not in self.known:
            total: int | None = None
            for monomial, factor in dim.terms:
                term = None if factor == 1 and monomial else self.constant(factor)
                for atom, power in monomial:
                    for _ in range(power):
                        term = self._with("mul", term, self._atom(atom, step), step)
                assert term is not None
                total = self._with("add", total, term, step)
            assert total is not None
            self.known[dim] = total
        return self.known[dim]

    def _atom(self, atom: Any, step: int) -> int:
        if isinstance(atom, Sym):
            known = self.known.get(atom.name)
            return self.constant(self.stage.sizes.values[atom.name]) if known is None else known
        return self._with(atom.op, self.size(atom.left, step), self.size(atom.right, step), step)

    def _with(self, operation: str, left: int | None, right: int, step: int) -> int:
        if left is None:
            return right
        key = (operation, left, right)
        if key not in self.known:
            self.known[key] = self.compute(operation, left, right, step)
        return self.known[key]

    def element(self, value: HostValue, step: int) -> int:
        """The register of a tensor's one element."""
        return self.elements(value, step)[0]

    def elements(self, value: HostValue, step: int) -> list[int]:
        """The registers of a tensor's elements."""
        if value.tensor is None:
            raise Unplayable
        sizes, tensor = self.stage.sizes, value.tensor
        places = [sizes(tensor.offset)]
        for count, stride in zip(map(sizes, tensor.shape), map(sizes, tensor.strides), strict=True):
            places = [place + stride * n for place in places for n in range(count)]
            if len(places) > _MOST_READ:
                raise Unplayable
        buffer = self.stage.plan.buffers[value.buffer]
        if buffer.kind == "sizes":
            return [self.constant(sizes(buffer.content[place])) for place in places]
        nbytes = dtypes.size_of(buffer.dtype)
        kind = nbytes + (UNSIGNED if buffer.dtype.startswith("u") else 0)
        found = [self.register() for _ in places]
        for register, place in zip(found, places, strict=True):
            self.do(LOADS, register, self.address(value.buffer), place * nbytes, kind)
        return found
