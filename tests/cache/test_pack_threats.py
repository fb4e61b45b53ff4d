"""The threats of a pack from elsewhere: each is refused, and nothing of it is stored."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cache_helpers import noise, posix_only, program_record
from pack_helpers import (
    FRAME,
    HEAD,
    KEY,
    OTHER_KEY,
    TRUSTED,
    WAIVED,
    canonical,
    filled,
    frames,
    index_document,
    make_pack,
    sealed,
    sealed_bytes,
)

from clinfer.cache import Entry, Miss, Reason, Store, to_bytes
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


# -- signatures ------------------------------------------------------------------------------------


def test_an_unsigned_pack(store: Store, tmp_path: Path) -> None:
    path = make_pack(tmp_path / "u.clpack", store, keys=[])
    expect_untrusted(path, tmp_path / "t", "the pack is not signed")
    with Pack.open(path, Trust((KEY.public,), allow_unsigned=True)) as opened:
        assert opened.signers == ()
        assert unpack(opened, Store(tmp_path / "t")).stored == 3


def test_an_unknown_key(store: Store, tmp_path: Path) -> None:
    path = make_pack(tmp_path / "u.clpack", store, keys=[OTHER_KEY])
    expect_untrusted(path, tmp_path / "t", f"signed by key {OTHER_KEY.public.id}")
    nobody = refused(path, Store(tmp_path / "t"), Trust())
    assert "trusted here: none" in str(nobody)
    with Pack.open(path, Trust(allow_unsigned=True)) as opened:
        assert opened.signers == ()


def test_a_signature_moved_to_another_index(store: Store, pack: Path, tmp_path: Path) -> None:
    """The victim's key beside its old signature, over an index with one entry more."""
    store.put(program_record(9), {"binary": b"evil"})
    forged = make_pack(tmp_path / "forged.clpack", store, keys=[OTHER_KEY]).read_bytes()
    true = pack.read_bytes()
    signature = true[sealed_bytes(true) - 32 - 96 : sealed_bytes(true) - 32]
    index = canonical(index_document(forged))
    head = HEAD.pack(MAGIC, 1, 1, len(index))
    body = head + index + signature
    pack.write_bytes(body + hashlib.sha256(body).digest() + b"".join(frames(forged)))
    expect_untrusted(pack, tmp_path / "t", "what was signed has changed")
    # A trusted key's wrong signature is refused even where none is asked for.
    with pytest.raises(UntrustedError):
        Pack.open(pack, Trust((KEY.public,), allow_unsigned=True))


def test_a_signature_made_for_something_else(store: Store, pack: Path, tmp_path: Path) -> None:
    data = pack.read_bytes()
    index = canonical(index_document(data))
    signature = KEY.sign(b"clinfer entry 1\n", index).encode()
    body = HEAD.pack(MAGIC, 1, 1, len(index)) + index + signature
    rest = data[sealed_bytes(data) :]
    pack.write_bytes(body + hashlib.sha256(body).digest() + rest)
    expect_untrusted(pack, tmp_path / "t", "what was signed has changed")


