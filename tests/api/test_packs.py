"""Packs and remote stores with real programs: filled here, shipped, started elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import clinfer
from api.made import dense_answer, dense_model, save
from clinfer.cli import main

pytest.importorskip("cryptography")
pytest.importorskip("fsspec")

X = np.random.default_rng(5).standard_normal((3, 24)).astype(np.float32)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private folder with a key pair, `key`, that the environment names."""
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    for name in ("CLINFER_CACHE_STORE", "CLINFER_ALLOW_UNSIGNED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLINFER_TRUST_FILE", str(tmp_path / "serials.json"))
    monkeypatch.setenv("CLINFER_TRUST", str(tmp_path / "key.pub"))
    monkeypatch.setenv("CLINFER_SIGN_KEY", str(tmp_path / "key"))
    assert main(["pack", "--new-key", "key"]) == 0
    return tmp_path


def answer(model: Path, device: str, **properties: str) -> np.ndarray:
    """What the model gives for X on a Core of its own."""
    return clinfer.Core().compile_model(model, device, properties)({"x": X})[0]


@pytest.mark.parametrize("form", ["pack.clpack", "image", "unpacked"])
def test_from_a_warm_cache_to_a_machine_that_compiles_nothing(form, device, tmp_path):
    model = save(dense_model(), tmp_path / "m.onnx")
    built = answer(model, device, CACHE_DIR="here")
    np.testing.assert_allclose(built, dense_answer(X), rtol=1e-5, atol=1e-5)
    assert main(["pack", "-o", "pack.clpack", "--oci", "image", "--cache-dir", "here"]) == 0
    assert main(["unpack", "pack.clpack", "--cache-dir", "unpacked"]) == 0
    core = clinfer.Core()
    with pytest.raises(clinfer.errors.CompileRequiredError):
        core.compile_model(model, device, {"CACHE_MODE": "cache-only"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLINFER_CACHE_PATH", form)
        shipped = answer(model, device, CACHE_MODE="cache-only")
    np.testing.assert_array_equal(shipped, built)


def test_only_what_a_model_needs_is_packed(device, tmp_path, capsys):
    wanted = save(dense_model(), tmp_path / "m.onnx")
    answer(wanted, device, CACHE_DIR="here")
    other = clinfer.cache.Store("here")
    record = clinfer.cache.KeyRecord.make("program", [("source", "of another model")])
    other.put(record, {"binary": b"x"})
    capsys.readouterr()
    arguments = ["--cache-dir", "here", "--device", device, "--sources", "--json"]
    assert main(["pack", "-o", "p.clpack", str(wanted), *arguments]) == 0
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert kinds["source"] >= 1
    assert kinds["model" if device == "CPU" else "program"] >= 1
    assert sum(kinds.values()) == len(json.loads(listed(capsys, "p.clpack")))
    assert record.digest[:12] not in listed(capsys, "p.clpack")


def listed(capsys, place: str) -> str:
    assert main(["cache", "list", place, "--json"]) == 0
    return capsys.readouterr().out


def test_a_remote_store_serves_the_next_machine(device, tmp_path):
    model = save(dense_model(seed=1), tmp_path / "m.onnx")
    url = f"file://{tmp_path}/remote"
    built = answer(model, device, CACHE_DIR="first", CACHE_STORE=url)
    signed = list((tmp_path / "remote" / "signatures").rglob("*"))
    assert signed
    core = clinfer.Core()
    settings = {"CACHE_DIR": "second", "CACHE_STORE": url, "CACHE_MODE": "read-only"}
    compiled = core.compile_model(model, device, settings)
    assert compiled.programs_built == 0
    (statistics,) = core.cache_statistics()
    assert statistics["remote"]["hits"] == statistics["hits"] > 0
    assert not Path("second").exists()
    again = clinfer.Core().compile_model(model, device, {**settings, "CACHE_MODE": "read-write"})
    np.testing.assert_array_equal(again({"x": X})[0], built)
    alone = answer(model, device, CACHE_DIR="second", CACHE_MODE="cache-only")
    np.testing.assert_array_equal(alone, built)


def test_warming_a_remote_store_and_filling_one_from_a_cache(cpu, tmp_path, capsys):
    model = save(dense_model(), tmp_path / "m.onnx")
    arguments = ["--device", "CPU", "--cache-dir", "here"]
    assert main(["warm", str(model), *arguments, "--store", f"file://{tmp_path}/a"]) == 0
    assert main(["pack", "--cache-dir", "here", "--store", f"file://{tmp_path}/b"]) == 0
    names = [
        {p.name for p in (tmp_path / store / "entries").rglob("*") if p.is_file()}
        for store in ("a", "b")
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 1
    assert main(["warm", str(model), *arguments, "--store", "nonsense://x"]) == 1
    assert "nonsense" in capsys.readouterr().err
