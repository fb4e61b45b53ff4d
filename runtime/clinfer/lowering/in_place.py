"""Results that take over the memory of an operand that nothing reads any more.

Legal where the kernel allows it (`Kernel.in_place`: each index is read before it is written, by the
same work-item), the operand is read here for the last time and once only, the result is written
here first, and both are whole temporaries of one element type and size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from clinfer.lowering.pending import Pending, PendingBranch, PendingLaunch, PendingSizes
from clinfer.lowering.storage import Storage, View


def taken_over(steps: Sequence[Pending]) -> Mapping[Storage, Storage]:
    """Result -> the operand whose memory it is; an operand may be a result itself."""
    first: dict[Storage, int] = {}
    last: dict[Storage, int] = {}
    for number, step in enumerate(steps):
        for storage in touched(step):
            first.setdefault(storage, number)
            last[storage] = number
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
    for value in (*step.inputs, *step.outputs):
        if value is not None:
            yield value.storage if isinstance(value, View) else value


def _is_alike(out: Storage, operand: Storage) -> bool:
    kinds = (out.kind, operand.kind) == ("temp", "temp")
    return kinds and (out.dtype, out.size) == (operand.dtype, operand.size)
