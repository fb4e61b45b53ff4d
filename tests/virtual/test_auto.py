"""AUTO: the CPU's answers until the GPU is ready, then the GPU's; nothing lost between them."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import clinfer
from api.made import dense_answer, dense_model, save
from clinfer.device import executor, programs
from virtual.conftest import LIMIT

CPU_FIRST, GPU = ["(CPU)"], ["GPU"]


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 24)).astype(np.float32)


def check(found, x) -> None:
    np.testing.assert_allclose(found, dense_answer(x), rtol=1e-4, atol=1e-5)


def on(model):
    return model.get_property("EXECUTION_DEVICES")


def test_the_cpu_answers_until_the_gpu_is_ready(core, gate):
    model = core.compile_model(dense_model(), "AUTO:GPU,CPU")
    x = rows(3)
    request = model.create_infer_request()
    check(model(x)[0], x)
    check(request.infer(x)[0], x)
    assert gate.arrived.wait(LIMIT)
    assert on(model) == CPU_FIRST
    assert model.device.info.name == "CPU"
    gate.finish()
    check(model(x)[0], x)
    check(request.infer(x)[0], x)
    assert on(model) == GPU
    assert model.device.info.name == "GPU"
    assert model.get_property("MULTI_DEVICE_PRIORITIES") == "GPU,CPU"
    assert "AUTO:GPU,CPU, now on GPU" in repr(model)
    assert request.profiling_info


def test_no_answer_is_lost_or_swapped_at_the_hand_over(core, gate):
    model = core.compile_model(dense_model(), "AUTO", {"NUM_STREAMS": 4})
    data = [rows(1 + seed % 3, seed) for seed in range(40)]
    threads, errors, answered = 6, [], []
    begun = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        try:
            request = model.create_infer_request() if number % 2 else None
            for turn, x in enumerate(data):
                if turn == len(data) // 4:
                    begun.wait(LIMIT)  # all threads are in the middle when the gate opens
                found = model(x) if request is None else request.infer(x)
                check(found[0], x)
                answered.append((number, turn))
            gate.finish()
            for x in data:
                check((model(x) if request is None else request.infer(x))[0], x)
        except BaseException as error:
            errors.append(error)

    started = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in started:
        thread.start()
    queue, found = clinfer.AsyncInferQueue(model, 4), {}
    queue.set_callback(lambda request, key: found.update({key: request.results[0].copy()}))
    begun.wait(LIMIT)
    for key, x in enumerate(data):
        queue.start_async(x, key)
        if key == len(data) // 4:
            gate.open()
    queue.wait_all()
    for thread in started:
        thread.join(LIMIT)
    assert not errors
    assert len(answered) == threads * len(data)
    assert on(model) == GPU
    assert sorted(found) == list(range(len(data)))
    for key, x in enumerate(data):
        check(found[key], x)


def test_a_gpu_that_cannot_compile_leaves_the_cpu_with_a_warning(core, gate, caplog):
    gate.error = clinfer.BuildError("kernel 'k' does not build")
    model = core.compile_model(dense_model(), "AUTO:GPU,CPU")
    gate.finish()
    x = rows(2)
    check(model(x)[0], x)
    assert on(model) == ["CPU"]
    assert "AUTO stays on CPU: kernel 'k' does not build" in caplog.text


def test_a_fault_of_ours_in_the_background_is_told_as_one(core, gate, caplog):
    gate.error = KeyError("x")
    model = core.compile_model(dense_model(), "AUTO:GPU,CPU")
    gate.finish()
    assert on(model) == ["CPU"]
    assert "fault of clinfer" in caplog.text


def test_where_the_cpu_cannot_help_the_gpu_is_waited_for(core, gate, monkeypatch):
    from clinfer.plugins.cpu import CpuPlugin

    def refuse(self, source, request):
        raise clinfer.BuildError("no")

    monkeypatch.setattr(CpuPlugin, "compile", refuse)
    gate.open()
    assert on(core.compile_model(dense_model(), "AUTO:GPU,CPU")) == GPU
    gate.error = clinfer.DeviceError("the GPU's own")
    with pytest.raises(clinfer.DeviceError, match="the GPU's own"):
        core.compile_model(dense_model(), "AUTO:GPU,CPU")


def test_without_fallback_at_startup_compile_model_waits(core, gate):
    gate.open()
    model = core.compile_model(dense_model(), "AUTO", {"ENABLE_STARTUP_FALLBACK": False})
    assert on(model) == GPU
    core.set_property("AUTO", {"ENABLE_STARTUP_FALLBACK": "NO"})
    assert on(core.compile_model(dense_model())) == GPU
    assert core.get_property("AUTO", "ENABLE_STARTUP_FALLBACK") is False
    assert core.get_property("CPU", "ENABLE_STARTUP_FALLBACK") is True


def test_a_list_that_begins_with_the_cpu_is_the_cpu(core, gate):
    model = core.compile_model(dense_model(), "AUTO:CPU,GPU")
    assert on(model) == ["CPU"]
    assert not gate.arrived.is_set()


def test_errors_reach_the_caller_on_either_side(core, gate, monkeypatch):
    model = core.compile_model(dense_model(), "AUTO:GPU,CPU")
    request = model.create_infer_request()
    for _ in range(2):
        with pytest.raises(clinfer.InputError, match="'x'"):
            model(np.zeros((2, 3), np.float32))
        with pytest.raises(clinfer.InputError):
            request.start_async(np.zeros((2, 3), np.float32))
        gate.finish()
    really = executor.Session.run

    def fail(self, *inputs):
        if self.loaded.device.info.name == "GPU":
            raise clinfer.DeviceError("the GPU has gone")
        return really(self, inputs)

    monkeypatch.setattr(executor.Session, "run", fail)
    with pytest.raises(clinfer.DeviceError, match="has gone"):
        model(rows(1))
    request.start_async(rows(1))
    with pytest.raises(clinfer.DeviceError, match="has gone"):
        request.wait()


def test_a_fault_of_the_model_is_raised_at_once(core, gate):
    with pytest.raises(clinfer.ModelError):
        core.compile_model(b"no model", "AUTO:GPU,CPU")
    assert not gate.arrived.is_set()


def test_a_model_dropped_while_it_compiles_leaves_nothing(core, gate, monkeypatch):
    model = core.compile_model(dense_model(), "AUTO:GPU,CPU", {"CACHE_MODE": "read-only"})
    built = []
    monkeypatch.setattr(programs, "build", lambda *_: built.append(1))
    group, session = weakref.ref(model._group), weakref.ref(model._session())
    assert gate.arrived.wait(LIMIT)
    del model
    gc.collect()
    assert (group(), session()) == (None, None)
    gate.finish()
    assert not built


def test_the_cpus_sessions_are_given_back(core, gate):
    model = core.compile_model(dense_model(), "AUTO:GPU,CPU")
    helper = weakref.ref(model._group.main)
    request = model.create_infer_request()
    request.infer(rows(1))
    model(rows(1))
    gate.finish()
    gc.collect()
    assert helper() is None


def test_what_the_user_makes_of_the_model_later_is_not_compiled(core, gate):
    read = core.read_model(dense_model())
    model = core.compile_model(read, "AUTO:GPU,CPU")
    read.reshape([7, 24])
    gate.finish()
    assert on(model) == GPU
    check(model(rows(2))[0], rows(2))


def test_a_changed_file_is_not_handed_over_to(core, gate, tmp_path, caplog):
    path = save(dense_model(), tmp_path / "m.onnx")
    core.compile_model(path, "CPU")
    model = core.compile_model(path, "AUTO:GPU,CPU")
    assert model.get_property("LOADED_FROM_CACHE")
    assert gate.arrived.wait(LIMIT)
    save(dense_model(1), path)
    gate.finish()
    assert on(model) == ["CPU"]
    check(model(rows(2))[0], rows(2))
    assert "has changed" in caplog.text


def test_pickled_as_its_file_and_not_exported(core, gate, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    model = core.compile_model(path, "AUTO:GPU,CPU", {"PERF_COUNT": True})
    gate.finish()
    again = pickle.loads(pickle.dumps(model))
    check(again(rows(2))[0], rows(2))
    assert again.get_property("MULTI_DEVICE_PRIORITIES") == "GPU,CPU"
    assert again.profiling_info
    with pytest.raises(clinfer.DeviceError, match="compile_model"):
        model.export_model()
    with pytest.raises(clinfer.DeviceError, match="not pickled"):
        pickle.dumps(core.compile_model(dense_model(), "AUTO:GPU,CPU"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_meanwhile_stays_on_the_cpu(core, gate):
    model = core.compile_model(dense_model(), "AUTO:GPU,CPU")
    if model.plan is None or model._group.main._loaded.executable.player is None:
        pytest.skip("this CPU runtime needs its driver's queue")
    assert gate.arrived.wait(LIMIT)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            check(model(rows(2))[0], rows(2))
            code = 0 if on(model) == ["CPU"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


ENDLESS = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import clinfer
from clinfer.plugins.gpu import GpuPlugin
compiling = threading.Event()
def build(shown):
    compiling.set()
    while True:
        time.sleep(0.01)
        shown.step("k")
def endless(self, source, request):
    with request.watch("build", 1) as shown, ThreadPoolExecutor(1) as pool:
        pool.submit(build, shown).result()
GpuPlugin.compile = endless
core = clinfer.Core()
core.set_property({"CACHE_DIR": sys.argv[1]})
model = core.compile_model(sys.argv[2], "AUTO:GPU,CPU")
compiling.wait()
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("os.kill(os.getpid(), signal.SIGINT)", None)])
def test_the_end_of_the_program_ends_the_compile(cache, tmp_path, end, code):
    path = save(dense_model(), tmp_path / "m.onnx")
    program = f"{ENDLESS}\n{end}\nif {code is None}: time.sleep({LIMIT})"
    command = [sys.executable, "-c", program, cache, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert ("KeyboardInterrupt" in done.stderr) == (code is None)
    assert code is None or done.returncode == code, done.stderr


def test_one_device_loads_none_of_this(cache, tmp_path):
    path = save(dense_model(), tmp_path / "m.onnx")
    code = (
        "import sys, clinfer\ncore = clinfer.Core()\n"
        "core.set_property({'CACHE_DIR': sys.argv[1]})\n"
        "core.compile_model(sys.argv[2], 'CPU')\ncore.compile_model(sys.argv[2], 'AUTO:CPU')\n"
        "print([n for n in sys.modules if n.startswith('clinfer.virtual')])"
    )
    command = [sys.executable, "-c", code, cache, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
