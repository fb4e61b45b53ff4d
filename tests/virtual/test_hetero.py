"""HETERO: the graph split by `query_model`, and the answers of the whole."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer
from api.made import dense_model, dense_parameters, finished, save
from clinfer import extension
from virtual.test_auto import on

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(nodes, inputs, outputs, constants=()):
    """`inputs` and `outputs` are (name, element type, shape)."""
    ins = [helper.make_tensor_value_info(*port) for port in inputs]
    outs = [helper.make_tensor_value_info(*port) for port in outputs]
    held = [numpy_helper.from_array(array, name) for name, array in constants]
    return finished(helper.make_graph(nodes, "parts", ins, outs, held))


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), name=outputs.split()[0], **attrs)


def three_parts():
    """GPU, then Unique on the CPU, then the GPU; outputs of every kind."""
    weights, bias = dense_parameters()
    nodes = [
        node("MatMul", "x w", "product"),
        node("Add", "product b", "sum"),
        node("Relu", "sum", "relu"),
        node("Unique", "relu", "unique", axis=0),
        node("Mul", "unique two", "double"),
        node("Exp", "relu", "exp"),
        node("Shape", "relu", "sizes"),
        node("ReduceMax", "double", "top", keepdims=0),
        node("Mul", "exp top", "scaled"),
    ]
    outputs = [
        ("double", FLOAT, ["k", 10]),
        ("scaled", FLOAT, ["n", 10]),
        ("x", FLOAT, ["n", 24]),
        ("two", FLOAT, []),
        ("sizes", INT64, [2]),
        ("relu", FLOAT, ["n", 10]),
    ]
    constants = [("w", weights), ("b", bias), ("two", np.float32(2))]
    return model_of(nodes, [("x", FLOAT, ["n", 24])], outputs, constants)


def with_branches():
    """A condition computed on the CPU, and branches that read from outside."""
    branches = {}
    for name, op in (("then_branch", "Add"), ("else_branch", "Sub")):
        made = node(op, "relu many", f"{name}_result")
        out = helper.make_tensor_value_info(f"{name}_result", FLOAT, None)
        branches[name] = helper.make_graph([made], name, [], [out])
    nodes = [
        node("Relu", "x", "relu"),
        node("Unique", "relu", "unique", axis=0),
        node("Size", "unique", "size"),
        node("Cast", "size", "many", to=FLOAT),
        node("Greater", "many limit", "is_large"),
        node("If", "is_large", "chosen", **branches),
        node("Neg", "chosen", "y"),
    ]
    ports = ("x", FLOAT, ["n", 24]), ("y", FLOAT, ["n", 24])
    return model_of(nodes, ports[:1], ports[1:], [("limit", np.float32(30))])


def with_sequence():
    """A sequence between the parts."""
    nodes = [
        node("Sqrt", "x", "root"),
        node("SplitToSequence", "root", "list", axis=1, keepdims=1),
        node("SequenceAt", "list third", "item"),
        node("Mul", "item x", "y"),
    ]
    ports = ("x", FLOAT, ["n", 24]), ("y", FLOAT, ["n", 24])
    return model_of(nodes, ports[:1], ports[1:], [("third", np.int64(2))])


def computed_size():
    """A size that is a sum of two goes into the second part."""
    nodes = [
        node("Concat", "x x", "twice", axis=0),
        node("Unique", "x", "unique", axis=0),
        node("ReduceSum", "unique", "all", keepdims=0),
        node("Add", "twice all", "y"),
    ]
    return model_of(nodes, [("x", FLOAT, ["n", 24])], [("y", FLOAT, ["m", 24])])


@pytest.mark.parametrize(
    ("model", "parts"),
    [(three_parts(), 3), (with_branches(), 3), (with_sequence(), 3), (computed_size(), 3)],
    ids=["three_parts", "branches", "sequence", "computed_size"],
)
def test_answers_are_those_of_the_whole(core, model, parts):
    compiled = core.compile_model(model, "HETERO:GPU,CPU")
    assert on(compiled) == ["GPU", "CPU"] or parts == 1
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (3, 1, 4):
        x = np.abs(np.random.default_rng(count).standard_normal((count, 24))).astype(np.float32)
        wanted = session.run(None, {"x": x})
        found = compiled(x)
        assert [port.name for port in found] == [port.name for port in session.get_outputs()]
        for a, b in zip(found.to_tuple(), wanted, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
            assert not np.shares_memory(a, x)


def test_query_model_speaks_node_names_and_says_how_it_is_split(core):
    model = core.read_model(three_parts())
    found = core.query_model(model, "HETERO:GPU,CPU")
    operators = [op for op in model.get_ops() if op.get_type_name() not in ("Parameter", "Result")]
    assert list(found) == [op.get_friendly_name() for op in operators]
    assert {name for name, device in found.items() if device == "CPU"} == {"unique"}
    assert core.query_model(model, "GPU")["unique"] == "HOST"
    compiled = core.compile_model(model, "HETERO:GPU,CPU")
    assert compiled.get_property("HETERO_NUMBER_OF_SUBMODELS") == 3
    ran = [op.get_friendly_name() for op in compiled.get_runtime_model().get_ordered_ops()]
    assert any("unique" in name for name in ran)
    assert len(compiled.host_steps) == 1


def test_a_model_for_one_device_is_one_part(core):
    compiled = core.compile_model(dense_model(), "HETERO:GPU,CPU")
    assert on(compiled) == ["GPU"]
    assert compiled.get_property("HETERO_NUMBER_OF_SUBMODELS") == 1


def test_a_model_without_nodes(core):
    ports = [("x", FLOAT, ["n", 4])]
    compiled = core.compile_model(model_of([], ports, ports), "HETERO:GPU,CPU")
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(compiled(x)[0], x)
    assert not np.shares_memory(compiled(x)[0], x)


def test_host_steps_stay_with_the_cpu_whatever_the_order(core):
    assert set(core.query_model(three_parts(), "HETERO:CPU,GPU").values()) == {"CPU"}


def test_sizes_that_two_parts_share_are_checked(core):
    nodes = [
        node("Exp", "x", "a"),
        node("Unique", "z", "b"),
    ]
    inputs = [("x", FLOAT, ["n", 4]), ("z", FLOAT, ["n"])]
    model = model_of(nodes, inputs, [("a", FLOAT, ["n", 4]), ("b", FLOAT, ["k"])])
    compiled = core.compile_model(model, "HETERO:GPU,CPU")
    request = compiled.create_infer_request()
    good = {"x": np.zeros((2, 4), np.float32), "z": np.array([3, 1], np.float32)}
    np.testing.assert_array_equal(request.infer(good)["b"], [1, 3])
    bad = {**good, "z": np.zeros(3, np.float32)}
    for call in (compiled, request.infer, request.start_async):
        with pytest.raises(clinfer.InputError, match="'z'"):
            call(bad)


def test_many_threads_get_their_own_answers(core):
    compiled = core.compile_model(three_parts(), "HETERO:GPU,CPU")
    weights, bias = dense_parameters()
    errors = []

    def work(seed: int) -> None:
        try:
            for count in (1, 2, 3, 1, 2):
                x = np.random.default_rng(seed).standard_normal((count, 24)).astype(np.float32)
                wanted = np.maximum(x @ weights + bias, 0)
                np.testing.assert_allclose(compiled(x)["relu"], wanted, rtol=1e-4, atol=1e-5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_from_the_cache_measured_and_pickled(core, tmp_path):
    path = save(three_parts(), tmp_path / "m.onnx")
    core.compile_model(path, "HETERO:GPU,CPU")
    compiled = core.compile_model(path, "HETERO:GPU,CPU", {"PERF_COUNT": True})
    assert compiled.programs_built == 0
    x = np.ones((2, 24), np.float32)
    found = compiled(x)
    assert any("unique" in step.label for step in compiled.profiling_info)
    again = pickle.loads(pickle.dumps(compiled))
    for a, b in zip(again(x).to_tuple(), found.to_tuple(), strict=True):
        np.testing.assert_array_equal(a, b)


TWICE = """
__kernel void twice(__global const x_t *x, __global y_t *y, int n)
{
    int i = get_global_id(0);
    if (i < n) y[i] = ATTR_by * x[i];
}
"""


def test_operators_of_ones_own_go_into_the_parts(core):
    """One in OpenCL C where the GPU is, one of Python on the CPU, one of ONNX written out."""
    core.add_extension(
        extension.OpenCLOperator(
            "my::Twice",
            TWICE,
            "twice",
            inputs={"x": ("float32", None)},
            outputs={"y": ("x", "x")},
            attributes={"by": 2.0},
            arguments=["x", "y", ("int", "size(x)")],
            global_size=["size(x)"],
        )
    )
    core.add_extension(
        extension.PythonOperator(
            "my::Above",
            lambda x: np.flatnonzero(x > 1),
            inputs={"x": None},
            outputs={"places": ("int64", [None])},
        )
    )
    opsets = [helper.make_opsetid("", 17)]
    core.add_extension(
        helper.make_function("my", "Gate", ["x"], ["y"], [node("Sigmoid", "x", "y")], opsets)
    )
    nodes = [
        node("Gate", "x", "gate", domain="my"),
        node("Twice", "gate", "twice", domain="my", by=3.0),
        node("Above", "twice", "places", domain="my"),
        node("Add", "places places", "sum"),
    ]
    ports = [("twice", FLOAT, ["n", 4]), ("sum", INT64, None)]
    graph = model_of(nodes, [("x", FLOAT, ["n", 4])], ports)
    graph.opset_import.append(helper.make_opsetid("my", 1))
    compiled = core.compile_model(graph, "HETERO:GPU,CPU")
    assert set(on(compiled)) == {"GPU", "CPU"}
    x = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)
    twice = 3 / (1 + np.exp(-x))
    found = compiled(x)
    np.testing.assert_allclose(found["twice"], twice, rtol=1e-5)
    np.testing.assert_array_equal(found["sum"], 2 * np.flatnonzero(twice > 1))
