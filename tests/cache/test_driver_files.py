"""What drivers keep of their own travels in packs, under names that drivers give, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from pack_helpers import TRUSTED, filled, make_pack

from clinfer.cache import Store, driver_files
from clinfer.cache.entry import read_container, to_bytes
from clinfer.cache.pack import Pack
from clinfer.cache.packing import collect, unpack
from clinfer.cache.record import KeyRecord
from clinfer.cli import main
from clinfer.errors import CacheError

INTEL = "intel/0a1b2c3d4e5f6071.cl_cache"
MESA = f"mesa/mesa_shader_cache/0f/{'ab' * 19}"


def kept(directory: Path, *names: str) -> Store:
    """A cache with an entry, and drivers' files that hold their names."""
    store = filled(directory, 1)
    for name in names:
        path = directory / "drivers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return store


def test_files_that_stand_for_themselves_go_where_the_driver_looks(tmp_path: Path, capsys) -> None:
    others = ("nvidia/index", "intel/config.file", "mesa/mesa_shader_cache/index")
    kept(tmp_path / "a", INTEL, MESA, *others)
    pack = tmp_path / "p.clpack"
    options = ["--cache-dir", str(tmp_path / "a"), "--driver-caches"]
    assert main(["pack", "-o", str(pack), *options]) == 0
    unpacking = ["unpack", str(pack), "--cache-dir", str(tmp_path / "b"), "--allow-unsigned"]
    assert main([*unpacking, "--pin"]) == 0
    drivers = tmp_path / "b" / "drivers"
    there = {p.relative_to(drivers).as_posix() for p in drivers.rglob("*") if p.is_file()}
    assert there == {INTEL, MESA}
    assert all((drivers / name).read_text() == name for name in there)
    assert Store(tmp_path / "b").info().entries == 1
    capsys.readouterr()
    (drivers / INTEL).write_text("the driver's own")
    assert main(unpacking) == 0
    assert "0 entries stored" in capsys.readouterr().out
    assert (drivers / INTEL).read_text() == "the driver's own"


def test_without_the_option_they_stay(tmp_path: Path) -> None:
    store = kept(tmp_path / "a", INTEL)
    with Pack.open(make_pack(tmp_path / "p.clpack", store), TRUSTED) as pack:
        assert unpack(pack, Store(tmp_path / "b")).stored == 1
    assert len(collect([store])) == 1
    assert not (tmp_path / "b" / "drivers").exists()


@pytest.mark.parametrize(
    ("driver", "file"),
    [
        ("intel", "../../../x.cl_cache"),
        ("intel", "/etc/x.cl_cache"),
        ("intel", "a.cl_cache/../../b.cl_cache"),
        ("mesa", "mesa_shader_cache/index"),
        ("nvidia", "index"),
        ("../intel", "a.cl_cache"),
    ],
)
def test_other_names_are_refused(tmp_path: Path, driver: str, file: str) -> None:
    fields = [("format", 1), ("driver", driver), ("file", file)]
    record = KeyRecord.make(driver_files.KIND, fields)
    container = read_container(to_bytes(record, {"file": b"x"}))
    with pytest.raises(CacheError, match="no file of a driver"):
        driver_files.place(container, Store(tmp_path / "c"))
    assert not (tmp_path / "c").exists()
