"""A plan's memory for sizes that are known: where temporaries lie, and how much there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from clinfer.lowering.binding import Closed
from clinfer.lowering.memory import Arena, Lifetime, least_bytes, plan_arena
from clinfer.lowering.plan import Plan, touched
from clinfer_kernels.dims import Dim

_MOST_KEPT = 1024  # memory plans


class ArenaPlan(NamedTuple):
    """Where each temporary buffer lives: `offsets` maps its index to bytes in the arena.

    A split arena is made of allocations of `block` bytes, the last one shorter (`allocations`).
    """

    offsets: Mapping[int, int]
    nbytes: int
    block: int = 0

    @property
    def allocations(self) -> list[int]:
        """The bytes of each allocation that the arena is made of."""
        step = self.block or max(self.nbytes, 1)
        return [min(step, self.nbytes - start) for start in range(0, self.nbytes, step)]

    def place(self, number: int) -> tuple[int, int]:
        """The allocation that a buffer lies in, and where in it."""
        return divmod(self.offsets[number], self.block or max(self.nbytes, 1))


def bind_arena(
    plan: Plan,
    sizes: Callable[[Dim], int],
    alignment: int,
    closed: Closed | None = None,
    block: int = 0,
    known: dict[Any, ArenaPlan] | None = None,
) -> ArenaPlan:
    """The memory plan for bound sizes; offsets are multiples of `alignment` bytes.

    With `block` bytes the arena is split; no buffer may be larger than that. With `known` plans
    buffers are taken for up to an eighth larger than they are, so that other sizes have the same
    plan, which is kept there.
    """
    numbers = [
        number
        for number in _temporaries(plan)
        if closed is None or not closed.has(plan.buffers[number])
    ]
    if known is not None and not block:
        return _known_arena(
            plan,
            [_rounded(plan.buffers[i].nbytes(sizes)) for i in numbers],
            numbers,
            alignment,
            known,
        )
    lives = [_lifetime(plan, i, sizes) for i in numbers]
    block -= block % alignment
    assert not block or all(life.nbytes <= block for life in lives)
    arena: Arena = plan_arena(lives, alignment, block or None)
    return ArenaPlan(dict(zip(numbers, arena.offsets, strict=True)), arena.nbytes, block)


def _known_arena(
    plan: Plan, nbytes: list[int], numbers: list[int], alignment: int, known: dict[Any, ArenaPlan]
) -> ArenaPlan:
    key = (alignment, *numbers, *nbytes)
    found = known.get(key)
    if found is None:
        ends = ((plan.buffers[i].first, plan.buffers[i].last) for i in numbers)
        lives = [Lifetime(n, *end) for n, end in zip(nbytes, ends, strict=True)]
        arena = plan_arena(lives, alignment)
        offsets = dict(zip(numbers, arena.offsets, strict=True))
        if len(known) > _MOST_KEPT:
            known.clear()
        found = known[key] = ArenaPlan(offsets, arena.nbytes)
    return found


def _rounded(nbytes: int) -> int:
    """The next of eight sizes between two powers of two."""
    step = 1 << max(nbytes.bit_length() - 4, 0)
    return -(-nbytes // step) * step


class Memory(NamedTuple):
    """A plan's memory in bytes.

    `arena` holds all temporaries and is never smaller than `alive`, the largest set of them that is
    alive in one step; `scratch` is the largest part of it that launches of one node use among
    themselves. `ports` are the inputs' and outputs' own buffers, `weights` the constants.
    """

    arena: int
    alive: int
    scratch: int
    ports: int
    weights: int


def bind_memory(plan: Plan, sizes: Callable[[Dim], int], alignment: int) -> Memory:
    """The figures for bound sizes; `KeyError` where a size is not known."""
    lives = {i: _lifetime(plan, i, sizes) for i in _temporaries(plan)}
    readers: dict[int, set[str]] = {}
    for step in plan.steps:
        for number in touched(step):
            readers.setdefault(number, set()).add(step.label)
    ports = [b.nbytes(sizes) for b in plan.buffers if b.kind in ("input", "output")]
    return Memory(
        arena=bind_arena(plan, sizes, alignment).nbytes,
        alive=least_bytes(list(lives.values())),
        scratch=least_bytes([life for i, life in lives.items() if len(readers[i]) == 1]),
        ports=sum(ports),
        weights=sum(int(c.nbytes) for c in plan.constants),
    )


def _temporaries(plan: Plan) -> list[int]:
    """The buffers in the arena: those that some step touches."""
    return [i for i, b in enumerate(plan.buffers) if b.kind == "temp" and b.first >= 0]


def _lifetime(plan: Plan, number: int, sizes: Callable[[Dim], int]) -> Lifetime:
    buffer = plan.buffers[number]
    return Lifetime(buffer.nbytes(sizes), buffer.first, buffer.last)
