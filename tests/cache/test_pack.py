"""Packs: what is packed comes out again, from a file, a layout or a directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cache_helpers import noise, posix_only, program_record
from pack_helpers import KEY, OTHER_KEY, TRUSTED, WAIVED, filled, make_pack, sealed

from clinfer.cache import Entry, KeyRecord, Layers, Miss, Reason, Store
from clinfer.cache.index import Limits
from clinfer.cache.pack import Pack
from clinfer.cache.packfile import write_pack
from clinfer.cache.packing import collect, programs_of, sources, unpack
from clinfer.cache.policy import Trust
from clinfer.errors import CacheError, UntrustedError
from clinfer.lowering.plan import Plan, Program

FORMS = ["pack.clpack", "layout", "directory"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    tmp_path.chmod(0o700)
    return filled(tmp_path / "cache")


def formed(form: str, store: Store, folder: Path, **settings: object) -> Path:
    """The store's entries in one of the forms of a pack, signed."""
    if form != "directory":
        return make_pack(folder / form, store, **settings)  # type: ignore[arg-type]
    file = make_pack(folder / "made.clpack", store, **settings)  # type: ignore[arg-type]
    with Pack.open(file, WAIVED) as pack:
        unpack(pack, Store(folder / form))
        (folder / form / "pack.index").write_bytes(sealed(pack.index))
    return folder / form


@pytest.mark.parametrize("form", FORMS)
def test_what_is_packed_comes_out(form: str, store: Store, tmp_path: Path) -> None:
    path = formed(form, store, tmp_path)
    with Pack.open(path, TRUSTED) as pack:
        assert (pack.index.name, pack.index.serial) == ("test", 1)
        assert pack.signers == (KEY.public,)
        assert pack.signed_by == (KEY.public.id,)
        for number in range(3):
            entry = pack.peek(program_record(number))
            assert isinstance(entry, Entry)
            assert bytes(entry.section("binary")) == noise(200 + 50 * number, number)
            assert entry.build_seconds == 0.5
        missing = pack.peek(program_record(9))
        assert isinstance(missing, Miss)
        assert missing.reason is Reason.ABSENT
        assert pack.verify() == []
        near = pack.nearest(program_record(0, driver="2"))
        assert near is not None
        assert [difference.name for difference in near.differences] == ["driver"]


@pytest.mark.parametrize("form", FORMS)
def test_unpacking_stores_the_same_bytes(form: str, store: Store, tmp_path: Path) -> None:
    target = Store(tmp_path / "target")
    told = []
    with Pack.open(formed(form, store, tmp_path), TRUSTED) as pack:
        first = unpack(pack, target, done=told.append)
        again = unpack(pack, target)
    assert (first.stored, first.kept) == (3, 0)
    assert (again.stored, again.kept, again.nbytes) == (0, 3, 0)
    assert len(told) == 3
    for number in range(3):
        digest = program_record(number).digest
        copied = target.folder.entry(digest).read_bytes()
        assert copied == store.folder.entry(digest).read_bytes()
    assert first.nbytes == target.info().bytes


