"""`clinfer verify`: what a cache covers, told without building or running anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clinfer
from api.made import dense_model, save
from clinfer.cli import main
from clinfer.device.discover import DeviceInfo
from clinfer.device.lock import differences, read_lock, write_lock
from clinfer.errors import DeviceError, PropertyError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FACTS = {str: "", int: 1, bool: False, frozenset[str]: [], tuple[int, ...]: []}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(dense_model(), tmp_path / "dense.onnx")


@pytest.fixture
def warmed(device: str, model: Path, tmp_path: Path) -> str:
    """The directory of a cache that covers the model on the device."""
    cache = tmp_path / "cache"
    clinfer.Core().compile_model(model, device, {"CACHE_DIR": str(cache)})
    return str(cache)


def verify(capsys, *arguments: object) -> tuple[int, dict]:
    """The exit code and the JSON document of a verification."""
    capsys.readouterr()
    code = main(["verify", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def entries(cache: str) -> list[Path]:
    return [path for path in Path(cache, "entries").rglob("*") if path.is_file()]


def test_a_warm_cache_is_complete_and_stays_untouched(capsys, device, model, warmed):
    before = {path: path.stat() for path in Path(warmed).rglob("*")}
    code, document = verify(capsys, model, "--device", device, "--cache-dir", warmed)
    assert (code, document["verdict"]) == (0, "complete")
    assert document["models"][0]["gaps"] == []
    assert document["models"][0]["needed"] >= 1
    after = {path: path.stat() for path in Path(warmed).rglob("*")}
    assert {p: s.st_mtime_ns for p, s in before.items()} == {
        p: s.st_mtime_ns for p, s in after.items()
    }


def test_an_empty_cache_is_incomplete_and_is_not_made(capsys, device, model, tmp_path):
    cache = tmp_path / "none"
    code, document = verify(capsys, model, "--device", device, "--cache-dir", cache)
    assert (code, document["verdict"]) == (3, "incomplete")
    gaps = document["models"][0]["gaps"]
    assert {gap["reason"] for gap in gaps} == {"absent"}
    assert len(gaps) == document["models"][0]["needed"]
    assert not cache.exists()


def test_a_damaged_entry_is_a_gap_with_its_reason(capsys, device, model, warmed):
    path = entries(warmed)[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    code, document = verify(capsys, model, "--device", device, "--cache-dir", warmed)
    assert code == 3
    assert [gap["reason"] for gap in document["models"][0]["gaps"]] == ["damaged"]
    assert path.read_bytes() == data


@pytest.mark.parametrize("fact", ["driver_version", "full_name"])
def test_another_driver_or_device_is_named(capsys, device, model, warmed, tmp_path, fact):
    lock = tmp_path / "device.lock"
    assert main(["devices", "--device", device, "--lock", str(lock)]) == 0
    code, _ = verify(capsys, model, "--device", f"@{lock}", "--cache-dir", warmed)
    assert code == 0
    document = json.loads(lock.read_text())
    document["devices"][0][fact] = "of tomorrow"
    lock.write_text(json.dumps(document))
    code, found = verify(capsys, model, "--device-lock", lock, "--cache-dir", warmed)
    assert (code, found["verdict"]) == (4, "incompatible")
    differs = found["models"][0]["gaps"][0]["differs"]
    field = {"driver_version": "driver", "full_name": "device"}[fact]
    assert differs[field][0] == "of tomorrow"


def test_the_same_model_for_another_driver_is_nearer_than_another_model(
    capsys, cpu, model, tmp_path
):
    cache = tmp_path / "cache"
    lock = tmp_path / "device.lock"
    other = save(dense_model(seed=1), tmp_path / "other.onnx")
    main(["devices", "--device", cpu, "--lock", str(lock)])
    clinfer.Core().compile_model(model, cpu, {"CACHE_DIR": str(cache)})
    document = json.loads(lock.read_text())
    document["devices"][0].update(driver_version="2", platform_version="2", device_version="2")
    lock.write_text(json.dumps(document))
    arguments = ("--device", f"@{lock}", "--cache-dir", cache)
    assert verify(capsys, model, *arguments)[0] == 4
    code, found = verify(capsys, other, *arguments)
    assert code == 3
    assert "model" in found["models"][0]["gaps"][0]["differs"]


def test_another_release_is_incompatible(capsys, cpu, model, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    clinfer.Core().compile_model(model, cpu, {"CACHE_DIR": str(cache)})
    monkeypatch.setattr("clinfer.plugins.compiler.generator_digest", lambda: "0" * 64)
    code, found = verify(capsys, model, "--device", cpu, "--cache-dir", cache)
    assert code == 4
    assert [*found["models"][0]["gaps"][0]["differs"]] == ["generator"]


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_a_directory_that_others_can_write_is_untrusted(capsys, device, model, warmed):
    Path(warmed).chmod(0o777)
    code, document = verify(capsys, model, "--device", device, "--cache-dir", warmed)
    assert (code, document["verdict"]) == (5, "untrusted")
    assert document["models"][0]["gaps"][0]["reason"] == "refused"


def test_a_read_only_layer_counts(capsys, device, model, warmed, tmp_path, monkeypatch):
    monkeypatch.setenv("CLINFER_CACHE_PATH", warmed)
    empty = tmp_path / "empty"
    assert verify(capsys, model, "--device", device, "--cache-dir", empty)[0] == 0


def test_a_remote_store_counts(capsys, device, model, warmed, tmp_path):
    arguments = (model, "--device", device, "--cache-dir", tmp_path / "empty", "--store")
    assert verify(capsys, *arguments, Path(warmed).as_uri())[0] == 0
    assert verify(capsys, *arguments, (tmp_path / "other").as_uri())[0] == 3
    assert not (tmp_path / "empty").exists()


def test_trust_is_for_remote_stores_too(capsys, device, model, warmed, tmp_path):
    from clinfer.cache.signing import SigningKey

    keys = [tmp_path / "mine", tmp_path / "theirs"]
    public = [SigningKey.generate().save(path) for path in keys]
    url = f"file://{tmp_path}/pushed"
    arguments = ["--store", url, "--cache-dir", str(warmed), "--key", str(keys[0])]
    assert main(["pack", *arguments]) == 0
    for key, expected in zip(public, (0, 5), strict=True):
        arguments = [model, "--device", device, "--store", url, "--trust", key]
        assert verify(capsys, *arguments)[0] == expected
    absent = ["--store", url, "--trust", str(tmp_path / "absent.pub")]
    assert main(["verify", str(model), "--device", device, *absent]) == 1
    assert "absent.pub" in capsys.readouterr().err


def test_shapes_and_changed_weights_are_other_entries(capsys, cpu, model, tmp_path):
    cache = tmp_path / "cache"
    arguments = ("--device", cpu, "--cache-dir", str(cache))
    assert main(["warm", str(model), *arguments, "--shape", "x=3x24"]) == 0
    assert verify(capsys, model, *arguments, "--shape", "x=3x24")[0] == 0
    assert verify(capsys, model, *arguments)[0] == 3
    save(dense_model(seed=5), model)
    assert verify(capsys, model, *arguments, "--shape", "x=3x24")[0] == 3


def test_a_model_that_cannot_be_read_fails_and_the_others_are_told(
    capsys, device, model, warmed, tmp_path
):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    code, found = verify(capsys, broken, model, "--device", device, "--cache-dir", warmed)
    assert code == 1
    assert [row["verdict"] for row in found["models"]] == ["failed", "complete"]
    assert "broken.onnx" in found["models"][0]["error"]


def test_without_a_cache_there_is_nothing_to_look_into(cpu, model, core):
    with pytest.raises(PropertyError, match="no cache to look into"):
        core.coverage(model, cpu)


def test_packs_are_looked_into(capsys, device, model, warmed, tmp_path):
    pack = tmp_path / "p.clpack"
    key = tmp_path / "key"
    assert main(["pack", "--new-key", str(key)]) == 0
    assert main(["pack", "-o", str(pack), "--cache-dir", warmed, "--key", str(key)]) == 0
    arguments = (model, "--device", device, "--pack", pack)
    assert verify(capsys, *arguments, "--trust", f"{key}.pub")[0] == 0
    capsys.readouterr()
    assert main(["verify", *map(str, arguments)]) == 5
    assert "trusted" in capsys.readouterr().err


def test_a_lock_file_needs_no_opencl(cpu, model, tmp_path):
    """In a process where OpenCL cannot be loaded, for both kinds of device."""
    cache = tmp_path / "cache"
    clinfer.Core().compile_model(model, cpu, {"CACHE_DIR": str(cache)})
    lock = tmp_path / "device.lock"
    info = clinfer.Core()._device(cpu).info
    write_lock(lock, [info, info.named("GPU")])
    code = (
        "import sys; sys.modules['clinfer.device.binding'] = None; from clinfer.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    for name, expected in (("CPU", 0), ("GPU", 3)):
        arguments = ["verify", str(model), "--device-lock", str(lock), "--device", name]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--cache-dir", str(cache)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, done.stdout + done.stderr


def test_a_locked_device_has_the_target_of_the_real_one(device, tmp_path, core):
    opened = core._device(device)
    write_lock(tmp_path / "lock", [opened.info])
    (locked,) = read_lock(tmp_path / "lock")
    assert not differences(locked.info, opened.info)
    assert locked.info.full_name == opened.info.full_name
    before = (tmp_path / "lock").read_bytes()
    write_lock(tmp_path / "lock", [opened.info._replace(global_mem=1 << 40, max_alloc=1 << 30)])
    assert (tmp_path / "lock").read_bytes() == before
    assert locked.target == opened.target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "no lock file of format"),
        ('{"format": 2, "devices": []}', "no lock file of format"),
        ('{"format": 1, "devices": []}', "names no device"),
        ('{"format": 1, "devices": [1]}', "a device is an object"),
        ('{"format": 1, "devices": [{"name": "CPU"}]}', "another release"),
    ],
)
def test_a_lock_file_of_another_form_is_refused(tmp_path, text, message):
    lock = tmp_path / "device.lock"
    lock.write_text(text)
    with pytest.raises(DeviceError, match=message):
        read_lock(lock)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.tuples(PLAIN, st.booleans()))
def test_whatever_a_lock_file_holds_the_error_is_ours(tmp_path_factory, content):
    lock = tmp_path_factory.mktemp("locks") / "device.lock"
    if isinstance(content, tuple):
        value, as_device = content
        document = {"format": 1, "devices": [value] if as_device else value}
        content = json.dumps(document).encode()
    lock.write_bytes(content)
    with pytest.raises(DeviceError):
        read_lock(lock)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DeviceInfo._fields), PLAIN)
def test_whatever_a_fact_is_it_has_its_type_or_is_refused(tmp_path_factory, name, value):
    lock = tmp_path_factory.mktemp("locks") / "device.lock"
    facts = {name: FACTS[kind] for name, kind in get_type_hints(DeviceInfo).items()}
    lock.write_text(json.dumps({"format": 1, "devices": [{**facts, name: value}]}))
    try:
        (device,) = read_lock(lock)
    except DeviceError as error:
        assert "another type" in str(error)
    else:
        assert type(getattr(device.info, name)) in (str, int, bool, frozenset, tuple)


def test_a_fact_of_another_type_is_refused(cpu, core, tmp_path):
    lock = tmp_path / "device.lock"
    write_lock(lock, [core._device(cpu).info])
    document = json.loads(lock.read_text())
    document["devices"][0]["extensions"] = "cl_khr_fp16"
    lock.write_text(json.dumps(document))
    with pytest.raises(DeviceError, match="expected list"):
        read_lock(lock)
