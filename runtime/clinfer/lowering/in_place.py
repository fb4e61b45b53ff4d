"""Results that take over the memory of an operand that nothing reads any more.

Legal where the kernel allows it (`Kernel.in_place`: each index is read before it is written, by the
same work-item), the operand is read here for the last time and once only, the result is written
here first, and both are whole temporaries of one element type and size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from clinfer.lowering.pending import (
    Pending,
    PendingAgain,
    PendingBranch,
    PendingLaunch,
    PendingLoop,
    PendingSizes,
)
from clinfer.lowering.storage import Storage, View


def taken_over(steps: Sequence[Pending]) -> Mapping[Storage, Storage]:
    """Result -> the operand whose memory it is; an operand may be a result itself."""
    first: dict[Storage, int] = {}
    last: dict[Storage, int] = {}
    for number, step in enumerate(steps):
        for storage in touched(step):
            first.setdefault(storage, number)
            last[storage] = number
    keep_through_loops(_loops(steps), first, last)
    found: dict[Storage, Storage] = {}
    given: set[Storage] = set()
    for number, step in enumerate(steps):
        if not isinstance(step, PendingLaunch):
            continue
        for to, of in step.kernel.in_place:
            out, operand = step.outs[to], step.ins[of]
            fresh = first[out] == number and last[operand] == number
            alone = [*step.ins, *step.outs].count(operand) == 1 and step.outs.count(out) == 1
            free = out not in found and operand not in given
            if fresh and alone and free and _is_alike(out, operand):
                found[out] = operand
                given.add(operand)
    return found


T = TypeVar("T")


def keep_through_loops(
    loops: Iterable[tuple[int, int]], first: Mapping[T, int], last: dict[T, int]
) -> None:
    """What a loop's steps read that was there before the first of them lives until the loop ends.

    `loops` are the numbers of their own step and of their last one, the outer ones first.
    """
    for start, end in reversed(list(loops)):
        for what, until in last.items():
            if first[what] <= start <= until < end:
                last[what] = end


def _loops(steps: Sequence[Pending]) -> Iterator[tuple[int, int]]:
    for number, step in enumerate(steps):
        if isinstance(step, PendingLoop):
            yield number, step.block.end - 1


def touched(step: Pending) -> Iterator[Storage]:
    """The storages that a step reads or writes."""
    if isinstance(step, PendingLaunch):
        yield from step.ins
        yield from step.outs
        return
    if isinstance(step, PendingBranch):
        yield step.condition.storage
        return
    if isinstance(step, PendingSizes):
        yield from (view.storage for view in step.values)
        return
    if isinstance(step, PendingLoop):
        yield from (view.storage for view in (step.limit, step.going) if view is not None)
        yield from (storage for pair in step.states for storage in pair)
        yield from (storage for part in step.parts for storage in part[:2])
        yield from step.stacks
        yield from () if step.counter is None else (step.counter,)
        return
    if isinstance(step, PendingAgain):
        yield from () if step.goes_on is None else (step.goes_on.storage,)
        yield from (storage for pair in step.moves for storage in pair)
        yield from (storage for row in step.rows for storage in row[:2])
        return
    for value in (*step.inputs, *step.outputs):
        if value is not None:
            yield value.storage if isinstance(value, View) else value


def _is_alike(out: Storage, operand: Storage) -> bool:
    kinds = (out.kind, operand.kind) == ("temp", "temp")
    return kinds and (out.dtype, out.size) == (operand.dtype, operand.size)
