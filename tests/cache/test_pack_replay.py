"""An older pack, or a second one under the same serial number, is refused where it is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from cache_helpers import posix_only, program_record
from pack_helpers import (
    KEY,
    OTHER_KEY,
    TRUSTED,
    filled,
    make_pack,
)

from clinfer.cache import Store
from clinfer.cache.pack import Pack
from clinfer.cache.packing import unpack
from clinfer.cache.policy import Trust
from clinfer.errors import ClinferError, UntrustedError


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
