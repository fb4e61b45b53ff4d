"""Containers as files: mapped or read, links and other things refused, alive after removal."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cache_helpers import noise, posix_only, program_record

from clinfer.cache import EntryError, Reason, files, read, to_bytes
from clinfer.cache.header import PAGE

RECORD = program_record(7)
BLOB = to_bytes(RECORD, {"plan": b"{}", "weights": noise(10000), "programs": b"xyz"})


@pytest.mark.parametrize("map_from", [0, 10**9])
def test_page_aligned_sections_are_aligned_in_memory(
    tmp_path: Path, map_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAP_FROM", map_from)
    path = tmp_path / "blob"
    path.write_bytes(BLOB)
    entry = read(path)
    address = np.frombuffer(entry.section("weights"), np.uint8).ctypes.data
    assert address % PAGE == 0


def test_random_bits_of_a_mapped_file_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAP_FROM", 0)
    picker = random.Random(2)
    path = tmp_path / "blob"
    for _ in range(200):
        damaged = bytearray(BLOB)
        damaged[picker.randrange(len(BLOB))] ^= 1 << picker.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(EntryError):
            read(path)


def make_link(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(BLOB)
    path.symlink_to(other)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


@posix_only
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_link, "symbolic link"),
        (make_loop, "symbolic link"),
        (make_fifo, "regular file"),
        (make_folder, "regular file"),
    ],
)
def test_what_is_no_plain_file_is_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "blob"
    make(path)
    with pytest.raises(EntryError, match=message) as caught:
        read(path)
    assert caught.value.reason is Reason.REFUSED


@posix_only
def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(BLOB)
    path.chmod(0o666)
    with pytest.raises(EntryError, match="can be written by every user"):
        read(path)
    assert read(path, allow_shared=True).record == RECORD


def test_a_file_that_is_not_there_is_absent(tmp_path: Path) -> None:
    with pytest.raises(EntryError) as caught:
        read(tmp_path / "nothing")
    assert caught.value.reason is Reason.ABSENT


def test_an_empty_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.touch()
    with pytest.raises(EntryError) as caught:
        read(path)
    assert caught.value.reason is Reason.DAMAGED


def test_sections_outlive_the_file_they_were_mapped_from(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    big = noise(3 * 2**20)
    path.write_bytes(to_bytes(RECORD, {"plan": b"1", "weights": big}))
    entry = read(path)
    replacement = tmp_path / "new"
    replacement.write_bytes(b"short")
    replacement.replace(path)
    assert bytes(entry.section("weights")) == big
    path.unlink()
    assert bytes(entry.section("weights")) == big
    assert bytes(entry.section("plan")) == b"1"


def test_only_files_of_local_file_systems_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(to_bytes(RECORD, {"weights": noise(2**21)}))
    assert not files.may_map(os.makedev(4000, 4000))
    loaded = files.load(path, allow_shared=False)
    assert loaded.mapped == files.may_map(path.stat().st_dev)
