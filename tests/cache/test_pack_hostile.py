"""Packs made to harm: names, links, bombs, headers that lie, files changed while in use."""

from __future__ import annotations

import json
import re
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_helpers import noise, program_record
from pack_helpers import (
    FRAME,
    HEAD,
    OTHER_KEY,
    TRUSTED,
    WAIVED,
    canonical,
    filled,
    index_document,
    make_pack,
    sealed,
    sealed_bytes,
)

from clinfer.cache import Entry, Miss, Reason, Store
from clinfer.cache.index import Index, IndexEntry
from clinfer.cache.pack import Pack
from clinfer.cache.packing import unpack
from clinfer.cache.policy import Trust
from clinfer.cache.sealed import MAGIC
from clinfer.errors import CacheError, ClinferError, UntrustedError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    tmp_path.chmod(0o700)
    return filled(tmp_path / "cache")


@pytest.fixture
def pack(store: Store, tmp_path: Path) -> Path:
    return make_pack(tmp_path / "p.clpack", store)


def refused(path: Path, target: Store, trust: Trust = TRUSTED) -> ClinferError:
    """The error of unpacking."""
    with pytest.raises(ClinferError) as caught, Pack.open(path, trust) as opened:
        unpack(opened, target)
    return caught.value


def expect_untrusted(path: Path, directory: Path, message: str) -> None:
    target = Store(directory)
    error = refused(path, target)
    assert isinstance(error, UntrustedError)
    assert message in str(error)
    assert target.info().entries == 0


# -- names -----------------------------------------------------------------------------------------

