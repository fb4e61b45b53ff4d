"""Tensors in files next to the model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_helpers import proto, run
from onnx import numpy_helper

from clinfer import mapping
from clinfer.errors import ModelError
from clinfer.graph.reader import read

TEXT = "m (float[2, 3] x) => (float[2, 3] y) { y = Add(x, w) }"
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model whose weights are in w.bin."""
    source = proto(TEXT)
    source.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "w"))
    path = tmp_path / "m.onnx"
    onnx.save(source, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def test_weights_are_read_from_the_file(path: Path) -> None:
    model = read(path)
    assert model.external_files == (path.parent / "w.bin",)
    graph = model.graph()
    assert run(graph, [np.ones((2, 3), np.float32)])[0].tolist() == (WEIGHTS + 1).tolist()


def test_weights_of_a_large_file_are_mapped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "MAP_FROM", 1)
    monkeypatch.setattr(mapping, "may_map", lambda device: True)
    model = read(path)
    assert mapping.is_mapped(model.graph().nodes[0].required(1).const)
    (path.parent / "w.bin").write_bytes(WEIGHTS[::-1].tobytes())
    os.utime(path.parent / "w.bin", ns=(1, 1))
    with pytest.raises(ModelError, match=r"w.bin' has changed since the model was read"):
        model.graph()


def test_a_missing_file_is_named(path: Path) -> None:
    (path.parent / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"tensor 'w'.*w.bin.*does not exist"):
        read(path)


def test_a_short_file_is_told(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(b"1234")
    with pytest.raises(ModelError, match=r"tensor 'w'.*found 4 bytes"):
        read(path)


def test_bytes_alone_have_no_external_data(path: Path) -> None:
    with pytest.raises(ModelError, match=r"w.bin.*give the path"):
        read(path.read_bytes())


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "", "C:\\w.bin"])
def test_paths_out_of_the_folder_are_refused(path: Path, location: str) -> None:
    source = onnx.load(path, load_external_data=False)
    for entry in source.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(source.SerializeToString())
    with pytest.raises(ModelError, match="relative path inside the model's folder"):
        read(path)
