"""The words of OpenVINO's Python API: what they do here, and that it is what they do there."""

from __future__ import annotations

import importlib
import io
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import clinfer

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"
LIMIT = 60_000
MANY = 3


def image(count: int = 1, value: float = 0.5) -> np.ndarray:
    return np.full((count, 1, 8, 8), value, np.float32)


@pytest.fixture(scope="module")
def compiled():
    return clinfer.Core().compile_model(DIGITS, "CPU")


@pytest.fixture
def request_(compiled):
    return compiled.create_infer_request()


@pytest.fixture
def model():
    return clinfer.Core().read_model(DIGITS)


# -- calls ----------------------------------------------------------------------------------------


def test_functions_take_openvinos_keywords(compiled, cpu):
    core = clinfer.Core()
    read = core.read_model(model=DIGITS, weights=None)
    by_name = core.compile_model(model=read, device_name=cpu, config={"PERF_COUNT": "NO"})
    core.set_property(device_name=cpu, properties={"PERFORMANCE_HINT": "LATENCY"})
    assert core.get_property(device_name=cpu, property="PERFORMANCE_HINT") == "LATENCY"
    blob = io.BytesIO()
    by_name.export_model(model_stream=blob)
    array = np.frombuffer(blob.getvalue(), np.uint8)
    for content in (io.BytesIO(blob.getvalue()), clinfer.Tensor(array)):
        found = core.import_model(model_stream=content, device_name=cpu)
        want = compiled(inputs=image(), share_inputs=False, share_outputs=True)
        np.testing.assert_array_equal(found({0: image()})[0], want[0])
    with pytest.raises(TypeError, match="both"):
        core.compile_model(read, device="CPU", device_name="CPU")
    with pytest.raises(TypeError):
        core.compile_model(read, nothing="CPU")


def test_functions_of_the_module(tmp_path, compiled):
    assert clinfer.get_version() == clinfer.__version__
    read = clinfer.convert_model(DIGITS, input={"image": [2, 1, 8, 8]})
    path = tmp_path / "saved.onnx"
    clinfer.save_model(read, path)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    with pytest.warns(UserWarning, match="ONNX"):
        clinfer.serialize(clinfer.read_model(DIGITS), tmp_path / "saved.xml")
    again = clinfer.compile_model(clinfer.read_model(tmp_path / "saved.xml"), "CPU")
    np.testing.assert_array_equal(again(image())[0], compiled(image())[0])
    assert clinfer.get_batch(read) == 2
    clinfer.set_batch(read, 3)
    assert read.input().shape == [3, 1, 8, 8]
    versions = clinfer.Core().get_versions("CPU")["CPU"]
    assert versions.build_number == clinfer.__version__
    assert versions.description


def test_openvinos_own_format_is_refused_with_a_word(tmp_path):
    path = tmp_path / "model.xml"
    path.write_text('<?xml version="1.0"?><net name="m" version="11"></net>')
    with pytest.raises(clinfer.ModelError, match=r"IR .*torch\.onnx\.export"):
        clinfer.read_model(path)
    with pytest.raises(clinfer.InputError, match="weights="):
        clinfer.read_model(DIGITS, weights=b"1234")


def test_devices_named_as_openvino_names_them():
    core = clinfer.Core()
    for name in ("AUTO:CPU", "MULTI:CPU", "HETERO:CPU", "BATCH:CPU(4)", "AUTO:NPU,CPU"):
        assert core.get_property(name, "FULL_DEVICE_NAME")
    with pytest.raises(clinfer.DeviceError, match="devices here"):
        core.get_property("HETERO:NPU,CPU", "FULL_DEVICE_NAME")
    with pytest.raises(clinfer.DeviceError, match="devices here"):
        core.get_property("AUTO:NPU", "FULL_DEVICE_NAME")


# -- ports and shapes -----------------------------------------------------------------------------


