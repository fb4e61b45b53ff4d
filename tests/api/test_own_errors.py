"""Only clinfer's errors leave it: short, picklable, and a fault of its own is called one."""

from __future__ import annotations

import io
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from onnx import TensorProto, helper

import clinfer
from api.made import dense_model, one_node
from clinfer import errors
from clinfer.device import workers
from clinfer.device.programs import SourceProgram, build
from clinfer.feeds import Feed
from clinfer.graph import numpy_ops
from clinfer.graph.reference import HostOp
from clinfer.graph.shape_rules import rules
from clinfer.lowering import table

F = TensorProto.FLOAT
RELU = one_node("Relu", {"x": (F, ["n", 3])}, {"y": (F, ["n", 3])})
NODE = helper.make_node("Odd", ["x"], ["y"]).SerializeToString()
CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_go_through_pickle(kind):
    error = kind('Conv "a": expected 1, found 2')
    error.note = 7
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.note == 7


def test_the_log_of_a_build_goes_through_pickle():
    again = pickle.loads(pickle.dumps(clinfer.BuildError("short", "all\nthe log")))
    assert (str(again), again.log) == ("short", "all\nthe log")


def _reads_nothing():
    clinfer.Core().read_model("absent.onnx")


def test_an_error_crosses_a_process_pool():
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
        pytest.raises(clinfer.ModelError, match=r"absent\.onnx"),
    ):
        pool.submit(_reads_nothing).result()


def test_a_process_whose_folder_is_gone_is_told_so(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(clinfer.ClinferError, match="folder that this process works in is gone"):
        clinfer.Core().read_model("m.onnx")


def test_messages_are_short_and_printable():
    hostile = "\x1b[31m\0" + "x" * 100_000
    error = clinfer.ShapeError(f"input '{hostile}': expected 1; give it another shape")
    assert len(str(error)) < 2200
    assert str(error).isprintable()
    assert str(error).endswith("give it another shape")


def test_long_lists_are_counted():
    assert errors.listed(range(200)) == "0, 1, 2, 3, 4, 5, 6, 7 and 192 more"
    assert errors.listed("ab") == "a, b"


@pytest.mark.parametrize("given", [{}, {"z": 1}, [1]])
def test_a_model_of_many_inputs_names_a_few(core, given):
    inputs = {f"x{i}": (F, [2]) for i in range(200)}
    model = core.read_model(one_node("Sum", inputs, {"y": (F, [2])}))
    with pytest.raises(clinfer.InputError, match="and 192 more") as caught:
        Feed(model.inputs).arranged(given)
    assert len(str(caught.value)) < 500


def test_an_operator_that_onnxs_evaluator_lacks_is_named_alone():
    step = HostOp('Odd "o"', "Odd", NODE, (("", 18),), ("x",), ("float32",))
    with pytest.raises(clinfer.UnsupportedError, match=r'Odd "o" has no kernel') as caught:
        step.run([np.ones(2, np.float32)])
    assert len(str(caught.value)) < 500


class _Broken:
    """Raises what a mistake in our own code would."""

    def __init__(self, error):
        self._error = error

    def __call__(self, *_args):
        raise self._error


MISTAKES = [KeyError("axis"), TypeError("no"), AssertionError(), ZeroDivisionError("by zero")]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda e: type(e).__name__)
def test_a_mistake_in_a_shape_rule_is_not_the_models_fault(core, monkeypatch, mistake):
    monkeypatch.setitem(rules(), "Relu", _Broken(mistake))
    with pytest.raises(clinfer.InternalError, match=r'Relu "only".*report') as caught:
        core.read_model(RELU)
    assert caught.value.__cause__ is mistake


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda e: type(e).__name__)
def test_a_mistake_in_a_lowering_names_the_node(core, cpu, monkeypatch, mistake):
    monkeypatch.setitem(table.rules(), "clinfer.Pointwise", _Broken(mistake))
    with pytest.raises(clinfer.InternalError, match=r'Pointwise "only".*report'):
        core.compile_model(RELU, cpu)


def test_a_mistake_in_a_run_is_an_internal_error(core, cpu, monkeypatch):
    from clinfer.device import executor

    model = core.compile_model(RELU, cpu)
    monkeypatch.setattr(executor, "bind_inputs", _Broken(KeyError("n")))
    with pytest.raises(clinfer.InternalError, match="report"):
        model(np.ones((2, 3), np.float32))


def test_arguments_that_no_method_has_stay_pythons_errors(core):
    with pytest.raises(TypeError, match="device_index"):
        core.compile_model(RELU, device_index=1)


def test_files_of_the_user_that_fail_are_his(core, cpu):
    class Bad(io.RawIOBase):
        def read(self, *_args):
            raise RuntimeError("torn")

        def write(self, *_args):
            raise RuntimeError("torn")

    with pytest.raises(clinfer.InputError, match="torn"):
        core.import_model(Bad(), cpu)
    with pytest.raises(clinfer.InputError, match="torn"):
        core.compile_model(RELU, cpu).export_model(Bad())


