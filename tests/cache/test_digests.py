"""The tree hash."""

from __future__ import annotations

import hashlib
import struct

import pytest
import xxhash
from cache_helpers import noise

from clinfer.cache.digests import CHUNK, tree_checks, tree_digest, tree_digests


def plain_tree(data: bytes) -> bytes:
    """The tree hash as its definition reads."""
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    leaves = [hashlib.sha256(b"\x00" + chunk).digest() for chunk in chunks]
    return hashlib.sha256(b"\x01" + struct.pack("<Q", len(data)) + b"".join(leaves)).digest()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_the_tree_hash_is_as_documented(size: int) -> None:
    data = noise(size)
    view = memoryview(data)
    assert tree_digest(view) == plain_tree(data)
    parts = [view[:1], view[1 : CHUNK - 3], view[CHUNK - 3 :]]
    assert tree_digest(*parts) == plain_tree(data)
    groups = [[view], [view[:5]], []]
    assert tree_digests(groups) == [plain_tree(data), plain_tree(data[:5]), plain_tree(b"")]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_the_check_value_is_as_documented(size: int) -> None:
    data = noise(size)
    chunks = [data[start : start + CHUNK] for start in range(0, size, CHUNK)]
    leaves = [xxhash.xxh3_128_digest(chunk) for chunk in chunks]
    wanted = xxhash.xxh3_128_digest(struct.pack("<Q", size) + b"".join(leaves))
    assert tree_checks([[memoryview(data)], []])[0] == wanted


def test_the_tree_hash_does_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: object) -> None:
        raise RuntimeError("can't start new thread")

    data = noise(3 * CHUNK)
    monkeypatch.setattr("threading.Thread.start", start)
    assert tree_digest(memoryview(data)) == plain_tree(data)
