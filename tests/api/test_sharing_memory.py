"""Memory of others: DLPack, given arrays, OpenCL's buffers."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from onnx import TensorProto

import clinfer
from api.made import dense_answer, dense_model, one_node
from documents import run_examples
from platforms import platform

FLOAT = TensorProto.FLOAT


class Exchanged:
    """What speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device, 0


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((5, 24)).astype(np.float32)


KEPT: dict = {}
"""Models that tests have in common, by the device or context they are compiled for."""


@pytest.fixture
def model(core, device):
    if device not in KEPT:
        KEPT[device] = core.compile_model(dense_model(), device)
    return KEPT[device]


# -- on the host ---------------------------------------------------------------------------------


def test_dlpack_goes_in_and_out_without_a_copy(model, x):
    given = Exchanged(x)
    np.testing.assert_allclose(model(given)[0], dense_answer(x), rtol=1e-5, atol=1e-5)
    tensor = clinfer.Tensor(given, shared_memory=True)
    assert np.shares_memory(tensor.data, x)
    assert np.shares_memory(np.from_dlpack(tensor), x)
    assert np.from_dlpack(model(x)[0]).shape == (5, 10)


def test_dlpack_of_pytorch(model, x):
    torch = pytest.importorskip("torch")
    given = torch.from_numpy(x)
    np.testing.assert_allclose(model(given)[0], dense_answer(x), rtol=1e-5, atol=1e-5)
    place = torch.empty(5, 10)
    model(given, outputs=[place])
    np.testing.assert_allclose(place.numpy(), dense_answer(x), rtol=1e-5, atol=1e-5)


def test_dlpack_of_another_device_is_refused(model, x):
    with pytest.raises(clinfer.InputError, match=r"input 'x' .*\(CUDA\).*copy it to the host"):
        model(Exchanged(x, device=2))


def test_results_are_written_into_given_arrays(model, x):
    place = np.empty((5, 10), np.float32)
    results = model(x, outputs={"y": place})
    assert results[0] is place
    np.testing.assert_allclose(place, dense_answer(x), rtol=1e-5, atol=1e-5)
    request = model.create_infer_request()
    gaps = np.zeros((5, 20), np.float32)[:, ::2]
    assert request.infer(x, outputs=[gaps])[0] is gaps
    np.testing.assert_allclose(gaps, dense_answer(x), rtol=1e-5, atol=1e-5)
    tensor = clinfer.Tensor(place, shared_memory=True)
    request.set_output_tensor(tensor)
    place[:] = 0
    assert np.shares_memory(request.infer(x)[0], place)
    np.testing.assert_allclose(place, dense_answer(x), rtol=1e-5, atol=1e-5)


def square(core, device):
    """x @ x: a kernel that wrote into x would read what it has written."""
    node = {"x": (FLOAT, ["n", "n"])}, {"y": (FLOAT, ["n", "n"])}
    made = one_node("MatMul", *node)
    made.graph.node[0].input.append("x")
    x = np.random.default_rng(2).integers(-2, 3, (40, 40)).astype(np.float32)
    return core.compile_model(made, device), x


def test_a_place_that_an_input_shares_gets_the_right_result(core, device):
    model, x = square(core, device)
    expected = x @ x
    assert model(x, outputs=[x])[0] is x
    np.testing.assert_array_equal(x, expected)


def test_places_that_do_not_fit_are_said(model, x):
    with pytest.raises(clinfer.InputError, match=r"output 'y' has float32 elements.*float64"):
        model(x, outputs=[np.empty((5, 10))])
    with pytest.raises(clinfer.ShapeError, match=r"output 'y' has the shape \[5, 10\].*\[4, 10\]"):
        model(x, outputs=[np.empty((4, 10), np.float32)])
    place = np.empty((5, 10), np.float32)
    place.flags.writeable = False
    with pytest.raises(clinfer.InputError, match="cannot be written to"):
        model(x, outputs=[place])
    with pytest.raises(clinfer.InputError, match=r"output 'y'.*cannot be written to"):
        tensor = clinfer.Tensor(place, shared_memory=True)
        model.create_infer_request().set_output_tensor(tensor)
    with pytest.raises(clinfer.InputError, match=r"'q'"):
        model(x, outputs={"q": place})


