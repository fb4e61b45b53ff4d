"""Several processes on one directory: writing, dying, evicting, clearing at the same time."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_helpers import in_child, noise, posix_only, program_record

from clinfer.cache import Entry, Layers, Store
from clocks import LIMIT

pytestmark = posix_only

KEYS = 6
SIZES = (200, 5_000, 70_000, 2**21)


def content(number: int) -> bytes:
    return noise(SIZES[number % len(SIZES)], number)


def right(number: int, entry: Entry) -> bool:
    return bytes(entry.section("weights")) == content(number)


def start(body: Callable[[], bool]) -> int:
    """A forked child that exits with 0 where `body` is true; returns its process id."""
    child = os.fork()
    if child == 0:
        result = 2
        try:
            result = 0 if body() else 1
        finally:
            os._exit(result)
    return child


def finish(children: list[int]) -> list[int]:
    """Exit codes, negative for signals."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def writer(directory: Path, seconds: float, seed: int) -> bool:
    """Reads and writes random entries; false as soon as one is wrong."""
    store = Store(directory, size_limit=2**22, touch_interval=0.0)
    picker = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = picker.randrange(KEYS)
        entry = store.get(program_record(number))
        if entry is None or picker.random() < 0.3:
            store.put(program_record(number), {"weights": content(number)})
        elif not right(number, entry):
            return False
    return not set(store.stats.misses) - {"absent"}


@pytest.mark.parametrize("round_number", range(3))
def test_writers_that_are_killed_leave_no_damage(directory: Path, round_number: int) -> None:
    picker = random.Random(round_number)
    children = [
        start(lambda seed=seed: writer(directory, 1.2, seed))  # type: ignore[misc]
        for seed in range(6)
    ]
    victims = children[::2]
    for victim in victims:
        time.sleep(picker.uniform(0.05, 0.3))
        os.kill(victim, signal.SIGKILL)
    codes = finish(children)
    assert codes[1::2] == [0, 0, 0]
    store = Store(directory)
    assert store.verify() == []
    for number in range(KEYS):
        entry = store.get(program_record(number))
        assert entry is None or right(number, entry)
    stale = time.time() - 7200
    for leftover in (directory / "tmp").iterdir():
        os.utime(leftover, (stale, stale))
    store.prune()
    assert list((directory / "tmp").iterdir()) == []


def test_clearing_under_writers_gives_misses_only(directory: Path) -> None:
    children = [
        start(lambda seed=seed: writer(directory, 0.8, seed))  # type: ignore[misc]
        for seed in range(3)
    ]
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        Store(directory).clear()
        time.sleep(0.005)
    assert finish(children) == [0, 0, 0]
    assert Store(directory).verify() == []


def test_several_processes_build_once(directory: Path) -> None:
    pytest.importorskip("filelock")
    record = program_record()
    layers = Layers(Store(directory))
    log = directory.parent.parent / "builds"
    log.touch()

    def body() -> bool:
        if layers.get(record) is None:
            with layers.building(record, timeout=LIMIT):
                if layers.get(record, again=True) is None:
                    with log.open("ab") as file:
                        file.write(b"1")
                    time.sleep(0.2)
                    layers.put(record, {"weights": content(0)})
        entry = layers.get(record)
        return entry is not None and right(0, entry)

    assert finish([start(body) for _ in range(8)]) == [0] * 8
    assert log.read_bytes() == b"1"


def test_a_builder_that_is_killed_frees_the_lock(directory: Path) -> None:
    pytest.importorskip("filelock")
    record = program_record()
    layers = Layers(Store(directory))
    read_end, write_end = os.pipe()

    def hold() -> bool:
        with layers.building(record):
            os.write(write_end, b"1")
            time.sleep(LIMIT)
        return True

    holder = start(hold)
    assert os.read(read_end, 1) == b"1"
    os.kill(holder, signal.SIGKILL)
    finish([holder])
    with layers.building(record, timeout=LIMIT) as held:
        assert held
    os.close(read_end)
    os.close(write_end)


def test_a_mapped_entry_survives_eviction_by_another_process(directory: Path) -> None:
    store = Store(directory)
    store.put(program_record(3), {"weights": content(3)})
    entry = store.get(program_record(3))
    assert entry is not None

    def body() -> bool:
        return Store(directory).prune(limit=0).entries == 1

    assert in_child(body)
    assert right(3, entry)
