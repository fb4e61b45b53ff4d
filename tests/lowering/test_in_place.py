"""Results over operands: only where nothing else needs the operand, as a simulation shows."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from clinfer.lowering.in_place import taken_over
from clinfer.lowering.memory import Lifetime, least_bytes, plan_arena
from clinfer.lowering.pending import PendingLaunch
from clinfer.lowering.storage import Storage
from clinfer_kernels.spec import Kernel


@st.composite
def programs(draw: st.DrawFn) -> list[PendingLaunch]:
    """Steps that each read some earlier results, and may write over any of them."""
    sizes = st.sampled_from([4, 4, 4, 8])
    known = [Storage("input", "float32", draw(sizes)) for _ in range(2)]
    steps = []
    for number in range(draw(st.integers(1, 12))):
        ins = tuple(draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)))
        kind = draw(st.sampled_from(["temp", "temp", "temp", "output"]))
        out = Storage(kind, draw(st.sampled_from(["float32", "float32", "int32"])), draw(sizes))
        if draw(st.integers(0, 9)) == 0 and known[-1].kind == "temp":
            out = known[-1]  # another part of a concatenation
        pairs = tuple((0, i) for i in range(len(ins)) if draw(st.booleans()))
        steps.append(PendingLaunch(Kernel((), in_place=pairs), ins, (out,), f"{number}"))
        known.append(out)
    return steps


def _lifetimes(steps: Sequence[PendingLaunch], place: dict[Storage, Storage]) -> dict:
    first: dict[Storage, int] = {}
    last: dict[Storage, int] = {}
    for number, step in enumerate(steps):
        for storage in (*step.ins, *step.outs):
            while storage in place:
                storage = place[storage]
            if storage.kind == "temp":
                first.setdefault(storage, number)
                last[storage] = number
    return {s: Lifetime(int(s.size) * 4, first[s], last[s]) for s in first}


@given(programs())
def test_every_step_reads_what_was_written_for_it(steps: list[PendingLaunch]) -> None:
    """Memory holds, per byte, which result it belongs to; a step finds all of its operands."""
    place = dict(taken_over(steps))
    lives = _lifetimes(steps, place)
    arena = plan_arena(list(lives.values()), 4)
    offsets = dict(zip(lives, arena.offsets, strict=True))
    memory: list[Storage | None] = [None] * arena.nbytes

    def where(storage: Storage) -> slice:
        while storage in place:
            storage = place[storage]
        return slice(offsets[storage], offsets[storage] + int(storage.size) * 4)

    written: set[Storage] = set()
    for step in steps:
        for storage in step.ins:
            if storage.kind == "temp" and storage in written:
                assert set(memory[where(storage)]) == {storage}
        (out,) = step.outs
        if out.kind == "temp":
            memory[where(out)] = [out] * int(out.size) * 4
            written.add(out)
    assert least_bytes(list(lives.values())) <= arena.nbytes
    assert least_bytes(list(lives.values())) <= least_bytes(list(_lifetimes(steps, {}).values()))


@given(programs())
def test_only_what_a_kernel_allows_is_taken_over(steps: list[PendingLaunch]) -> None:
    for out, operand in taken_over(steps).items():
        step = next(s for s in steps if out in s.outs)
        assert (0, step.ins.index(operand)) in step.kernel.in_place
        assert (out.kind, operand.kind, out.dtype) == ("temp", "temp", operand.dtype)
        assert step.ins.count(operand) == 1
