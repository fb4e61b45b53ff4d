"""Large entries are stored behind the caller, and nobody sees that."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cache_helpers import in_child, noise, posix_only, program_record, run_python

from clinfer.cache import Entry, KeyRecord, Layers, Store, behind
from clinfer.cache.remote import RemoteStore
from clocks import LIMIT

LARGE = {"weights": noise(1000) * 9000}
assert len(LARGE["weights"]) > behind.FROM_BYTES


class Slow(Store):
    """A store that writes an entry when it is told to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.go = threading.Event()

    def put(self, record: KeyRecord, *arguments: object, **options: object) -> bool:
        assert self.go.wait(LIMIT)
        return super().put(record, *arguments, **options)  # type: ignore[arg-type]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    store = Slow(tmp_path)
    yield store
    store.go.set()
    behind.settle()


def put_behind(store: Store, number: int = 0) -> None:
    layers = Layers(store)
    with ExitStack() as held:
        held.enter_context(layers.building(program_record(number)))
        layers.put_made(program_record(number), lambda: LARGE, 1.0, held)


def test_the_entry_is_waited_for_and_others_are_not(slow: Slow) -> None:
    put_behind(slow)
    assert not isinstance(slow.peek(program_record(1)), Entry)
    threading.Timer(0.05, slow.go.set).start()
    found = slow.peek(program_record())
    assert isinstance(found, Entry)
    assert found.section("weights") == LARGE["weights"]


@pytest.mark.parametrize(
    "look",
    [
        lambda store: store.stats.stored,
        lambda store: len(list(store.entries())),
        lambda store: store.info().entries,
        lambda store: store.clear().entries,
    ],
    ids=["stats", "entries", "info", "clear"],
)
def test_whatever_counts_or_removes_entries_sees_it(slow: Slow, look: object) -> None:
    put_behind(slow)
    threading.Timer(0.05, slow.go.set).start()
    assert look(slow) == 1  # type: ignore[operator]


def test_the_build_lock_is_held_until_it_is_stored(slow: Slow) -> None:
    pytest.importorskip("filelock")
    put_behind(slow)
    layers = Layers(Store(slow.directory))
    with layers.building(program_record(), timeout=0.05) as held:
        assert not held
    slow.go.set()
    behind.settle()
    with layers.building(program_record(), timeout=LIMIT) as held:
        assert held


def test_small_entries_are_stored_at_once(slow: Slow) -> None:
    slow.go.set()
    with ExitStack() as held:
        Layers(slow).put_made(program_record(), lambda: {"binary": b"1"}, 1.0, held)
    assert slow.folder.entry(program_record().digest).exists()


def test_without_a_thread_it_is_stored_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        put_behind(Store(tmp_path))
    assert Store(tmp_path).info().entries == 1


@posix_only
def test_a_directory_that_was_removed_meanwhile_is_not_made_again(slow: Slow) -> None:
    put_behind(slow)
    shutil.rmtree(slow.directory)
    slow.go.set()
    assert slow.stats.unstored == {"unwritable": 1}
    assert not slow.directory.exists()


def test_what_is_on_its_way_to_a_remote_store_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, push = threading.Event(), RemoteStore.push

    def pushed(*arguments: object) -> object:
        assert go.wait(LIMIT)
        return push(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RemoteStore, "push", pushed)
    layers = Layers(remote=RemoteStore(tmp_path.as_uri()))
    layers.put_made(program_record(), lambda: LARGE, 1.0, ExitStack())
    threading.Timer(0.05, go.set).start()
    assert isinstance(layers.lookup(program_record()), Entry)


@posix_only
def test_a_forked_child_does_not_wait_for_its_parents_thread(slow: Slow) -> None:
    put_behind(slow)
    assert in_child(lambda: not isinstance(Store(slow.directory).peek(program_record()), Entry))


def test_the_interpreter_ends_when_it_is_stored(tmp_path: Path) -> None:
    run_python(
        "import sys; from contextlib import ExitStack\n"
        "from clinfer.cache import KeyRecord, Layers\n"
        "record = KeyRecord.make('program', [('source', '1')])\n"
        "large = {'weights': b'1' * 9_000_000}\n"
        "Layers.open(sys.argv[1]).put_made(record, lambda: large, 1.0, ExitStack())\n",
        str(tmp_path),
    )
    assert isinstance(Store(tmp_path).peek(KeyRecord.make("program", [("source", "1")])), Entry)
