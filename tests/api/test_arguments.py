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
