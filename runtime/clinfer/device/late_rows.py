"""Rows of launches of a plan that is played and some of whose sizes only a run gives.

Between two steps that are no launches all sizes are known: such a row of launches is one call of
the player. Its tables are made when a run first comes to it with some sizes, and kept for those.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from clinfer.device.helpers import Helpers
from clinfer.device.player import ALIGNMENT, Tables, Words, aligned
from clinfer.device.results import new_memory
from clinfer.lowering.binding import BoundLaunch, Sizes, bind_launch
from clinfer.lowering.memory import Lifetime, plan_arena
from clinfer.lowering.plan import Array, LaunchStep, Plan
from clinfer_kernels.dims import Dim, symbols

_SETS_OF_SIZES = 256  # for which a row's tables are kept


@dataclass
class Row:
    """Launches `first` to `end` - 1 of a plan.

    `names` are the symbols that its launches and buffers have and the inputs' shapes do not give.
    `inner` are the temporaries that nothing else touches.
    """

    first: int
    end: int
    names: tuple[str, ...]
    inner: frozenset[int]
    known: OrderedDict[tuple[int, ...], BoundRow] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, plan: Plan, first: int, end: int) -> Row:
        """The row of those steps, which are all launches."""
        dims: list[Dim] = []
        touched: set[int] = set()
        for step in plan.steps[first:end]:
            assert isinstance(step, LaunchStep)
            dims += [*step.global_size, step.when, *(a.value for a in step.args)]
            touched.update(a.buffer for a in step.args if a.kind == "buffer")
        for number in touched:
            dims += [plan.buffers[number].size, *plan.buffers[number].content]
        names = {name for dim in dims for name in symbols(dim)} - plan.input_symbols
        inner = (n for n in touched if _is_inner(plan, n, first, end))
        return cls(first, end, tuple(sorted(names)), frozenset(inner))

    def keep(self, key: tuple[int, ...], bound: BoundRow) -> None:
        """Remembers the row bound to the sizes `key`; forgets what was bound long ago."""
        self.known[key] = bound
        if len(self.known) > _SETS_OF_SIZES:
            self.known.popitem(last=False)


@dataclass
class BoundRow:
    """A row with numbers for sizes.

    Argument `places[i]` of `values` is the address of buffer `numbers[i]`. `outer` are the buffers
    with their bytes that others touch too; of the others `inner` are the places in an arena of
    `nbytes`. `kept` is what arguments point to for good. `helpers` come where that
    is worth it.
    """

    launches: Sequence[BoundLaunch]
    values: Words
    places: Words
    numbers: Words
    outer: Sequence[tuple[int, int]]
    inner: Sequence[tuple[int, int]]
    nbytes: int
    kept: Sequence[Array]
    call: Callable[[], None] = lambda: None
    tables: Tables | None = None
    helpers: Helpers | None = None


class Arguments(NamedTuple):
    """How an instance writes a row's arguments: those that are no buffers, and fixed buffers."""

    scalar: Callable[[str, int], int]
    content: Callable[[int], Array | None]


def bind_row(plan: Plan, row: Row, sizes: Sizes, arguments: Arguments, alignment: int) -> BoundRow:
    """The row for sizes that are all known."""
    found = (bind_launch(step, sizes) for step in _launches(plan, row))
    launches = [launch for launch in found if not launch.is_empty]
    numbers = {value for x in launches for kind, value in x.args if kind == "buffer"}
    fixed = {n: content for n in numbers if (content := arguments.content(n)) is not None}
    values: list[int] = []
    slots: list[tuple[int, int]] = []
    for launch in launches:
        for kind, value in launch.args:
            if kind == "buffer" and value not in fixed:
                slots.append((len(values), value))
            if kind == "buffer":
                content = fixed.get(value)
                values.append(0 if content is None else content.ctypes.data)
            else:
                values.append(0 if kind == "local" else arguments.scalar(kind, value))
    inner = [n for n in sorted(numbers) if n in row.inner]
    lives = [_lifetime(plan, n, sizes) for n in inner]
    arena = plan_arena(lives, alignment)
    moved = [n for n in sorted(numbers) if n not in row.inner and n not in fixed]
    return BoundRow(
        launches,
        np.array(values, np.uint64),
        np.array([place for place, _ in slots], np.uint64),
        np.array([number for _, number in slots], np.uint64),
        [(n, plan.buffers[n].nbytes(sizes)) for n in moved],
        list(zip(inner, arena.offsets, strict=True)),
        arena.nbytes,
        list(fixed.values()),
    )


def words_of_sizes(plan: Plan, row: Row, sizes: Sizes) -> Iterable[tuple[int, str, Dim]]:
    """Of what `bind_row` gives for these sizes the words that hold a size, their type, the size."""
    word = 0
    for step in _launches(plan, row):
        if bind_launch(step, sizes).is_empty:
            continue
        for arg in step.args:
            if arg.kind == "scalar" and not isinstance(arg.value, int):
                yield word, arg.ctype, arg.value
            word += 1


def bytes_touched(plan: Plan, launches: Iterable[BoundLaunch], sizes: Sizes) -> int:
    """The bytes of the buffers that launches touch, of each launch by itself."""
    numbers = ({value for kind, value in x.args if kind == "buffer"} for x in launches)
    return sum(plan.buffers[n].nbytes(sizes) for found in numbers for n in found)


def _launches(plan: Plan, row: Row) -> Iterable[LaunchStep]:
    return (s for s in plan.steps[row.first : row.end] if isinstance(s, LaunchStep))


def _is_inner(plan: Plan, number: int, first: int, end: int) -> bool:
    buffer = plan.buffers[number]
    return buffer.kind == "temp" and first <= buffer.first and buffer.last < end


def _lifetime(plan: Plan, number: int, sizes: Sizes) -> Lifetime:
    buffer = plan.buffers[number]
    return Lifetime(buffer.nbytes(sizes), buffer.first, buffer.last)


class Block(NamedTuple):
    """Memory of a buffer: `room` bytes from `address` on, which is aligned."""

    memory: Array
    address: int
    room: int


class Pool:
    """Blocks of memory for buffers of a run, used again by the next ones.

    A block has room for a size that is rounded up by less than a quarter.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[tuple[Block, int]]] = defaultdict(list)
        """By their room; and the run that has last used a block."""
        self._run = 0

    def take(self, nbytes: int) -> Block:
        """A block with room for so many bytes. Raises `DeviceError` where there is no memory."""
        step = 1 << max(nbytes.bit_length() - 3, 8)
        size = -(-max(nbytes, 1) // step) * step
        free = self._free[size]
        if free:
            return free.pop()[0]
        memory = new_memory(size + ALIGNMENT)
        return Block(memory, aligned(memory.ctypes.data), size)

    def give(self, block: Block) -> None:
        """A block that `take` has given is free again."""
        self._free[block.room].append((block, self._run))

    def end_run(self) -> None:
        """Lets go of what neither this run nor the one before has used."""
        for size, free in list(self._free.items()):
            kept = [(block, run) for block, run in free if run >= self._run - 1]
            if kept:
                self._free[size] = kept
            else:
                del self._free[size]
        self._run += 1
