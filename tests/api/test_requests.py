"""Requests never mix data: each run has the inputs of its call, each result is the caller's own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer
from api.conftest import prepare
from api.made import finished
from clinfer.device.executor import Session

LIMIT = 120_000  # milliseconds; nothing here takes as long


@pytest.fixture(scope="module")
def model() -> Iterator[clinfer.CompiledModel]:
    """total = a + 2 b, for one size n of both; same = a; again is total once more."""
    nodes = [
        helper.make_node("Add", ["b", "b"], ["twice"]),
        helper.make_node("Add", ["a", "twice"], ["total"]),
        helper.make_node("Identity", ["a"], ["same"]),
        helper.make_node("Identity", ["total"], ["again"]),
    ]

    def port(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2])

    outputs = [port(name) for name in ("total", "same", "again")]
    graph = helper.make_graph(nodes, "sum", [port("a"), port("b")], outputs)
    with pytest.MonkeyPatch.context() as patch:
        yield clinfer.Core().compile_model(finished(graph), prepare("CPU", patch))


@pytest.fixture
def gate(monkeypatch) -> Iterator[Event]:
    """Runs wait for this event before they look at their inputs."""
    opened = Event()
    run = Session.run

    def gated(self: Session, inputs: Any, into: Any = None) -> Any:
        assert opened.wait(LIMIT / 1000)
        return run(self, inputs, into)

    monkeypatch.setattr(Session, "run", gated)
    yield opened
    opened.set()


def pair(value: float, count: int = 3) -> dict[str, np.ndarray]:
    a = np.full((count, 2), value, np.float32)
    return {"a": a, "b": 100 * a}


def total(value: float, count: int = 3) -> np.ndarray:
    return np.full((count, 2), 201 * value, np.float32)


# -- inputs are those of the call ----------------------------------------------------------------


@pytest.mark.parametrize("share", [False, True])
def test_a_run_in_the_background_has_what_was_in_the_array_at_the_call(model, gate, share):
    request = model.create_infer_request()
    given = pair(1)
    request.start_async(given, share_inputs=share)
    given["a"][:] = 5
    gate.set()
    assert request.wait(LIMIT)
    np.testing.assert_array_equal(request.results["same"], np.full((3, 2), 5 if share else 1))


def test_a_queue_has_what_was_in_the_array_at_the_call(model, gate):
    queue = clinfer.AsyncInferQueue(model, 4)
    found: dict[int, np.ndarray] = {}
    queue.set_callback(lambda request, key: found.update({key: request.results["total"].copy()}))
    given = pair(0)
    for key in range(4):
        given["a"][:], given["b"][:] = key, 100 * key
        queue.start_async(given, key)
    given["a"][:] = given["b"][:] = -1
    gate.set()
    queue.wait_all()
    for key in range(4):
        np.testing.assert_array_equal(found[key], total(key))


def test_a_tensor_that_was_set_is_copied_when_a_background_run_starts(model, gate):
    request = model.create_infer_request()
    mine = pair(2)
    request.set_tensor("a", mine["a"])
    request.start_async({"b": mine["b"]})
    mine["a"][:] = 9
    gate.set()
    np.testing.assert_array_equal(request.results["total"], total(2))


def test_a_call_that_lacks_an_input_fails_whatever_was_given_before(model):
    request = model.create_infer_request()
    queue = clinfer.AsyncInferQueue(model, 1)
    for run in (model, request.infer, request.start_async, queue.start_async):
        run(pair(1))
        queue.wait_all()
        request.wait(LIMIT)
        with pytest.raises(clinfer.InputError, match="no value for input 'b'"):
            run({"a": pair(1)["a"]})
    with ThreadPoolExecutor(1) as pool:
        pool.submit(model, pair(7)).result()
    with pytest.raises(clinfer.InputError, match="no value for input 'b'"):
        model({"a": pair(1)["a"]})


def test_a_tensor_that_was_set_stays_and_is_nobody_elses(model):
    mine, other = model.create_infer_request(), model.create_infer_request()
    mine.set_tensor("b", pair(3)["b"])
    for _ in range(2):
        np.testing.assert_array_equal(mine.infer({"a": pair(3)["a"]})["total"], total(3))
    np.testing.assert_array_equal(mine.infer(pair(4))["total"], total(4))
    np.testing.assert_array_equal(mine.infer({"a": pair(3)["a"]})["total"], total(3))
    np.testing.assert_array_equal(mine.get_tensor("b"), pair(3)["b"])
    for run in (other.infer, model):
        with pytest.raises(clinfer.InputError, match="no value for input 'b'"):
            run({"a": pair(3)["a"]})


def test_tensors_set_on_a_queues_requests_stay(model):
    queue = clinfer.AsyncInferQueue(model, 2)
    for request in queue:
        request.set_tensor("b", pair(5)["b"])
    found = []
    queue.set_callback(lambda request, _: found.append(request.results["total"].copy()))
    for _ in range(6):
        queue.start_async({"a": pair(5)["a"]})
    queue.wait_all()
    assert len(found) == 6
    for value in found:
        np.testing.assert_array_equal(value, total(5))


def test_an_input_given_twice_is_refused(model):
    with pytest.raises(clinfer.InputError, match="'a' is given twice"):
        model({"a": pair(1)["a"], 0: pair(2)["a"], "b": pair(1)["b"]})


def odd_arrays() -> dict[str, np.ndarray]:
    a = np.arange(6, dtype=np.float32).reshape(3, 2)
    wide = np.zeros((3, 4), np.float32)
    wide[:, ::2] = a
    fixed = a.copy()
    fixed.flags.writeable = False
    return {
        "with gaps": wide[:, ::2],
        "columns first": np.asfortranarray(a),
        "backwards": a[::-1].copy()[::-1],
        "read-only": fixed,
        "big-endian": a.astype(">f4"),
        "empty": np.zeros((0, 2), np.float32),
    }


@pytest.mark.parametrize("kind", odd_arrays())
def test_arrays_of_every_layout_give_their_values(model, kind):
    array = odd_arrays()[kind]
    plain = np.array(array, np.float32, order="C")
    request = model.create_infer_request()
    queue = clinfer.AsyncInferQueue(model, 1)
    found = [model({"a": array, "b": array})["total"]]
    request.start_async({"a": array, "b": array})
    found.append(request.results["total"])
    queue.start_async({"a": array, "b": array})
    queue.wait_all()
    found.append(next(iter(queue)).results["total"])
    for value in found:
        np.testing.assert_array_equal(value, 3 * plain)


# -- errors come at the call ---------------------------------------------------------------------


WRONG: dict[str, dict[Any, np.ndarray]] = {
    "name": {**pair(1), "nope": pair(1)["a"]},
    "rank": {**pair(1), "a": np.zeros(6, np.float32)},
    "size": {**pair(1), "a": np.zeros((3, 5), np.float32)},
    "dtype": {**pair(1), "a": np.zeros((3, 2), np.complex64)},
    "sizes that differ": {"a": pair(1)["a"], "b": pair(1, count=4)["b"]},
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_refused_at_the_call_and_costs_nothing(model, kind):
    request = model.create_infer_request()
    queue = clinfer.AsyncInferQueue(model, 1)
    for _ in range(3):
        for start in (request.start_async, queue.start_async):
            with pytest.raises((clinfer.InputError, clinfer.ShapeError)):
                start(WRONG[kind])
    queue.wait_all()
    assert request.wait(LIMIT)
    queue.start_async(pair(2))
    queue.wait_all()
    np.testing.assert_array_equal(next(iter(queue)).results["total"], total(2))


def failing_for(value: float, monkeypatch) -> None:
    run = Session.run

    def run_or_fail(self: Session, inputs: Any, into: Any = None) -> Any:
        if inputs[0].flat[0] == value:
            raise clinfer.DeviceError(f"no memory for {value}")
        return run(self, inputs, into)

    monkeypatch.setattr(Session, "run", run_or_fail)


def test_errors_of_runs_and_callbacks_surface_and_no_request_is_lost(model, monkeypatch):
    failing_for(3, monkeypatch)
    queue = clinfer.AsyncInferQueue(model, 2)
    called = []

    def callback(request: clinfer.InferRequest, key: int) -> None:
        called.append(key)
        if key == 5:
            raise LookupError("the callback's")

    queue.set_callback(callback)
    for key in range(8):
        queue.start_async(pair(key), key)
    with pytest.raises((clinfer.DeviceError, LookupError)):
        queue.wait_all()
    assert sorted(called) == [0, 1, 2, 4, 5, 6, 7]
    for key in range(10, 16):
        queue.start_async(pair(key), key)
    queue.wait_all()
    assert sorted(called)[7:] == list(range(10, 16))


def test_a_failed_run_has_no_results_and_wait_raises_its_error(model, monkeypatch):
    failing_for(3, monkeypatch)
    request = model.create_infer_request()
    request.infer(pair(1))
    request.start_async(pair(3))
    with pytest.raises(clinfer.DeviceError, match="no memory"):
        request.wait(LIMIT)
    with pytest.raises(clinfer.ClinferError):
        _ = request.results
    request.start_async(pair(2))
    np.testing.assert_array_equal(request.results["total"], total(2))


def test_a_second_start_while_a_run_is_under_way_is_refused(model, gate):
    request = model.create_infer_request()
    request.start_async(pair(1))
    for run in (request.start_async, request.infer):
        with pytest.raises(clinfer.ClinferError, match="still running"):
            run(pair(2))
    assert not request.wait(1)
    gate.set()
    np.testing.assert_array_equal(request.results["total"], total(1))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to a thread")
def test_an_interrupted_wait_loses_nothing(model, gate):
    queue = clinfer.AsyncInferQueue(model, 2)
    request = model.create_infer_request()
    found = []
    queue.set_callback(lambda request, key: found.append(key))
    queue.start_async(pair(1), 1)
    queue.start_async(pair(2), 2)
    request.start_async(pair(3))
    main = threading.get_ident()
    for wait in (queue.wait_all, request.wait):
        interrupter = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            interrupter.start()
            wait()
        interrupter.join()
    gate.set()
    queue.wait_all()
    assert sorted(found) == [1, 2]
    np.testing.assert_array_equal(request.results["total"], total(3))


# -- callbacks -----------------------------------------------------------------------------------


def test_a_callback_reads_its_results_and_starts_the_next_run(model):
    request = model.create_infer_request()
    found = []

    def callback(own: clinfer.InferRequest) -> None:
        assert own.wait(LIMIT)
        found.append(float(own.results["total"][0, 0]))
        if len(found) < 5:
            own.start_async(pair(len(found) + 1))
            with pytest.raises(clinfer.ClinferError, match="callback"):
                own.wait()

    request.set_callback(callback, request)
    request.start_async(pair(1))
    assert request.wait(LIMIT)
    assert found == [201, 402, 603, 804, 1005]


def test_a_callback_may_run_its_request_again(model):
    request = model.create_infer_request()
    found = []

    def callback(own: clinfer.InferRequest) -> None:
        found.append(own.infer(pair(8))["total"])
        found.append(own.results["total"])

    request.set_callback(callback, request)
    request.start_async(pair(1))
    assert request.wait(LIMIT)
    for value in found:
        np.testing.assert_array_equal(value, total(8))
    assert len(found) == 2


def test_another_thread_starts_the_next_run_when_the_callback_tells_it(model):
    request = model.create_infer_request()
    called = threading.Semaphore(0)
    request.set_callback(lambda _: called.release())
    for value in range(20):
        request.start_async(pair(value))
        assert called.acquire(timeout=LIMIT / 1000)
    np.testing.assert_array_equal(request.results["total"], total(19))


def test_userdata_stays_until_another_is_given(model):
    request = model.create_infer_request()
    got: list[Any] = []
    request.set_callback(got.append, "mine")
    for userdata in (None, "other", None):
        request.start_async(pair(1), userdata)
        assert request.wait(LIMIT)
    assert got == ["mine", "other", "other"]


@pytest.mark.parametrize("starts", ["queue", "request"])
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_queues_callback_starts_the_next_run(model, jobs, starts):
    queue = clinfer.AsyncInferQueue(model, jobs)
    found: list[tuple[int, float]] = []

    def callback(request: clinfer.InferRequest, key: int) -> None:
        if key < 30:
            start = queue.start_async if starts == "queue" else request.start_async
            start(pair(key + 10), key + 10)
        found.append((key, float(request.results["total"][0, 0])))
        with pytest.raises(clinfer.ClinferError, match="callback"):
            queue.wait_all()

    queue.set_callback(callback)
    for key in range(6):
        queue.start_async(pair(key), key)
    queue.wait_all()
    keys = sorted(key for key, _ in found)
    assert keys == sorted(key + ten for key in range(6) for ten in (0, 10, 20, 30))
    assert all(value == 201 * key for key, value in found)


# -- several threads -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["request", "model", "queue"])
def test_threads_that_share_something_get_their_own_answers(model, kind):
    request = model.create_infer_request()
    queue = clinfer.AsyncInferQueue(model, 2)
    answers: dict[int, np.ndarray] = {}
    queue.set_callback(lambda own, key: answers.update({key: own.results["total"].copy()}))

    def work(key: int) -> None:
        given = pair(key, count=key % 3 + 1)
        if kind == "queue":
            queue.start_async(given, key)
            given["a"][:] = -1
        else:
            run = request.infer if kind == "request" else model
            answers[key] = run(given)["total"]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(60)))
    queue.wait_all()
    assert len(answers) == 60
    for key, value in answers.items():
        np.testing.assert_array_equal(value, total(key, count=key % 3 + 1))


# -- results are the caller's own ----------------------------------------------------------------


def test_results_share_nothing_with_inputs_each_other_or_later_runs(model):
    given = pair(1)
    for run in (model, model.create_infer_request().infer):
        first = run(given)
        assert not np.shares_memory(first["same"], given["a"])
        assert not np.shares_memory(first["total"], first["again"])
        first["again"][:] = first["same"][:] = -1
        np.testing.assert_array_equal(first["total"], total(1))
        np.testing.assert_array_equal(given["a"], pair(1)["a"])
        run(pair(2))
        np.testing.assert_array_equal(first["total"], total(1))


def test_strings_and_sequences_are_the_callers_own(core, cpu):
    labels = numpy_helper.from_array(np.array(["cat", "dog"], object), "labels")
    nodes = [
        helper.make_node("Identity", ["s"], ["passed"]),
        helper.make_node("Reshape", ["s", "shape"], ["column"]),
        helper.make_node("Identity", ["passed"], ["again"]),
        helper.make_node("SequenceConstruct", ["x", "x"], ["list"]),
    ]
    shape = numpy_helper.from_array(np.array([2, 1], np.int64), "shape")
    strings = {"passed": [2], "column": [2, 1], "again": [2], "labels": [2]}
    outputs = [helper.make_tensor_value_info(n, TensorProto.STRING, s) for n, s in strings.items()]
    outputs.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, [2]))
    inputs = [
        helper.make_tensor_value_info("s", TensorProto.STRING, [2]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [labels, shape])
    model = core.compile_model(finished(graph), cpu)
    s, x = np.array(["a", "b"], object), np.ones(2, np.float32)
    first = model({"s": s, "x": x})
    s[0] = "changed"
    first["labels"][0] = first["again"][0] = "changed"
    first["list"][0][0] = x[1] = 9
    assert first["passed"].tolist() == ["a", "b"]
    assert first["column"].tolist() == [["a"], ["b"]]
    assert first["list"][1].tolist() == [1, 1]
    later = model.create_infer_request().infer({"s": np.array(["c", "d"], object), "x": x})
    assert later["labels"].tolist() == ["cat", "dog"]
    assert first["passed"].tolist() == ["a", "b"]
    with pytest.raises(clinfer.InputError, match="'s' holds int values, expected strings"):
        model({"s": [1, 2], "x": x})


@pytest.mark.parametrize("kind", ["bytearray", "memoryview", "part"])
def test_an_imported_model_keeps_what_it_needs(model, kind):
    blob = model.export_model()
    memory = bytearray(b"12345678" + blob if kind == "part" else blob)
    view = memoryview(memory)[8 if kind == "part" else 0 :]
    imported = clinfer.Core().import_model(memory if kind == "bytearray" else view, "CPU")
    view.release()
    memory[:] = bytes(len(memory))
    del memory
    np.testing.assert_array_equal(imported(pair(3))["total"], total(3))
    np.testing.assert_array_equal(imported(pair(3, count=5))["total"], total(3, count=5))
    with pytest.raises(clinfer.InputError, match="memoryview"):
        clinfer.Core().import_model(view, "CPU")
