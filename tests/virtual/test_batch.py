"""BATCH: requests of one sample run as one, and none sees another."""

from __future__ import annotations

import pickle
import threading
from functools import partial

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

import clinfer
from api.made import dense_model, save
from clinfer.device import executor
from virtual.conftest import LIMIT
from virtual.test_auto import check, on, rows
from virtual.test_hetero import model_of, node

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
LONG = {"AUTO_BATCH_TIMEOUT": 3_600_000}  # a batch is full, or the test fails
AT_ONCE = {"AUTO_BATCH_TIMEOUT": 0}


@pytest.fixture
def ran(monkeypatch):
    """The samples of each run of a device."""
    really, found = executor.Session.run, []

    def run(self, inputs, into=None):
        found.append(len(inputs[0]))
        return really(self, inputs)

    monkeypatch.setattr(executor.Session, "run", run)
    return found


def together(calls):
    """What each call, in a thread of its own, gave or raised."""
    found: dict[int, object] = {}

    def work(number: int) -> None:
        try:
            found[number] = calls[number]()
        except BaseException as error:
            found[number] = error

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    return [found[number] for number in range(len(calls))]


def test_requests_of_one_sample_run_as_one(core, ran):
    model = core.compile_model(dense_model(), "BATCH:GPU(4)", LONG)
    assert on(model) == ["GPU"]
    assert model.get_property("OPTIMAL_BATCH_SIZE") == 4
    data = [rows(1, seed) for seed in range(8)]
    found = together([lambda x=x: model(x)[0] for x in data])
    assert ran == [4, 4]
    for x, result in zip(data, found, strict=True):
        check(result, x)
        assert result.base is None or result.base.nbytes == result.nbytes


def test_a_queue_has_as_many_requests_as_run_together(core, ran):
    model = core.compile_model(dense_model(), "BATCH:GPU(3)", LONG)
    queue, found = clinfer.AsyncInferQueue(model), {}
    assert len(queue) == 3
    queue.set_callback(lambda request, key: found.update({key: request.results[0].copy()}))
    data = [rows(1, seed) for seed in range(12)]
    for key, x in enumerate(data):
        queue.start_async(x, key)
    queue.wait_all()
    assert ran == [3] * 4
    for key, x in enumerate(data):
        check(found[key], x)


def test_the_first_request_does_not_wait_for_ever(core, ran):
    model = core.compile_model(dense_model(), "BATCH:GPU(4)", {"AUTO_BATCH_TIMEOUT": 1})
    check(model(rows(1))[0], rows(1))
    at_once = core.compile_model(dense_model(), "BATCH:GPU", AT_ONCE)
    check(at_once(rows(1))[0], rows(1))
    assert ran == [1, 1]


def test_a_request_of_several_samples_runs_by_itself(core, ran):
    model = core.compile_model(dense_model(), "BATCH:GPU(4)", LONG)
    check(model(rows(3))[0], rows(3))
    assert ran == [3]


def test_a_model_of_one_sample_keeps_its_shape(core, ran):
    model = core.compile_model(dense_model(rows=1), "BATCH:GPU(2)", LONG)
    assert model.input().shape == [1, 24]
    assert model.output().shape == [1, 10]
    with pytest.raises(clinfer.InputError, match="'x'"):
        model(rows(2))
    first, second = together([lambda s=s: model(rows(1, s))[0] for s in (0, 1)])
    assert ran == [2]
    check(first, rows(1, 0))
    check(second, rows(1, 1))


def test_sizes_that_differ_do_not_run_together(core, ran):
    nodes = [node("Exp", "x", "y")]
    ports = ("x", FLOAT, ["n", "m"]), ("y", FLOAT, ["n", "m"])
    model = core.compile_model(model_of(nodes, ports[:1], ports[1:]), "BATCH:GPU(2)", LONG)
    data = [np.full((1, size), 1.0, np.float32) for size in (2, 3, 2, 3)]
    found = together([lambda x=x: model(x)[0] for x in data])
    assert ran == [2, 2]
    assert [result.shape for result in found] == [x.shape for x in data]


