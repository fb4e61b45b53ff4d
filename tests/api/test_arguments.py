"""Arguments of a wrong kind, values that a dtype cannot take, and drivers that fail at run time."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto

import clinfer
from api.made import dense_answer, dense_model, one_node


def test_devices_and_settings_of_a_wrong_kind(core, cpu):
    for device in (b"CPU", 5):
        with pytest.raises(clinfer.DeviceError, match="name of a device"):
            core.compile_model(dense_model(), device)
    with pytest.raises(clinfer.DeviceError, match="name of a device"):
        core.set_property(5, {})
    with pytest.raises(clinfer.PropertyError, match="list"):
        core.compile_model(dense_model(), cpu, ["CACHE_DIR"])


def test_every_view_of_bytes_is_a_blob(core, cpu):
    blob = core.compile_model(dense_model(), cpu).export_model()
    spread = bytearray(2 * len(blob))
    spread[::2] = blob
    for content in (bytearray(blob), memoryview(blob), memoryview(spread)[::2]):
        assert core.import_model(content, cpu).programs_built == 0


@pytest.mark.parametrize("blob", [None, 5, "file.blob", io.StringIO("file.blob")])
def test_a_blob_is_bytes_or_a_binary_file(core, cpu, blob):
    with pytest.raises(clinfer.InputError, match="'rb'"):
        core.import_model(blob, cpu)


def test_a_blob_goes_through_a_file(core, cpu, tmp_path):
    model = core.compile_model(dense_model(), cpu)
    with (tmp_path / "m.blob").open("wb") as file:
        assert model.export_model(file) is None
    with (tmp_path / "m.blob").open("rb") as file:
        assert core.import_model(file, cpu).programs_built == 0
    with pytest.raises(clinfer.InputError, match="'wb'"):
        model.export_model(str(tmp_path / "m.blob"))


def test_a_queue_has_at_least_one_request(core, cpu):
    with pytest.raises(clinfer.InputError, match="-1"):
        clinfer.AsyncInferQueue(core.compile_model(dense_model(), cpu), -1)


@pytest.fixture
def relu(core, cpu):
    given, made = ({name: (TensorProto.FLOAT, ["n", 4])} for name in "xy")
    return core.compile_model(one_node("Relu", given, made), cpu)


ODD = [b"2", 1.5, [1], int, lambda: 1, np.ones(3), np.ones(0), object()]


@pytest.mark.parametrize("jobs", [*ODD, "2"])
def test_a_queues_number_of_requests_is_an_integer(relu, jobs):
    with pytest.raises(clinfer.InputError, match="number of requests is an integer"):
        clinfer.AsyncInferQueue(relu, jobs)


@pytest.mark.parametrize("jobs", [-1, 10**9])
def test_a_queue_has_a_number_of_requests_that_can_be(relu, jobs):
    with pytest.raises(clinfer.InputError, match="a queue has 1 to 4096 requests"):
        clinfer.AsyncInferQueue(relu, jobs)


@pytest.mark.parametrize("model", [None, 5, "m.onnx"])
def test_what_takes_a_model_says_so(model):
    with pytest.raises(clinfer.InputError, match="a queue is of a compiled model"):
        clinfer.AsyncInferQueue(model, 1)
    with pytest.raises(clinfer.InputError, match="get_batch takes a model"):
        clinfer.get_batch(model)


@pytest.mark.parametrize("callback", [7, "f", [print], np.ones(3)])
def test_what_cannot_be_called_is_no_callback(relu, callback):
    for runs in (relu.create_infer_request(), clinfer.AsyncInferQueue(relu, 1)):
        with pytest.raises(clinfer.InputError, match="a callback is a function, or None"):
            runs.set_callback(callback)
        runs.set_callback(None)
        runs.start_async({"x": np.ones((2, 4), np.float32)})
        (runs.wait if hasattr(runs, "wait") else runs.wait_all)()


@pytest.mark.parametrize("time", ["5", b"5", [1], None, float("nan"), int, np.ones(3)])
def test_a_time_to_wait_is_a_number(relu, time):
    request = relu.create_infer_request()
    if time is not None:  # waits as long as it takes
        with pytest.raises(clinfer.InputError, match="a number of milliseconds"):
            request.wait_for(time)
    assert request.wait_for(np.float32(1)) and request.wait_for(1 << 70)


def test_a_class_names_no_port(relu):
    for look in (relu.input, relu.output, relu.create_infer_request().get_tensor):
        with pytest.raises(clinfer.InputError, match="has no"):
            look(int)


def test_an_array_too_large_to_copy_is_out_of_memory(relu):
    huge = np.broadcast_to(np.float32(1), (1 << 40, 4))
    for use in (relu, relu.create_infer_request().infer, clinfer.Tensor):
        with pytest.raises(clinfer.OutOfMemoryError, match="memory does not suffice"):
            use(huge)


@pytest.mark.parametrize("odd", ODD)
def test_no_kind_of_argument_is_a_fault_of_clinfer(core, cpu, odd):
    model = dense_model()
    for call, expected in (
        (lambda: core.compile_model(model, odd), clinfer.DeviceError),
        (lambda: core.compile_model(model, 0), clinfer.DeviceError),
        (lambda: core.compile_model(model, cpu, odd), clinfer.PropertyError),
        (lambda: core.read_model(model, config=0), clinfer.PropertyError),
        (lambda: core.read_model(model, 7), clinfer.InputError),
        (lambda: clinfer.Type("\udcff"), clinfer.InputError),
    ):
        with pytest.raises(expected):
            call()


def test_lists_become_arrays_where_every_value_fits(core, cpu):
    for kind, good, bad in (
        (TensorProto.UINT8, [0, 255], [256, 0]),
        (TensorProto.INT8, [-128, 127], [300, 0]),
        (TensorProto.INT64, [2**62, -1], [0.5, 1]),
        (TensorProto.FLOAT, [1, 2.5], [1j, 0]),
    ):
        model = core.compile_model(one_node("Abs", {"x": (kind, [2])}, {"y": (kind, [2])}), cpu)
        expected = np.abs(np.array(good, model.inputs[0].dtype))
        np.testing.assert_array_equal(model({"x": good})[0], expected)
        with pytest.raises(clinfer.InputError, match="'x'"):
            model({"x": bad})


def test_an_empty_list_is_an_empty_array_of_any_dtype(core, cpu):
    kind = TensorProto.INT32
    model = core.compile_model(one_node("Abs", {"x": (kind, ["n"])}, {"y": (kind, ["n"])}), cpu)
    assert model({"x": []})[0].dtype == np.int32


def test_strings_are_checked_for_their_shape(core, cpu):
    kind = (TensorProto.STRING, [2])
    model = core.compile_model(one_node("Identity", {"x": kind}, {"y": kind}), cpu)
    assert model({"x": ["a", "b"]})[0].tolist() == ["a", "b"]
    with pytest.raises(clinfer.InputError, match=r"\[3\].*\[2\]"):
        model({"x": ["a", "b", "c"]})
    assert model({"x": ["é".encode(), "b"]})[0].tolist() == ["é", "b"]
    with pytest.raises(clinfer.InputError, match="'x' holds bytes that are no UTF-8"):
        model({"x": [b"\xff", b"b"]})
    with pytest.raises(clinfer.InputError, match="'x' holds NoneType values"):
        model({"x": [None, "b"]})


@pytest.mark.parametrize(
    "shape",
    [
        [2**32, 2**32],  # whose product is 0 in 64 bits
        [2**62],
        [10**30],
        [1] * 70,
        ["3"],
        "12",
        [2.7],
        [float("inf")],
    ],
    ids=str,
)
def test_a_tensor_refuses_what_is_no_shape(shape):
    for make in (
        lambda: clinfer.Tensor(clinfer.Type.f32, shape),
        lambda: clinfer.Tensor(np.zeros(4, np.float32), shape),
        lambda: clinfer.Tensor(np.zeros(4, np.float32)).set_shape(shape),
    ):
        with pytest.raises(clinfer.InputError, match=r"shape"):
            make()


def test_a_tensor_says_what_it_cannot_hold():
    with pytest.raises(clinfer.OutOfMemoryError, match="a tensor"):
        clinfer.Tensor(clinfer.Type.f32, [2**44])
    fixed = np.zeros(2, np.float32)
    fixed.flags.writeable = False
    with pytest.raises(clinfer.InputError, match="cannot be written to"):
        clinfer.Tensor(fixed, shared_memory=True).copy_from(np.ones(2, np.float32))
    for content, text in ((["a", "b"], ["c"]), (["a"], [None]), ([1.0], ["a"])):
        with pytest.raises(clinfer.InputError, match="text"):
            clinfer.Tensor(content).str_data = text
    with pytest.raises(clinfer.InputError, match="text"):
        _ = clinfer.Tensor(np.array([b"\xff"], object)).str_data


def test_a_tensor_is_in_the_machines_order_of_bytes():
    other = np.arange(3, dtype=np.dtype(np.float32).newbyteorder())
    assert clinfer.Tensor(other).data.dtype == np.float32
    assert clinfer.Tensor(other).data.tolist() == [0, 1, 2]
    with pytest.raises(clinfer.InputError, match="order of bytes"):
        clinfer.Tensor(other, shared_memory=True)


def test_a_request_shared_by_threads_gives_each_its_own_result(core, cpu):
    request = core.compile_model(dense_model(), cpu).create_infer_request()
    data = [np.full((n % 4 + 1, 24), n, np.float32) for n in range(60)]
    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(data, pool.map(lambda x: request.infer(x)[0], data), strict=True):
            np.testing.assert_allclose(y, dense_answer(x), rtol=1e-4, atol=1e-3)


def test_memory_is_given_back_while_others_run(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    x = np.ones((2, 24), np.float32)

    def work(number: int) -> np.ndarray:
        if number % 3 == 0:
            model.release_memory()
        return model(x)[0]

    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(work, range(60)):
            np.testing.assert_allclose(y, dense_answer(x), rtol=1e-4, atol=1e-5)


def test_a_driver_that_fails_while_running_is_a_device_error(core, gpu, monkeypatch):
    from clinfer.device.binding import Error
    from clinfer.device.queue_instance import QueueInstance

    def fail(self: QueueInstance, inputs: object, into: object = None) -> None:
        raise Error("clCreateBuffer failed: MEM_OBJECT_ALLOCATION_FAILURE")

    model = core.compile_model(dense_model(), gpu)
    monkeypatch.setattr(QueueInstance, "run", fail)
    with pytest.raises(clinfer.DeviceError, match="MEM_OBJECT_ALLOCATION_FAILURE"):
        model(np.ones((2, 24), np.float32))
