"""Content digests of models, and what is remembered of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from cache_helpers import noise, posix_only

from clinfer.cache import ContentDigest, Store, content, content_digest
from clinfer.cache.digests import CHUNK, tree_digest
from clinfer.errors import ModelError


class Reader:
    """Stands for the ONNX reader: names the external files and counts how often it is asked."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.calls = 0

    def __call__(self, path: Path) -> Iterable[str]:
        self.calls += 1
        return self.names


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    path = folder / "model.onnx"
    path.write_bytes(noise(5000, 1))
    (folder / "weights.bin").write_bytes(noise(2 * CHUNK + 17, 2))
    (folder / "data" / "more.bin").write_bytes(b"")
    return path


@pytest.fixture
def reader() -> Reader:
    return Reader("weights.bin", "data/more.bin", "weights.bin")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes an hour ahead, so that no file is too new to be remembered."""
    now = time.time_ns
    monkeypatch.setattr(content.time, "time_ns", lambda: now() + 3600 * 10**9)


def digest_of(path: Path, reader: Reader, store: Store | None = None) -> ContentDigest:
    return content_digest(path, reader, store)


def test_the_digest_is_as_documented(model: Path, reader: Reader) -> None:
    whole = hashlib.sha256(b"clinfer content 1\n")
    for name in ("model.onnx", "data/more.bin", "weights.bin"):
        data = (model.parent / name).read_bytes()
        whole.update(struct.pack("<Q", len(data)) + tree_digest(memoryview(data)))
    found = digest_of(model, reader)
    assert found.digest == whole.hexdigest()
    assert found.external == ("data/more.bin", "weights.bin")
    assert not found.remembered


@pytest.mark.usefixtures("later")
def test_a_known_model_is_not_read_again(
    model: Path, reader: Reader, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digest_of(model, reader, store)

    def never(*_: object) -> bytes:
        raise AssertionError("the file is read again")

    monkeypatch.setattr(content, "file_tree_digest", never)
    second = digest_of(model, reader, Store(store.directory))
    assert second.remembered
    assert (second.digest, second.files) == (first.digest, first.files)
    assert second.external == ("data/more.bin", "weights.bin")
    assert reader.calls == 1
    assert second.unchanged()


def test_a_file_changed_a_moment_ago_is_not_remembered(
    model: Path, reader: Reader, store: Store
) -> None:
    digest_of(model, reader, store)
    assert not digest_of(model, reader, store).remembered
    # An old modification time alone makes no file old: its change time tells.
    for path in model.parent.rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    digest_of(model, reader, store)
    assert not digest_of(model, reader, store).remembered
    # The names of the external files follow from the model's bytes, however old they are.
    assert reader.calls == 1


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "data/more.bin"])
def test_changed_bytes_change_the_digest(
    model: Path, reader: Reader, store: Store, name: str
) -> None:
    first = digest_of(model, reader, store)
    path = model.parent / name
    times = path.stat()
    data = bytearray(path.read_bytes() or b"x")
    data[-1] ^= 1
    path.write_bytes(data)
    # Size and modification time as before: the change time gives it away.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not first.unchanged()
    second = digest_of(model, reader, store)
    assert second.digest != first.digest
    assert not second.remembered


@pytest.mark.usefixtures("later")
def test_touched_and_moved_models_keep_their_digest(
    model: Path, reader: Reader, store: Store, tmp_path: Path
) -> None:
    first = digest_of(model, reader, store)
    os.utime(model)
    touched = digest_of(model, reader, store)
    assert touched.digest == first.digest
    assert not touched.remembered
    assert digest_of(model, reader, store).remembered
    moved = tmp_path / "elsewhere"
    model.parent.rename(moved)
    renamed = (moved / "model.onnx").rename(moved / "other.onnx")
    assert digest_of(renamed, reader, store).digest == first.digest
    copy = tmp_path / "copy"
    shutil.copytree(moved, copy)
    assert digest_of(copy / "other.onnx", reader, store).digest == first.digest


@pytest.mark.usefixtures("later")
def test_another_model_at_the_same_path(model: Path, reader: Reader, store: Store) -> None:
    first = digest_of(model, reader, store)
    other = model.with_name("new")
    other.write_bytes(noise(5000, 9))
    other.replace(model)
    assert digest_of(model, Reader(), store).digest != first.digest


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "memo",
    [
        b"",
        b"{}",
        b"[]",
        b'{"digest": 3, "files": []}',
        b'{"digest": "ab", "files": []}',
        b'{"digest": "DIGEST", "files": []}',
        b'{"digest": "DIGEST", "files": [["model.onnx", 1, 2, 3, 4]]}',
        b'{"digest": "DIGEST", "files": [[1, 2, 3, 4, 5]]}',
        b'{"digest": "DIGEST", "files": [["model.onnx"], ["a\\u0000b", 1, 1, 1, 1]]}',
        b'{"digest": "DIGEST", "files": 5}',
    ],
)
def test_a_strange_memo_is_ignored(model: Path, reader: Reader, store: Store, memo: bytes) -> None:
    first = digest_of(model, reader, store)
    record = content._memo_record(model)
    store.remember(record, {"memo": memo.replace(b"DIGEST", b"0" * 64)})
    again = digest_of(model, reader, store)
    assert again.digest == first.digest
    assert not again.remembered


@pytest.mark.usefixtures("later")
def test_a_damaged_memo_is_written_anew(model: Path, reader: Reader, store: Store) -> None:
    first = digest_of(model, reader, store)
    path = store.folder.memo(content._memo_record(model).digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    again = digest_of(model, reader, store)
    assert (again.digest, again.remembered) == (first.digest, False)
    assert digest_of(model, reader, store).remembered


@pytest.mark.usefixtures("later")
def test_a_memo_holds_states_and_no_more(model: Path, reader: Reader, store: Store) -> None:
    found = digest_of(model, reader, store)
    memo = store.recall(content._memo_record(model))
    assert memo is not None
    stored = json.loads(bytes(memo.section("memo")))
    assert stored["digest"] == found.digest
    assert [entry[0] for entry in stored["files"]] == [
        "model.onnx",
        "data/more.bin",
        "weights.bin",
    ]
    assert str(model.parent) not in memo.record.to_json()


def test_what_is_missing_is_named(model: Path, store: Store) -> None:
    with pytest.raises(ModelError, match=r"the external data 'lost\.bin' of .*model\.onnx"):
        digest_of(model, Reader("lost.bin"), store)
    with pytest.raises(ModelError, match=r"the model '.*nothing\.onnx' cannot be read: No such"):
        digest_of(model.with_name("nothing.onnx"), Reader(), store)
    with pytest.raises(ModelError, match="it is not a file"):
        digest_of(model.parent, Reader(), store)


def test_the_readers_errors_pass_through(model: Path) -> None:
    def fail(path: Path) -> Iterable[str]:
        raise ModelError(f"{path.name} is not ONNX")

    with pytest.raises(ModelError, match=r"model\.onnx is not ONNX"):
        content_digest(model, fail)


@posix_only
def test_a_fifo_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="it is not a file"):
        content_digest(tmp_path / "model.onnx", Reader())


def test_a_model_that_changes_while_it_is_read(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def growing(path: Path) -> Iterable[str]:
        with path.open("ab") as file:
            file.write(b"more")
        return ()

    with pytest.raises(ModelError, match="changed while it was read"):
        content_digest(model, growing)

    def shrinking(descriptor: int, size: int) -> bytes:
        os.truncate(model, 10)
        return digest(descriptor, size)

    digest = content.file_tree_digest
    monkeypatch.setattr(content, "file_tree_digest", shrinking)
    with pytest.raises(ModelError, match="ends at byte 10"):
        content_digest(model, Reader())
