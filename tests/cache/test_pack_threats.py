"""Packs of strangers and forgers: each is refused, and nothing of it is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_helpers import noise, program_record
from pack_helpers import (
    FRAME,
    HEAD,
    KEY,
    OTHER_KEY,
    TRUSTED,
    canonical,
    filled,
    frames,
    index_document,
    make_pack,
    sealed,
    sealed_bytes,
)

from clinfer.cache import Entry, Miss, Reason, Store, to_bytes
from clinfer.cache.index import Index
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