def test_nothing_is_parsed_before_it_is_signed(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(Index, "parse", parse)
    with pytest.raises(UntrustedError):
        Pack.open(pack, Trust((OTHER_KEY.public,)))


# -- what the signature covers ---------------------------------------------------------------------


def swapped_blobs(data: bytes) -> bytes:
    """Two entries of one pack exchanged, index and signature as they were."""
    first, second, third = frames(data)
    size = len(first)
    assert size != len(second) or first != second
    return data[: sealed_bytes(data)] + second + first + third


def test_blobs_of_other_sizes_swapped(pack: Path, tmp_path: Path) -> None:
    pack.write_bytes(swapped_blobs(pack.read_bytes()))
    assert "the index says" in str(refused(pack, Store(tmp_path / "t")))


def equal_sizes(tmp_path: Path) -> Path:
    store = Store(tmp_path / "equal")
    for number in range(3):
        store.put(program_record(number), {"binary": noise(100, number)})
    return make_pack(tmp_path / "equal.clpack", store)


def test_blobs_of_one_size_swapped(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = equal_sizes(tmp_path)
    path.write_bytes(swapped_blobs(path.read_bytes()))
    expect_untrusted(path, tmp_path / "t", "holds another key")


def forge(path: Path, number: int, content: bytes) -> None:
    """An entry of the pack replaced by one of the same key and size, its own digests fitting."""
    data = path.read_bytes()
    digest = program_record(number).digest
    at = sorted(index_document(data)["entries"]).index(digest)
    forged = to_bytes(program_record(number), {"binary": content}, seconds=0.0)
    old = frames(data)
    new = FRAME.pack(0, 0, len(forged)) + forged
    assert len(new) == len(old[at])
    old[at] = new
    path.write_bytes(data[: sealed_bytes(data)] + b"".join(old))


def test_blob_and_its_hash_rewritten_together(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = equal_sizes(tmp_path)
    forge(path, 1, b"evil" * 25)
    error = refused(path, Store(tmp_path / "t"))
    assert isinstance(error, UntrustedError)
    assert "not what the index was signed for" in str(error)
    with Pack.open(path, TRUSTED) as opened:
        assert [problem.reason for problem in opened.verify()] == [Reason.UNTRUSTED]
        found = opened.peek(program_record(1))
        assert isinstance(found, Miss)
        assert found.reason is Reason.UNTRUSTED


@pytest.mark.parametrize("form", ["layout", "directory"])
def test_blob_and_its_hash_rewritten_in_a_directory(form: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    file = equal_sizes(tmp_path)
    victim = program_record(1)
    evil = to_bytes(victim, {"binary": b"evil" * 25})
    if form == "layout":
        path = make_pack(tmp_path / form, Store(tmp_path / "equal"))
        layer = max((path / "blobs" / "sha256").iterdir(), key=lambda blob: blob.stat().st_size)
        old = Store(tmp_path / "equal").folder.entry(victim.digest).read_bytes()
        layer.write_bytes(layer.read_bytes().replace(old, evil))
    else:
        path = tmp_path / form
        with Pack.open(file, TRUSTED) as opened:
            unpack(opened, Store(path))
            (path / "pack.index").write_bytes(sealed(opened.index))
        Store(path).folder.entry(victim.digest).write_bytes(evil)
    error = refused(path, Store(tmp_path / "t"))
    assert isinstance(error, UntrustedError)


def test_an_entry_that_the_index_does_not_name(store: Store, tmp_path: Path) -> None:
    """A planted file in a signed directory is not part of the pack."""
    with Pack.open(make_pack(tmp_path / "p.clpack", store), TRUSTED) as opened:
        (store.directory / "pack.index").write_bytes(sealed(opened.index))
    store.put(program_record(9), {"binary": b"evil"})
    with Pack.open(store.directory, TRUSTED) as opened:
        assert isinstance(opened.peek(program_record(9)), Miss)
        assert len(opened.index.entries) == 3


def flips(path: Path, step: int = 1) -> Iterator[int]:
    """Flips one bit of a file at each offset in turn, and puts it back."""
    data = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for offset in range(0, len(data), step):
            file.seek(offset)
            file.write(bytes([data[offset] ^ 1 << offset % 8]))
            yield offset
            file.seek(offset)
            file.write(data[offset : offset + 1])


def passes(path: Path) -> bool:
    """Whether nothing seems wrong with a pack."""
    try:
        with Pack.open(path, TRUSTED) as opened:
            return not opened.verify()
    except ClinferError:
        return False


def test_bits_flipped_everywhere(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = filled(tmp_path / "cache", count=2)
    path = make_pack(tmp_path / "p.clpack", store)
    assert [offset for offset in flips(path) if passes(path)] == []


def test_bits_flipped_in_a_compressed_entry_and_in_a_layer(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = Store(tmp_path / "cache")
    content = noise(300) * 4
    store.put(program_record(0), {"binary": content})
    file = make_pack(tmp_path / "p.clpack", store, compress=True)
    layout = make_pack(tmp_path / "layout", store)
    layer = max((layout / "blobs" / "sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    for path, place in ((file, file), (layout, layer)):
        assert passes(path)
        # A bit that the compressed form does not use may pass, if the content is right.
        for _ in flips(place, step=3):
            if passes(path):
                with Pack.open(path, TRUSTED) as opened:
                    entry = opened.peek(program_record(0))
                assert isinstance(entry, Entry)
                assert bytes(entry.section("binary")) == content


def test_a_pack_cut_short_or_with_more_behind_it(pack: Path, tmp_path: Path) -> None:
    data = pack.read_bytes()
    for end in [*range(0, len(data), 37), len(data) - 1]:
        pack.write_bytes(data[:end])
        with pytest.raises(CacheError):
            Pack.open(pack, TRUSTED)
    pack.write_bytes(data + b"\0")
    assert "follow the pack's last entry" in str(refused(pack, Store(tmp_path / "t")))


# -- replay ----------------------------------------------------------------------------------------


@pytest.fixture
def remembering(tmp_path: Path) -> Trust:
    return Trust((KEY.public,), serial_file=tmp_path / "state" / "serials.json")


def take(path: Path, target: Path, trust: Trust) -> None:
    with Pack.open(path, trust) as opened:
        unpack(opened, Store(target))


def test_an_old_index_replayed(store: Store, tmp_path: Path, remembering: Trust) -> None:
    old, new = (make_pack(tmp_path / f"{serial}.clpack", store, serial=serial) for serial in (4, 5))
    take(old, tmp_path / "t", remembering)
    take(new, tmp_path / "t", remembering)
    take(new, tmp_path / "t", remembering)
    error = refused(old, Store(tmp_path / "other"), remembering)
    assert isinstance(error, UntrustedError)
    assert "serial 4, but 5 was accepted" in str(error)
    assert Store(tmp_path / "other").info().entries == 0
    older = Trust((KEY.public,), allow_older=True, serial_file=remembering.serial_file)
    take(old, tmp_path / "other", older)
    with pytest.raises(UntrustedError):  # which was not remembered
        Pack.open(old, remembering)


def test_a_second_index_under_one_serial(store: Store, tmp_path: Path, remembering: Trust) -> None:
    take(make_pack(tmp_path / "a.clpack", store), tmp_path / "t", remembering)
    store.put(program_record(9), {"binary": b"more"})
    second = make_pack(tmp_path / "b.clpack", store)
    error = refused(second, Store(tmp_path / "t"), remembering)
    assert isinstance(error, UntrustedError)
    assert "another content" in str(error)


def test_serials_are_of_a_name_and_a_key(store: Store, tmp_path: Path, remembering: Trust) -> None:
    take(make_pack(tmp_path / "a.clpack", store, serial=9), tmp_path / "t", remembering)
    take(make_pack(tmp_path / "b.clpack", store, name="b", serial=1), tmp_path / "t", remembering)
    both = Trust((KEY.public, OTHER_KEY.public), serial_file=remembering.serial_file)
    other = make_pack(tmp_path / "c.clpack", store, serial=1, keys=[OTHER_KEY])
    take(other, tmp_path / "t", both)
    signed_by_both = make_pack(tmp_path / "d.clpack", store, serial=2, keys=[OTHER_KEY, KEY])
    assert isinstance(refused(signed_by_both, Store(tmp_path / "t"), both), UntrustedError)


def test_looking_does_not_count_as_accepting(
    store: Store, tmp_path: Path, remembering: Trust
) -> None:
    Pack.open(make_pack(tmp_path / "a.clpack", store, serial=9), remembering).close()
    assert remembering.serial_file is not None
    assert not remembering.serial_file.exists()


@posix_only
def test_a_file_of_serials_that_cannot_be_used(
    store: Store, tmp_path: Path, remembering: Trust
) -> None:
    path = make_pack(tmp_path / "a.clpack", store)
    take(path, tmp_path / "t", remembering)
    file = remembering.serial_file
    assert file is not None
    text = file.read_text()
    file.chmod(0o666)
    assert "can be written by every user" in str(refused(path, Store(tmp_path / "t"), remembering))
    file.chmod(0o600)
    strange = text.replace('"packs":[[', '"packs":[[[],')
    for damage in ("", "[]", "{}", text[:-3], strange, "[" * 9999):
        file.write_text(damage)
        assert "cannot be understood" in str(refused(path, Store(tmp_path / "t"), remembering))
    unwritable = Trust((KEY.public,), serial_file=path / "serials.json")
    assert "CLINFER_TRUST_FILE" in str(refused(path, Store(tmp_path / "t"), unwritable))


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
    assert time.perf_counter() - start < 2.0


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
    assert time.perf_counter() - start < 2.0


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
