"""Bad input gets an error that names what was expected and found."""

from __future__ import annotations

import os

import numpy as np
import pytest
from onnx import TensorProto

import clinfer
from api.made import dense_model, one_node, save

F = TensorProto.FLOAT


def test_files_that_are_no_models(core, cpu, tmp_path):
    whole = dense_model().SerializeToString()
    for name, content in {
        "text.onnx": b"hello",
        "empty.onnx": b"",
        "cut.onnx": whole[:-40],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(clinfer.ModelError, match=name):
            core.compile_model(tmp_path / name, cpu)
    with pytest.raises(clinfer.ModelError, match="does not exist"):
        core.compile_model(tmp_path / "absent.onnx", cpu)
    with pytest.raises(clinfer.ModelError, match="folder"):
        core.compile_model(tmp_path, cpu)


def test_bad_files_are_named_with_a_cache_too(core, cpu, tmp_path):
    core.set_property({"CACHE_DIR": str(tmp_path / "c")})
    (tmp_path / "text.onnx").write_bytes(b"hello")
    for name in ("text.onnx", "absent.onnx"):
        with pytest.raises(clinfer.ModelError, match=name):
            core.compile_model(tmp_path / name, cpu)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", ["null\0.onnx", "n" * 300, "n/" * 3000])
def test_names_that_no_file_can_have(core, cpu, tmp_path, name, cached):
    core.set_property({"CACHE_DIR": str(tmp_path / "c") if cached else ""})
    path = os.path.join(tmp_path, name)  # noqa: PTH118
    for use in (core.read_model, lambda path: core.compile_model(path, cpu)):
        with pytest.raises(clinfer.ModelError, match="cannot be"):
            use(path)


def test_missing_external_data(core, cpu, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx", external=True)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(clinfer.ModelError, match=r"m\.onnx\.data"):
        core.compile_model(path, cpu)


@pytest.mark.parametrize("version", [3, 99])
def test_unsupported_opset(core, cpu, version):
    model = dense_model()
    model.opset_import[0].version = version
    with pytest.raises(clinfer.ModelError, match=str(version)):
        core.compile_model(model, cpu)


def test_unknown_operator_of_a_custom_domain_is_named(core, cpu):
    model = one_node("Fancy", {"x": (F, [2])}, {"y": (F, [2])}, domain="org.example")
    with pytest.raises(clinfer.ClinferError, match=r"org\.example.*Fancy|Fancy.*org\.example"):
        core.compile_model(model, cpu)


def test_wrong_inputs_are_named(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    good = np.zeros((2, 24), np.float32)
    for bad, words in (
        ({"z": good}, ("'z'", "'x'")),
        ({"x": np.full((2, 24), 1e300)}, ("'x'", "float32")),
        ({"x": good[:, :5]}, ("'x'", "[2, 5]", "[batch, 24]")),
        ({"x": good[0]}, ("'x'", "[24]")),
        ({"x": [["a"]]}, ("'x'", "float32")),
        ({}, ("'x'",)),
        ([good, good], ("2 inputs", "1")),
    ):
        with pytest.raises(clinfer.InputError) as caught:
            model(bad)
        for word in words:
            assert word in str(caught.value)
    np.testing.assert_array_equal(model(good)[0].shape, (2, 10))


def test_nan_goes_through_as_in_numpy(core, device):
    model = core.compile_model(one_node("Neg", {"x": (F, [3])}, {"y": (F, [3])}), device)
    x = np.array([np.nan, np.inf, 1], np.float32)
    np.testing.assert_array_equal(model(x)[0], -x)


def test_unknown_names(core, cpu):
    with pytest.raises(clinfer.DeviceError, match="TPU"):
        core.compile_model(dense_model(), "TPU")
    with pytest.raises(clinfer.PropertyError, match="CACHE_DIRECTORY"):
        core.set_property({"CACHE_DIRECTORY": "x"})
    with pytest.raises(clinfer.PropertyError, match="PERFORMANCE_HINT"):
        core.set_property({"PERFORMANCE_HINT": "FAST"})
    with pytest.raises(clinfer.PropertyError, match="read, not set"):
        core.set_property({"FULL_DEVICE_NAME": "x"})
    with pytest.raises(clinfer.PropertyError, match="NOTHING"):
        core.get_property(cpu, "NOTHING")
    model = core.compile_model(dense_model(), cpu)
    with pytest.raises(clinfer.InputError, match="'nothing'"):
        model(np.zeros((1, 24), np.float32))["nothing"]
    with pytest.raises(clinfer.InputError, match="int"):
        core.compile_model(7, cpu)


def test_the_environment_says_how_much_is_logged(monkeypatch):
    import logging

    monkeypatch.setenv("CLINFER_LOG", "debug")
    clinfer.Core()
    assert logging.getLogger("clinfer").level == logging.DEBUG
    monkeypatch.setenv("CLINFER_LOG", "nope")
    with pytest.raises(clinfer.PropertyError, match="CLINFER_LOG"):
        clinfer.Core()
    monkeypatch.delenv("CLINFER_LOG")
    clinfer.Core()
    assert logging.getLogger("clinfer").level == logging.WARNING


@pytest.mark.parametrize("opset", [10, 13, 19, 21])
def test_dequantize_linear_of_every_opset(core, cpu, opset):
    model = one_node(
        "DequantizeLinear",
        {"x": (TensorProto.INT8, [3]), "scale": (F, []), "zero": (TensorProto.INT8, [])},
        {"y": (F, [3])},
    )
    model.opset_import[0].version = opset
    x = np.array([-3, 0, 7], np.int8)
    found = core.compile_model(model, cpu)([x, np.float32(0.5), np.int8(1)])[0]
    np.testing.assert_array_equal(found, (x - 1.0) * 0.5)
