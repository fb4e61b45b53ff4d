"""What caching promises to applications; the table in docs/cache.md names these tests."""

from __future__ import annotations

import os
import random
import resource
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import clinfer
from api.made import dense_answer, dense_model, save
from clinfer.cache import Store, read, to_bytes
from clinfer.cache.layers import Layers
from clinfer.errors import BuildError
from clinfer.plugins import programs

X = np.random.default_rng(3).standard_normal((5, 24)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(dense_model(), tmp_path / "m.onnx")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "c"


def compiled(model: Path, cache: Path | str, device: str, core: clinfer.Core | None = None):
    return (core or clinfer.Core()).compile_model(model, device, {"CACHE_DIR": str(cache)})


def builds(model: Path, cache: Path | str, device: str, core: clinfer.Core | None = None) -> int:
    """How many programs had to be built; the answer must be right."""
    found = compiled(model, cache, device, core)
    np.testing.assert_allclose(found(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    return found.programs_built


def entries(cache: Path) -> list[Path]:
    return sorted(p for p in (cache / "entries").rglob("*") if p.is_file())


def test_a_cleared_cache_dir_is_not_used(device, model, cache) -> None:
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": str(cache)})
    assert core.compile_model(model, device).programs_built
    assert not core.compile_model(model, device).programs_built
    core.set_property({"CACHE_DIR": ""})
    before = {file: file.stat().st_mtime_ns for file in entries(cache)}
    again = core.compile_model(model, device)
    assert again.programs_built
    assert not again.get_property("LOADED_FROM_CACHE")
    assert {file: file.stat().st_mtime_ns for file in entries(cache)} == before


def test_a_property_that_changes_the_code_misses(cpu, model, cache, monkeypatch) -> None:
    """Every property that is declared to change what is compiled is part of the key."""
    from clinfer import properties
    from clinfer.plugins.compiler import compile_fields

    core = clinfer.Core()
    device = core._device(cpu)
    values = {name: entry.default() for name, entry in properties.SETTABLE.items()}
    fields = compile_fields(device, values)
    for name, entry in properties.SETTABLE.items():
        changed = compile_fields(device, {**values, name: "another value"})
        assert (changed != fields) == entry.compiles, name
    assert builds(model, cache, cpu)
    precision = properties.SETTABLE["INFERENCE_PRECISION_HINT"]._replace(default=lambda: "f16")
    monkeypatch.setitem(properties.SETTABLE, "INFERENCE_PRECISION_HINT", precision)
    assert builds(model, cache, cpu)


def test_another_code_generator_misses(cpu, model, cache, monkeypatch) -> None:
    assert builds(model, cache, cpu)
    monkeypatch.setattr("clinfer.plugins.compiler.generator_digest", lambda: "another release")
    assert builds(model, cache, cpu)


def test_a_model_that_cannot_be_exported_runs_all_the_same(cpu, model, cache, monkeypatch) -> None:
    def fails(*_: object) -> dict[str, object]:
        raise BuildError("the driver gives no binary")

    monkeypatch.setattr("clinfer.plugins.cpu._sections", fails)
    assert builds(model, cache, cpu)
    assert entries(cache) == []


def test_programs_whose_binaries_the_driver_keeps_run_all_the_same(
    gpu, model, cache, monkeypatch
) -> None:
    def fails(_: object) -> bytes:
        raise BuildError("the driver gives no binary")

    monkeypatch.setattr("clinfer.device.programs.BuiltProgram.binary", fails)
    assert builds(model, cache, gpu)
    assert [read(file).record.kind for file in entries(cache)] == ["plan"]
    assert builds(model, cache, gpu)


def test_a_blob_that_cannot_be_imported_is_compiled_anew(cpu, model, cache) -> None:
    """The entry is intact, its digests are right, and what it holds is of no use."""
    builds(model, cache, cpu)
    (file,) = entries(cache)
    entry = read(file)
    sections = {name: bytes(entry.section(name)) for name in entry.sections}
    sections["binaries"] = bytes(len(sections["binaries"]))
    file.write_bytes(to_bytes(entry.record, sections))
    assert builds(model, cache, cpu)
    assert not builds(model, cache, cpu)


def test_an_entry_of_an_older_format_is_compiled_anew(device, model, cache) -> None:
    builds(model, cache, device)
    for file in entries(cache):
        content = bytearray(file.read_bytes())
        content[8] -= 1
        file.write_bytes(content)
    assert builds(model, cache, device)
    assert not builds(model, cache, device)


def test_four_threads_compile_once(device, model, cache) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: builds(model, cache, device), range(4)))
    assert sorted(map(bool, found)) == [False, False, False, True]


def test_whoever_comes_while_programs_are_stored_builds_none(
    gpu, model, cache, tmp_path, monkeypatch
):
    """Another model's caller finds the first program of the two there, the second one not yet."""
    other = save(dense_model(name="other"), tmp_path / "other.onnx")
    load, store = programs._load, Layers.put_made
    missed = threading.Event()
    pool = ThreadPoolExecutor(1)
    later: list[Future[int]] = []

    def looking(*args, **options):
        found = load(*args, **options)
        if later and found is None and threading.current_thread() is not threading.main_thread():
            missed.set()
        return found

    def storing(self, record, *args):
        result = store(self, record, *args)
        if dict(record.fields)["kind"] == "program" and not later:
            later.append(pool.submit(builds, other, cache, gpu))
            assert missed.wait(60)
        return result

    monkeypatch.setattr(programs, "_load", looking)
    monkeypatch.setattr(Layers, "put_made", storing)
    assert builds(model, cache, gpu) > 1
    assert later[0].result() == 0


def test_a_symlinked_directory_is_one_cache(device, model, cache, tmp_path) -> None:
    cache.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(cache)
    assert builds(model, link, device)
    assert not builds(model, cache, device)


@pytest.mark.parametrize("fact", ["driver_version", "device_version", "platform_version"])
def test_another_driver_misses_and_replaces_nothing(device, model, cache, fact) -> None:
    assert builds(model, cache, device)
    kept = entries(cache)
    core = clinfer.Core()
    opened = core._device(device)
    opened.info = opened.info._replace(**{fact: "99.0"})
    assert builds(model, cache, device, core)
    assert not builds(model, cache, device)
    assert set(kept) < set(entries(cache))


def test_entries_evicted_while_in_use(device, model, cache) -> None:
    builds(model, cache, device)
    found = compiled(model, cache, device)
    assert Store(cache).clear().entries
    np.testing.assert_allclose(found(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
    assert builds(model, cache, device)


def test_the_directory_deleted_while_running(device, model, cache) -> None:
    core = clinfer.Core()
    assert builds(model, cache, device, core)
    shutil.rmtree(cache)
    assert builds(model, cache, device, core)
    assert not builds(model, cache, device, core)


def test_an_entry_swapped_after_the_check_is_not_seen(cpu, model, cache, monkeypatch) -> None:
    """What was read and checked is what is used, whatever then stands at its path."""
    builds(model, cache, cpu)
    (file,) = entries(cache)
    from clinfer.plugins import cpu as plugin

    use = plugin._from_entry

    def swapped(entry, *others):
        fresh = file.with_name("other")
        fresh.write_bytes(random.Random(1).randbytes(file.stat().st_size))
        fresh.replace(file)
        return use(entry, *others)

    monkeypatch.setattr(plugin, "_from_entry", swapped)
    assert not builds(model, cache, cpu)


def in_child(body: Callable[[], bool]) -> bool:
    """Runs `body` in a forked child, which may give up rights for good."""
    child = os.fork()
    if child == 0:
        result = 2
        try:
            result = 0 if body() else 1
        finally:
            os._exit(result)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("limit", [0, 4096])
def test_no_space(device, model, cache, limit) -> None:
    """Files may not grow beyond `limit` bytes: the entry is not stored, and nothing is left."""
    builds(model, "", device)

    def body() -> bool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return Store(cache).put(read(blob).record, {"binary": bytes(2 * limit + 1)}) is False

    blob = clinfer.Core().compile_model(model, "CPU").export_model()
    assert in_child(body)
    assert entries(cache) == []


def test_a_directory_that_may_not_be_written(device, model, tmp_path) -> None:
    """A read-only directory: what is there is used, what is missing is built and not stored."""
    full, empty = tmp_path / "full", tmp_path / "empty"
    builds(model, full, device)
    empty.mkdir(mode=0o700)
    for folder in (full, empty):
        core = clinfer.Core()
        core.set_property({"CACHE_MODE": "read-only"})
        assert bool(builds(model, folder, device, core)) == (folder == empty)
    assert list(empty.iterdir()) == []