def test_a_place_may_be_of_a_class_over_arrays(model, x, tmp_path):
    expected = model(x)[0]
    for place in (
        np.zeros((5, 10), np.float32).view(np.matrix),
        np.memmap(tmp_path / "place", np.float32, "w+", shape=(5, 10)),
    ):
        assert model(x, outputs=[place])[0] is place
        np.testing.assert_array_equal(np.asarray(place), expected)
    with pytest.raises(clinfer.InputError, match="'y': a masked array"):
        model(x, outputs=[np.ma.masked_all((5, 10), np.float32)])


def test_results_have_memory_of_their_own(core, device):
    kind = TensorProto.FLOAT
    made = one_node("Split", {"x": (kind, [2, 4])}, {n: (kind, [2, 2]) for n in "yz"}, axis=1)
    model = core.compile_model(made, device)
    x, both = np.arange(8, dtype=np.float32).reshape(2, 4), np.zeros((2, 4), np.float32)
    for y, z in ((both[:, :2], both[:, :2]), (both[:, :2], both[:, 1:3]), (both[::-1, :2],) * 2):
        with pytest.raises(clinfer.InputError, match="'y' and 'z' are to be written to the same"):
            model(x, outputs=[y, z])
    model(x, outputs=[both[:, 2:], both[:, :2]])
    np.testing.assert_array_equal(both, x[:, [2, 3, 0, 1]])
    tensor = clinfer.Tensor(np.zeros((2, 2), np.float32))
    request = model.create_infer_request()
    request.set_tensor("y", tensor)
    with pytest.raises(clinfer.InputError, match="'y' and 'z'"):
        request.set_tensor("z", tensor)


# -- OpenCL --------------------------------------------------------------------------------------

cl = pytest.importorskip("pyopencl")
import pyopencl.array as cla  # noqa: E402

GUARD = 4096
SPIN = """
__kernel void late(__global float *x, float value, int turns)
{
    volatile float kept = value;
    for (int i = 0; i < turns; ++i) kept = kept * 1.0f;
    x[get_global_id(0)] = kept;
}
"""


@pytest.fixture(scope="module")
def queue():
    name = platform().lower()
    found = [p for p in cl.get_platforms() if name in p.name.lower()]
    if not found:
        pytest.skip(f"no platform {name}")
    return cl.CommandQueue(cl.Context(found[0].get_devices()[:1]))


@pytest.fixture
def remote(queue, device):
    return clinfer.RemoteContext(queue, device)


@pytest.fixture
def shared(core, remote):
    """The model, compiled for pyopencl's context."""
    key = "shared", remote.get_device_name()
    if key not in KEPT:
        KEPT[key] = core.compile_model(dense_model(), remote)
    return KEPT[key]


def within_guards(queue, nbytes: int):
    """A part of a buffer filled with bytes, and what checks those around it."""
    whole = cl.Buffer(queue.context, cl.mem_flags.READ_WRITE, nbytes + 2 * GUARD)
    filled = np.full(nbytes + 2 * GUARD, 0x5A, np.uint8)
    cl.enqueue_copy(queue, whole, filled)

    def check() -> None:
        found = np.empty_like(filled)
        cl.enqueue_copy(queue, found, whole)
        assert (found[:GUARD] == 0x5A).all()
        assert (found[GUARD + nbytes :] == 0x5A).all()

    return whole.get_sub_region(GUARD, nbytes), check


def test_the_documents_examples_run(cpu, queue):
    run_examples("sharing-memory.md")


