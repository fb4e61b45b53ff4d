"""What the host does for a run on a queue: which calls it makes, and with what memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer
from api.made import finished
from clinfer.device import loader, staging, workers
from clinfer.device.binding import mem_flags
from clinfer.device.discover import open_device
from clinfer.device.programs import SourceProgram, build
from driver_faults import OUT_OF_RESOURCES, Driver, Fault
from fault_operations import own_memory

WIDTH = 256
LAUNCHES = 20


def chain(length: int) -> onnx.ModelProto:
    """x [rows, 256] through so many products, a Softmax behind each."""
    nodes, weights, name = [], [], "x"
    generator = np.random.default_rng(0)
    for i in range(length):
        weight = (generator.standard_normal((WIDTH, WIDTH)) / 4).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{i}"], [f"p{i}"]))
        name = "y" if i == length - 1 else f"s{i}"
        nodes.append(helper.make_node("Softmax", [f"p{i}"], [name], axis=-1))
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", WIDTH]) for n in "xy"]
    return finished(helper.make_graph(nodes, "chain", shapes[:1], shapes[1:], weights))


def answer(x: np.ndarray, model: onnx.ModelProto) -> np.ndarray:
    """What NumPy makes of it."""
    for tensor in model.graph.initializer:
        product = x @ numpy_helper.to_array(tensor)
        raised = np.exp(product - product.max(axis=-1, keepdims=True))
        x = raised / raised.sum(axis=-1, keepdims=True)
    return x


def rows(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """PoCL as a GPU; programs are built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLINFER_GPU_PLATFORM", "Portable")
        patch.setenv("CLINFER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def long(gpu: None) -> onnx.ModelProto:
    """A model of more launches than are queued before the device is told to begin."""
    return chain(LAUNCHES)


@pytest.fixture(params=["shared", "own"])
def memory(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device's memory."""
    if request.param == "shared":
        yield request.param
        return
    with own_memory():
        yield request.param


@contextmanager
def calls(*names: str) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    """The arguments of each call of some functions of OpenCL."""
    library = loader.functions()
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in names}

    def noted(name: str, original: Any) -> Any:
        def call(*arguments: Any) -> Any:
            found[name].append(arguments)
            return original(*arguments)

        call.restype = original.restype  # type: ignore[attr-defined]
        return call

    with mock.patch.multiple(library, **{n: noted(n, getattr(library, n)) for n in names}):
        yield found


def test_pinned_memory_is_mapped_once_and_all_copies_go_through_it(long, memory):
    with calls("clEnqueueMapBuffer", "clEnqueueWriteBuffer", "clEnqueueReadBuffer") as seen:
        model = clinfer.Core().compile_model(long, "GPU")
        request = model.create_infer_request()
        uploads = len(seen["clEnqueueWriteBuffer"])
        given = [rows(4, i) for i in range(3)]
        found = [request.infer([x])["y"] for x in given]
        for x, y in zip(given, found, strict=True):
            np.testing.assert_allclose(y, answer(x, long), rtol=1e-4, atol=1e-6)
    copies = [*seen["clEnqueueWriteBuffer"][uploads:], *seen["clEnqueueReadBuffer"]]
    ours = {array.ctypes.data for array in (*given, *found)}
    direct = [place for place in copies if place[5] in ours]
    assert len(seen["clEnqueueMapBuffer"]) == (memory == "own")
    assert len(direct) == (6 if memory == "shared" else 0)


def test_more_rows_than_before_are_mapped_anew_and_too_many_not_at_all(long, monkeypatch):
    with own_memory(), calls("clEnqueueMapBuffer") as seen:
        request = clinfer.Core().compile_model(long, "GPU").create_infer_request()
        for count, maps in ((2, 1), (16, 2), (3, 2)):
            x = rows(count)
            np.testing.assert_allclose(
                request.infer([x])["y"], answer(x, long), rtol=1e-4, atol=1e-6
            )
            assert len(seen["clEnqueueMapBuffer"]) == maps
        monkeypatch.setattr(staging, "MOST", 4096)
        request = clinfer.Core().compile_model(long, "GPU").create_infer_request()
        for count in (2, 40):
            x = rows(count)
            np.testing.assert_allclose(
                request.infer([x])["y"], answer(x, long), rtol=1e-4, atol=1e-6
            )


def test_an_input_with_gaps_arrives_as_it_is(long):
    with own_memory():
        model = clinfer.Core().compile_model(long, "GPU")
        x = rows(8)[::2]
        np.testing.assert_allclose(model(x)["y"], answer(x, long), rtol=1e-4, atol=1e-6)


def test_without_pinned_memory_runs_are_right(long):
    with own_memory(), Driver() as driver:
        request = clinfer.Core().compile_model(long, "GPU").create_infer_request()
        x = rows(4)
        with driver.recording() as points:
            request.infer([x])
        at = next(i for i, p in enumerate(points) if p.function == "clEnqueueMapBuffer")
        request = clinfer.Core().compile_model(long, "GPU").create_infer_request()
        with driver.failing(Fault(at, OUT_OF_RESOURCES)):
            y = request.infer([x])["y"]
        assert driver.hit == "clEnqueueMapBuffer"
        np.testing.assert_allclose(y, answer(x, long), rtol=1e-4, atol=1e-6)


def test_the_device_is_told_to_begin_while_launches_are_queued(long):
    with Driver() as driver:
        request = clinfer.Core().compile_model(long, "GPU").create_infer_request()
        request.infer([rows(4)])
        with driver.recording() as points:
            request.infer([rows(4)])
    names = [point.function for point in points]
    launches = [i for i, name in enumerate(names) if name == "clEnqueueNDRangeKernel"]
    assert len(launches) == LAUNCHES
    assert names[launches[0] : launches[-1]].count("clFlush") == 1
    assert names.count("clFinish") == 1


@pytest.mark.parametrize("profiling", [False, True])
def test_launches_have_events_where_times_are_kept_only(long, profiling):
    config = {"PERF_COUNT": profiling}
    with calls("clEnqueueNDRangeKernel") as seen:
        clinfer.Core().compile_model(long, "GPU", config)(rows(4))
    assert {place[-1] is not None for place in seen["clEnqueueNDRangeKernel"]} == {profiling}


def test_no_driver_is_left_a_copy_of_the_weights_on_the_host(long, memory):
    with calls("clCreateBuffer", "clEnqueueWriteBuffer") as seen:
        clinfer.Core().compile_model(long, "GPU")
    flags = [place[1] for place in seen["clCreateBuffer"]]
    assert not any(flag & mem_flags.COPY_HOST_PTR for flag in flags)
    assert sum(bool(f & mem_flags.USE_HOST_PTR) for f in flags) == (
        LAUNCHES if memory == "shared" else 0
    )
    assert len(seen["clEnqueueWriteBuffer"]) == (0 if memory == "shared" else LAUNCHES)


def test_temporaries_lie_in_several_allocations_where_one_cannot_be_so_large(long):
    x = rows(64)
    one = x.nbytes
    compiled = clinfer.Core().compile_model(long, "GPU")
    compiled.device.info = compiled.device.info._replace(max_alloc=one + 4096)
    with calls("clCreateBuffer") as seen:
        found = compiled(x)["y"]
    np.testing.assert_allclose(found, answer(x, long), rtol=1e-4, atol=1e-6)
    made = [place[2] for place in seen["clCreateBuffer"]]
    assert max(made) <= one + 4096
    assert sum(nbytes >= one for nbytes in made) == 4  # input, output, and two of temporaries
    compiled.device.info = compiled.device.info._replace(max_alloc=one // 2)
    with pytest.raises(clinfer.DeviceError, match=f"a buffer of {one}.* bytes is needed"):
        clinfer.CompiledModel._session(compiled).run([x])


def test_a_weight_larger_than_an_allocation_is_told(long):
    with own_memory():
        core = clinfer.Core()
        core._device("GPU").info = core._device("GPU").info._replace(max_alloc=1000)
        with pytest.raises(clinfer.DeviceError, match=f"a weight of {WIDTH * WIDTH * 4} bytes"):
            core.compile_model(long, "GPU")


_DOUBLE = """
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void twice(__global float *x) { x[0] *= 2; }
"""


def test_where_processes_cannot_have_the_device_programs_are_built_here(gpu, monkeypatch):
    """A GPU may be set to take one process only."""
    device = open_device("GPU")
    pool = workers.Pool({"platform": device.info.platform, "device": "none", "cpu_target": ""})
    monkeypatch.setattr(workers, "pool_of", lambda _: pool)
    (made,) = build(device, [SourceProgram(_DOUBLE, "", "twice", (1,))])
    pool.close()
    assert made.kernel() is not None
