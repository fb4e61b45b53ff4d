"""The memory plan: buffers alive at the same time never overlap, others share memory."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinfer.lowering import memory
from clinfer.lowering.memory import Lifetime, least_bytes, plan_arena
from growth import growth

LIFETIMES = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 20)).map(
        lambda t: Lifetime(t[0], min(t[1:]), max(t[1:]))
    ),
    max_size=24,
)


@pytest.mark.parametrize("few", [128, 0])
@pytest.mark.parametrize("looks", [1 << 21, 8])
@given(LIFETIMES, st.sampled_from([1, 64, 128, 512]))
def test_buffers_alive_together_do_not_overlap(few, looks, buffers, alignment):
    with patch.multiple(memory, _FEW=few, _MOST_LOOKS=looks):
        arena = plan_arena(buffers, alignment)
    for i, (a, start) in enumerate(zip(buffers, arena.offsets, strict=True)):
        assert start % alignment == 0
        assert start + a.nbytes <= arena.nbytes or a.nbytes == 0
        for b, other in list(zip(buffers, arena.offsets, strict=True))[:i]:
            together = a.first <= b.last and b.first <= a.last
            apart = start + a.nbytes <= other or other + b.nbytes <= start
            assert apart or not together


@pytest.mark.parametrize("few", [128, 0])
@given(LIFETIMES, st.sampled_from([1, 64, 512]))
def test_no_buffer_lies_in_two_blocks_of_a_split_arena(few, buffers, alignment):
    block = 5632  # a multiple of each alignment
    with patch.multiple(memory, _FEW=few, _MOST_LOOKS=0):
        arena = plan_arena(buffers, alignment, block)
    placed = list(zip(buffers, arena.offsets, strict=True))
    for i, (a, start) in enumerate(placed):
        assert start % alignment == 0
        assert start // block == (start + max(a.nbytes, 1) - 1) // block
        for b, other in placed[:i]:
            together = a.first <= b.last and b.first <= a.last
            apart = start + a.nbytes <= other or other + b.nbytes <= start
            assert apart or not together


@given(LIFETIMES)
def test_no_arena_is_smaller_than_what_is_alive_at_once(buffers):
    alive = [sum(b.nbytes for b in buffers if b.first <= t <= b.last) for t in range(21)]
    assert least_bytes(buffers) == max(alive)
    assert least_bytes(buffers) <= plan_arena(buffers, 1).nbytes


@given(LIFETIMES)
def test_many_buffers_are_placed_as_few_are(buffers):
    with patch.object(memory, "_FEW", 0):
        many = plan_arena(buffers, 64)
    assert many == plan_arena(buffers, 64)


@pytest.mark.parametrize("alive", [3, 10**6])
def test_the_work_grows_with_the_buffers(alive):
    def plan(count):
        plan_arena([Lifetime(100 + i % 7, i, min(i + alive, count)) for i in range(count)], 64)

    with patch.object(memory, "_MOST_LOOKS", 10**5):
        assert growth(plan, 1000) < 5


def test_a_chain_needs_two_buffers_of_memory():
    chain = [Lifetime(1000, i, i + 1) for i in range(10)]
    assert plan_arena(chain, 8).nbytes == 2000
