"""Claims of a fleet: never two have one, what a dead worker had is free after a lease."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import remote_helpers
from remote_helpers import failing

from clinfer.cache.claims import Claims
from clinfer.cache.transfer import Objects
from clinfer.errors import CacheError

LEASE = 60.0


@pytest.fixture(autouse=True)
def empty():
    remote_helpers.reset()
    yield
    remote_helpers.reset()


def objects(url: str = "memory://fleet") -> Objects:
    return Objects(url, 120.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_of_many_workers_at_once_one_has_it(kind, tmp_path):
    url = "memory://fleet" if kind == "memory" else f"file://{tmp_path}"
    count, names = 4, 5
    workers = [Claims(objects(url), LEASE).__enter__() for _ in range(count)]
    for number in range(names):
        start = threading.Barrier(count)
        inside, most = [], []

        def attempt(claims, name=f"n{number}", start=start, inside=inside, most=most) -> bool:
            start.wait()
            if not claims.take(name):
                return False
            inside.append(claims)
            most.append(len(inside))
            start.wait(0.0) if start.n_waiting else None
            return True

        with ThreadPoolExecutor(count) as threads:
            got = list(threads.map(attempt, workers))
        assert sum(got) <= 1
        assert most in ([], [1])
        first = next((w for w, has in zip(workers, got, strict=True) if has), workers[0])
        assert all(got) or first.take(f"n{number}")
        first.release(f"n{number}")
    for claims in workers:
        claims.leave()
    store = objects(url)
    assert [store.names(folder) for folder in ("claims", "workers")] == [[], []]


def test_what_a_dead_worker_had_is_free_after_a_lease():
    clock = Clock()
    with Claims(objects(), 1e6) as dead, Claims(objects(), LEASE, clock) as lives:
        assert dead.take("a")
        assert not lives.take("a")
        clock.now = LEASE - 1
        assert not lives.take("a")
        assert not lives.is_last()
        dead._beat()  # it was only slow
        clock.now = LEASE + 1
        assert not lives.take("a")
        clock.now = 3 * LEASE
        assert lives.take("a")
        assert lives.is_last()
        lives.clear(["parts"])
        assert objects().names("claims") == []


def test_what_a_worker_gives_back_or_leaves_is_free_at_once():
    with Claims(objects(), LEASE) as first, Claims(objects(), LEASE) as second:
        assert first.take("a")
        first.release("a")
        assert second.take("a")
        assert second.take("b")
        second.leave()
        assert first.take("a")
        assert first.take("b")
        assert first.is_last()


def test_a_store_that_does_not_answer_is_an_error():
    failing(PermissionError("no"), "write")
    with pytest.raises(CacheError, match=r"fleet's store faulty://store.*no"):
        Claims(objects("faulty://store"), LEASE).__enter__()
