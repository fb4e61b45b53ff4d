"""onnx's backend interface, with onnx's own test runner."""

from __future__ import annotations

import unittest

import numpy as np
import onnx.backend.test
import pytest
from onnx import helper
from onnx.backend.test import runner

import clinfer
from api.made import dense_answer, dense_model
from clinfer import backend

STORED = ("pytorch-operator",)  # cases that onnx brings as files

X = np.linspace(-1, 1, 48, dtype=np.float32).reshape(2, 24)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def fresh(cpu, cache, monkeypatch):
    monkeypatch.setenv("CLINFER_CACHE_DIR", cache)
    backend._core.cache_clear()
    yield
    backend._core.cache_clear()


def test_a_prepared_model_runs_by_position_and_by_name():
    prepared = backend.prepare(dense_model(), "CPU")
    for inputs in ([X], {"x": X}):
        found = prepared.run(inputs)
        np.testing.assert_allclose(found[0], dense_answer(X), rtol=1e-5, atol=1e-5)
        assert found["y"] is found[0]
    (once,) = backend.run_model(dense_model(), [X])
    np.testing.assert_array_equal(once, found[0])


def test_a_node_runs_alone():
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2)
    found = backend.run_node(node, [X])
    np.testing.assert_array_equal(found, np.split(X, 2))


def test_the_only_input_may_be_a_sequence():
    node = helper.make_node("SequenceLength", ["s"], ["y"])
    inputs = [helper.make_tensor_sequence_value_info("s", 1, None)]
    outputs = [helper.make_tensor_value_info("y", 7, [])]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    assert backend.run_model(model, [[X, X, X]])[0] == 3


def test_devices_and_models_are_known_beforehand():
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("NPU:3")
    assert backend.is_compatible(dense_model())
    unknown = helper.make_node("NoSuchOperator", ["x"], ["y"])
    graph = helper.make_graph([unknown], "g", dense_model().graph.input, dense_model().graph.output)
    assert not backend.is_compatible(helper.make_model(graph))


def test_options_that_nobody_knows_are_errors():
    with pytest.raises(clinfer.PropertyError):
        backend.prepare(dense_model(), "CPU", no_such_option=1)
    with pytest.raises(clinfer.InputError, match="no_such_option"):
        backend.prepare(dense_model(), "CPU").run([X], no_such_option=1)


def test_onnxs_own_runner_passes(monkeypatch):
    load = runner.load_model_tests  # making all of onnx's cases takes minutes
    monkeypatch.setattr(
        runner, "load_model_tests", lambda kind: load(kind=kind) if kind in STORED else []
    )
    made = onnx.backend.test.BackendTest(backend, __name__)
    made.include(r"^test_operator_(add_broadcast|permute2|non_float_params)_cpu$")
    result = unittest.TestResult()
    made.test_suite.run(result)
    assert result.testsRun - len(result.skipped) == 3
    assert not result.failures and not result.errors
