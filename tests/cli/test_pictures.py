"""Pictures on the command line: files as inputs, and the steps that are compiled with the model."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from onnx import helper

from cli.conftest import F, save


@pytest.fixture(scope="module")
def means(tmp_path_factory):
    """y [1, 3] = the mean of each channel of image [1, 3, 4, 6]."""
    node = helper.make_node("ReduceMean", ["image"], ["y"], "mean", axes=[2, 3], keepdims=0)
    path = tmp_path_factory.mktemp("m") / "means.onnx"
    return save(path, [node], {"image": (F, [1, 3, 4, 6])}, {"y": (F, [1, 3])}, opset=13)


PIXELS = np.random.default_rng(1).integers(0, 256, (4, 6, 3)).astype(np.uint8)


def outputs(done) -> np.ndarray:
    assert done.code == 0, done
    return np.load(json.loads(done.out)["files"][0])


def test_steps_are_compiled_with_the_model(clinfer, means, tmp_path):
    np.save(tmp_path / "x.npy", PIXELS[None, ::-1])
    wanted = ["--image-layout", "NHWC", "--mean", "1,2,3", "--scale", "2", "--reverse-channels"]
    given = ["--input", f"image={tmp_path / 'x.npy'}", "--output", str(tmp_path), "--json"]
    made = outputs(clinfer("run", str(means), *wanted, *given))
    expected = (PIXELS.mean(axis=(0, 1))[::-1] - [1, 2, 3]) / 2
    np.testing.assert_allclose(made[0], expected, rtol=1e-5)


def test_a_blob_takes_pictures_of_any_size(clinfer, means, tmp_path):
    import clinfer as api

    blob = tmp_path / "means.blob"
    done = clinfer("compile", str(means), "-o", str(blob), "--resize", "nearest", "--scale", "2")
    assert done.code == 0, done
    compiled = api.Core().import_model(blob.read_bytes(), "CPU")
    assert (compiled.input().dtype, compiled.input().shape[3]) == ("uint8", 3)
    twice = PIXELS.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(compiled(twice[None])[0][0], PIXELS.mean(axis=(0, 1)) / 2, rtol=1e-5)


def test_a_picture_is_an_input(clinfer, means, tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "photo.PNG"
    image.fromarray(PIXELS).save(path)
    given = ["--output", str(tmp_path), "--json", "--input"]
    for text in (str(path), f"image={path}"):
        made = outputs(clinfer("run", str(means), *given, text))
        np.testing.assert_allclose(made[0], PIXELS.mean(axis=(0, 1)), rtol=1e-5)
    image.fromarray(PIXELS[..., 0]).resize((60, 40)).save(path)  # grey, and of another size
    assert outputs(clinfer("run", str(means), *given, str(path))).shape == (1, 3)
    path.write_bytes(b"no picture")
    clinfer("run", str(means), "--input", str(path)).fails_with("photo.PNG", "no picture")


def test_what_does_not_fit_is_said(clinfer, means, monkeypatch, tmp_path):
    clinfer("run", str(means), "--input", "nope.jpg").fails_with("nope.jpg", "does not exist")
    clinfer("run", str(means), "--mean", "1,2").fails_with("'image', mean (1,2)", "3 channels")
    clinfer("run", str(means), "--image-layout", "NHW").fails_with("'image'", "[1,3,4,6]")
    clinfer("run", str(means), "--image-input", "x", "--resize").fails_with("'x'", "'image'")
    done = clinfer("run", str(means), "--mean", "much")
    assert done.code == 2 and "1,2,3" in done.err
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "x.jpg").touch()
    done = clinfer("run", str(means), "--input", tmp_path / "x.jpg")
    done.fails_with("pip install 'clinfer[cli]'")