def test_a_pack_of_several_stores_devices_and_vendors(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    vendors = ["AMD", "Intel", "NVIDIA"]
    stores = [filled(tmp_path / name, device=f"{name} GPU") for name in vendors]
    shared = KeyRecord.make("tuning", [("format", 1), ("family", "matmul")])
    for number, store in enumerate(stores):
        store.put(shared, {"choices": str(number).encode()})
    path = tmp_path / "all.clpack"
    index = write_pack(path, collect(stores), name="all", serial=7, keys=[KEY, OTHER_KEY])
    assert len(index.entries) == 10
    assert {e.record.get("device") for e in index.entries} == {f"{v} GPU" for v in vendors} | {None}
    with Pack.open(path, Trust((OTHER_KEY.public,))) as pack:
        assert pack.verify() == []
        tuning = pack.peek(shared)
        assert isinstance(tuning, Entry)
        assert bytes(tuning.section("choices")) == b"0"  # of several the first counts


def test_only_what_is_wanted_is_packed(store: Store, tmp_path: Path) -> None:
    chosen = collect([store], lambda record: record == program_record(1))
    index = write_pack(tmp_path / "one.clpack", chosen, name="one", serial=1)
    assert [entry.record for entry in index.entries] == [program_record(1)]


def test_the_same_entries_give_the_same_pack(store: Store, tmp_path: Path) -> None:
    for form in ("clpack", ""):
        made = [
            make_pack(tmp_path / str(number) / f"p.{form}".rstrip("."), store) for number in (1, 2)
        ]
        assert _content(made[0]) == _content(made[1])


def _content(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    files = [file for file in path.rglob("*") if file.is_file()]
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def test_compression_pays_or_is_left_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = Store(tmp_path / "cache")
    contents = {0: noise(50000), 1: (noise(3000) * 20)[:50000], 2: bytes(3_000_000), 3: b""}
    for number, content in contents.items():
        store.put(program_record(number), {"binary": content})
    path = make_pack(tmp_path / "p.clpack", store, compress=True)
    # Zeros would unfold to more than the ratio readers take, so they are stored as they are.
    assert 3_050_000 < path.stat().st_size < 3_080_000
    with Pack.open(path, TRUSTED) as pack:
        assert pack.verify() == []
        for number, content in contents.items():
            entry = pack.peek(program_record(number))
            assert isinstance(entry, Entry)
            assert bytes(entry.section("binary")) == content


def test_page_aligned_sections_stay_so_in_memory(tmp_path: Path) -> None:
    import numpy as np

    tmp_path.chmod(0o700)
    store = Store(tmp_path / "cache")
    record = KeyRecord.make("model", [("format", 1)])
    store.put(record, {"plan": b"{}", "weights": noise(9000)})
    for form in ("p.clpack", "layout"):
        with Pack.open(make_pack(tmp_path / form, store), TRUSTED) as pack:
            entry = pack.peek(record)
        assert isinstance(entry, Entry)
        weights = np.frombuffer(entry.section("weights"), np.uint8)
        assert weights.ctypes.data % 4096 == 0
        assert weights.tobytes() == noise(9000)  # after the pack is closed, too


def test_pinned_entries_stay_when_room_is_made(store: Store, tmp_path: Path) -> None:
    target = Store(tmp_path / "target")
    with Pack.open(make_pack(tmp_path / "p.clpack", store), TRUSTED) as pack:
        unpack(pack, target, pin=True)
    target.put(program_record(50), {"binary": noise(100)})
    removed = target.prune(limit=0)
    assert removed.entries == 1
    assert target.info().entries == 3


def test_an_entry_of_other_content_is_replaced(store: Store, tmp_path: Path) -> None:
    target = Store(tmp_path / "target")
    target.put(program_record(0), {"binary": b"something else"})
    with Pack.open(make_pack(tmp_path / "p.clpack", store), TRUSTED) as pack:
        assert unpack(pack, target).stored == 3
    entry = target.get(program_record(0))
    assert entry is not None
    assert bytes(entry.section("binary")) == noise(200, 0)


def test_packs_as_layers_of_a_cache(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = tmp_path / "key.pub"
    public.write_bytes(KEY.public.pem())
    monkeypatch.setenv("CLINFER_TRUST_FILE", str(tmp_path / "serials.json"))
    for form in FORMS:
        path = formed(form, store, tmp_path)
        monkeypatch.setenv("CLINFER_TRUST", str(public))
        layers = Layers.open("", path=[tmp_path / "absent", path])
        assert layers.get(program_record(1)) is not None
        assert layers.get(program_record(7)) is None
        assert "driver" in layers.explain(program_record(1, driver="0"), "it")
        if form != "directory":  # which is believed as directories are, by who can write it
            monkeypatch.delenv("CLINFER_TRUST")
            distrusting = Layers.open("", path=[path])
            found = distrusting.lookup(program_record(1))
            assert isinstance(found, Miss)
            assert found.reason is Reason.UNTRUSTED
            assert distrusting.stats.misses == {"untrusted": 1}
            assert distrusting.nearest(program_record(1)) is None


def test_a_broken_pack_as_a_layer_is_a_counted_miss(tmp_path: Path) -> None:
    path = tmp_path / "p.clpack"
    path.write_bytes(b"no pack at all")
    layers = Layers.open("", path=[path])
    assert layers.get(program_record()) is None
    assert layers.stats.misses == {"unreadable": 1}


def test_sources_of_programs_travel_along(tmp_path: Path) -> None:
    program = Program("twice", "__kernel void twice() {}", "-cl-mad-enable", (8, 2))
    loaders = sources([program, program])
    write_pack(tmp_path / "p.clpack", loaders, name="sources", serial=1, keys=[KEY])
    with Pack.open(tmp_path / "p.clpack", TRUSTED) as pack:
        (row,) = pack.index.entries
        assert row.record.kind == "source"
        assert row.record["source"] == program.digest
        assert row.record["local_size"] == "8x2"
        entry = pack.peek(row.record)
    assert isinstance(entry, Entry)
    assert bytes(entry.section("source")).decode() == program.source


def test_the_programs_of_a_compiled_model(tmp_path: Path) -> None:
    from clinfer.lowering.plan_dump import dump

    tmp_path.chmod(0o700)
    program = Program("k", "__kernel void k() {}", "", (1,))
    text, weights = dump(Plan((), (), (), (program,), (), (), (), {}))
    store = Store(tmp_path / "cache")
    record = KeyRecord.make("model", [])
    store.put(record, {"plan": text, "weights": weights})
    entry = store.get(record)
    assert entry is not None
    assert programs_of(entry) == (program,)


@pytest.mark.parametrize("form", ["p.clpack", "layout"])
def test_a_closed_pack_gives_nothing(form: str, store: Store, tmp_path: Path) -> None:
    pack = Pack.open(make_pack(tmp_path / form, store), TRUSTED)
    pack.close()
    found = pack.peek(program_record(1))
    assert isinstance(found, Miss)
    assert found.reason is Reason.UNREADABLE


def test_faults_of_packing(store: Store, tmp_path: Path) -> None:
    victim = store.folder.entry(program_record(1).digest)
    intact = victim.read_bytes()
    victim.write_bytes(intact[:-1])
    with pytest.raises(CacheError, match=r"cannot be packed \(damaged.*verify --remove"):
        make_pack(tmp_path / "p.clpack", store)
    victim.write_bytes(intact)
    loaders = collect([store])
    victim.unlink()
    with pytest.raises(CacheError, match="absent"):
        write_pack(tmp_path / "p.clpack", loaders, name="x", serial=1)
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]
    with pytest.raises(CacheError, match="cannot be written"):
        make_pack(tmp_path / "cache" / "CACHEDIR.TAG" / "p.clpack", store)
    for name in ("", "a/b", "a" * 65, "-a"):
        with pytest.raises(CacheError, match="no pack's name"):
            make_pack(tmp_path / "p.clpack", store, name=name)
    for serial in (-1, 2**63):
        with pytest.raises(CacheError, match="serial number"):
            make_pack(tmp_path / "p.clpack", store, serial=serial)


@posix_only
def test_a_cache_that_others_write_is_not_packed(store: Store) -> None:
    store.directory.chmod(0o777)
    with pytest.raises(CacheError, match="can be written by every user"):
        collect([Store(store.directory)])


@posix_only
def test_a_directory_is_believed_as_a_cache_is(store: Store) -> None:
    with Pack.open(store.directory, Trust()) as pack:
        assert pack.verify() == []
        assert len(pack.index.entries) == 3
    with pytest.raises(UntrustedError, match="without a signed index"):
        Pack.open(store.directory, TRUSTED)
    store.directory.chmod(0o777)
    with pytest.raises(UntrustedError, match="can be written by every user"):
        Pack.open(store.directory, Trust())


def test_faults_of_unpacking(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Pack.open(make_pack(tmp_path / "p.clpack", store), TRUSTED) as pack:
        with pytest.raises(CacheError, match="is not stored"):
            unpack(pack, Store(tmp_path / "file"))
        with pytest.raises(CacheError, match="read-only"):
            unpack(pack, Store(tmp_path / "target", readonly=True))


def test_what_is_no_pack(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"\x89CLPAK\r\n")
    (tmp_path / "other").write_bytes(bytes(100))
    cases = {"absent": "No such file", "short": "too early", "other": "first bytes differ"}
    for name, message in cases.items():
        with pytest.raises(CacheError, match=message):
            Pack.open(tmp_path / name, TRUSTED)


@posix_only
def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(CacheError, match="not a regular file"):
            Pack.open(name, TRUSTED)


def test_limits_hold_before_anything_is_read(store: Store, tmp_path: Path) -> None:
    for form in ("p.clpack", "layout"):
        path = make_pack(tmp_path / form, store)
        for limits, message in (
            (Limits(entries=2), "entries"),
            (Limits(index=100), "index of"),
            (Limits(entry=100), "an entry of"),
            (Limits(total=500), "at most 500"),
        ):
            with pytest.raises(CacheError, match=message):
                Pack.open(path, TRUSTED, limits)