def test_ports_are_found_by_name_number_and_themselves(model, compiled):
    for holder in (model, compiled):
        port = holder.input("image")
        assert (port.any_name, port.names, port.index, port.get_index()) == (
            "image",
            {"image"},
            0,
            0,
        )
        assert port.get_any_name() == "image"
        assert port.element_type == clinfer.Type.f32
        assert port.partial_shape == clinfer.PartialShape("?,1,8,8")
        assert port == holder.input(0) == holder.inputs[0] == holder.input(port)
        assert port.get_node().get_type_name() == "Parameter"
        assert "names[image]" in str(port)
    assert model.input() != compiled.input()
    assert clinfer.Core().read_model(DIGITS).input() != model.input()
    assert compiled({model.input(): image()})[model.output()].shape == (1, 10)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ([-1, 1, 8, 8], "[?,1,8,8]"),
        ("?,1,8,8", "[?,1,8,8]"),
        ([(1, 8), 1, 8, 8], "[1..8,1,8,8]"),
        ("2..4,1,8,8", "[2..4,1,8,8]"),
        ({0: ["3..", 1, 8, 8]}, "[3..,1,8,8]"),
        ({"image": clinfer.PartialShape([clinfer.Dimension(1, 8), 1, 8, 8])}, "[1..8,1,8,8]"),
        ([np.int64(2), 1, 8, 8], "[2,1,8,8]"),
    ],
)
def test_reshape_takes_every_form_of_a_shape(model, shape, found):
    model.reshape(shape)
    assert str(model.input().partial_shape) == found
    assert model.is_dynamic() == ("." in found or "?" in found)
    model.reshape(
        {model.input(): shape[0] if isinstance(shape, dict) else shape}
    ) if not isinstance(shape, dict) else None
    assert str(model.input().partial_shape) == found


def test_a_size_outside_the_bounds_of_reshape_is_an_error(model, tmp_path, compiled):
    model.reshape([(2, 4), 1, 8, 8])
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": str(tmp_path)})
    for _ in range(2):  # compiled, and from the cache
        bounded = core.compile_model(model, "CPU")
        assert str(bounded.input().partial_shape) == "[2..4,1,8,8]"
        np.testing.assert_allclose(bounded(image(3))[0], compiled(image(3))[0], rtol=1e-5)
        for count in (1, 5):
            with pytest.raises(clinfer.ShapeError, match="'image', axis 0: from 2 to 4"):
                bounded(image(count))
    sent = pickle.loads(pickle.dumps(bounded))
    assert str(sent.input().partial_shape) == "[2..4,1,8,8]"
    assert not core.compile_model(DIGITS, "CPU").get_property("LOADED_FROM_CACHE")


def test_added_outputs_are_computed_cached_and_sent(model, tmp_path):
    relu = next(op for op in model.get_ordered_ops() if op.get_type_name() == "Relu")
    (port,) = model.add_outputs(relu.output(0).any_name)
    assert model.add_outputs([(relu.friendly_name, 0)]) == [port]
    with pytest.raises(clinfer.InputError, match="computes no tensor 'nope'"):
        model.add_outputs("nope")
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": str(tmp_path)})
    found = core.compile_model(model, "CPU")
    values = found(image())[port]
    assert values.min() >= 0 and values.ndim == 4
    assert len(pickle.loads(pickle.dumps(found)).outputs) == 2
    assert len(core.compile_model(DIGITS, "CPU").outputs) == 1
    clinfer.save_model(model, tmp_path / "more.onnx")
    saved = clinfer.compile_model(tmp_path / "more.onnx", "CPU")
    np.testing.assert_allclose(saved(image())[port.any_name], values, rtol=1e-6)


def test_a_model_shows_itself_in_five_lines(model, compiled):
    assert len(str(model).splitlines()) == 5
    assert "<table>" in model._repr_html_() and "<table>" in compiled._repr_html_()
    assert {"Parameter", "Conv", "Result"} <= {op.get_type_name() for op in model.get_ops()}
    model.set_rt_info("v", ["a", "b"])
    assert model.get_rt_info(["a", "b"]) == "v"
    assert not model.has_rt_info("nope")
    steps = compiled.get_runtime_model().get_ops()
    assert sum(1 for op in steps if op.rt_info) == len(compiled.plan.steps)