def _host(op: str, inputs: dict, outputs: dict, **attrs) -> HostOp:
    graph = clinfer.Core().read_model(one_node(op, inputs, outputs, **attrs)).graph()
    return HostOp.from_node(graph.nodes[0], graph.opsets)


INT64 = TensorProto.INT64


def test_a_host_step_names_itself_and_what_it_was_given():
    gather = _host("Gather", {"x": (F, ["n"]), "i": (INT64, ["m"])}, {"y": (F, ["m"])})
    with pytest.raises(clinfer.InputError, match=r'Gather "only": an index along axis 0 is 7'):
        gather.run([np.ones(3, np.float32), np.array([7])])
    reshape = _host("Reshape", {"x": (F, ["n"]), "s": (INT64, [1])}, {"y": (F, ["m"])})
    with pytest.raises(clinfer.ShapeError, match=r'Reshape "only".*float32\[3\]'):
        reshape.run([np.ones(3, np.float32), np.array([5])])


def test_a_step_that_the_memory_does_not_hold_says_so(monkeypatch):
    expand = _host("Expand", {"x": (F, [1]), "s": (INT64, [1])}, {"y": (F, ["m"])})
    function = _Broken(MemoryError("Unable to allocate 8.00 EiB for an array of shape (2**60,)"))
    monkeypatch.setitem(numpy_ops.TABLE, "Expand", function)
    with pytest.raises(clinfer.OutOfMemoryError, match=r'Expand "only".*8\.00 EiB.*smaller'):
        expand.run([np.ones(1, np.float32), np.array([2])])


def test_what_does_not_build_says_the_first_error_and_keeps_the_log(core, cpu):
    device = core.compile_model(dense_model(), cpu).device
    broken = SourceProgram("__kernel void broken() {\n  nonsense here;\n}", "", "broken")
    with pytest.raises(clinfer.BuildError, match=r"kernel 'broken': .*error: .*nonsense") as caught:
        build(device, [broken])
    assert "\n" not in str(caught.value)
    assert "   2   nonsense here;" in caught.value.log


_SLOW_COMPILER = """import os, sys, time
sys.path[:] = {path!r}
from clinfer.device import compiling
def compile_to_binary(context, source, quirks):
    open(MARK, "w").close()
    time.sleep(3600)
compiling.compile_to_binary = compile_to_binary
from clinfer.device.worker import main
main()
"""


def test_ctrl_c_ends_a_cold_compilation_and_the_processes(core, cpu, monkeypatch, tmp_path):
    """The compiler would take an hour."""
    mark = tmp_path / "compiling"
    start = _SLOW_COMPILER.replace("MARK", repr(str(mark)).replace("{", "{{"))
    monkeypatch.setattr(workers, "_START", start)
    device = core._device(cpu)
    pool = workers.Pool({"platform": device.info.platform, "device": device.info.full_name})
    monkeypatch.setattr(workers, "pool_of", lambda _device: pool)
    started = []
    launch = workers.subprocess.Popen

    def popen(*args, **options):
        started.append(launch(*args, **options))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", popen)
    over = threading.Event()

    def interrupt():
        while not over.wait(0.05):
            if mark.exists():
                signal.raise_signal(signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        core.compile_model(RELU, cpu)
    over.set()
    thread.join()
    pool.close()
    for process in started:
        process.wait(timeout=60)


NO_SHAPES = [5, 2.5, {1, 2}, Ellipsis, [2.5, 4], [(8, 1), 4], [[1], [1, 2]], [True, 4], [2, 2, 2]]


@pytest.mark.parametrize("shape", NO_SHAPES, ids=repr)
def test_what_is_no_shape_is_refused(core, shape):
    model = core.read_model(RELU)
    with pytest.raises((clinfer.InputError, clinfer.ShapeError), match="'x'"):
        model.reshape({"x": shape})
    assert model.inputs[0].shape == ("n", 3)


@pytest.mark.parametrize("shape", [np.array([2, 3]), (np.int32(2), 3), [2, 3], ("k", None)])
def test_shapes_of_several_kinds_are_taken(core, shape):
    model = core.read_model(RELU)
    model.reshape({model.inputs[0]: shape})
    assert model.inputs[0].shape in ((2, 3), ("k", None))


@pytest.mark.parametrize("odd", [5, b"x", [1], None, np.zeros(3)], ids=repr)
def test_what_is_no_property_is_refused(core, cpu, odd):
    with pytest.raises(clinfer.PropertyError):
        core.set_property(cpu, odd)
    if odd is not None:
        with pytest.raises(clinfer.PropertyError):
            core.get_property(cpu, odd)
