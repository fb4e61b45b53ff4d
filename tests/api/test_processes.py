"""Processes: what a forked child can do, and models that are pickled into another process."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import clinfer
from api.conftest import prepare
from api.made import dense_answer, dense_model, finished, one_node, save
from clinfer import forks
from clinfer.device import machine_code
from clinfer.device.executor import Session

LIMIT = 120  # seconds; nothing here takes as long
RNG = np.random.default_rng(5)
FLOAT = TensorProto.FLOAT
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return save(dense_model(), tmp_path_factory.mktemp("models") / "dense.onnx")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def model(path, cache) -> Iterator[clinfer.CompiledModel]:
    """A model that has run in this process, with and without helpers."""
    with pytest.MonkeyPatch.context() as patch:
        device = prepare("CPU", patch)
        made = clinfer.Core().compile_model(path, device, {"CACHE_DIR": cache})
        for count in (3, 4000):
            check(made, count)
        if made._loaded.executable.player is None:
            pytest.skip("this CPU's plans have no player")
        yield made


def check(model: Any, count: int) -> None:
    x = RNG.standard_normal((count, 24)).astype(np.float32)
    run = model if callable(model) else model.infer
    np.testing.assert_allclose(run(x)[0], dense_answer(x), rtol=1e-4, atol=1e-4)


def in_child(action: Callable[[], Any]) -> Any:
    """What the action gives in a forked child; raises what it raises there."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = (True, action())
        except BaseException as error:
            answer = (False, error)
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    try:
        assert select.select([reader], [], [], LIMIT)[0], "the child hangs"
        with os.fdopen(reader, "rb", closefd=False) as pipe:
            succeeded, answer = pickle.loads(pipe.read())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
    if not succeeded:
        raise answer
    return answer


# -- after a fork --------------------------------------------------------------------------------


@forking
def test_a_child_infers_meets_new_shapes_and_drops_models(model, cache, path):
    def child() -> None:
        for count in (3, 4000, 5, 3000, 0, 4000):
            check(model, count)
        model.release_memory()
        check(model, 17)
        other = clinfer.Core().compile_model(path, "CPU", {"CACHE_DIR": cache})
        assert other.get_property("LOADED_FROM_CACHE")
        check(other, 9)
        del other
        gc.collect()
        check(model, 4000)

    in_child(child)
    check(model, 4000)


