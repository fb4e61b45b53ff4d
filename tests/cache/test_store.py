"""A store: entries, statistics, pins, eviction, listing."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from cache_helpers import noise, only_file, posix_only, program_record

from clinfer.cache import Reason, Removed, Store, to_bytes
from clinfer.errors import CacheError, PropertyError

BINARY = {"binary": noise(1000)}


def age(store: Store, number: int, seconds: float) -> None:
    """Makes an entry look unused for that long."""
    then = time.time() - seconds
    os.utime(store.folder.entry(program_record(number).digest), (then, then))


def present(store: Store, numbers: range) -> list[int]:
    return [number for number in numbers if store.folder.entry(digest(number)).exists()]


def digest(number: int) -> str:
    return program_record(number).digest


def test_nothing_is_created_before_something_is_stored(store: Store) -> None:
    assert store.get(program_record()) is None
    assert list(store.entries()) == []
    assert store.clear() == Removed(0, 0)
    assert not store.directory.exists()


def test_what_is_put_is_found_by_any_store(store: Store) -> None:
    record = program_record()
    assert store.put(record, BINARY, seconds=2.5)
    entry = Store(store.directory).get(record)
    assert entry is not None
    assert bytes(entry.section("binary")) == BINARY["binary"]
    assert entry.build_seconds == 2.5
    assert only_file(store).name == record.digest
    assert only_file(store).read_bytes() == to_bytes(record, BINARY, seconds=2.5)


def test_statistics(store: Store) -> None:
    record = program_record()
    assert store.get(record) is None
    store.put(record, BINARY, seconds=2.0)
    size = only_file(store).stat().st_size
    store.get(record)
    store.get(record)
    stats = store.stats
    assert (stats.hits, stats.misses) == (2, {"absent": 1})
    assert (stats.stored, stats.unstored) == (1, {})
    assert (stats.bytes_read, stats.bytes_written) == (2 * size, size)
    assert stats.seconds_saved == 4.0
    assert stats.to_json()["misses"] == {"absent": 1}


def test_a_rejected_entry_is_a_miss_and_is_gone(store: Store) -> None:
    store.put(program_record(), BINARY, seconds=1.0)
    entry = store.get(program_record())
    assert entry is not None
    store.reject(entry, "invalid binary")
    stats = store.stats
    assert (stats.hits, stats.misses, stats.seconds_saved) == (0, {"rejected": 1}, 0.0)
    assert store.get(program_record()) is None


@posix_only
def test_modes_are_private(store: Store) -> None:
    previous = os.umask(0)
    try:
        store.put(program_record(), BINARY)
    finally:
        os.umask(previous)
    inside = [path for path in store.directory.rglob("*") if path.is_dir()]
    for folder in [store.directory.parent, store.directory, *inside]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(store).stat().st_mode) == 0o600


def test_nothing_is_left_beside_the_entry(store: Store) -> None:
    store.put(program_record(), BINARY)
    store.put(program_record(), BINARY)
    assert list((store.directory / "tmp").iterdir()) == []
    assert (store.directory / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d17")


def test_an_entry_can_be_replaced(store: Store) -> None:
    store.put(program_record(), {"binary": b"old"})
    store.put(program_record(), {"binary": b"new"})
    entry = store.get(program_record())
    assert entry is not None
    assert bytes(entry.section("binary")) == b"new"


def test_a_wrong_section_name_is_an_error_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(CacheError):
        store.put(program_record(), {"../evil": b""})
    assert [path for path in store.directory.rglob("*") if path.is_file()] == [
        store.directory / "CACHEDIR.TAG"
    ]


@pytest.mark.parametrize("name", ["", "a", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65])
def test_names_from_outside_are_no_paths(store: Store, name: str) -> None:
    for path in (store.folder.entry, store.folder.memo, store.folder.lock, store.folder.pin_mark):
        with pytest.raises(CacheError):
            path(name)


def test_a_directory_name_that_is_no_path() -> None:
    with pytest.raises(PropertyError):
        Store("a\0b")


def test_the_least_recently_used_go_first(directory: Path) -> None:
    store = Store(directory, size_limit=10_000, touch_interval=0.0)
    for number in range(6):
        assert store.put(program_record(number), BINARY)
        age(store, number, 1000 - number)
    assert store.get(program_record(0)) is not None  # now the most recently used
    store.put(program_record(6), BINARY)
    store.put(program_record(7), BINARY)
    kept = present(store, range(8))
    assert 0 in kept
    assert 7 in kept
    assert 1 not in kept
    assert sum(info.size for info in store.entries()) <= 10_000
    assert store.stats.evicted == 8 - len(kept)


def test_a_pinned_entry_stays(directory: Path) -> None:
    store = Store(directory, size_limit=5_000)
    store.put(program_record(0), BINARY)
    assert store.pin(program_record(0))
    age(store, 0, 10_000)
    for number in range(1, 12):
        store.put(program_record(number), BINARY)
        age(store, number, 1000 - number)
    kept = present(store, range(12))
    assert 0 in kept
    assert 11 in kept
    assert store.prune(limit=0).entries == len(kept) - 1
    assert present(store, range(12)) == [0]
    assert store.unpin(program_record(0))
    assert store.prune(age=100).entries == 1


def test_pins_above_the_limit_do_not_stop_caching(directory: Path) -> None:
    store = Store(directory)
    for number in range(10):
        store.put(program_record(number), BINARY)
        store.pin(program_record(number))
    limited = Store(directory, size_limit=4000)
    limited.put(program_record(10), BINARY)
    limited.put(program_record(11), BINARY)
    assert present(store, range(12)) == list(range(12))


def test_an_entry_just_below_the_limit_is_not_evicted_by_itself(directory: Path) -> None:
    store = Store(directory, size_limit=10_000)
    store.put(program_record(0), BINARY)
    age(store, 0, 10)
    assert store.put(program_record(1), {"binary": noise(9_200)})
    assert present(store, range(2)) == [1]


def test_an_entry_above_the_limit_is_not_stored(directory: Path) -> None:
    store = Store(directory, size_limit=999)
    assert not store.put(program_record(), BINARY)
    assert store.stats.unstored == {"too-large": 1}
    assert not directory.exists()


def test_what_other_processes_write_is_seen_in_time(directory: Path) -> None:
    mine = Store(directory, size_limit=40_000)
    other = Store(directory)
    mine.put(program_record(0), BINARY)
    for number in range(1, 40):
        other.put(program_record(number), BINARY)
    for number in range(40, 45):
        mine.put(program_record(number), BINARY)
    assert sum(info.size for info in mine.entries()) <= 40_000


def test_an_entry_in_use_may_be_evicted(directory: Path) -> None:
    store = Store(directory)
    weights = noise(2 * 2**20)
    store.put(program_record(), {"plan": b"p", "weights": weights})
    entry = store.get(program_record())
    assert entry is not None
    assert store.prune(limit=0).entries == 1
    assert bytes(entry.section("weights")) == weights
    assert store.get(program_record()) is None


def test_a_hit_is_noted_once_in_a_while(store: Store) -> None:
    store.put(program_record(), BINARY)
    age(store, 0, 200)
    before = only_file(store).stat().st_mtime
    store.get(program_record())
    assert only_file(store).stat().st_mtime == before
    age(store, 0, 400)
    store.get(program_record())
    assert time.time() - only_file(store).stat().st_mtime < 100


def test_pruning_by_age_sweeps_leftovers(store: Store) -> None:
    store.put(program_record(0), BINARY)
    store.put(program_record(1), BINARY)
    age(store, 0, 5000)
    leftover = store.directory / "tmp" / "abc.1.def"
    fresh = store.directory / "tmp" / "abc.2.def"
    leftover.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(leftover, (time.time() - 4000, time.time() - 4000))
    removed = store.prune(age=4000)
    assert removed.entries == 1
    assert present(store, range(2)) == [1]
    assert fresh.exists()
    assert not leftover.exists()


def test_times_of_a_clock_that_was_wrong_do_not_keep_entries(store: Store) -> None:
    for number in range(3):
        store.put(program_record(number), BINARY)
    age(store, 0, 5000)
    age(store, 1, -30 * 86400)
    age(store, 2, -30 * 86400)
    assert store.get(program_record(2)) is not None  # which gives it the right time
    sizes = [info.size for info in store.entries()]
    assert store.prune(limit=sum(sizes) - 1).entries == 1
    assert present(store, range(3)) == [0, 2]
    assert store.prune(age=4000).entries == 1
    assert present(store, range(3)) == [2]


def test_listing(store: Store) -> None:
    model = program_record(1)
    store.put(program_record(0), BINARY, seconds=3.0)
    store.put(model, {"plan": b"123", "weights": b"45"})
    store.pin(model)
    age(store, 0, 100)
    (store.directory / "entries" / "ab").mkdir(exist_ok=True)
    (store.directory / "entries" / "ab" / "README").write_text("not ours")
    newest, oldest = store.entries()
    assert (newest.record, newest.pinned) == (model, True)
    assert newest.sections == {"plan": 3, "weights": 2}
    assert (oldest.digest, oldest.pinned, oldest.build_seconds) == (digest(0), False, 3.0)
    assert newest.used > oldest.used
    info = store.info()
    assert (info.entries, info.pinned, info.kinds) == (2, 1, {"program": 2})
    assert info.bytes == newest.size + oldest.size
    assert info.problem is None


def test_clearing_leaves_files_of_others(store: Store) -> None:
    store.put(program_record(0), BINARY)
    store.put(program_record(1), BINARY)
    store.pin(program_record(1))
    own = store.directory / "notes.txt"
    own.write_text("mine")
    assert store.clear(keep_pinned=True).entries == 1
    assert store.clear().entries == 1
    assert list(store.entries()) == []
    assert store.folder.pins() == frozenset()
    assert own.exists()


def test_the_nearest_key_is_found_by_fields(store: Store) -> None:
    wanted = program_record(1)
    assert store.nearest(wanted) is None
    store.put(program_record(1, driver="9", options="-g"), BINARY)
    store.put(program_record(1, driver="9"), BINARY)
    store.put(wanted, BINARY)
    nearest = store.nearest(wanted)
    assert nearest is not None
    assert nearest.record == program_record(1, driver="9")
    assert [item.name for item in nearest.differences] == ["driver"]
    assert nearest.directory == store.directory


def test_verification_finds_and_removes(store: Store) -> None:
    for number in range(4):
        store.put(program_record(number), BINARY)
    damaged = store.folder.entry(digest(0))
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    foreign = store.folder.entry(digest(1))
    foreign.write_bytes(store.folder.entry(digest(2)).read_bytes())
    problems = {problem.digest: problem for problem in store.verify()}
    assert {key: value.reason for key, value in problems.items()} == {
        digest(0): Reason.DAMAGED,
        digest(1): Reason.FOREIGN,
    }
    assert "section 'binary'" in problems[digest(0)].detail
    assert not problems[digest(0)].removed
    assert all(problem.removed for problem in store.verify(remove=True))
    assert store.verify() == []
    assert present(store, range(4)) == [2, 3]


def test_memos_are_apart_from_entries(store: Store) -> None:
    assert store.recall(program_record()) is None
    assert store.remember(program_record(), {"memo": b"1"})
    memo = store.recall(program_record())
    assert memo is not None
    assert bytes(memo.section("memo")) == b"1"
    assert list(store.entries()) == []
    assert store.stats.misses == {}
    assert not Store(store.directory, readonly=True).remember(program_record(), {"memo": b"2"})
    store.clear()
    assert store.recall(program_record()) is None


def test_a_read_only_store_changes_nothing(store: Store) -> None:
    store.put(program_record(), BINARY)
    age(store, 0, 9999)
    path = only_file(store)
    path.write_bytes(path.read_bytes()[:-1])
    before = {path: path.stat().st_mtime_ns for path in store.directory.rglob("*")}
    reader = Store(store.directory, readonly=True, size_limit=1, touch_interval=0.0)
    assert reader.get(program_record()) is None
    assert not reader.put(program_record(1), BINARY)
    assert not reader.pin(program_record())
    assert not reader.unpin(program_record())
    assert not reader.discard(program_record())
    assert reader.prune(limit=0) == reader.clear() == Removed(0, 0)
    assert not reader.verify(remove=True)[0].removed
    assert reader.stats.misses == {"damaged": 1}
    assert reader.stats.unstored == {"read-only": 1}
    after = {path: path.stat().st_mtime_ns for path in store.directory.rglob("*")}
    assert before == after
