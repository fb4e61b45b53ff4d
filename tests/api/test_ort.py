"""ONNX Runtime's surface: each test runs with ONNX Runtime itself, and with clinfer.ort."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import clinfer
import clinfer.ort
from api import ort_models as models
from clinfer.ort.loading import core

A = np.arange(6, dtype=np.float32).reshape(2, 3)
ONES = np.ones((2, 3), np.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def fresh(cpu, cache, monkeypatch):
    """A process that has opened nothing yet; what other tests have compiled is in its cache."""
    monkeypatch.setenv("CLINFER_CACHE_DIR", cache)
    core.cache_clear()
    yield
    core.cache_clear()


@pytest.fixture(params=[onnxruntime, clinfer.ort], ids=["onnxruntime", "clinfer"])
def ort(request, fresh):
    return request.param


@pytest.fixture
def session(ort):
    return made(ort, models.sums())


def made(ort, model, **more):
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"], **more)


def state(ort):
    return ort.capi.onnxruntime_pybind11_state


def described(arguments):
    return [str(argument) for argument in arguments]


# -- running -----------------------------------------------------------------------------------


def test_run_gives_the_outputs_that_are_asked_for_in_their_order(session):
    feeds = {"a": A, "b": ONES}
    np.testing.assert_array_equal(session.run(None, feeds), [A + 1, A])
    np.testing.assert_array_equal(session.run([], feeds), [A + 1, A])
    np.testing.assert_array_equal(session.run(("z", "y", "z"), feeds), [A, A + 1, A])


def test_lists_values_and_arrays_of_any_layout_are_fed(ort, session):
    for given in (A.tolist(), ort.OrtValue.ortvalue_from_numpy(A), np.asfortranarray(A)):
        np.testing.assert_array_equal(session.run(["y"], {"a": given, "b": ONES})[0], A + 1)


@pytest.mark.parametrize(
    ("feeds", "error", "words"),
    [
        ({"a": A}, ValueError, r"Required inputs \(\['b'\]\) are missing from input feed"),
        ({"a": A, "b": A, "c": A}, "InvalidArgument", "Invalid input name: c"),
        (
            {"a": A.astype(float), "b": A},
            "InvalidArgument",
            r"Unexpected input data type. Actual: \(tensor\(double\)\) , expected: "
            r"\(tensor\(float\)\)",
        ),
        ({"a": A[0], "b": A}, "InvalidArgument", "Invalid rank for input: a Got: 1 Expected: 2"),
        (
            {"a": A[:, :2], "b": A},
            "InvalidArgument",
            "Got invalid dimensions for input: a for the following indices\n index: 1 Got: 2 "
            "Expected: 3",
        ),
        ({"a": A, "b": np.ones((5, 3), np.float32)}, "Fail", "2.*5"),
    ],
    ids=["missing", "unknown", "dtype", "rank", "size", "broadcast"],
)
def test_what_does_not_fit_raises_in_onnx_runtimes_words(ort, session, feeds, error, words):
    kind = error if isinstance(error, type) else getattr(state(ort), error)
    with pytest.raises(kind, match=words):
        session.run(None, feeds)
    np.testing.assert_array_equal(session.run(["y"], {"a": A, "b": ONES})[0], A + 1)


def test_an_unknown_output_is_named(ort, session):
    with pytest.raises(state(ort).InvalidArgument, match="Invalid output name:nothing"):
        session.run(["nothing"], {"a": A, "b": A})


def test_texts_come_as_objects_whatever_array_they_were_in(ort):
    session = made(ort, models.texts())
    for given in (np.array([["a", "ö"]]), np.array([["a", "ö"]], object), [["a", "ö"]]):
        (found,) = session.run(None, {"x": given})
        assert found.dtype == object
        assert found.tolist() == [["a", "ö"]]
    assert session.run(None, {"x": np.array([[1, 2.5]], object)})[0].tolist() == [["1", "2.5"]]


def test_sequences_are_lists(ort):
    session = made(ort, models.sequences())
    feeds = {"a": A[0], "s": [A[0], A[1]], "i": np.array(1)}
    pair, second = session.run(None, feeds)
    assert isinstance(pair, list)
    np.testing.assert_array_equal(pair, [A[0], A[0]])
    np.testing.assert_array_equal(second, A[1])
    with pytest.raises(state(ort).InvalidArgument, match="'s' expected to be of type"):
        session.run(None, {**feeds, "s": A})


def test_a_sequence_of_another_element_type_is_refused(ort):
    session = made(ort, models.sequences())
    with pytest.raises((RuntimeError, state(ort).InvalidArgument), match="data type"):
        session.run(None, {"a": A[0], "s": [A[0].astype(int)], "i": np.array(0)})


def test_an_optional_input_may_be_left_out(ort):
    session = made(ort, models.optional())
    assert described(session.get_inputs()) == [
        "NodeArg(name='maybe', type='optional(tensor(float))', shape=['N'])"
    ]
    answers = [session.run(None, feeds)[0] for feeds in ({}, {"maybe": None}, {"maybe": A[0]})]
    assert [bool(answer) for answer in answers] == [False, False, True]


def test_zip_map_gives_a_list_of_dicts(ort):
    session = made(ort, models.dictionaries())
    (found,) = session.run(None, {"p": np.array([[0.25, 0.75], [1, 0]], np.float32)})
    assert found == [{10: 0.25, 20: 0.75}, {10: 1.0, 20: 0.0}]
    assert session.get_outputs()[0].type == "seq(map(int64,tensor(float)))"


def test_an_input_with_a_default_may_be_given(ort):
    session = made(ort, models.with_default())
    assert described(session.get_overridable_initializers()) == [
        "NodeArg(name='b', type='tensor(float)', shape=[3])"
    ]
    assert [argument.name for argument in session.get_inputs()] == ["a"]
    np.testing.assert_array_equal(session.run(None, {"a": A})[0], A + 2)
    for given in (np.zeros(3, np.float32), A[1]):
        np.testing.assert_array_equal(session.run(None, {"a": A, "b": given})[0], A + given)
    np.testing.assert_array_equal(session.run(None, {"a": A})[0], A + 2)


def test_defaults_of_early_files_are_constants(ort):
    session = made(ort, models.with_default(ir=3))
    assert session.get_overridable_initializers() == []
    with pytest.raises(state(ort).InvalidArgument, match="Invalid input name: b"):
        session.run(None, {"a": A, "b": A[0]})


def test_run_async_calls_back_with_results_or_the_error(session):
    told, over = [], threading.Semaphore(0)

    def callback(results, user_data, error):
        told.append((results, user_data, error))
        over.release()

    session.run_async(["y"], {"a": A, "b": ONES}, callback, "first")
    assert over.acquire(timeout=60)
    session.run_async(["y"], {"a": A[0], "b": ONES}, callback, "second")
    assert over.acquire(timeout=60)
    np.testing.assert_array_equal(told[0][0][0], A + 1)
    assert told[0][1:] == ("first", "")
    assert told[1][:2] == ([], "second")
    assert "Invalid rank for input: a" in told[1][2]
    with pytest.raises(ValueError, match="Required inputs"):
        session.run_async(None, {"a": A}, callback, None)


def test_a_run_that_is_to_end_fails(ort, session):
    options = ort.RunOptions()
    options.terminate = True
    with pytest.raises(state(ort).Fail, match="terminate flag"):
        session.run(None, {"a": A, "b": A}, options)


# -- what a session says -----------------------------------------------------------------------


def test_inputs_and_outputs_are_described_as_in_the_file(session):
    assert described(session.get_inputs()) == [
        "NodeArg(name='a', type='tensor(float)', shape=['N', 3])",
        "NodeArg(name='b', type='tensor(float)', shape=[None, 3])",
    ]
    assert described(session.get_outputs()) == [
        "NodeArg(name='y', type='tensor(float)', shape=[None, 3])",
        "NodeArg(name='z', type='tensor(float)', shape=[None, 3])",
    ]


def test_the_models_metadata_are_the_files(session):
    found = session.get_modelmeta()
    assert found.custom_metadata_map == {"classes": "a,b"}
    assert (found.domain, found.version, found.description) == ("some.where", 7, "about the model")
    assert (found.graph_name, found.graph_description) == ("the graph", "about the graph")
    assert found.producer_name == "tests"


def test_free_dimensions_are_fixed_by_name(ort):
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("N", 2)
    session = made(ort, models.sums(), sess_options=options)
    assert session.get_inputs()[0].shape == [2, 3]
    np.testing.assert_array_equal(session.run(["y"], {"a": A, "b": ONES})[0], A + 1)
    with pytest.raises(state(ort).InvalidArgument, match="index: 0 Got: 1 Expected: 2"):
        session.run(None, {"a": A[:1], "b": A})


def test_initialisers_are_replaced_by_the_options(ort):
    options = ort.SessionOptions()
    value = ort.OrtValue.ortvalue_from_numpy(np.full(3, 5, np.float32))
    options.add_initializer("b", value)
    session = made(ort, models.with_default(ir=3), sess_options=options)
    np.testing.assert_array_equal(session.run(None, {"a": A})[0], A + 5)


def test_profiling_writes_a_file_with_the_steps(ort, tmp_path):
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = made(ort, models.sums(), sess_options=options)
    for _ in range(2):
        session.run(None, {"a": A, "b": A})
    assert session.get_profiling_start_time_ns() > 0
    events = json.loads(Path(session.end_profiling()).read_text())
    assert sum(event["name"] == "model_run" for event in events) == 2
    assert [e for e in events if e["cat"] == "Node" and e["args"]["provider"]]


# -- loading -----------------------------------------------------------------------------------


def test_models_come_from_paths_and_bytes(ort, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(models.sums())
    for source in (str(path), path, path.read_bytes()):
        session = made(ort, source)
        np.testing.assert_array_equal(session.run(["y"], {"a": A, "b": ONES})[0], A + 1)


def test_a_session_outlives_its_file(ort, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(models.sums())
    session = made(ort, path)
    path.unlink()
    assert session.get_inputs()[0].name == "a"
    np.testing.assert_array_equal(session.run(["y"], {"a": A, "b": ONES})[0], A + 1)


def test_what_is_no_model_says_so(ort, tmp_path):
    kinds = state(ort)
    with pytest.raises(kinds.NoSuchFile, match="File doesn't exist"):
        made(ort, str(tmp_path / "nothing.onnx"))
    with pytest.raises(kinds.InvalidProtobuf):
        made(ort, b"nope")
    with pytest.raises(kinds.InvalidArgument):
        made(ort, b"")
    with pytest.raises(kinds.InvalidGraph, match="NoSuchOperator"):
        made(ort, models.unknown_operator())
    with pytest.raises(TypeError, match="Unable to load from type"):
        made(ort, 3)


def test_unknown_providers_warn_and_the_cpu_takes_over(ort):
    with pytest.warns(UserWarning, match="'NoSuchProvider' is not in available provider names"):
        session = ort.InferenceSession(models.sums(), providers=["NoSuchProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]


# -- bindings and values -----------------------------------------------------------------------


def test_bound_inputs_are_read_and_outputs_written_in_each_run(ort, session):
    given, target = A.copy(), np.zeros((2, 3), np.float32)
    value = ort.OrtValue.ortvalue_from_numpy(target)
    binding = session.io_binding()
    binding.bind_cpu_input("a", given)
    binding.bind_ortvalue_input("b", ort.OrtValue.ortvalue_from_numpy(ONES))
    binding.bind_ortvalue_output("y", value)
    binding.bind_output("z")
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    np.testing.assert_array_equal(target, A + 1)
    given += 10
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(target, A + 11)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu(), [A + 11, A + 10])
    assert [v.shape() for v in binding.get_outputs()] == [[2, 3], [2, 3]]


def test_memory_is_bound_by_its_address(session):
    given, other, target = A.copy(), ONES.copy(), np.zeros((2, 3), np.float32)
    binding = session.io_binding()
    for name, array in (("a", given), ("b", other)):
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, target.shape, target.ctypes.data)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(target, A + 1)


def test_a_binding_that_does_not_fit_is_an_error(ort, session):
    binding = session.io_binding()
    binding.bind_cpu_input("a", A)
    binding.bind_cpu_input("b", ONES)
    with pytest.raises(RuntimeError, match="At least one output should be requested"):
        session.run_with_iobinding(binding)
    with pytest.raises(RuntimeError, match="Failed to find NodeArg with name: nothing"):
        binding.bind_cpu_input("nothing", A)
    small = ort.OrtValue.ortvalue_from_numpy(np.zeros((2, 2), np.float32))
    binding.bind_ortvalue_output("y", small)
    with pytest.raises(RuntimeError, match="Got invalid dimensions for output: y"):
        session.run_with_iobinding(binding)
    with pytest.raises(ValueError, match="session that created it"):
        made(ort, models.sums()).run_with_iobinding(binding)


def test_a_value_made_of_an_array_is_the_array(ort, session):
    array = A.copy()
    value = ort.OrtValue.ortvalue_from_numpy(array)
    assert value.data_ptr() == array.ctypes.data
    assert (value.shape(), value.data_type(), value.element_type()) == ([2, 3], "tensor(float)", 1)
    assert (value.device_name(), value.tensor_size_in_bytes()) == ("cpu", 24)
    assert value.is_tensor() and value.has_value() and not value.is_tensor_sequence()
    value.update_inplace(ONES)
    np.testing.assert_array_equal(array, ONES)
    with pytest.raises(RuntimeError, match="does not match"):
        value.update_inplace(np.zeros((4, 4), np.float32))
    with pytest.raises(RuntimeError, match="Can't allocate memory on the device"):
        ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
    found = session.run_with_ort_values(["y"], {"a": value, "b": value})
    np.testing.assert_array_equal(found[0].numpy(), 2 * ONES)


@pytest.mark.parametrize("element", [np.float32, 1])
def test_a_value_is_made_of_a_shape_and_a_type(ort, element):
    value = ort.OrtValue.ortvalue_from_shape_and_type([2, 3], element, "cpu", 0)
    assert (value.numpy().shape, value.numpy().dtype) == ((2, 3), np.float32)


def test_arguments_of_a_wrong_kind_are_errors_of_clinfer(fresh):
    session = made(clinfer.ort, models.sums())
    feeds, value = {"a": A, "b": A}, clinfer.ort.OrtValue
    for call in (
        lambda: session.run(3, feeds),
        lambda: session.run(None, feeds, 3),
        lambda: session.run_with_iobinding(3),
        lambda: value.ortvalue_from_numpy(A, 3),
        lambda: value.ortvalue_from_shape_and_type("ab", np.float32),
        lambda: value.ortvalue_from_shape_and_type([1.5], np.float32),
        lambda: value.ortvalue_from_shape_and_type([2, -1], np.float32),
        lambda: value.ortvalue_from_shape_and_type([2**62, 8], np.float32),
        lambda: session.io_binding().bind_output("y", "cpu", 0, np.float32, "ab", 1),
    ):
        with pytest.raises(clinfer.ClinferError):
            call()


# -- options -----------------------------------------------------------------------------------


def public(ort, name):
    made = getattr(ort, name)()
    names = [n for n in dir(made) if n[0] != "_" and not callable(getattr(made, n))]
    return {n: getattr(made, n) for n in names}


@pytest.mark.parametrize("name", ["SessionOptions", "RunOptions"])
def test_options_have_onnx_runtimes_attributes_and_defaults(name):
    ours, theirs = public(clinfer.ort, name), public(onnxruntime, name)
    assert ours.keys() == theirs.keys()
    plain = {n: int(v) if hasattr(v, "name") else v for n, v in theirs.items()}
    assert {n: int(v) if hasattr(v, "name") else v for n, v in ours.items()} == plain


def test_options_take_their_own_types_and_no_other_names(ort):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.intra_op_num_threads = 1
    with pytest.raises(TypeError):
        options.intra_op_num_threads = "many"
    with pytest.raises(AttributeError):
        options.no_such_option = 1
    options.add_session_config_entry("some.key", "1")
    assert options.get_session_config_entry("some.key") == "1"
    with pytest.raises(RuntimeError, match="does not have configuration with key: other"):
        options.get_session_config_entry("other")
    session = made(ort, models.sums(), sess_options=options)
    np.testing.assert_array_equal(session.run(["y"], {"a": A, "b": ONES})[0], A + 1)


def test_enumerations_have_onnx_runtimes_numbers():
    for name in ("GraphOptimizationLevel", "ExecutionMode", "ExecutionOrder"):
        ours, theirs = getattr(clinfer.ort, name), getattr(onnxruntime, name)
        assert {n: int(v) for n, v in theirs.__members__.items()} == dict(ours.__members__)


def test_sessions_have_onnx_runtimes_methods():
    others = {"get_input_epdevices", "get_input_memory_infos", "get_output_memory_infos"}
    others |= {"get_provider_graph_assignment_info", "get_tuning_results", "set_tuning_results"}
    others |= {"create_ortvalue_from_shape_and_type", "release_captured_graph"}
    others |= {"run_with_ortvaluevector", "set_ep_dynamic_options"}
    theirs = {n for n in dir(onnxruntime.InferenceSession) if n[0] != "_"} - others
    assert theirs <= set(dir(clinfer.ort.InferenceSession))


# -- clinfer's own -----------------------------------------------------------------------------


def test_the_device_and_the_cache_are_options_of_the_provider(fresh, tmp_path):
    options = {"device_name": "CPU", "cache_dir": str(tmp_path / "cache")}
    sessions = [
        clinfer.ort.InferenceSession(
            models.sums(), providers=[("OpenCLExecutionProvider", options), "CPUExecutionProvider"]
        )
        for _ in range(2)
    ]
    assert [s._model.get_property("LOADED_FROM_CACHE") for s in sessions] == [False, True]
    assert sessions[0].get_provider_options()["OpenCLExecutionProvider"] == options
    assert sessions[0].get_providers() == ["OpenCLExecutionProvider", "CPUExecutionProvider"]


def test_the_environments_device_wins_over_the_provider(fresh, monkeypatch):
    monkeypatch.setenv("CLINFER_ORT_DEVICE", "GPU.7")
    with pytest.raises(clinfer.DeviceError, match=r"GPU\.7"):
        made(clinfer.ort, models.sums())


def test_a_limit_of_threads_that_cannot_be_kept_is_a_warning(fresh, caplog):
    nodes = [helper.make_node("NonZero", ["a"], ["i"]), helper.make_node("Add", ["i", "i"], ["y"])]
    model = models.encoded(
        nodes, [models.info("a", models.FLOAT, ["N"])], [models.info("y", models.INT64, None)]
    )
    options = clinfer.ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = made(clinfer.ort, model, sess_options=options)
    assert session.run(None, {"a": np.array([1, 0, 3], np.float32)})[0].tolist() == [[0, 4]]
    if clinfer.Core().compile_model(model, "CPU")._loaded.executable.keeps_to(1):
        return  # a device of one core
    assert "intra_op_num_threads has no effect" in caplog.text


def test_a_limit_of_threads_is_the_cpus(fresh, gpu, monkeypatch):
    monkeypatch.setenv("CLINFER_ORT_DEVICE", "GPU")
    options = clinfer.ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = made(clinfer.ort, models.sums(), sess_options=options)
    assert session.get_provider_options()["CPUExecutionProvider"] == {"device_name": "GPU"}
    np.testing.assert_array_equal(session.run(["y"], {"a": A, "b": ONES})[0], A + 1)


def test_an_unknown_option_of_the_provider_is_an_error(fresh):
    providers = [("OpenCLExecutionProvider", {"no_such": 1})]
    with pytest.raises(clinfer.PropertyError, match="NO_SUCH"):
        clinfer.ort.InferenceSession(models.sums(), providers=providers)


def test_names_that_are_not_there_say_what_to_use():
    with pytest.raises(AttributeError, match="export_model"):
        _ = clinfer.ort.ModelCompiler
    assert not hasattr(clinfer.ort, "no_such_name")


def test_an_optimised_model_or_a_library_of_operators_is_refused(fresh):
    options = clinfer.ort.SessionOptions()
    with pytest.raises(clinfer.UnsupportedError, match="custom operators"):
        options.register_custom_ops_library("ops.so")
    options.optimized_model_filepath = "out.onnx"
    with pytest.raises(clinfer.UnsupportedError, match="optimized_model_filepath"):
        made(clinfer.ort, models.sums(), sess_options=options)


def test_programs_find_it_under_onnx_runtimes_name(fresh, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxruntime", clinfer.ort)
    import onnxruntime as found
    import onnxruntime.capi.onnxruntime_inference_collection
    from onnxruntime.capi import _pybind_state as C  # noqa: N812
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    assert found.InferenceSession is clinfer.ort.InferenceSession
    assert C.InvalidArgument is found.capi.onnxruntime_pybind11_state.InvalidArgument
    assert issubclass(InvalidArgument, clinfer.InputError)
    with pytest.raises(InvalidArgument):
        made(found, models.sums()).run(None, {"a": A, "b": A, "c": A})


def test_errors_keep_what_they_say_when_they_are_pickled():
    import pickle

    from clinfer.ort.errors import as_status

    for error in (clinfer.BuildError("no", "the log"), clinfer.ShapeError("3 and 4")):
        found = pickle.loads(pickle.dumps(as_status(error)))
        assert isinstance(found, type(error))
        assert str(found) == str(as_status(error))
        assert getattr(found, "log", "") == getattr(error, "log", "")