def test_the_error_of_one_request_is_no_others(core, ran):
    nodes = [node("Gather", "table at", "y")]
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    ports = ("at", INT64, ["n"]), ("y", FLOAT, ["n", 3])
    made = model_of(nodes, ports[:1], ports[1:], [("table", table)])
    model = core.compile_model(made, "BATCH:CPU(4)", LONG)
    found = together([lambda p=p: model(np.array([p]))[0] for p in (1, 99, 3, 0)])
    assert isinstance(found[1], clinfer.InputError)
    for position, result in ((1, found[0]), (3, found[2]), (0, found[3])):
        np.testing.assert_array_equal(result, table[[position]])
    assert ran[0] == 4


def test_a_thread_that_is_interrupted_leaves_the_others_their_answers(core, monkeypatch):
    model = core.compile_model(dense_model(), "BATCH:GPU(4)", LONG)
    really, interrupted = executor.Session.run, []

    def run(self, inputs, into=None):
        if not interrupted:
            interrupted.append(len(inputs[0]))
            raise KeyboardInterrupt
        return really(self, inputs)

    monkeypatch.setattr(executor.Session, "run", run)
    data = [rows(1, seed) for seed in range(4)]
    found = together([lambda x=x: model(x)[0] for x in data])
    assert interrupted == [4]
    assert sum(isinstance(result, KeyboardInterrupt) for result in found) == 1
    for x, result in zip(data, found, strict=True):
        if not isinstance(result, KeyboardInterrupt):
            check(result, x)


def test_a_network_of_convolutions_and_pickled(core, tmp_path):
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Flatten", "r", "y"),
    ]
    weights = np.random.default_rng(1).standard_normal((4, 2, 3, 3)).astype(np.float32)
    ports = ("x", FLOAT, ["n", 2, 8, 8]), ("y", FLOAT, ["n", 256])
    made = model_of(nodes, ports[:1], ports[1:], [("w", weights)])
    session = onnxruntime.InferenceSession(made.SerializeToString())
    model = core.compile_model(save(made, tmp_path / "m.onnx"), "BATCH:GPU(3)", LONG)
    again = pickle.loads(pickle.dumps(model))
    images = np.random.default_rng(0).random((3, 1, 2, 8, 8)).astype(np.float32)
    for compiled in (model, again):
        found = together([partial(compiled, x) for x in images])
        for image, result in zip(images, found, strict=True):
            np.testing.assert_allclose(
                result[0], session.run(None, {"x": image})[0], rtol=1e-4, atol=1e-5
            )