def test_arrays_of_pyopencl_are_used_in_place_between_guards(shared, queue, x):
    ins, check_ins = within_guards(queue, x.nbytes)
    outs, check_outs = within_guards(queue, 200)
    given = cla.Array(queue, (5, 24), np.float32, data=ins)
    place = cla.Array(queue, (5, 10), np.float32, data=outs)
    given.set(x)
    for _ in range(2):
        place.fill(7)
        assert shared(given, outputs=[place])[0] is place
        np.testing.assert_allclose(place.get(), dense_answer(x), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(given.get(), x)
        check_ins()
        check_outs()
    np.testing.assert_allclose(shared(given)[0], dense_answer(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(shared(x, outputs=[place])[0].get(), dense_answer(x), atol=1e-5)
    np.testing.assert_allclose(shared(x)[0], dense_answer(x), rtol=1e-5, atol=1e-5)


def test_a_run_comes_after_what_the_queue_was_given(core, cpu, queue):
    node = {"x": (FLOAT, [64])}, {"y": (FLOAT, [64])}
    model = core.compile_model(one_node("Neg", *node), clinfer.RemoteContext(queue, cpu))
    kernel = cl.Program(queue.context, SPIN).build().late
    given = cla.zeros(queue, 64, np.float32)
    model(given)
    start = time.perf_counter()
    kernel(queue, (64,), (1,), given.data, np.float32(3), np.int32(1 << 17))
    result = model(given)[0]
    assert (result == -3).all(), time.perf_counter() - start
    # A buffer has no queue of its own; the context's is followed.
    kernel(queue, (64,), (1,), given.data, np.float32(4), np.int32(1 << 17))
    assert (model(given.data)[0] == -4).all()


def test_what_begins_inside_a_buffer_is_right_too(shared, queue, remote, x):
    whole = cla.to_device(queue, np.concatenate([np.full((3, 24), np.nan, np.float32), x]))
    place = cla.zeros(queue, (6, 10), np.float32)
    shared(whole[3:], outputs=[place[1:]])
    np.testing.assert_allclose(place.get()[1:], dense_answer(x), rtol=1e-5, atol=1e-5)
    assert (place.get()[0] == 0).all()
    tensor = clinfer.RemoteTensor(remote, whole.base_data, "f32", [5, 24], offset=3 * 96)
    np.testing.assert_array_equal(np.asarray(tensor), x)
    np.testing.assert_allclose(shared(tensor)[0], dense_answer(x), rtol=1e-5, atol=1e-5)


def test_a_result_in_an_inputs_buffer_is_right(core, remote, queue):
    model, x = square(core, remote)
    given = cla.to_device(queue, x)
    model(given, outputs=[given])
    np.testing.assert_array_equal(given.get(), x @ x)


def test_arrays_without_elements(shared, queue):
    given, place = (cla.empty(queue, (0, n), np.float32) for n in (24, 10))
    assert shared(given)[0].shape == (0, 10)
    assert shared(given, outputs=[place])[0].shape == (0, 10)


def test_sizes_that_come_out_of_the_run(core, remote, queue):
    node = {"x": (FLOAT, ["n"])}, {"y": (TensorProto.INT64, None)}
    model = core.compile_model(one_node("NonZero", *node), remote)
    given = cla.to_device(queue, np.array([0, 3, 0, 5], np.float32))
    np.testing.assert_array_equal(model(given)[0], [[1, 3]])
    place = remote.create_tensor("i64", [1, 2])
    model(given, outputs=[place])
    np.testing.assert_array_equal(np.asarray(place), [[1, 3]])
    with pytest.raises(clinfer.InputError, match=r"shape \[1, 2\].*\[1, 3\]"):
        model(given, outputs=[remote.create_tensor("i64", [1, 3])])


def test_requests_in_openvinos_words(core, remote, shared, x):
    request = shared.create_infer_request()
    given, place = remote.create_tensor("f32", [5, 24]), remote.create_tensor("f32", [5, 10])
    given.copy_from(x)
    request.set_tensor("x", given)
    request.set_output_tensor(place)
    request.infer()
    assert request.get_output_tensor() is place
    request.start_async()
    request.wait()
    found = np.empty((5, 10), np.float32)
    place.copy_to(found)
    np.testing.assert_allclose(found, dense_answer(x), rtol=1e-5, atol=1e-5)
    assert place.byte_size == 200
    assert place.get_params()["MEM_HANDLE"] == place.int_ptr
    assert shared.get_context().get_params()["OCL_CONTEXT"] == remote.int_ptr
    with pytest.raises(clinfer.InputError, match="copy_to"):
        _ = place.data
    with pytest.raises(clinfer.ClinferError, match="belongs to its process"):
        pickle.dumps(place)


def test_clinfers_own_context_gives_tensors_too(core, cpu, x):
    model = core.compile_model(dense_model(), cpu)
    tensor = core.get_default_context(cpu).create_tensor("f32", [5, 24])
    tensor.copy_from(x)
    np.testing.assert_allclose(model(tensor)[0], dense_answer(x), rtol=1e-5, atol=1e-5)


def test_another_context_is_said_with_what_to_do(model, queue, x):
    theirs, ours = queue.context.int_ptr, model.get_context().int_ptr
    said = rf"input 'x' .*{theirs:#x}.*compiled for {ours:#x}.*clinfer\.RemoteContext"
    with pytest.raises(clinfer.InputError, match=said):
        model(cla.to_device(queue, x))
    np.testing.assert_allclose(model(x)[0], dense_answer(x), rtol=1e-5, atol=1e-5)


def test_buffers_are_never_used_beyond_their_ends(core, cpu, queue, x):
    remote = clinfer.RemoteContext(queue, cpu)
    fixed = core.compile_model(dense_model(rows=5), remote)
    flags = cl.mem_flags.READ_WRITE
    small = cl.Buffer(queue.context, flags, x.nbytes - 4)
    with pytest.raises(clinfer.InputError, match=r"needs 480 bytes.*the buffer has 476"):
        fixed(small)
    with pytest.raises(
        clinfer.InputError, match=r"output 'y'.*needs 200 bytes.*the buffer has 196"
    ):
        fixed(x, outputs=[cl.Buffer(queue.context, flags, 196)])
    with pytest.raises(clinfer.InputError, match="needs 480 bytes"):
        clinfer.RemoteTensor(remote, small, "f32", [5, 24])
    with pytest.raises(clinfer.InputError, match="offset counts bytes"):
        clinfer.RemoteTensor(remote, small, "f32", [1, 24], offset=-96)


def test_what_does_not_fit_is_said(core, shared, remote, device, queue, x):
    model = shared
    with pytest.raises(clinfer.InputError, match=r"float32 elements.*float64"):
        model(cla.zeros(queue, (5, 24), np.float64))
    with pytest.raises(clinfer.InputError, match=r"shape \[5, 23\]"):
        model(cla.zeros(queue, (5, 23), np.float32))
    with pytest.raises(clinfer.InputError, match="gaps"):
        model(cla.zeros(queue, (24, 5), np.float32).T)
    with pytest.raises(clinfer.InputError, match=r"free sizes.*RemoteTensor"):
        model(cla.to_device(queue, x).data)
    with pytest.raises(clinfer.InputError, match="is no buffer"):
        model(queue)
    reading = cl.Buffer(queue.context, cl.mem_flags.READ_ONLY, 200)
    with pytest.raises(clinfer.InputError, match="READ_ONLY"):
        model(x, outputs=[clinfer.RemoteTensor(remote, reading, "f32", [5, 10])])
    with pytest.raises(clinfer.InputError, match=r"output 'y'.*\[5, 10\].*\[4, 10\]"):
        model(x, outputs=[remote.create_tensor("f32", [4, 10])])
    for wrong in (object(), "CPU", True):
        with pytest.raises(clinfer.InputError, match="pyopencl's Context"):
            clinfer.RemoteContext(wrong)
    with pytest.raises(clinfer.PropertyError, match="OCL_CONTEXT"):
        core.create_context(device, {"VA_DEVICE": 1})
    for wrong in ("OCL_CONTEXT", 5):
        with pytest.raises(clinfer.PropertyError, match="dict"):
            core.create_context(device, wrong)
        with pytest.raises(clinfer.PropertyError, match="dict"):
            remote.create_tensor("f32", [3], wrong)
    with pytest.raises(clinfer.InputError, match="None is no element type"):
        remote.create_tensor(None, [3])