@forking
def test_requests_and_queues_work_in_a_child(model):
    request, queue = model.create_infer_request(), clinfer.AsyncInferQueue(model, 2)
    x = RNG.standard_normal((5, 24)).astype(np.float32)
    request.set_tensor("x", x)
    request.start_async()
    assert request.wait(LIMIT * 1000)
    queue.start_async(x)
    queue.wait_all()

    def child() -> None:
        found = []
        queue.set_callback(lambda own, _: found.append(own.results[0].copy()))
        for _ in range(6):
            queue.start_async(x)
        queue.wait_all()
        request.start_async()
        found.append(request.results[0])
        found.append(request.infer()[0])
        with_own = clinfer.AsyncInferQueue(model, 3)
        with_own.start_async(x)
        with_own.wait_all()
        threads = [threading.Thread(target=check, args=(model, 4000)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        for value in found:
            np.testing.assert_allclose(value, dense_answer(x), rtol=1e-4, atol=1e-4)

    in_child(child)
    in_child(lambda: in_child(child))


@forking
def test_a_child_compiles_what_its_parent_has_not(model):
    def child() -> None:
        x = RNG.standard_normal((4, 24)).astype(np.float32)
        made = clinfer.Core().compile_model(dense_model(seed=3), "CPU")
        np.testing.assert_allclose(made(x)[0], dense_answer(x, 3), rtol=1e-4, atol=1e-4)

    in_child(child)


@forking
def test_a_fork_during_runs_of_other_threads_leaves_a_child_that_works(model, monkeypatch):
    """They hold the locks of requests, of a session, and one that is not clinfer's alone."""
    inside, opened = threading.Barrier(4), threading.Event()
    make = Session._new_instance

    def held(self: Session, *sizes: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and not opened.is_set():
            inside.wait(LIMIT)
            assert opened.wait(LIMIT)
        return make(self, *sizes)

    monkeypatch.setattr(Session, "_new_instance", held)
    request, queue = model.create_infer_request(), clinfer.AsyncInferQueue(model, 1)
    other = model.create_infer_request()
    x = RNG.standard_normal((5, 24)).astype(np.float32)
    request.start_async(x)
    queue.start_async(x)
    thread = threading.Thread(target=other.infer, args=(x,))
    thread.start()
    inside.wait(LIMIT)

    def child() -> None:
        opened.set()
        for lost in (request.wait, queue.wait_all):
            with pytest.raises(clinfer.DeviceError, match="when this process was forked"):
                lost()
            lost()
        for again in (request, other, next(iter(queue)), model):
            check(again, 5)
        queue.start_async(x)
        queue.wait_all()

    with machine_code._LOCK:
        locked = threading.Thread(target=in_child, args=(child,))
        locked.start()
        locked.join()
    in_child(child)
    opened.set()
    thread.join()
    assert request.wait(LIMIT * 1000)
    queue.wait_all()
    for mine in (request, other, model):
        np.testing.assert_allclose(
            mine.results[0] if mine is not model else model(x)[0],
            dense_answer(x),
            rtol=1e-4,
            atol=1e-4,
        )


@forking
def test_forks_while_threads_infer_leave_children_that_work(model):
    """NumPy's generators and matrix products have locks of their own: not in these threads."""
    x = RNG.standard_normal((4000, 24)).astype(np.float32)
    expected = model(x)[0]
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            model(x[:2000])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            found = in_child(lambda: [bool((model(x)[0] == expected).all()) for _ in range(3)])
            assert found == [True] * 3
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def late_model() -> Any:
    """The squares of the positive elements, and where they are: sizes that a host step gives."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("NonZero", ["r"], ["places"]),
        helper.make_node("Transpose", ["places"], ["y"], perm=[1, 0]),
        helper.make_node("GatherND", ["r", "y"], ["found"]),
        helper.make_node("Mul", ["found", "found"], ["squares"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.INT64, None),
        helper.make_tensor_value_info("squares", TensorProto.FLOAT, None),
    ]
    return finished(helper.make_graph(nodes, "g", inputs, outputs))


@forking
def test_sizes_that_only_a_host_step_gives_are_no_hindrance_in_a_child(core, cpu):
    late = core.compile_model(late_model(), cpu)
    if late._loaded.executable.player is None:
        pytest.skip("this CPU's plans have no player")
    request = late.create_infer_request()

    def is_right(run: Callable[..., Any], *shape: int) -> bool:
        x = RNG.standard_normal(shape).astype(np.float32)
        places, squares = run(x).to_tuple()
        return np.array_equal(places, np.argwhere(x > 0)) and np.allclose(squares, x[x > 0] ** 2)

    def several() -> list[bool]:
        shapes = ((3, 4), (40, 50), (0, 3), (3, 4))
        return [is_right(run, *shape) for run in (late, request.infer) for shape in shapes]

    assert all(several())
    assert in_child(several) == [True] * 8
    assert all(several())


@forking
def test_what_needs_the_driver_says_in_a_child_what_to_do(core, gpu):
    """Everything on a GPU takes the driver's queue."""
    model = core.compile_model(late_model(), gpu)
    x = np.eye(3, dtype=np.float32)
    request = model.create_infer_request()
    assert len(model(x)[0]) == len(request.infer(x)[0]) == 3

    def child() -> list[str]:
        def asynchronous() -> None:
            request.start_async(x)
            request.wait()

        attempts = [lambda: model(x), lambda: model(x[:2]), lambda: request.infer(x), asynchronous]
        attempts += [lambda: clinfer.Core().compile_model(dense_model(), "GPU")]
        said = []
        for attempt in attempts:
            with pytest.raises(clinfer.DeviceError) as raised:
                attempt()
            said.append(str(raised.value))
        return said

    said = in_child(child)
    assert len(said) == 5
    assert all("compile the model in the child" in text for text in said)
    np.testing.assert_array_equal(model(x)[0], np.argwhere(x))


SERVER = """
import os, sys
import numpy as np
import clinfer
model = clinfer.Core().compile_model(sys.argv[1], "CPU", {"CACHE_DIR": sys.argv[2]})
x = np.ones((4000, 24), np.float32)
expected = model(x)[0] if sys.argv[3] == "used" else None
child = os.fork()
found = model(x)[0]
assert expected is None or (found == expected).all()
if child:
    _, status = os.waitpid(child, 0)
    print("parent sees", status)
else:
    del model
    print("child done", flush=True)
"""


@forking
@pytest.mark.parametrize("parent", ["used", "unused"])
def test_a_preforking_server_and_its_child_both_exit(model, path, cache, parent):
    command = [sys.executable, "-c", SERVER, str(path), cache, parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout.split("\n")[:2] == ["child done", "parent sees 0"], done.stderr
    assert done.stderr == ""


AT_EXIT = """
import atexit, sys
import numpy as np
import clinfer

core = clinfer.Core()

def compiled_late():
    model = core.compile_model(sys.argv[1], sys.argv[2])
    x = np.ones((2, 24), np.float32)
    print(model(x)[0].shape)
    request = model.create_infer_request()
    try:
        request.start_async(x)
    except clinfer.ClinferError as error:
        print(type(error).__name__, error)
    print(request.infer(x)[0].shape)

if "loaded" in sys.argv:
    import concurrent.futures.thread
atexit.register(compiled_late)
"""


@pytest.mark.parametrize("before", ["loaded", "absent"])
def test_models_are_compiled_and_run_in_what_atexit_calls(path, cpu, before):
    command = [sys.executable, "-c", AT_EXIT, str(path), cpu, before]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    first, error, last = done.stdout.splitlines()
    assert first == last, done.stderr
    assert error.startswith("ClinferError no thread can be started for the run: ")


def _answer(x: np.ndarray) -> np.ndarray:
    return np.asarray(_shared[0](x)[0])


_shared: list[clinfer.CompiledModel] = []


@forking
def test_a_pool_of_forked_workers_shares_a_model(model):
    _shared[:] = [model]
    xs = [RNG.standard_normal((count, 24)).astype(np.float32) for count in (1, 20, 4000)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for x, y in zip(xs, pool.map_async(_answer, xs).get(LIMIT), strict=True):
            np.testing.assert_allclose(y, dense_answer(x), rtol=1e-4, atol=1e-4)


@forking
def test_locks_are_free_and_heirs_are_told_in_a_child():
    lock, again = forks.new_lock(), forks.new_rlock()

    class Heir:
        told = 0

        def after_fork(self) -> None:
            self.told += 1

    heir = Heir()
    forks.inherit(heir)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock, again:
            held.set()
            done.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(LIMIT)
    found = in_child(lambda: (lock.acquire(timeout=1), again.acquire(timeout=1), heir.told))
    done.set()
    thread.join()
    assert found == (True, True, 1)
    assert heir.told == 0


# -- pickles -------------------------------------------------------------------------------------

LOADED = """
import pickle, sys
import numpy as np
model = pickle.loads(sys.stdin.buffer.read())
x = np.ones((2, 24), np.float32)
print(model.get_property("LOADED_FROM_CACHE"), model.get_property("PERFORMANCE_HINT"))
print(repr(model(x)[0].tolist()))
"""


def in_another_process(model: clinfer.CompiledModel, folder: Path) -> list[str]:
    """What `LOADED` prints, run in that folder."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        input=pickle.dumps(model),
        capture_output=True,
        timeout=LIMIT,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split("\n")


@pytest.mark.parametrize("source", ["path", "relative path", "model", "proto", "blob"])
def test_a_pickled_model_is_the_same_in_another_process(
    model, path, cache, source, cpu, tmp_path, monkeypatch
):
    monkeypatch.chdir(path.parent)
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": os.path.relpath(cache), "PERFORMANCE_HINT": "THROUGHPUT"})
    sources = {
        "path": path,
        "relative path": path.name,
        "model": core.read_model(path),
        "proto": dense_model(),
    }
    if source == "blob":
        made = core.import_model(model.export_model(), cpu)
    else:
        made = core.compile_model(sources[source], cpu)
    x = np.ones((2, 24), np.float32)
    assert in_another_process(made, tmp_path)[:2] == [
        "True THROUGHPUT",
        repr(made(x)[0].tolist()),
    ]


def test_a_pickled_model_keeps_the_shapes_it_was_given(path, cache, cpu):
    core = clinfer.Core()
    read = core.read_model(path)
    read.reshape({"x": [4, 24]})
    made = core.compile_model(read, cpu, {"CACHE_DIR": cache})
    again = pickle.loads(pickle.dumps(made))
    assert again.inputs[0].shape == (4, 24)
    assert again.get_property("LOADED_FROM_CACHE")


def test_models_that_come_with_every_task_are_loaded_once(model):
    sent = pickle.dumps(model)
    assert pickle.loads(sent) is pickle.loads(sent)
    assert pickle.loads(pickle.dumps(pickle.loads(sent))) is pickle.loads(sent)


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_that_has_changed_is_noticed(tmp_path, cache, cpu, cached):
    file = save(dense_model(), tmp_path / "m.onnx")
    made = clinfer.Core().compile_model(file, cpu, {"CACHE_DIR": cache if cached else ""})
    sent = pickle.dumps(made)
    save(dense_model(seed=1), file)
    with pytest.raises(clinfer.ModelError, match="is not the file"):
        pickle.loads(sent)
    if not cached:
        with pytest.raises(clinfer.ModelError, match="has changed"):
            pickle.dumps(made)
    file.unlink()
    with pytest.raises(clinfer.ModelError, match=r"m\.onnx"):
        pickle.loads(sent)


def test_a_model_without_a_file_is_not_pickled_on_a_gpu(core, gpu):
    with pytest.raises(clinfer.DeviceError, match="write the model to a file"):
        relu = one_node("Relu", {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])})
        pickle.dumps(core.compile_model(relu, gpu))


def test_requests_and_queues_are_not_pickled(model):
    for what in (model.create_infer_request(), clinfer.AsyncInferQueue(model, 1)):
        with pytest.raises(clinfer.ClinferError, match="send the compiled model"):
            pickle.dumps(what)


def test_a_core_is_pickled_with_its_properties(cpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": "kept"})
    core.set_property(cpu, {"NUM_STREAMS": 3})
    again = pickle.loads(pickle.dumps(core))
    assert again.get_property("CACHE_DIR") == str(tmp_path / "kept")
    assert again.get_property(cpu, "NUM_STREAMS") == 3
