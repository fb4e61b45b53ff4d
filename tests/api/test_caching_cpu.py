"""The CPU plugin's cache: blobs exported at the first compile_model and imported at the next."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest

import clinfer
from api.made import dense_answer, dense_model, save
from clocks import LIMIT

X = np.random.default_rng(3).standard_normal((5, 24)).astype(np.float32)


def compiled(path, cache, device="CPU", **config):
    """compile_model with a Core of its own."""
    return clinfer.Core().compile_model(path, device, {"CACHE_DIR": str(cache), **config})


def from_cache(model) -> bool:
    return model.get_property("LOADED_FROM_CACHE")


def blobs(cache: Path) -> list[Path]:
    return sorted(p for p in (cache / "entries").rglob("*") if p.is_file())


@pytest.mark.parametrize("level", ["core", "device", "config"])
def test_cache_dir_on_core_device_or_call(core, cpu, tmp_path, level):
    cache = tmp_path / "made" / "with" / "parents"
    path = save(dense_model(), tmp_path / "m.onnx")
    if level == "core":
        core.set_property({"CACHE_DIR": str(cache)})
    elif level == "device":
        core.set_property(cpu, {"CACHE_DIR": str(cache)})
    config = {"CACHE_DIR": str(cache)} if level == "config" else None
    assert not from_cache(core.compile_model(path, cpu, config))
    assert len(blobs(cache)) == 1
    assert from_cache(core.compile_model(path, cpu, config))


def test_without_cache_dir_nothing_is_written_or_loaded(core, cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    for _ in range(2):
        assert not from_cache(core.compile_model(path, cpu))
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_imported_model_gives_the_same_bits(cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    first = compiled(path, tmp_path / "c")
    second = compiled(path, tmp_path / "c")
    assert (from_cache(first), from_cache(second)) == (False, True)
    assert second.programs_built == 0
    np.testing.assert_array_equal(second(X)[0], first(X)[0])


_CHILD = """
import json, sys, time
import numpy as np
import clinfer
core = clinfer.Core()
core.set_property({"CACHE_DIR": sys.argv[2]})
model = core.compile_model(sys.argv[1], "CPU")
x = np.load(sys.argv[3])
y = model(x)[0]
print(json.dumps({
    "cached": model.get_property("LOADED_FROM_CACHE"),
    "built": model.programs_built,
    "modules": sorted(sys.modules),
    "bits": y.tobytes().hex(),
}))
"""


# What a warm start has no use for, from the packages that once took most of its time.
_HEAVY = {
    "onnx",
    "pyopencl",
    "pytools",
    "subprocess",
    "concurrent.futures.thread",
    "rich",
    "platformdirs",
    "filelock",
    "clinfer.graph",
    "clinfer.passes",
    "clinfer.lowering.lower",
    "clinfer.device.workers",
    "clinfer.device.pocl_header",
    "clinfer.plugins.tuning",
    "clinfer_kernels.families",
}
if sys.version_info < (3, 11):  # Python's own module platform imports it
    _HEAVY -= {"subprocess"}


def child(path: Path, cache: Path, folder: Path) -> dict:
    """compile_model and a run in a new process with a driver cache of its own."""
    np.save(folder / "x.npy", X)
    driver = folder / f"driver{time.time_ns()}"
    driver.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), str(cache), str(folder / "x.npy")],
        env={**os.environ, "POCL_CACHE_DIR": str(driver), "PYTHONHASHSEED": "random"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_another_process_imports_without_onnx_and_without_building(cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    first = child(path, tmp_path / "c", tmp_path)
    second = child(path, tmp_path / "c", tmp_path)
    assert not first["cached"]
    assert second["cached"]
    assert second["built"] == 0
    assert _HEAVY & set(first["modules"])
    assert not _HEAVY & set(second["modules"])
    assert second["bits"] == first["bits"]


def test_warm_through_read_model_too(core, cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    core.set_property({"CACHE_DIR": str(tmp_path / "c")})
    core.compile_model(path, cpu)
    assert from_cache(core.compile_model(core.read_model(path), cpu))
    assert from_cache(core.compile_model(path.read_bytes(), cpu))
    assert from_cache(core.compile_model(core.read_model(path.read_bytes()), cpu))


def test_moved_or_touched_model_hits(cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    os.utime(path, (1, 1))
    assert from_cache(compiled(path, tmp_path / "c"))
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "other.onnx")
    assert from_cache(compiled(moved, tmp_path / "c"))


def test_moved_cache_hits(cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    shutil.move(tmp_path / "c", tmp_path / "d")
    assert from_cache(compiled(path, tmp_path / "d"))


def test_changed_model_misses(cpu, tmp_path):
    path = save(dense_model(0), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    save(dense_model(1), path)
    model = compiled(path, tmp_path / "c")
    assert not from_cache(model)
    np.testing.assert_allclose(model(X)[0], dense_answer(X, 1), rtol=1e-4, atol=1e-5)


def test_changed_external_data_misses(cpu, tmp_path):
    path = save(dense_model(0), tmp_path / "m.onnx", external=True)
    data = tmp_path / "m.onnx.data"
    assert data.is_file()
    compiled(path, tmp_path / "c")
    assert from_cache(compiled(path, tmp_path / "c"))
    content = np.fromfile(data, np.float32)
    (content * 2).tofile(data)
    model = compiled(path, tmp_path / "c")
    assert not from_cache(model)
    reference = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": X})[0]
    np.testing.assert_allclose(model(X)[0], reference, rtol=1e-4, atol=1e-4)


def test_model_changed_after_read_model_is_not_stored_under_the_new_content(core, cpu, tmp_path):
    path = save(dense_model(0), tmp_path / "m.onnx")
    core.set_property({"CACHE_DIR": str(tmp_path / "c")})
    old = core.read_model(path)
    save(dense_model(1), path)
    stale = core.compile_model(old, cpu)
    np.testing.assert_allclose(stale(X)[0], dense_answer(X, 0), rtol=1e-4, atol=1e-5)
    fresh = core.compile_model(path, cpu)
    np.testing.assert_allclose(fresh(X)[0], dense_answer(X, 1), rtol=1e-4, atol=1e-5)


def test_reshaped_models_have_entries_of_their_own(core, cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    core.set_property({"CACHE_DIR": str(tmp_path / "c")})
    core.compile_model(path, cpu)
    read = core.read_model(path)
    read.reshape({"x": [5, 24]})
    model = core.compile_model(read, cpu)
    assert not from_cache(model)
    assert model.inputs[0].shape == (5, 24)


def test_properties_that_do_not_change_the_plan_hit(cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    for config in ({"NUM_STREAMS": 2}, {"PERFORMANCE_HINT": "THROUGHPUT"}):
        assert from_cache(compiled(path, tmp_path / "c", **config))


def test_damaged_entry_is_rebuilt_with_the_right_answer(cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    compiled(path, tmp_path / "c")
    blob = blobs(tmp_path / "c")[0]
    whole = blob.read_bytes()
    generator = np.random.default_rng(0)
    for kind in ("flip", "cut", "empty"):
        content = bytearray(whole)
        if kind == "flip":
            content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        content = {"cut": content[: len(content) // 2], "empty": b""}.get(kind, content)
        blob.write_bytes(content)
        model = compiled(path, tmp_path / "c")
        assert not from_cache(model)
        np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)
        assert from_cache(compiled(path, tmp_path / "c"))


def test_unusable_directory_is_a_miss_not_an_error(cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    (tmp_path / "file").write_text("not a directory")
    for _ in range(2):
        model = compiled(path, tmp_path / "file")
        assert not from_cache(model)
        np.testing.assert_allclose(model(X)[0], dense_answer(X), rtol=1e-4, atol=1e-5)


def test_the_application_can_ask_for_export_import(core, cpu):
    assert "EXPORT_IMPORT" in core.get_property(cpu, "OPTIMIZATION_CAPABILITIES")


def test_export_and_import_by_hand(core, cpu, tmp_path):
    model = core.compile_model(dense_model(), cpu)
    blob = model.export_model()
    with (tmp_path / "blob").open("wb") as file:
        assert model.export_model(file) is None
    for given in (blob, (tmp_path / "blob").open("rb")):
        back = core.import_model(given, cpu)
        np.testing.assert_array_equal(back(X)[0], model(X)[0])
        assert list(map(str, back.inputs)) == list(map(str, model.inputs))
        assert back.programs_built == 0


def test_a_damaged_blob_is_refused(core, cpu):
    blob = core.compile_model(dense_model(), cpu).export_model()
    for bad in (b"", b"not a blob", blob[:-1], blob[:100], blob + b"x"):
        with pytest.raises(clinfer.BlobError):
            core.import_model(bad, cpu)


@pytest.mark.parametrize("field", ["device", "driver", "format", "processor"])
def test_a_blob_of_another_device_driver_or_format_says_which(core, cpu, field):
    from clinfer.cache import KeyRecord, read, to_bytes

    entry = read(core.compile_model(dense_model(), cpu).export_model())
    other = 99 if field == "format" else "something else"
    fields = [(n, other if n == field else v) for n, v in entry.record.fields[1:]]
    foreign = to_bytes(KeyRecord.make("model", fields), entry.sections)
    with pytest.raises(clinfer.BlobError, match=field):
        core.import_model(foreign, cpu)