NAMES = [
    "../../../../tmp/evil",
    "/etc/passwd",
    "..",
    "",
    "a" * 64,
    "A" * 64,
    "entries/../../evil",
    "NUL",
    "\0" * 64,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_an_index(name: str, pack: Path) -> None:
    document = index_document(pack.read_bytes())
    digest, row = document["entries"].popitem()
    document["entries"][name] = row
    with pytest.raises(CacheError, match="names an entry"):
        Index.parse(canonical(document))
    document["entries"] = {digest: {**row, "content": name if name != "a" * 64 else "b" * 63}}
    with pytest.raises(CacheError, match="for a digest"):
        Index.parse(canonical(document))


def test_an_entry_named_twice(pack: Path) -> None:
    data = canonical(index_document(pack.read_bytes())).decode()
    start = data.index('"entries":{') + len('"entries":{')
    end = data.index('},"format"')
    twice = data[:end] + "," + data[start:end] + data[end:]
    with pytest.raises(CacheError, match="canonical"):
        Index.parse(twice.encode())
    row = IndexEntry(program_record(), "0" * 64, 1)
    with pytest.raises(CacheError, match="twice"):
        Index("x", 1, (row, row))


def test_links_in_a_directory_are_not_followed(store: Store, tmp_path: Path) -> None:
    with Pack.open(make_pack(tmp_path / "p.clpack", store), TRUSTED) as opened:
        (store.directory / "pack.index").write_bytes(sealed(opened.index))
    victim = store.folder.entry(program_record(1).digest)
    elsewhere = tmp_path / "elsewhere"
    victim.rename(elsewhere)
    victim.symlink_to(elsewhere)
    with Pack.open(store.directory, TRUSTED) as opened:
        found = opened.peek(program_record(1))
    assert isinstance(found, Miss)
    assert found.reason is Reason.REFUSED


# -- bombs -----------------------------------------------------------------------------------------


def bomb(tmp_path: Path, claimed: int, stored: bytes, codec: int = 1) -> Path:
    """A pack, properly signed, of one entry that is `claimed` bytes in the index."""
    index = Index("bomb", 1, (IndexEntry(program_record(), "0" * 64, claimed),))
    path = tmp_path / "bomb.clpack"
    path.write_bytes(sealed(index) + FRAME.pack(codec, 0, len(stored)) + stored)
    return path


def test_a_kilobyte_that_unfolds_to_gigabytes(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"more than 200 times"):
        Pack.open(bomb(tmp_path, 8 * 10**9, zlib.compress(bytes(10**6))), TRUSTED)
    with pytest.raises(CacheError, match=r"entry of 10000000000 bytes"):
        Pack.open(bomb(tmp_path, 10**10, b"x" * 1000), TRUSTED)


def test_an_entry_that_unfolds_to_more_than_it_says(tmp_path: Path) -> None:
    for claimed in (0, 1, 1000, 10**5):
        with Pack.open(bomb(tmp_path, claimed, zlib.compress(bytes(10**7))), TRUSTED) as pack:
            found = pack.peek(program_record())
        assert isinstance(found, Miss)
        assert found.reason is Reason.DAMAGED
        assert f"more than {claimed} bytes" in found.detail


@pytest.mark.parametrize(
    "stored",
    [
        zlib.compress(noise(400)),
        zlib.compress(noise(500)) + b"more",
        zlib.compress(noise(500))[:-1],
        zlib.compress(noise(500)) + bytes(2**20 + 5),
        zlib.compress(noise(500)) * 2,
        noise(300),
    ],
    ids=["less", "behind", "cut", "far-behind", "twice", "noise"],
)
def test_compressed_entries_that_do_not_fit(stored: bytes, tmp_path: Path) -> None:
    with Pack.open(bomb(tmp_path, 500, stored), TRUSTED) as pack:
        found = pack.peek(program_record())
    assert isinstance(found, Miss)
    assert found.reason is Reason.DAMAGED


def test_headers_that_lie_cost_nothing(pack: Path) -> None:
    data = pack.read_bytes()
    start = time.perf_counter()
    lies: list[Callable[[bytearray], None]] = [
        lambda d: struct.pack_into("<I", d, 12, 2**32 - 1),  # signatures
        lambda d: struct.pack_into("<Q", d, 16, 2**63),  # bytes of the index
        lambda d: struct.pack_into("<Q", d, 16, 32 * 2**20),
        lambda d: struct.pack_into("<Q", d, sealed_bytes(data) + 8, 2**62),  # stored bytes
        lambda d: struct.pack_into("<I", d, sealed_bytes(data), 2),  # codec
        lambda d: struct.pack_into("<I", d, sealed_bytes(data) + 4, 1),  # zero
        lambda d: struct.pack_into("<I", d, 8, 2),  # version
    ]
    for lie in lies:
        changed = bytearray(data)
        lie(changed)
        pack.write_bytes(changed)
        with pytest.raises(CacheError):
            Pack.open(pack, TRUSTED)
    assert time.perf_counter() - start < 120


def test_ten_million_entries(tmp_path: Path) -> None:
    """An index that names too many is refused by its length, and a short one by its count."""
    row = '"%064x":{},'
    path = tmp_path / "many.clpack"
    index = b'{"entries":{' + (row % 0).encode() * 10**4
    with path.open("wb") as file:
        file.write(HEAD.pack(MAGIC, 1, 1, len(index) * 1000))
        file.truncate(len(index) * 1000)
    start = time.perf_counter()
    with pytest.raises(CacheError, match="an index of"):
        Pack.open(path, WAIVED)
    many = {"entries": {row % n: {} for n in range(40000)}, "format": 1, "name": "x", "serial": 1}
    with pytest.raises(CacheError, match="40000 entries, at most 32768"):
        Index.parse(canonical(many))
    assert time.perf_counter() - start < 120


def test_json_that_is_deep_or_strange(pack: Path) -> None:
    good = canonical(index_document(pack.read_bytes())).decode()
    for text in (
        "[" * 10**6,
        '{"entries":' * 10**5,
        '{"entries":{},"format":1,"name":"x","serial":' + "9" * 10**6 + "}",
        '{"entries":{},"format":1,"name":"x","serial":NaN}',
        '{"entries":{},"format":1,"name":"x","serial":1.0}',
        '{"entries":{},"format":1,"name":"x","serial":true}',
        '{"entries":[],"format":1,"name":"x","serial":1}',
        '{"entries":{},"format":true,"name":"x","serial":1}',
        '{"entries":{},"format":1,"name":["x"],"serial":1}',
        "null",
        " " + good,
        good + " ",
        good.replace(":1,", ":01,"),
        json.dumps(json.loads(good)),
    ):
        with pytest.raises(CacheError):
            Index.parse(text.encode())
    with pytest.raises(CacheError):
        Index.parse(good.encode("utf-16"))


# -- between check and use -------------------------------------------------------------------------


def test_a_pack_rewritten_while_it_is_open(pack: Path) -> None:
    with Pack.open(pack, TRUSTED) as opened:
        entry = opened.peek(program_record(1))
        assert isinstance(entry, Entry)
        before = bytes(entry.section("binary"))
        size = pack.stat().st_size
        with pack.open("r+b") as file:
            file.write(bytes(size))
        assert bytes(entry.section("binary")) == before == noise(250, 1)
        assert all(isinstance(opened.peek(program_record(n)), Miss) for n in range(3))
        with pack.open("r+b") as file:
            file.truncate(10)
        found = opened.peek(program_record(1))
        assert isinstance(found, Miss)
        assert found.reason is Reason.UNREADABLE


def test_a_pack_replaced_while_it_is_open(store: Store, pack: Path, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("files in use are not replaced there")
    evil = filled(tmp_path / "evil", seed=99)
    planted = make_pack(tmp_path / "evil.clpack", evil, keys=[OTHER_KEY])
    with Pack.open(pack, TRUSTED) as opened:
        planted.replace(pack)
        entry = opened.peek(program_record(1))
    assert isinstance(entry, Entry)
    assert bytes(entry.section("binary")) == noise(250, 1)


# -- what clinfer never does -----------------------------------------------------------------------


def test_no_module_unpickles_extracts_or_evaluates() -> None:
    import clinfer

    forbidden = re.compile(
        r"\b(import pickle|from pickle|import marshal|import shelve|extractall\(|allow_pickle=True"
        r"|(?<![.\w])eval\(|(?<![.\w])exec\()"
    )
    package = Path(str(clinfer.__file__)).parent
    found = [
        f"{file.name}: {match[0]}"
        for file in package.rglob("*.py")
        for match in forbidden.finditer(file.read_text(encoding="utf-8"))
    ]
    assert found == []
