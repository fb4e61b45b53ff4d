"""INFERENCE_PRECISION_HINT: what may be asked for, what it changes, and where it has no effect."""

from __future__ import annotations

import logging
import pickle

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer
from clinfer.device.discover import DeviceInfo
from clinfer.device.quirks import Quirks
from clinfer.device.target import derive_target, has_precision
from clinfer.plugins.compiler import compile_fields

rng = np.random.default_rng(3)


@pytest.fixture
def model():
    """x @ w, 64 x 64, as bytes; and w."""
    w = rng.standard_normal((64, 64), np.float32)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [64, 64]) for n in "xy")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "m", [x], [y], [numpy_helper.from_array(w, "w")])
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString(), w


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("f16", "f16"),
        ("FP16", "f16"),
        ("bf16", "bf16"),
        ("tf32", "tf32"),
        ("undefined", "dynamic"),
        (clinfer.Type.f16, "f16"),
    ],
)
def test_names_of_precisions(given, kept):
    core = clinfer.Core()
    core.set_property({"INFERENCE_PRECISION_HINT": given})
    assert core.get_property("CPU", "INFERENCE_PRECISION_HINT") == kept


@pytest.mark.parametrize("given", ["i8", "", "f64", 16])
def test_others_are_refused(given):
    with pytest.raises(
        clinfer.PropertyError, match="one of dynamic, f32, 3xtf32, bf16x3, tf32, f16, bf16"
    ):
        clinfer.Core().set_property({"INFERENCE_PRECISION_HINT": given})


def test_a_processor_that_multiplies_bfloat16_does_where_asked(cpu, model, caplog):
    text, w = model
    x = rng.standard_normal((64, 64), np.float32)
    core = clinfer.Core()
    with caplog.at_level(logging.WARNING, logger="clinfer"):
        compiled = core.compile_model(text, cpu, {"INFERENCE_PRECISION_HINT": "bf16"})
    has = has_precision(core._device(cpu).target, "bf16")
    assert ("no matrix unit for bf16" in caplog.text) == (not has)
    left, right = (a.astype(ml_dtypes.bfloat16).astype(np.float32) if has else a for a in (x, w))
    np.testing.assert_allclose(compiled(x)[0], left @ right, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(core.compile_model(text, cpu)(x)[0], x @ w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hint", ["bf16", "f32", "dynamic"])
def test_an_imported_model_says_what_it_was_compiled_with(cpu, model, hint):
    text, _ = model
    compiled = clinfer.Core().compile_model(text, cpu, {"INFERENCE_PRECISION_HINT": hint})
    blob = compiled.export_model()
    for config in ({}, {"INFERENCE_PRECISION_HINT": "f32"}):
        imported = clinfer.Core().import_model(blob, cpu, config)
        assert imported.get_property("INFERENCE_PRECISION_HINT") == hint
        sent = pickle.loads(pickle.dumps(imported))
        assert sent.get_property("INFERENCE_PRECISION_HINT") == hint


def test_a_device_without_the_unit_stays_exact_and_says_so(cpu, model, caplog):
    text, w = model
    x = rng.standard_normal((64, 64), np.float32)
    with caplog.at_level(logging.WARNING, logger="clinfer"):
        compiled = clinfer.Core().compile_model(text, cpu, {"INFERENCE_PRECISION_HINT": "f16"})
    assert "no matrix unit for f16" in caplog.text
    np.testing.assert_allclose(compiled(x)[0], x @ w, rtol=1e-4, atol=1e-4)


def test_the_hint_reaches_targets_and_keys(gpu, monkeypatch):
    """PoCL presented as a GPU that has the unit by emulation."""
    core = clinfer.Core()
    device = core._device(gpu)
    monkeypatch.setattr(
        device, "target", device.target._replace(matrix_units=("mma_bf16 emulated",))
    )
    hinted = device.at_precision("bf16")
    assert device.target.precision == "f32" and device.at_precision("f32") is device
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    fields = compile_fields(device, settings)
    assert compile_fields(hinted, settings)["target"] != fields["target"]
    assert hinted.context is device.context


@pytest.mark.parametrize(
    ("exact", "hint"), [("mma_3xtf32 emulated", "3xtf32"), ("dpas8_bf16x3 emulated", "bf16x3")]
)
def test_unasked_a_device_takes_the_fastest_exact_unit(gpu, monkeypatch, exact, hint):
    """By default several terms; `f32` and devices without the unit multiply in float32."""
    core = clinfer.Core()
    device = core._device(gpu)
    assert core.get_property(gpu, "INFERENCE_PRECISION_HINT") == "dynamic"
    assert device.at_precision("dynamic") is device
    units = ("mma_bf16 emulated", exact)
    monkeypatch.setattr(device, "target", device.target._replace(matrix_units=units))
    assert device.at_precision("dynamic").target.precision == hint
    assert device.at_precision("f32").target.precision == "f32"


@pytest.mark.parametrize("unit", ["mma_u8", "dp4a_u8"])
def test_products_of_bytes_by_a_unit_are_exact(gpu, monkeypatch, unit):
    """PoCL presented as a GPU that has it by emulation; any number of rows, zero points of both."""
    w = rng.integers(-128, 128, (40, 24), np.int8)
    zeros = [np.uint8(131), rng.integers(-9, 9, 24, np.int8)]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", 40])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", 24])
    given = [
        numpy_helper.from_array(np.asarray(a), n) for a, n in zip((w, *zeros), "wab", strict=True)
    ]
    node = helper.make_node("MatMulInteger", ["x", "w", "a", "b"], ["y"])
    graph = helper.make_graph([node], "m", [x], [y], given)
    opset = [helper.make_opsetid("", 18)]
    text = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    core = clinfer.Core()
    device = core._device(gpu)
    known = device.target._replace(matrix_units=(f"{unit} emulated",), local_mem=1 << 20)
    monkeypatch.setattr(device, "target", known)
    compiled = core.compile_model(text, gpu)
    for rows in (1, 70, 300):
        a = rng.integers(0, 256, (rows, 40), np.uint8)
        expected = (a.astype(int) - int(zeros[0])) @ (w.astype(int) - zeros[1].astype(int))
        np.testing.assert_array_equal(compiled(a)[0], expected)


def described(**facts):
    unknown = dict.fromkeys(DeviceInfo._fields, "")
    numbers = dict.fromkeys(("compute_units", "max_work_group", "local_mem", "vector_width"), 1024)
    sets = {"extensions": frozenset(), "features": frozenset(), "subgroup_sizes": ()}
    return DeviceInfo(
        **{**unknown, **numbers, **sets, "name": "GPU", "capability": (0, 0), **facts}
    )


@pytest.mark.parametrize(("capability", "has"), [((9, 0), True), ((8, 6), True), ((7, 5), False)])
def test_units_follow_the_compute_capability(capability, has):
    target = derive_target(described(vendor="NVIDIA", capability=capability), Quirks("nvidia"))
    assert [has_precision(target, p) for p in ("tf32", "f16", "bf16")] == [has] * 3
    assert target.precision == "f32" and not has_precision(target, "f32")
