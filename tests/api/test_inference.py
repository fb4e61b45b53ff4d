"""Compiling and running: results by name, index and output; requests; several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import clinfer
from api.made import dense_answer, dense_model, save

RNG = np.random.default_rng(1)


def rows(count: int) -> np.ndarray:
    return RNG.standard_normal((count, 24)).astype(np.float32)


def test_results_by_name_index_and_output(core, device):
    model = core.compile_model(dense_model(), device)
    x = rows(3)
    expected = dense_answer(x)
    results = model({"x": x})
    for found in (results["y"], results[0], results[model.outputs[0]], results[-1]):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert list(results) == list(model.outputs)
    assert results.to_dict().keys() == {"y"}


def test_inputs_as_dict_list_array_and_index(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    x = rows(2)
    expected = dense_answer(x)
    for given in ({"x": x}, {0: x}, {model.inputs[0]: x}, [x], x, x.tolist()):
        given = [given] if isinstance(given, list) and isinstance(given[0], list) else given
        np.testing.assert_allclose(model(given)[0], expected, rtol=1e-4, atol=1e-5)


def test_ports_tell_names_shapes_and_types(core, cpu):
    read = core.read_model(dense_model().SerializeToString())
    model = core.compile_model(read, cpu)
    for ports in (read.inputs, model.inputs):
        assert [(p.name, p.shape, p.dtype) for p in ports] == [("x", ("batch", 24), "float32")]
    assert model.outputs[0].shape == ("batch", 10)


def test_every_size_of_a_dynamic_dimension_and_none(core, device):
    model = core.compile_model(dense_model(), device)
    for count in (1, 7, 64, 0, 7):
        x = rows(count)
        np.testing.assert_allclose(model(x)[0], dense_answer(x), rtol=1e-4, atol=1e-5)


def test_reshape_fixes_a_dimension(core, cpu):
    read = core.read_model(dense_model())
    read.reshape({"x": [4, 24]})
    model = core.compile_model(read, cpu)
    assert model.inputs[0].shape == (4, 24)
    x = rows(4)
    np.testing.assert_allclose(model(x)[0], dense_answer(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(clinfer.InputError, match=r"\[5, 24\].*\[4, 24\]"):
        model(rows(5))


def test_request_keeps_tensors_and_results(core, device):
    request = core.compile_model(dense_model(), device).create_infer_request()
    x = rows(2)
    with pytest.raises(clinfer.ClinferError, match="not run yet"):
        _ = request.results
    request.set_tensor("x", x)
    request.infer()
    np.testing.assert_allclose(request.get_tensor("y"), dense_answer(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(request.get_tensor("x"), x)
    request.start_async({"x": x + 1})
    assert request.wait()
    np.testing.assert_allclose(request.results[0], dense_answer(x + 1), rtol=1e-4, atol=1e-5)


def test_an_unknown_name_of_a_tensor_is_told_what_may_be_set(core, cpu):
    request = core.compile_model(dense_model(), cpu).create_infer_request()
    with pytest.raises(clinfer.InputError, match="no input or output 'z'; it has 'x', 'y'"):
        request.set_tensor("z", rows(1))


def test_results_stay_when_the_request_runs_again(core, cpu):
    request = core.compile_model(dense_model(), cpu).create_infer_request()
    first = request.infer(rows(2))[0]
    kept = first.copy()
    request.infer(rows(2))
    np.testing.assert_array_equal(first, kept)


def test_two_requests_run_at_the_same_time(core, device):
    model = core.compile_model(dense_model(), device)
    requests = [model.create_infer_request() for _ in range(2)]
    data = [[rows(n % 5 + 1) for n in range(20)] for _ in requests]

    def work(pair):
        request, arrays = pair
        return [request.infer(x)[0] for x in arrays]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, zip(requests, data, strict=True)))
    for arrays, results in zip(data, found, strict=True):
        for x, y in zip(arrays, results, strict=True):
            np.testing.assert_allclose(y, dense_answer(x), rtol=1e-4, atol=1e-5)


def test_one_model_called_from_many_threads(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    data = [rows(3) for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for x, y in zip(data, pool.map(lambda x: model(x)[0], data), strict=True):
            np.testing.assert_allclose(y, dense_answer(x), rtol=1e-4, atol=1e-5)


def test_queue_runs_everything_and_reports_a_wrong_shape_at_once(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    queue = clinfer.AsyncInferQueue(model, 2)
    found = {}
    queue.set_callback(lambda request, key: found.__setitem__(key, request.results[0].copy()))
    data = [rows(2) for _ in range(6)]
    for key, x in enumerate(data):
        queue.start_async({"x": x}, key)
    queue.wait_all()
    for key, x in enumerate(data):
        np.testing.assert_allclose(found[key], dense_answer(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(clinfer.InputError):
        queue.start_async({"x": np.zeros((1, 3), np.float32)})
    queue.wait_all()


def test_same_bits_run_after_run(core, device, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    x = rows(9)
    first = core.compile_model(path, device)(x)[0]
    for _ in range(3):
        np.testing.assert_array_equal(clinfer.Core().compile_model(path, device)(x)[0], first)


def test_auto_takes_the_gpu_where_there_is_one(core, gpu):
    model = core.compile_model(dense_model(), config={"ENABLE_STARTUP_FALLBACK": False})
    assert model.get_property("EXECUTION_DEVICES") == ["GPU"]


def test_query_model_names_the_device_of_each_node(core, cpu):
    found = core.query_model(dense_model(), cpu)
    assert set(found.values()) == {"CPU"}
    assert any("product" in name for name in found)


def test_properties_have_constants_and_reach_device_and_model(core, cpu):
    from clinfer import properties

    core.set_property(cpu, {properties.NUM_STREAMS: 3})
    assert core.get_property(cpu, "NUM_STREAMS") == 3
    assert core.get_property(cpu, properties.FULL_DEVICE_NAME)
    assert cpu in core.get_property("AVAILABLE_DEVICES")
    model = core.compile_model(dense_model(), cpu, {"PERFORMANCE_HINT": "throughput"})
    assert model.get_property("PERFORMANCE_HINT") == "THROUGHPUT"
    assert model.get_property("NUM_STREAMS") == 3


def test_profiling_tells_the_time_of_each_step(core, device):
    model = core.compile_model(dense_model(), device, {"PERF_COUNT": True})
    with pytest.raises(clinfer.ClinferError, match="nothing has run"):
        _ = model.profiling_info
    model(rows(8))
    steps = model.profiling_info
    entries = iter([model.plan.programs[x.program].entry for x in model.plan.launches])
    assert steps
    assert all(step.kernel in entries for step in steps)  # in their order; sizes leave some out
    assert all(step.seconds > 0 for step in steps)
    assert sum(step.flops for step in steps) >= 2 * 8 * 24 * 10
    with pytest.raises(clinfer.PropertyError, match="PERF_COUNT"):
        _ = core.compile_model(dense_model(), device).profiling_info