# -- tensors and requests -------------------------------------------------------------------------


def test_a_tensor_copies_or_shares():
    array = np.zeros((2, 3), np.float32)
    own, shared = clinfer.Tensor(array), clinfer.Tensor(array, shared_memory=True)
    array[0, 0] = 7
    assert (own.data[0, 0], shared.data[0, 0]) == (0, 7)
    assert (own.shape, own.size, own.byte_size) == ([2, 3], 6, 24)
    made = clinfer.Tensor(clinfer.Type.f32, clinfer.Shape([2, 3]))
    made.copy_from(shared)
    np.testing.assert_array_equal(made.data, array)
    with pytest.raises(clinfer.InputError, match="int64"):
        made.copy_from(np.zeros((2, 3), np.int64))
    with pytest.raises(clinfer.ShapeError, match="caller's"):
        shared.shape = [4, 4]
    assert clinfer.Tensor(["a", "bc"]).bytes_data.tolist() == [b"a", b"bc"]


def test_input_tensors_are_filled_and_then_run(request_, compiled):
    tensor = request_.get_input_tensor()
    tensor.shape = [2, 1, 8, 8]
    tensor.data[:] = image(2, 0.25)
    np.testing.assert_array_equal(request_.infer()[0], compiled(image(2, 0.25))[0])
    request_.infer({0: image(2, 0.75)})
    np.testing.assert_array_equal(tensor.data, image(2, 0.75))
    request_.start_async()
    request_.wait()
    np.testing.assert_array_equal(request_.results[0], compiled(image(2, 0.75))[0])


def test_a_tensor_asked_for_leaves_the_users_arrays_alone(request_):
    mine = image()
    kept = request_.infer({0: mine})
    scores = kept[0].copy()
    request_.get_input_tensor().data[:] = 9
    assert mine[0, 0, 0, 0] == 0.5
    out = request_.get_output_tensor()
    request_.infer()
    np.testing.assert_array_equal(kept[0], scores)
    assert not np.array_equal(out.data, scores)


def test_results_are_written_into_given_tensors(request_, compiled):
    out = np.zeros((1, 10), np.float32)
    request_.set_output_tensor(clinfer.Tensor(out, shared_memory=True))
    request_.set_input_tensor(0, clinfer.Tensor(image(), shared_memory=True))
    request_.infer()
    np.testing.assert_array_equal(out, compiled(image())[0])
    assert request_.latency > 0
    assert request_.get_profiling_info()[0].status == clinfer.ProfilingInfo.NOT_RUN
    with pytest.raises(clinfer.ShapeError, match="output 'scores'"):
        request_.infer({0: image(MANY)})
    with pytest.raises(clinfer.InputError, match="elements"):
        request_.set_output_tensor(clinfer.Tensor(np.zeros((1, 10))))


def test_a_cancelled_run_says_so(request_):
    started, go = threading.Event(), threading.Event()

    def wait(_):
        started.set()
        go.wait(60)

    request_.cancel()  # nothing is under way
    request_.set_callback(wait)
    request_.start_async({0: image()})
    started.wait(60)
    request_.cancel()
    go.set()
    assert request_.wait_for(LIMIT)  # it had its results before
    job = request_._job({0: image()}, None, False)
    job.is_cancelled = True
    with pytest.raises(clinfer.ClinferError, match="cancelled"):
        request_._perform(job, None)
    assert request_.infer({0: image()})[0].shape == (1, 10)


