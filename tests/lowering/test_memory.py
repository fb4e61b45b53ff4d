"""The memory plan: buffers alive at the same time never overlap, others share memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clinfer.lowering.memory import Lifetime, least_bytes, plan_arena

LIFETIMES = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 20)).map(
        lambda t: Lifetime(t[0], min(t[1:]), max(t[1:]))
    ),
    max_size=24,
)


@given(LIFETIMES, st.sampled_from([1, 64, 128, 512]))
def test_buffers_alive_together_do_not_overlap(buffers, alignment):
    arena = plan_arena(buffers, alignment)
    for i, (a, start) in enumerate(zip(buffers, arena.offsets, strict=True)):
        assert start % alignment == 0
        assert start + a.nbytes <= arena.nbytes or a.nbytes == 0
        for b, other in list(zip(buffers, arena.offsets, strict=True))[:i]:
            together = a.first <= b.last and b.first <= a.last
            apart = start + a.nbytes <= other or other + b.nbytes <= start
            assert apart or not together


@given(LIFETIMES)
def test_no_arena_is_smaller_than_what_is_alive_at_once(buffers):
    alive = [sum(b.nbytes for b in buffers if b.first <= t <= b.last) for t in range(21)]
    assert least_bytes(buffers) == max(alive)
    assert least_bytes(buffers) <= plan_arena(buffers, 1).nbytes


def test_a_chain_needs_two_buffers_of_memory():
    chain = [Lifetime(1000, i, i + 1) for i in range(10)]
    assert plan_arena(chain, 8).nbytes == 2000
