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
from clinfer.cache import content_digest
from clinfer.errors import ModelError
from clinfer.graph.reader import read

posix_only = pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
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


def located(path: Path, **entries: str) -> Path:
    """The model with other entries of its external data."""
    source = onnx.load(path, load_external_data=False)
    tensor = source.graph.initializer[0]
    known = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in known.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(source.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "", "C:\\w.bin"])
def test_paths_out_of_the_folder_are_refused(path: Path, location: str) -> None:
    with pytest.raises(ModelError, match="relative path inside the model's folder"):
        read(located(path, location=location))


@pytest.mark.parametrize("location", [".", "w\0.bin", "x" * 300, "w.bin/w.bin"])
def test_what_names_no_file_is_refused(path: Path, location: str) -> None:
    with pytest.raises(ModelError, match="tensor 'w': its external data"):
        read(located(path, location=location))


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "-4"},
        {"offset": "9" * 5000},
        {"offset": "0x10"},
        {"offset": "1e3"},
        {"length": "-24"},
        {"length": "24.0"},
        {"length": "\u0662\u0664"},
        {"offset": "4"},
        {"offset": "18446744073709551615"},
        {"length": "25"},
        {"length": "23"},
        {"length": "0"},
    ],
    ids=str,
)
def test_odd_offsets_and_lengths_are_refused(path: Path, entries: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="tensor 'w'"):
        read(located(path, **entries))


def test_without_a_length_a_tensor_takes_what_it_needs(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(b"1234" + WEIGHTS.tobytes() + b"more")
    source = onnx.load(path, load_external_data=False)
    del source.graph.initializer[0].external_data[:]
    path.write_bytes(source.SerializeToString())
    model = read(located(path, location="w.bin", offset="4"))
    assert model.graph().nodes[0].required(1).const.tolist() == WEIGHTS.tolist()


def moved(path: Path, to: Path) -> Path:
    """w.bin elsewhere, and a link to it in its place."""
    to.parent.mkdir(parents=True, exist_ok=True)
    file = path.parent / "w.bin"
    file.rename(to)
    file.symlink_to(os.path.relpath(to, file.parent))
    return path


@posix_only
def test_links_out_of_the_folder_are_refused(path: Path, tmp_path: Path) -> None:
    model = tmp_path / "inner" / "m.onnx"
    model.parent.mkdir()
    path.rename(model)
    (model.parent / "w.bin").symlink_to("../w.bin")
    with pytest.raises(ModelError, match=r"tensor 'w'.*w.bin.*outside the model's folder"):
        read(model)
    (model.parent / "w.bin").unlink()
    (model.parent / "up").symlink_to("..")
    with pytest.raises(ModelError, match=r"up/w.bin.*outside the model's folder"):
        read(located(model, location="up/w.bin"))


@posix_only
def test_links_inside_the_folder_are_followed(path: Path, tmp_path: Path) -> None:
    read(moved(path, tmp_path / "data" / "real.bin"))
    outside = tmp_path.parent / f"{tmp_path.name}-link"
    outside.symlink_to(tmp_path)
    read(outside / "m.onnx")


@posix_only
def test_a_model_that_is_a_link_has_its_data_beside_the_link(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "m.onnx"
    real.parent.mkdir()
    path.rename(real)
    path.symlink_to(real)
    assert read(path).external_files == (tmp_path / "w.bin",)


@pytest.fixture
def snapshot(path: Path, tmp_path: Path) -> Path:
    """The model in the hub's cache, where files of a snapshot are links to blobs."""
    root = tmp_path / "hub" / "models--x--y"
    folder = root / "snapshots" / "0123" / "onnx"
    folder.mkdir(parents=True)
    (root / "blobs").mkdir()
    for name, blob in (("m.onnx", "aa"), ("w.bin", "bb")):
        (tmp_path / name).rename(root / "blobs" / blob)
        (folder / name).symlink_to(f"../../../blobs/{blob}")
    return folder / "m.onnx"


@posix_only
def test_a_snapshot_of_the_hub_links_to_its_blobs(snapshot: Path) -> None:
    model = read(snapshot)
    assert model.graph().nodes[0].required(1).const.tolist() == WEIGHTS.tolist()
    assert model.external_files == (snapshot.parent / "w.bin",)


@posix_only
@pytest.mark.parametrize("target", ["models--x--z/blobs/bb", "secret", "../secret"])
def test_a_snapshot_of_the_hub_does_not_link_elsewhere(snapshot: Path, target: str) -> None:
    link = snapshot.parent / "w.bin"
    there = Path(os.path.normpath(snapshot.parents[4] / target))
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(there)
    with pytest.raises(ModelError, match="outside the model's folder"):
        read(snapshot)


@posix_only
def test_a_hard_link_is_a_file_of_the_folder(path: Path, tmp_path: Path) -> None:
    os.link(tmp_path / "w.bin", tmp_path / "other.bin")
    read(path)


@posix_only
def test_pipes_devices_and_folders_are_not_read(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.bin"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ModelError, match="it is a pipe or a device"):
        read(path)
    file.unlink()
    file.mkdir()
    with pytest.raises(ModelError, match="it is a folder"):
        read(path)
    file.rmdir()
    file.symlink_to("w.bin")
    with pytest.raises(ModelError, match="its external data file"):
        read(path)


@posix_only
def test_a_link_made_after_the_check_is_not_followed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mapping._place

    def swapped(folder: Path, name: str) -> object:
        found = place(folder, name)
        (tmp_path / "w.bin").unlink()
        (tmp_path / "w.bin").symlink_to("/etc/passwd")
        return found

    monkeypatch.setattr(mapping, "_place", swapped)
    with pytest.raises(ModelError, match="its links lead nowhere, or change"):
        read(path)


@posix_only
def test_the_digest_of_a_model_follows_the_same_rule(path: Path, tmp_path: Path) -> None:
    def digest() -> str:
        return content_digest(path, lambda _: ["w.bin"]).digest

    before = digest()
    moved(path, tmp_path / "data" / "real.bin")
    assert digest() == before
    (tmp_path / "w.bin").unlink()
    there = tmp_path.parent / f"{tmp_path.name}.bin"
    there.write_bytes(WEIGHTS.tobytes())
    (tmp_path / "w.bin").symlink_to(there)
    with pytest.raises(ModelError, match=r"'w.bin' of .* outside the model's folder"):
        digest()
    with pytest.raises(ModelError, match=r"'../w.bin' of .* outside the model's folder"):
        content_digest(path, lambda _: ["../w.bin"])


def test_texts_and_negative_sizes_are_no_external_data(path: Path) -> None:
    source = onnx.load(path, load_external_data=False)
    source.graph.initializer[0].data_type = onnx.TensorProto.STRING
    path.write_bytes(source.SerializeToString())
    with pytest.raises(ModelError, match="texts cannot be external data"):
        read(path)
    source.graph.initializer[0].data_type = onnx.TensorProto.FLOAT
    source.graph.initializer[0].dims[0] = -1
    path.write_bytes(source.SerializeToString())
    with pytest.raises(ModelError, match="sizes of 0 or more"):
        read(path)
