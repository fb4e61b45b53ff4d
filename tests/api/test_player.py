"""The player gives the bits that the queue gives, whatever comes in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import clinfer
from api.made import dense_answer, dense_model, finished
from clinfer.device import machine_code
from clinfer.device.player import Tables
from clinfer.device.pocl_binary import LayoutError
from clinfer.device.queue_instance import QueueInstance
from clinfer.errors import PropertyError
from clinfer.lowering.binding import bind_inputs
from clinfer.threads import usable_cores
from clinfer_kernels.player import ENTRY, LEADS, LINE, launch_line, shares

MODELS = Path(__file__).parent.parent / "models"
RNG = np.random.default_rng(3)


def plays(model: clinfer.CompiledModel) -> bool:
    return model._loaded.executable.player is not None


def on_the_queue(model: clinfer.CompiledModel, inputs: list[np.ndarray]) -> list[np.ndarray]:
    session = model._loaded.executable.session()
    sizes = bind_inputs(session.loaded.plan, [x.shape for x in inputs])
    return QueueInstance(session.loaded, session.queue, sizes).run(inputs)


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet_b0", "resnet50"])
def test_the_player_gives_the_queues_bits(core, cpu, name):
    model = core.compile_model(MODELS / f"{name}.onnx", cpu)
    assert plays(model)
    with np.load(MODELS / f"{name}.npz") as stored:
        inputs = [stored[f"in:{port.name}"] for port in model.inputs]
    expected = on_the_queue(model, inputs)
    for streams in (1, 2, 16):
        session = model._loaded.executable.session(streams=streams)
        for _ in range(20):
            for found, wanted in zip(session.run(inputs), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_requests_of_many_threads_share_the_helpers(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    xs = [RNG.standard_normal((count, 24)).astype(np.float32) for count in (1, 300, 2000, 0)]

    def work(number: int) -> bool:
        x = xs[number % len(xs)]
        return np.allclose(model(x)[0], dense_answer(x), rtol=1e-4, atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_results_of_earlier_runs_stay(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    x = RNG.standard_normal((3, 24)).astype(np.float32)
    first = model(x)[0]
    before = first.copy()
    model(-x)
    np.testing.assert_array_equal(first, before)


def test_an_input_is_read_wherever_it_lies(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    x = RNG.standard_normal((5, 24)).astype(np.float32)
    memory = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = memory[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    unaligned.flags.writeable = False
    for given in (unaligned, np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2]):
        np.testing.assert_allclose(model(given)[0], dense_answer(x), rtol=1e-4, atol=1e-5)


def test_an_output_may_be_an_input_or_a_constant_or_another_output(core, cpu):
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Neg", ["x"], ["first"]),
        helper.make_node("Identity", ["first"], ["second"]),
        helper.make_node("Constant", [], ["three"], value_floats=[1.0, 2.0, 3.0]),
    ]
    shapes = {"same": [4], "first": [4], "second": [4], "three": [3]}
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])]
    model = core.compile_model(finished(helper.make_graph(nodes, "g", inputs, outputs)), cpu)
    x = np.arange(4, dtype=np.float32)
    for value in (x, x + 1):
        found = model(value)
        for name, expected in zip(shapes, (value, -value, -value, [1, 2, 3]), strict=True):
            np.testing.assert_array_equal(found[name], np.array(expected, np.float32))


def test_launches_before_and_after_a_host_step(core, cpu):
    model = core.compile_model(with_host_step(), cpu, {"PERF_COUNT": True})
    assert len(model.host_steps) == 1
    x = (np.eye(20) / 2 + RNG.standard_normal((20, 20)) / 40).astype(np.float32)
    expected = np.linalg.det((2 * x).astype(np.float64)) * 3
    found = model(x)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    if plays(model):
        steps = model.profiling_info
        starts = [step.start for step in steps]
        assert starts == sorted(starts)
        assert starts[0] == 0
        assert all(step.seconds >= 0 for step in steps)


def test_runs_leave_nothing_behind(core, cpu):
    """Times of host steps are kept for one run, and only where somebody asks for them."""
    model = core.compile_model(with_host_step(), cpu)
    x = np.eye(20, dtype=np.float32)
    for _ in range(3):
        model(x)
    (instance,) = model._idle[0]._instances.values()
    assert not plays(model) or not instance.timings()


def with_host_step() -> onnx.ModelProto:
    """3 det(2 x): Det has no kernel for so many rows."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Det", ["twice"], ["det"]),
        helper.make_node("Constant", [], ["three"], value_float=3.0),
        helper.make_node("Mul", ["det", "three"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [20, 20])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])]
    return finished(helper.make_graph(nodes, "g", inputs, outputs))


