"""Layers, modes, explanations and build locks."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from cache_helpers import noise, program_record, run_python

from clinfer.cache import CacheMode, Layers, Miss, Store, build_lock, default_directory
from clinfer.errors import PropertyError
from clocks import LIMIT

BINARY = {"binary": noise(100)}


@pytest.fixture
def stores(tmp_path: Path) -> list[Store]:
    """A writable store with entry 0, read-only ones with entries 1 and 2."""
    for number in range(3):
        Store(tmp_path / str(number)).put(program_record(number), BINARY, seconds=1.0)
    upper = Store(tmp_path / "0")
    lower = [Store(tmp_path / str(number), readonly=True) for number in (1, 2)]
    return [upper, *lower]


def test_all_layers_are_searched_and_counted_once(stores: list[Store]) -> None:
    layers = Layers(stores[0], stores[1:])
    assert all(layers.get(program_record(number)) is not None for number in range(3))
    assert layers.get(program_record(3)) is None
    assert layers.stats.hits == 3
    assert layers.stats.misses == {"absent": 1}
    assert layers.stats.seconds_saved == 3.0


def test_the_writable_layer_comes_first(stores: list[Store]) -> None:
    layers = Layers(stores[0], stores[1:])
    assert layers.put(program_record(1), {"binary": b"newer"})
    entry = layers.get(program_record(1))
    assert entry is not None
    assert bytes(entry.section("binary")) == b"newer"
    assert layers.stats.stored == 1
    assert layers.stats.bytes_written > 0


def test_a_damaged_layer_gives_way_to_the_next(stores: list[Store]) -> None:
    upper, lower, _ = stores
    upper.put(program_record(1), BINARY)
    path = upper.folder.entry(program_record(1).digest)
    path.write_bytes(path.read_bytes()[:-1])
    layers = Layers(upper, [lower])
    assert layers.get(program_record(1)) is not None
    assert not path.exists()


def test_a_miss_gives_the_most_telling_reason(stores: list[Store]) -> None:
    lower = stores[1]
    path = lower.folder.entry(program_record(1).digest)
    path.write_bytes(path.read_bytes()[:-1])
    found = Layers(stores[0], [lower]).lookup(program_record(1))
    assert isinstance(found, Miss)
    assert found.reason == "damaged"


def test_no_store_at_all() -> None:
    layers = Layers()
    assert layers.get(program_record()) is None
    assert not layers.put(program_record(), BINARY)
    assert layers.stats.misses == {"absent": 1}
    assert "no directory" in layers.explain(program_record(), "it")
    with layers.building(program_record()) as held:
        assert not held


def test_looking_again_counts_only_success(stores: list[Store]) -> None:
    layers = Layers(stores[0])
    assert layers.get(program_record(9)) is None
    assert layers.get(program_record(9), again=True) is None
    assert layers.stats.misses == {"absent": 1}
    assert layers.get(program_record(0), again=True) is not None
    assert layers.stats.hits == 1


def test_a_rejected_entry(stores: list[Store]) -> None:
    layers = Layers(stores[0], stores[1:])
    for number in (0, 1):
        entry = layers.get(program_record(number))
        assert entry is not None
        layers.reject(entry, "the driver refused it")
    assert layers.stats.hits == 0
    assert layers.stats.misses == {"rejected": 2}
    assert layers.get(program_record(0)) is None
    assert layers.get(program_record(1)) is not None  # read-only layers keep theirs


@pytest.mark.parametrize(
    ("mode", "reads", "writes", "compiles"),
    [
        ("read-write", True, True, True),
        ("read-only", True, False, True),
        ("cache-only", True, False, False),
        ("off", False, False, True),
    ],
)
def test_modes(stores: list[Store], mode: str, reads: bool, writes: bool, compiles: bool) -> None:
    chosen = CacheMode.parse(mode.upper())
    assert (chosen.reads, chosen.writes, chosen.compiles) == (reads, writes, compiles)
    layers = Layers.open(stores[0].directory, path=[stores[1].directory], mode=mode)
    assert (layers.get(program_record(0)) is not None) == reads
    assert (layers.get(program_record(1)) is not None) == reads
    assert layers.put(program_record(5), BINARY) == writes
    assert (Store(stores[0].directory).get(program_record(5)) is not None) == writes
    if not reads:
        assert layers.stats.misses == {"off": 2}


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(PropertyError, match=r"expected one of read-write, .*found 'readonly'"):
        CacheMode.parse("readonly")


def test_properties_win_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINFER_CACHE_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("CLINFER_CACHE_PATH", os.pathsep.join(["/b", "/c"]))
    monkeypatch.setenv("CLINFER_CACHE_MODE", "cache-only")
    monkeypatch.setenv("CLINFER_CACHE_SIZE", "1M")
    layers = Layers.open()
    assert [str(store.directory) for store in layers.stores] == [str(tmp_path / "a"), "/b", "/c"]
    assert layers.mode is CacheMode.CACHE_ONLY
    assert [store.readonly for store in layers.stores] == [True, True, True]
    assert layers.stores[0].size_limit == 2**20
    chosen = Layers.open(tmp_path / "d", path=[], mode="read-write", size_limit=0)
    assert [store.directory for store in chosen.stores] == [tmp_path / "d"]
    assert not chosen.stores[0].readonly
    assert chosen.stores[0].size_limit is None
    assert Layers.open("", path=[]).stores == ()


def test_an_explanation_names_the_fields_that_differ(stores: list[Store]) -> None:
    layers = Layers(stores[0], stores[1:], mode=CacheMode.CACHE_ONLY)
    wanted = program_record(2, driver="9.9", options="-g")
    text = layers.explain(wanted, "program 'matmul_1'")
    assert text.splitlines() == [
        f"program 'matmul_1' is not in the cache (absent: no entry {wanted.digest[:12]} in "
        f"{', '.join(repr(str(store.directory)) for store in stores)})",
        f"the nearest program in '{stores[2].directory}', {program_record(2).digest[:12]}, "
        "differs in",
        "  options: '-g' here, '-cl-std=CL1.2' there",
        "  driver: '9.9' here, '1.2.3' there",
    ]
    assert layers.stats.misses == {}


def test_an_explanation_of_damage_and_of_nothing(stores: list[Store], tmp_path: Path) -> None:
    layers = Layers(stores[0])
    path = stores[0].folder.entry(program_record(0).digest)
    path.write_bytes(path.read_bytes()[:-1])
    miss = layers.lookup(program_record(0))
    assert isinstance(miss, Miss)
    text = layers.explain(program_record(0), "it", miss)
    assert "damaged" in text
    assert "no other program is there" in text
    assert "it is in the cache" in Layers(stores[1]).explain(program_record(1), "it")


def test_the_default_directory_is_the_users() -> None:
    assert default_directory().name == "clinfer"
    assert default_directory().is_absolute()


def test_one_thread_builds_and_the_others_wait(tmp_path: Path) -> None:
    pytest.importorskip("filelock")
    record = program_record()
    layers = Layers(Store(tmp_path / "cache"))
    builds = []
    ready = threading.Barrier(4)

    def start() -> None:
        ready.wait()
        if layers.get(record) is not None:
            return
        with layers.building(record, timeout=LIMIT):
            if layers.get(record, again=True) is None:
                builds.append(1)
                layers.put(record, BINARY)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert layers.get(record) is not None


def test_a_lock_that_is_taken_is_waited_for_and_done_without(tmp_path: Path) -> None:
    pytest.importorskip("filelock")
    path = tmp_path / "lock"
    taken = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with build_lock(path) as held:
            assert held
            taken.set()
            done.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(LIMIT)
    with build_lock(path, timeout=0.1) as held:
        assert not held
    done.set()
    thread.join()
    with build_lock(path, timeout=LIMIT) as held:
        assert held


def test_faults_of_locks_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with build_lock(tmp_path / "file" / "lock") as held:
        assert not held
    layers = Layers(Store("/proc/no/such/place"))
    with layers.building(program_record()) as held:
        assert not held
    monkeypatch.setitem(sys.modules, "filelock", None)
    with build_lock(tmp_path / "lock") as held:
        assert not held


def test_what_the_body_raises_passes_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mine"), build_lock(tmp_path / "lock"):
        raise OSError("mine")


def test_a_warm_look_up_imports_little() -> None:
    code = (
        "import sys, clinfer.cache as cache\n"
        "layers = cache.Layers.open(sys.argv[1])\n"
        "layers.get(cache.KeyRecord.make('program', []))\n"
        "heavy = {'numpy', 'onnx', 'pyopencl', 'filelock', 'platformdirs', 'logging', 'pickle'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert run_python(code, "/nonexistent").strip() == "[]"