def test_operators_that_keep_samples_apart(core, ran):
    """A class token is put before the rows of a sample, which then look at each other."""
    nodes = [
        node("Shape", "x", "sizes"),
        node("Gather", "sizes zero", "count"),
        node("Concat", "count ones", "wanted", axis=0),
        node("Expand", "token wanted", "tokens"),
        node("Concat", "tokens x", "rows", axis=1),
        node("LayerNormalization", "rows scale", "normal"),
        node("Transpose", "normal", "columns", perm=[0, 2, 1]),
        node("MatMul", "normal columns", "scores"),
        node("Softmax", "scores", "shares"),
        node("MatMul", "shares rows", "mixed"),
        node("Gather", "mixed first", "chosen", axis=1),
        node("TopK", "chosen two", "best at"),
        node("Slice", "mixed from to axis", "rest"),
        node("Reshape", "rest flat", "flattened"),
    ]
    outputs = [("best", FLOAT, ["n", 2]), ("at", INT64, ["n", 2]), ("flattened", FLOAT, ["n", 16])]
    generator = np.random.default_rng(2)
    constants = {
        "zero": np.array([0]), "ones": np.array([1, 4]), "first": np.int64(0),
        "two": np.array([2]), "from": np.array([1]), "to": np.array([5]), "axis": np.array([1]),
        "flat": np.array([0, -1]), "scale": np.ones(4, np.float32),
        "token": generator.standard_normal((1, 1, 4)).astype(np.float32),
    }  # fmt: skip
    made = model_of(nodes, [("x", FLOAT, ["n", 4, 4])], outputs, constants.items())
    model = core.compile_model(made, "BATCH:CPU(3)", LONG)
    session = onnxruntime.InferenceSession(made.SerializeToString())
    data = generator.standard_normal((3, 1, 4, 4)).astype(np.float32)
    found = together([partial(model, x) for x in data])
    assert ran == [3]
    for x, results in zip(data, found, strict=True):
        for result, wanted in zip(results.to_tuple(), session.run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


SQUARE = [("x", FLOAT, ["n", 4])], [("y", FLOAT, None)]
CUBE = [("x", FLOAT, ["n", 4, 4])], [("y", FLOAT, None)]
REFUSED = {
    "softmax over samples": ([node("Softmax", "x", "y", axis=0)], SQUARE),
    "mean of samples": ([node("ReduceMean", "x", "y", axes=[0])], SQUARE),
    "centred by samples": (
        [node("ReduceMean", "x", "mean", axes=[0]), node("Sub", "x mean", "y")],
        SQUARE,
    ),
    "in reverse": (
        [node("Slice", "x last first zero last", "y")],
        SQUARE,
        ("last", [-1]),
        ("first", [-(2**40)]),
        ("zero", [0]),
    ),
    "transposed": ([node("Transpose", "x", "y", perm=[1, 0])], SQUARE),
    "every pair": ([node("Transpose", "x", "t"), node("MatMul", "x t", "y")], SQUARE),
    "running sum": ([node("CumSum", "x a", "y")], SQUARE, ("a", np.int64(0))),
    "joined": ([node("Concat", "x x", "y", axis=0)], SQUARE),
    "normalised over samples": ([node("MeanVarianceNormalization", "x", "y")], SQUARE),
    "count as data": (
        [
            node("Shape", "x", "s"),
            node("Cast", "s", "f", to=FLOAT),
            node("ReduceMax", "f", "m"),
            node("Div", "x m", "y"),
        ],
        SQUARE,
    ),
    "positions in the batch": ([node("MaxPool", "x", "pooled y", kernel_shape=[2])], CUBE),
    "made for one sample": ([node("Reshape", "x a", "y")], SQUARE, ("a", np.array([1, 4]))),
    "samples as rows of others": ([node("Trilu", "x", "y")], SQUARE),
    "of four samples": ([node("Exp", "x", "y")], ([("x", FLOAT, [4, 4])], SQUARE[1])),
    "of any rank": ([node("Exp", "x", "y")], ([("x", FLOAT, None)], SQUARE[1])),
    "without samples": ([node("Exp", "x", "y")], ([("x", FLOAT, [])], SQUARE[1])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_whose_samples_see_each_other_are_refused(core, name):
    nodes, (inputs, outputs), *constants = REFUSED[name]
    constants = [(n, np.asarray(value)) for n, value in constants]
    model = model_of(nodes, inputs, outputs, constants)
    with pytest.raises(clinfer.UnsupportedError, match="BATCH"):
        core.compile_model(model, "BATCH:GPU(4)")


def test_one_device_and_a_number(core, tmp_path):
    for name in ("BATCH:GPU,CPU", "BATCH:GPU(0)", "BATCH:GPU(four)"):
        with pytest.raises(clinfer.DeviceError, match="BATCH"):
            core.compile_model(dense_model(), name)
    with pytest.raises(clinfer.PropertyError, match="AUTO_BATCH_TIMEOUT"):
        core.compile_model(dense_model(), "BATCH:GPU(4)", {"AUTO_BATCH_TIMEOUT": "soon"})
    model = core.compile_model(save(dense_model(), tmp_path / "m.onnx"), "BATCH:GPU(4)")
    assert model.get_property("AUTO_BATCH_TIMEOUT") == 1000
