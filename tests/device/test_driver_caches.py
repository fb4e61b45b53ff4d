"""GPU drivers keep their caches in folders of CACHE_DIR."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import clinfer
from clinfer.cache import Store
from clinfer.device import driver_caches, vendors

NAMES = tuple(driver_caches.VARIABLES)


@pytest.fixture(autouse=True)
def gpu_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a driver besides PoCL's wheel; what is set goes after the test."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(vendors, "may_have_others", lambda: True)


def where() -> dict[str, str]:
    return {name: os.environ[name] for name in NAMES if os.environ[name]}


def test_folders_are_private_and_named_to_the_drivers(tmp_path: Path) -> None:
    driver_caches.keep_in(Store(tmp_path / "c"))
    drivers = tmp_path / "c" / "drivers"
    assert where() == {
        "CUDA_CACHE_PATH": str(drivers / "nvidia"),
        "NEO_CACHE_DIR": str(drivers / "intel"),
        "MESA_SHADER_CACHE_DIR": str(drivers / "mesa"),
    }
    assert all(Path(place).stat().st_mode & 0o777 == 0o700 for place in where().values())


def test_what_is_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_CACHE_PATH", "/elsewhere")
    driver_caches.keep_in(Store(tmp_path / "c"))
    driver_caches.keep_in(Store(tmp_path / "d"))
    assert where()["CUDA_CACHE_PATH"] == "/elsewhere"
    assert where()["NEO_CACHE_DIR"] == str(tmp_path / "c" / "drivers" / "intel")
    assert not (tmp_path / "d").exists()


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_not_where_others_can_write(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(0o777)
    driver_caches.keep_in(Store(tmp_path / "c"))
    assert not where()


def test_nothing_is_made_where_there_is_no_such_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendors, "may_have_others", lambda: False)
    driver_caches.keep_in(Store(tmp_path / "c"))
    assert not where()
    assert not (tmp_path / "c").exists()


def test_compile_model_says_it_before_it_opens_a_device(tmp_path: Path) -> None:
    from onnx import helper

    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    compiled = clinfer.Core().compile_model(model, "CPU", {"CACHE_DIR": str(tmp_path / "c")})
    assert where()["CUDA_CACHE_PATH"] == str(tmp_path / "c" / "drivers" / "nvidia")
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(compiled({"x": x})[0], -x)
    store = Store(tmp_path / "c")
    assert store.info().entries == 1
    store.clear()
    assert not (tmp_path / "c" / "drivers").exists()
