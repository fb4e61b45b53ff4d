"""MULTI: requests go to the device that is free."""

from __future__ import annotations

import pickle
import threading
from collections import Counter

import numpy as np
import pytest

import clinfer
from api.made import dense_model, save
from clinfer.device import executor
from virtual.conftest import LIMIT
from virtual.test_auto import check, on, rows


@pytest.fixture
def ran(monkeypatch):
    """The devices of the runs in their order; `ran.hold[name]` holds those of a device."""
    really = executor.Session.run

    class Ran(list):
        hold: dict[str, threading.Event] = {}
        begun: dict[str, threading.Event] = {}

    found = Ran()

    def run(self, inputs, into=None):
        name = self.loaded.device.info.name
        found.append(name)
        if name in found.hold:
            found.begun[name].set()
            assert found.hold[name].wait(LIMIT)
        return really(self, inputs)

    monkeypatch.setattr(executor.Session, "run", run)
    return found


def test_a_request_takes_the_first_device_that_is_free(core, ran):
    model = core.compile_model(dense_model(), "MULTI:GPU,CPU")
    assert on(model) == ["GPU", "CPU"]
    assert model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 2
    check(model(rows(2))[0], rows(2))
    assert ran == ["GPU"]
    ran.hold, ran.begun = {"GPU": threading.Event()}, {"GPU": threading.Event()}
    request = model.create_infer_request()
    request.start_async(rows(3, 1))
    assert ran.begun["GPU"].wait(LIMIT)
    check(model(rows(2))[0], rows(2))
    assert ran == ["GPU", "GPU", "CPU"]
    ran.hold["GPU"].set()
    request.wait()
    check(request.results[0], rows(3, 1))


def test_a_queue_keeps_all_devices_busy_and_swaps_nothing(core, ran):
    model = core.compile_model(dense_model(), "MULTI:GPU(2),CPU(2)")
    queue, found = clinfer.AsyncInferQueue(model), {}
    assert len(queue) == 4
    queue.set_callback(lambda request, key: found.update({key: request.results[0].copy()}))
    data = [rows(1 + seed % 3, seed) for seed in range(40)]
    barrier = threading.Barrier(4)
    first = iter(range(4))
    held = ran.__class__.append

    def append(name):  # the first four begin together, so none is done before all have begun
        held(ran, name)
        if next(first, None) is not None:
            barrier.wait(LIMIT)

    ran.append = append
    for key, x in enumerate(data):
        queue.start_async(x, key)
    queue.wait_all()
    assert sorted(found) == list(range(len(data)))
    for key, x in enumerate(data):
        check(found[key], x)
    assert Counter(ran[:4]) == {"GPU": 2, "CPU": 2}


def test_a_run_that_fails_raises_and_frees_its_device(core, monkeypatch):
    model = core.compile_model(dense_model(), "MULTI:GPU,CPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor.Session, "run", _fail)
        for _ in range(3):
            with pytest.raises(clinfer.DeviceError, match="gone"):
                model(rows(1))
    check(model(rows(2))[0], rows(2))
    with pytest.raises(clinfer.InputError, match="'x'"):
        model(np.zeros((2, 3), np.float32))


def _fail(self, *inputs):
    raise clinfer.DeviceError("the device has gone")


def test_a_device_that_cannot_compile_is_an_error(core, gate):
    gate.error = clinfer.BuildError("no")
    gate.open()
    with pytest.raises(clinfer.BuildError):
        core.compile_model(dense_model(), "MULTI:GPU,CPU")


def test_cumulative_throughput_uses_all_of_autos_devices(core):
    model = core.compile_model(
        dense_model(), "AUTO", {"PERFORMANCE_HINT": "CUMULATIVE_THROUGHPUT", "NUM_STREAMS": 2}
    )
    assert on(model) == ["GPU", "CPU"]
    assert model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 4


def test_priorities_as_a_property_and_pickled(core, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    model = core.compile_model(path, "MULTI", {"MULTI_DEVICE_PRIORITIES": "CPU,GPU"})
    again = pickle.loads(pickle.dumps(model))
    assert on(again) == on(model) == ["CPU", "GPU"]
    check(again(rows(2))[0], rows(2))
    assert core.get_property("MULTI:CPU,GPU", "FULL_DEVICE_NAME") == "MULTI"
    assert core.get_property("MULTI:CPU,GPU", "MULTI_DEVICE_PRIORITIES") == "CPU,GPU"
    assert "FP32" in core.get_property("MULTI:CPU,GPU", "OPTIMIZATION_CAPABILITIES")
    assert "EXPORT_IMPORT" not in core.get_property("MULTI:CPU,GPU", "OPTIMIZATION_CAPABILITIES")
    with pytest.raises(clinfer.DeviceError, match="one device is expected"):
        core.import_model(b"blob", "MULTI:CPU,GPU")