def test_gpus_have_no_player(core, gpu):
    model = core.compile_model(dense_model(), gpu)
    assert model.plan.player is None
    assert not plays(model)


def test_code_that_cannot_be_loaded_means_the_queue(core, cpu, monkeypatch, caplog):
    def refuse(binary: bytes, entry: str) -> None:
        raise OSError("no memory for code")

    monkeypatch.setattr(machine_code, "load", refuse)
    model = core.compile_model(dense_model(), cpu)
    x = RNG.standard_normal((3, 24)).astype(np.float32)
    np.testing.assert_allclose(model(x)[0], dense_answer(x), rtol=1e-4, atol=1e-5)
    assert not plays(model)
    assert "no memory for code" in caplog.text


def test_a_binary_without_the_kernel_is_refused(core, cpu):
    model = core.compile_model(dense_model(), cpu)
    programs = model._loaded.executable.programs
    binary = programs[model.plan.player].binary()
    assert machine_code.load(binary, ENTRY) is machine_code.load(binary, ENTRY)
    with pytest.raises(LayoutError, match="no code for kernel 'other'"):
        machine_code.load(binary, "other")


def test_shares_cover_all_groups():
    for groups in (1, 2, 7, 64, 1000):
        for threads in (1, 2, 4, 64):
            size = max(shares(groups, threads), 1)
            assert 1 <= size <= groups
    assert launch_line(3, 4) - launch_line(2, 4) == 5 * LINE


@pytest.mark.parametrize(("hint", "count"), [("LATENCY", 1), ("THROUGHPUT", None)])
def test_the_hint_decides_how_many_requests_run_side_by_side(core, cpu, hint, count):
    model = core.compile_model(dense_model(), cpu, {"PERFORMANCE_HINT": hint})
    cores = min(usable_cores(), model._device.info.compute_units)
    expected = count or cores
    assert model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == expected
    assert model.get_property("NUM_STREAMS") == expected
    queue = clinfer.AsyncInferQueue(model)
    assert len(queue) == expected
    found: dict[int, np.ndarray] = {}
    queue.set_callback(lambda request, number: found.update({number: request.results[0].copy()}))
    xs = [RNG.standard_normal((7, 24)).astype(np.float32) for _ in range(30)]
    for number, x in enumerate(xs):
        queue.start_async(x, number)
    queue.wait_all()
    for number, x in enumerate(xs):
        np.testing.assert_allclose(found[number], dense_answer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [0, 1, 2, 1000])
def test_an_inference_keeps_to_the_cores_it_is_given(core, cpu, threads):
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads}
    model = core.compile_model(dense_model(), cpu, hints)
    cores = min(usable_cores(), model.device.info.compute_units)
    assert model.get_property("NUM_STREAMS") == min(threads or cores, cores)
    x = RNG.standard_normal((7, 24)).astype(np.float32)
    np.testing.assert_allclose(model(x)[0], dense_answer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(usable_cores() == 1, reason="one core is all cores")
def test_cores_that_a_driver_takes_by_itself_cannot_be_limited(core, gpu):
    with pytest.raises(PropertyError, match=r"INFERENCE_NUM_THREADS: expected 0.*found 1"):
        core.compile_model(dense_model(), gpu, {"INFERENCE_NUM_THREADS": 1})
    for wrong in (-1, "many", True):
        with pytest.raises(PropertyError, match="a number from 1, or 0 for all cores"):
            core.compile_model(dense_model(), gpu, {"INFERENCE_NUM_THREADS": wrong})


def test_a_run_interrupted_before_it_is_led_leaves_no_helper_behind(core, cpu, monkeypatch):
    """Ctrl-C may come when helpers have been let in and the leader is not there yet."""
    interrupted = []
    make = Tables.caller

    def caller(self: Tables, first: int, end: int, role: int, crowd: int = 0):
        call = make(self, first, end, role, crowd)

        def interrupt_once(*group: int) -> None:
            if not interrupted:
                interrupted.append(role)
                raise KeyboardInterrupt
            call(*group)

        return interrupt_once if role == LEADS else call

    monkeypatch.setattr(Tables, "caller", caller)
    model = core.compile_model(dense_model(), cpu)
    x = RNG.standard_normal((20000, 24)).astype(np.float32)
    with pytest.raises(KeyboardInterrupt):
        model(x)
    for _ in range(5):
        np.testing.assert_allclose(model(x)[0], dense_answer(x), rtol=1e-4, atol=1e-4)
    assert interrupted == [LEADS]
