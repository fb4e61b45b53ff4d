"""Calls of OpenCL fail, one of each place in clinfer; tools/inject_faults.py makes all fail."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from onnx import parser

import clinfer
from clinfer import mapping
from clinfer.device import binding, failures, machine_code, scratch, workers
from clinfer.errors import ClinferError, DeviceError
from driver_faults import OUT_OF_RESOURCES, Driver, Fault
from fault_operations import (
    DEVICES,
    Exchanging,
    Operation,
    Running,
    Setting,
    Sweep,
    digits,
    of_each_place,
    operations,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.usefixtures("own_programs"),
]
_SIZES_FROM_DATA = """
    <ir_version: 8, opset_import: ["" : 17]>
    m (float[N] x) => (int64[1, M] places, float[N] y) {
        y = Mul(x, x)
        places = NonZero(y)
    }
"""
_RELU = """
    <ir_version: 8, opset_import: ["" : 17]>
    m (float[N] x) => (float[N] y) { y = Relu(x) }
"""


@pytest.fixture
def driver() -> Iterator[Driver]:
    """What other tests left is no garbage of these, which collect it at each fault."""
    gc.collect()
    gc.freeze()
    with Driver() as driver:
        yield driver
    gc.unfreeze()


def swept(driver: Driver, setting: Setting, kinds: list[type[Operation]]) -> list[str]:
    seen: set[object] = set()
    wrong: list[str] = []
    for kind in kinds:
        with setting.as_device():
            sweep = Sweep(driver, kind(setting))
            wrong += sweep.run(of_each_place(sweep.points, seen), lambda _: None)
    return wrong


@pytest.mark.parametrize("device", DEVICES)
def test_whatever_call_fails_is_an_error_or_harmless_and_leaves_nothing_behind(
    driver: Driver, device: str
) -> None:
    assert swept(driver, digits(device), operations(device)) == []


def test_runs_whose_sizes_come_from_data_leave_nothing_behind_either(driver: Driver) -> None:
    model = parser.parse_model(_SIZES_FROM_DATA)
    inputs = [[np.arange(n, dtype=np.float32)] for n in (5, 3)]
    setting = Setting("CPU", model, inputs)
    assert [places.tolist() for places, _ in setting.expected] == [[[1, 2, 3, 4]], [[1, 2]]]
    assert swept(driver, setting, [Running, Exchanging]) == []


def relu(device: str = "GPU") -> clinfer.CompiledModel:
    return clinfer.Core().compile_model(parser.parse_model(_RELU), device)


@pytest.fixture(scope="module")
def small() -> Iterator[clinfer.CompiledModel]:
    """A model on a queue."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLINFER_GPU_PLATFORM", "Portable")
        yield relu()


def test_what_a_failed_run_may_still_be_at_is_kept_until_the_driver_is_done(
    driver: Driver, small: clinfer.CompiledModel
) -> None:
    request = small.create_infer_request()
    x = np.ones(100_000, np.float32)
    request.infer([x])
    with driver.recording() as points:
        request.infer([x])
    last = max(i for i, point in enumerate(points) if point.function == "clFinish")
    with (
        driver.failing(Fault(last, OUT_OF_RESOURCES, lasts=True)),
        pytest.raises(DeviceError, match="OUT_OF_RESOURCES"),
    ):
        request.infer([x])
    assert len(failures._unsettled._found) == 1
    assert np.array_equal(request.infer([x])["y"], x)
    assert not failures._unsettled._found


def test_the_error_names_the_device_the_call_and_what_may_help(
    driver: Driver, small: clinfer.CompiledModel
) -> None:
    device = small.get_property("FULL_DEVICE_NAME")
    said = f"{device} failed: clCreateCommandQueue failed: OUT_OF_RESOURCES; where memory"
    with driver.failing(Fault(0, OUT_OF_RESOURCES)), pytest.raises(DeviceError) as caught:
        small.create_infer_request()
    assert str(caught.value).startswith(said)


def test_an_error_of_the_driver_is_one_of_clinfers_wherever_it_comes_from() -> None:
    assert issubclass(binding.Error, ClinferError)


def none_left(*_arguments: object, **_named: object) -> None:
    raise MemoryError


def failing(*_arguments: object, **_named: object) -> None:
    raise RuntimeError("can't start new thread")


def full(*_arguments: object, **_named: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("missing", ["processes", "threads", "timers"])
def test_without_processes_or_threads_programs_are_built_here(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINFER_GPU_PLATFORM", "Portable")
    monkeypatch.setattr(workers, "_pools", {})
    if missing == "processes":
        monkeypatch.setattr(workers.subprocess, "Popen", full)
    else:
        monkeypatch.setattr(Thread if missing == "threads" else workers.Timer, "start", failing)
    x = np.array([-1, 2], np.float32)
    assert relu()([x])["y"].tolist() == [0, 2]


def test_without_room_for_a_drivers_files_an_error_says_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from clinfer.device import opencl

    monkeypatch.delenv("POCL_CACHE_DIR", raising=False)
    monkeypatch.setattr(scratch, "new_folder", full)
    with pytest.raises(DeviceError, match=r"No space left on device.*POCL_CACHE_DIR"):
        opencl._open.__wrapped__()


def test_memory_that_the_host_does_not_have_costs_one_run() -> None:
    request = relu("CPU").create_infer_request()
    x = np.ones(2_000_000, np.float32)
    without = SimpleNamespace(**{**vars(np), "empty": none_left})
    with (
        mock.patch("clinfer.device.results.np", without),
        pytest.raises(ClinferError, match="memory"),
    ):
        request.infer([x])
    assert np.array_equal(request.infer([x])["y"], x)


def test_a_model_file_that_cannot_be_mapped_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "relu.onnx"
    path.write_bytes(parser.parse_model(_RELU).SerializeToString())
    monkeypatch.setattr(mapping, "MAP_FROM", 1)
    monkeypatch.setattr(mapping, "may_map", lambda _: True)
    with monkeypatch.context() as patch:
        patch.setattr(mapping, "_Pages", full)
        with pytest.raises(ClinferError, match=r"relu\.onnx.*No space left on device"):
            clinfer.Core().read_model(path)
    assert clinfer.Core().read_model(path).inputs[0].name == "x"


def test_where_a_players_code_cannot_be_written_the_queue_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine_code, "_LOADED", {})
    monkeypatch.setattr(machine_code, "_folder", full)
    model = relu("CPU")
    assert model._loaded.executable.player is None
    assert model([np.array([-1, 2], np.float32)])["y"].tolist() == [0, 2]


@pytest.mark.parametrize("start", ["start_async", "queue"])
def test_a_thread_that_does_not_start_costs_one_call(
    start: str, small: clinfer.CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.array([-1, 2], np.float32)
    answers: list[list[float]] = []
    run: Callable[[], None]
    if start == "queue":
        queue = clinfer.AsyncInferQueue(small, 1)
        queue.set_callback(lambda request, _: answers.append(request.results["y"].tolist()))

        def run() -> None:
            queue.start_async([x])
            queue.wait_all()
    else:
        request = small.create_infer_request()

        def run() -> None:
            request.start_async([x])
            request.wait()
            answers.append(request.results["y"].tolist())

    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", failing)
        with pytest.raises(ClinferError, match="thread"):
            run()
    run()
    assert answers == [[0, 2]]