def test_a_queue_says_which_request_is_next(compiled):
    queue = clinfer.AsyncInferQueue(compiled, 2)
    assert queue.is_ready()
    number = queue.get_idle_request_id()
    tensor = queue[number].get_input_tensor()
    tensor.shape = [1, 1, 8, 8]
    tensor.data[:] = 0.5
    queue.start_async(userdata="mine")
    queue.wait_all()
    assert queue[number].userdata == "mine" and "mine" in queue.userdata
    np.testing.assert_array_equal(queue[number].results[0], compiled(image())[0])
    with pytest.raises(clinfer.InputError, match="2 requests"):
        _ = queue[9]
    other = 1 - number
    assert queue.get_idle_request_id() == other
    with pytest.raises(clinfer.InputError, match="no value for input"):
        queue.start_async()  # the other request has nothing set, and takes nobody's inputs


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, np.bool_])
def test_numbers_of_other_types_are_converted_where_they_fit(compiled, dtype):
    values = np.ones((1, 1, 8, 8), dtype)
    for given in (values, clinfer.Tensor(values), values.tolist()):
        np.testing.assert_array_equal(
            compiled({0: given})[0], compiled(values.astype(np.float32))[0]
        )


@pytest.mark.parametrize("value", [1e300, -1e39, 2**24 + 1, 1j])
def test_numbers_that_do_not_fit_are_refused(compiled, value):
    with pytest.raises(clinfer.InputError, match="image"):
        compiled({0: np.full((1, 1, 8, 8), value)})


# -- properties -----------------------------------------------------------------------------------


def test_properties_are_their_names_and_make_pairs():
    props = importlib.import_module("clinfer.properties")
    hint = importlib.import_module("clinfer.properties.hint")
    assert props.cache_dir == props.cache_dir() == "CACHE_DIR"
    assert props.cache_dir("x") == ("CACHE_DIR", "x")
    assert f"{hint.PerformanceMode.LATENCY}" == "LATENCY"
    core = clinfer.Core()
    core.set_property(hint.performance_mode(hint.PerformanceMode.THROUGHPUT))
    core.set_property("CPU", {props.streams.num: props.streams.Num(2)})
    core.set_property({hint.inference_precision: clinfer.Type.f32})
    assert core.get_property("CPU", hint.performance_mode) == "THROUGHPUT"
    assert core.get_property("CPU", props.num_streams) == 2
    assert "FP32" in core.get_property("CPU", props.device.capabilities)


def test_properties_without_effect_are_taken_with_one_warning():
    core = clinfer.Core()
    given = {"ENABLE_CPU_PINNING": True, "LOG_LEVEL": "LOG_INFO", "CACHE_MODE": "OPTIMIZE_SIZE"}
    with pytest.warns(UserWarning) as said:
        core.set_property(given)
    assert len(said) == 1
    assert all(name in str(said[0].message) for name in given)
    for name, hint in (("PERFORMANCE_HNT", "PERFORMANCE_HINT"), ("ENABLE_MAP", "ENABLE_MMAP")):
        with pytest.raises(clinfer.PropertyError, match=f"did you mean {hint}"):
            core.set_property({name: 1})
    with pytest.raises(clinfer.PropertyError, match="encrypted"):
        core.set_property({"CACHE_ENCRYPTION_CALLBACKS": [len, len]})


def test_all_supported_properties_can_be_read(compiled):
    core = clinfer.Core()
    for name in core.get_property("CPU", "SUPPORTED_PROPERTIES"):
        core.get_property("CPU", name)
    for name in compiled.get_property("SUPPORTED_PROPERTIES"):
        compiled.get_property(name)


@pytest.mark.parametrize("name", ["opset13", "InferenceSession", "IECore"])
def test_names_that_are_elsewhere_say_where(name):
    with pytest.raises(AttributeError, match=r": .*(use|make|in place)"):
        getattr(clinfer, name)
    with pytest.raises(AttributeError, match="did you mean Core"):
        _ = clinfer.Cor


def test_nothing_of_it_is_loaded_before_it_is_used():
    code = (
        "import sys, clinfer; from clinfer import Core, CompiledModel, InferRequest\n"
        "print([m for m in sys.modules if m.startswith(('clinfer.api', 'clinfer.properties.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
