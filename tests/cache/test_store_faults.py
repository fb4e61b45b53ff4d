"""Never worse than no cache: every fault is a counted miss with its reason, and nothing raises."""

from __future__ import annotations

import errno
import logging
import os
import random
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cache_helpers import NOBODY, in_child, noise, only_file, posix_only, program_record

from clinfer.cache import Miss, Store, files
from clinfer.cache.header import FORMAT_VERSION

pytestmark = posix_only

RECORD = program_record()
BINARY = {"binary": noise(3000)}


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach, and only its owner write."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


def damage_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[random.Random(3).randrange(len(data))] ^= 4
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8] = FORMAT_VERSION + 1
    path.write_bytes(data)


def other_entry(path: Path) -> None:
    store = Store(path.parent / "other")
    store.put(program_record(1), BINARY)
    only_file(store).replace(path)


def link(path: Path) -> None:
    path.replace(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


FAULTS = {
    damage_bit: "damaged",
    truncate: "damaged",
    empty: "damaged",
    other_version: "version",
    other_entry: "foreign",
    link: "refused",
    fifo: "refused",
    folder: "refused",
    open_to_all: "refused",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_bad_entry_is_a_miss_and_can_be_rebuilt(
    store: Store, fault: Callable[[Path], None]
) -> None:
    store.put(RECORD, BINARY)
    path = only_file(store)
    fault(path)
    assert store.get(RECORD) is None
    assert store.stats.misses == {FAULTS[fault]: 1}
    rebuilt = store.put(RECORD, BINARY)
    assert rebuilt == (fault is not folder)
    assert (store.get(RECORD) is not None) == rebuilt


def test_a_damaged_entry_is_removed(store: Store) -> None:
    store.put(RECORD, BINARY)
    damage_bit(only_file(store))
    store.get(RECORD)
    assert not store.folder.entry(RECORD.digest).exists()


def test_an_unreadable_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(RECORD, BINARY)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        assert store.get(RECORD) is None
    assert store.stats.misses == {"unreadable": 1}


def test_memory_that_runs_out_while_reading(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(RECORD, BINARY)

    def fail(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr("mmap.mmap", fail)
    assert store.get(RECORD) is None
    assert store.stats.misses == {"unreadable": 1}


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "no-space"),
        (errno.EDQUOT, "no-space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "read-only"),
        (errno.EIO, "unwritable"),
        (errno.ENOENT, "unwritable"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "open", "mkdir"])
def test_a_write_that_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str, number: int, reason: str
) -> None:
    store.put(program_record(1), BINARY)
    real = getattr(os, call)

    def fail(path: object, *arguments: object, **options: object) -> object:
        reading = call == "open" and not int(str(arguments[0])) & os.O_CREAT
        if reading:
            return real(path, *arguments, **options)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        assert not store.put(RECORD, BINARY)
    assert store.stats.unstored == {reason: 1}
    assert list((store.directory / "tmp").iterdir()) == []
    assert store.get(program_record(1)) is not None
    assert store.put(RECORD, BINARY)


def test_the_old_entry_stays_when_there_is_no_space(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(RECORD, {"binary": b"old"})

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert not store.put(RECORD, {"binary": b"new"})
    entry = store.get(RECORD)
    assert entry is not None
    assert bytes(entry.section("binary")) == b"old"


def test_a_file_size_limit_is_no_space(store: Store) -> None:
    store.put(program_record(1), BINARY)

    def body() -> bool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        stored = store.put(RECORD, BINARY)
        return not stored and store.stats.unstored == {"no-space": 1}

    assert in_child(body)
    assert list((store.directory / "tmp").iterdir()) == []
    assert store.get(program_record(1)) is not None


def test_a_directory_without_the_right_to_write(open_directory: Path) -> None:
    directory = open_directory / "cache"
    store = Store(directory)
    store.put(RECORD, BINARY)
    for path in directory.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    directory.chmod(0o555)

    def body() -> bool:
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        reader = Store(directory, touch_interval=0.0)
        found = reader.get(RECORD) is not None
        stored = reader.put(program_record(1), BINARY)
        return found and not stored and reader.stats.unstored == {"read-only": 1}

    try:
        assert in_child(body)
    finally:
        for path in [directory, *directory.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_without_the_right_to_read(open_directory: Path) -> None:
    directory = open_directory / "cache"
    Store(directory).put(RECORD, BINARY)

    def body() -> bool:
        os.setuid(NOBODY)
        reader = Store(directory)
        told = reader.lookup(RECORD)
        return (
            isinstance(told, Miss)
            and reader.stats.misses == {"unreadable": 1}
            and "belongs to user 0 and has mode 0700" in told.detail
            and "CLINFER_CACHE_READABLE=1" in (reader.info().problem or "")
        )

    assert in_child(body)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_readable_layer_serves_other_users_and_only_its_owner_writes(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = open_directory / "made" / "cache"
    monkeypatch.setenv("CLINFER_CACHE_READABLE", "1")
    before = os.umask(0o077)
    try:
        assert Store(directory).put(RECORD, BINARY)
    finally:
        os.umask(before)

    def body() -> bool:
        os.setuid(NOBODY)
        reader = Store(directory, touch_interval=0.0)
        found = reader.get(RECORD)
        stored = reader.put(program_record(1), BINARY)
        return found is not None and not stored and reader.stats.unstored == {"read-only": 1}

    assert in_child(body)


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_text("not a directory")
    for directory in (path, path / "below"):
        store = Store(directory)
        assert store.get(RECORD) is None
        assert not store.put(RECORD, BINARY)
        assert not store.remember(RECORD, BINARY)
        assert not store.pin(RECORD)
        assert list(store.entries()) == []
        assert store.stats.unstored == {"unwritable": 1}
        refusal = store.refusal()
        assert refusal is not None and "ot a directory" in refusal.detail
    assert path.read_text() == "not a directory"


def test_a_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    store = Store(tmp_path / ("x" * 300))
    assert store.get(RECORD) is None
    assert not store.put(RECORD, BINARY)


def test_a_loop_of_links_in_place_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.symlink_to(path)
    store = Store(path)
    assert store.get(RECORD) is None
    assert not store.put(RECORD, BINARY)


def test_a_link_to_the_directory_is_followed(store: Store, tmp_path: Path) -> None:
    store.put(RECORD, BINARY)
    (tmp_path / "link").symlink_to(store.directory)
    assert Store(tmp_path / "link").get(RECORD) is not None


def test_the_directory_deleted_while_running(store: Store) -> None:
    store.put(RECORD, BINARY)
    shutil.rmtree(store.directory.parent)
    assert store.get(RECORD) is None
    assert store.stats.misses == {"absent": 1}
    assert store.put(RECORD, BINARY)
    assert store.get(RECORD) is not None


def test_the_directory_deleted_while_writing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    times = []

    def deleting(descriptor: int) -> None:
        real(descriptor)
        if not times:
            times.append(1)
            shutil.rmtree(store.directory)

    store.put(program_record(1), BINARY)
    monkeypatch.setattr(os, "fsync", deleting)
    assert store.put(RECORD, BINARY)
    assert store.get(RECORD) is not None


def test_the_directory_moved(store: Store, tmp_path: Path) -> None:
    store.put(RECORD, BINARY)
    store.directory.rename(tmp_path / "moved")
    assert Store(tmp_path / "moved").get(RECORD) is not None


def test_a_writer_that_is_interrupted_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(program_record(1), BINARY)

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_write_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.put(RECORD, BINARY)
    assert list((store.directory / "tmp").iterdir()) == []


def test_the_first_fault_of_a_reason_is_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "clinfer.cache")
    for number in range(3):
        store.put(program_record(number), BINARY)
        damage_bit(store.folder.entry(program_record(number).digest))
        store.get(program_record(number))
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, logging.DEBUG, logging.DEBUG]
    assert "damaged" in caplog.messages[0]
