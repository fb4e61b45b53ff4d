"""How programs are dealt out to build workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clinfer.device.tasks import Tasks


def test_long_ones_come_first():
    tasks = Tasks(["a"] * 4, [3, 9, 1, 9])
    assert [tasks.take("a") if i else tasks.take(None) for i in range(5)] == [1, 3, 0, 2, None]


def test_workers_spread_over_kinds_and_stay():
    kinds = ["a", "a", "b", "a", "b"]
    tasks = Tasks(kinds, [10, 10, 10, 10, 10])
    first, second = tasks.take(None), tasks.take(None)
    assert (kinds[first], kinds[second]) == ("a", "b")
    assert kinds[tasks.take("a")] == "a"
    assert kinds[tasks.take("b")] == "b"
    assert kinds[tasks.take("b")] == "a"  # no more of b
    assert tasks.take("a") is None


def test_nothing_is_taken_after_a_stop():
    tasks = Tasks(["a", "b"], [1, 2])
    tasks.stop()
    assert tasks.take(None) is None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.randoms(),
)
def test_each_is_taken_once(programs, workers, random):
    tasks = Tasks([kind for kind, _ in programs], [length for _, length in programs])
    taken: list[int] = []
    kinds: list[str | None] = [None] * workers
    while kinds:
        worker = random.randrange(len(kinds))
        index = tasks.take(kinds[worker])
        if index is None:
            del kinds[worker]
        else:
            taken.append(index)
            kinds[worker] = programs[index][0]
    assert sorted(taken) == list(range(len(programs)))
