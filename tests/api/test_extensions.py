"""Operators that a program adds with `Core.add_extension`."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from onnx import TensorProto, helper

import clinfer
from api.made import dense_model, finished, one_node, save
from clinfer import extension
from documents import run_examples

FLOAT = TensorProto.FLOAT
AXPY = """
__kernel void axpy(__global const float *x, __global const x_t *y, __global float *z, int n)
{
    int i = get_global_id(0);
    if (i < n) z[i] = ATTR_alpha * x[i] + y[i];
}
"""


def axpy(**changes) -> extension.OpenCLOperator:
    """alpha * x + y, of any shape."""
    declared = {
        "name": "my::Axpy",
        "source": AXPY,
        "entry": "axpy",
        "inputs": {"x": ("float32", None), "y": ("float32", "x")},
        "outputs": {"z": ("x", "x")},
        "arguments": ["x", "y", "z", ("int", "size(x)")],
        "global_size": ["size(x)"],
        "attributes": {"alpha": 2.0},
        **changes,
    }
    return extension.OpenCLOperator(**declared)


def model(**attrs):
    """relu(Axpy(transpose(x), y)): views, fusion and free sizes around the kernel."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Slice", ["y", "one", "four", "zero"], ["part"]),
        helper.make_node("Axpy", ["t", "part"], ["a"], name="ours", domain="my", **attrs),
        helper.make_node("Relu", ["a"], ["z"]),
    ]
    constants = {"zero": [0], "one": [1], "four": [4]}
    graph = helper.make_graph(
        nodes,
        "axpy",
        [
            helper.make_tensor_value_info("x", FLOAT, ["n", 3]),
            helper.make_tensor_value_info("y", FLOAT, [5, "n"]),
        ],
        [helper.make_tensor_value_info("z", FLOAT, None)],
        [helper.make_tensor(n, TensorProto.INT64, [1], v) for n, v in constants.items()],
    )
    return finished(graph, my=1)


def one_axpy():
    """The operator alone, with operands of sizes of their own."""
    operands = {"x": (FLOAT, ["n"]), "y": (FLOAT, ["m"])}
    return one_node("Axpy", operands, {"z": (FLOAT, None)}, domain="my")


def given(n: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "x": generator.standard_normal((n, 3)).astype(np.float32),
        "y": generator.standard_normal((5, n)).astype(np.float32),
    }


def answer(given: dict[str, np.ndarray], alpha: float = 2.0) -> np.ndarray:
    return np.maximum(alpha * given["x"].T + given["y"][1:4], 0)


def test_the_documents_examples_run(cpu):
    found = run_examples("extensions.md")
    reasons = [step.reason for step in found["compiled"].plan.host_steps]
    assert reasons == ["my.ops::Above is a Python function"]


def test_a_kernel_serves_all_sizes_with_one_program(core, device):
    core.add_extension(axpy(local_size=[1 if device == "CPU" else 4]))
    compiled = core.compile_model(model(alpha=-1.5), device)
    for n in (6, 1, 9):
        inputs = given(n)
        np.testing.assert_allclose(compiled(inputs)[0], answer(inputs, -1.5), rtol=1e-6)
    texts = [p.source for p in compiled.plan.programs if p.entry == "axpy"]
    assert len(texts) == 1
    assert texts[0].startswith("// extension 'my::Axpy'")


def test_a_kernel_comes_from_the_cache_and_changes_with_its_text(core, cpu, tmp_path):
    path = save(model(), tmp_path / "m.onnx")
    core.set_property({"CACHE_DIR": str(tmp_path / "cache")})
    core.add_extension(axpy())
    assert not core.compile_model(path, cpu).get_property("LOADED_FROM_CACHE")
    again = clinfer.Core()
    again.set_property({"CACHE_DIR": str(tmp_path / "cache")})
    again.add_extension(axpy())
    warm = again.compile_model(path, cpu)
    assert warm.get_property("LOADED_FROM_CACHE")
    inputs = given()
    np.testing.assert_allclose(warm(inputs)[0], answer(inputs), rtol=1e-6)
    again.add_extension(axpy(source=AXPY.replace("+ y[i]", "- y[i]")))
    changed = again.compile_model(path, cpu)
    assert not changed.get_property("LOADED_FROM_CACHE")
    expected = np.maximum(2 * inputs["x"].T - inputs["y"][1:4], 0)
    np.testing.assert_allclose(changed(inputs)[0], expected, rtol=1e-6)


def test_a_kernel_travels_in_a_blob_and_a_function_is_asked_for(core, cpu):
    core.add_extension([axpy(), doubled()])
    blob = core.compile_model(model(), cpu).export_model()
    inputs = given()
    result = clinfer.Core().import_model(blob)(inputs)[0]
    np.testing.assert_allclose(result, answer(inputs), rtol=1e-6)
    blob = core.compile_model(one("Doubled"), cpu).export_model()
    with pytest.raises(clinfer.ExtensionError, match=r"my::Doubled.*add_extension first"):
        clinfer.Core().import_model(blob)
    x = np.ones((2, 3), np.float32)
    assert (core.import_model(blob)(x)[0] == 2).all()


def one(op: str, **attrs):
    """One node of the domain `my`: x [2, n] -> y."""
    return one_node(op, {"x": (FLOAT, [2, "n"])}, {"y": (FLOAT, None)}, domain="my", **attrs)


def double(x, *, times):
    return x * times


def doubled(**changes) -> extension.PythonOperator:
    declared = {
        "name": "my::Doubled",
        "function": double,
        "inputs": {"x": ("float32", ["A", "B"])},
        "outputs": {"y": ("x", "x")},
        "attributes": {"times": 2.0},
        **changes,
    }
    return extension.PythonOperator(**declared)


def test_a_functions_error_names_the_node_and_is_the_cause(core, cpu):
    def fails(x, **attrs):
        raise ValueError("no such thing")

    core.add_extension(doubled(function=fails))
    compiled = core.compile_model(one("Doubled"), cpu)
    with pytest.raises(
        clinfer.ExtensionError, match=r'Doubled "only".*ValueError: no such'
    ) as info:
        compiled(np.ones((2, 3), np.float32))
    assert isinstance(info.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x, times: "text", "declared as float32"),
        (lambda x, times: x + 1j, "declared as float32, found complex64"),
        (lambda x, times: (x, x), "2 results"),
        (lambda x, times: x[:1], r"shape \[1, 3\]"),
    ],
)
def test_a_functions_result_must_be_what_is_declared(core, cpu, function, said):
    core.add_extension(doubled(function=function))
    compiled = core.compile_model(one("Doubled"), cpu)
    with pytest.raises(clinfer.ClinferError, match=said):
        compiled(np.ones((2, 3), np.float32))


def test_a_wider_result_is_cast(core, cpu):
    core.add_extension(doubled(function=lambda x, times: x.astype(np.float64) * times))
    result = core.compile_model(one("Doubled", times=3.0), cpu)(np.ones((2, 3), np.float32))[0]
    assert result.dtype == np.float32
    assert (result == 3).all()


def test_types_may_be_a_function(core, cpu):
    def types(x, repeats):
        return x.dtype, (x.shape[0] * repeats, x.shape[1])

    text = """
    kernel void repeat(global const float *x, global float *y, int rows, int n, int total) {
        int i = get_global_id(0);
        if (i < total) y[i] = x[i % (rows * n)];
    }"""
    core.add_extension(
        extension.OpenCLOperator(
            "my::Repeat",
            text,
            "repeat",
            {"x": ("float32", ["R", "N"])},
            ["y"],
            ["x", "y", ("int", "R"), ("int", "N"), ("int", "R * N * repeats")],
            ["R * N * repeats"],
            attributes={"repeats": int},
            types=types,
        )
    )
    compiled = core.compile_model(one("Repeat", repeats=3), cpu)
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    np.testing.assert_array_equal(compiled(x)[0], np.tile(x, (3, 1)))
    with pytest.raises(clinfer.ModelError, match="must have the attribute 'repeats'"):
        core.read_model(one("Repeat"))


def test_a_nodes_operands_are_checked_as_declared(core, cpu):
    core.add_extension(axpy())
    compiled = core.compile_model(one_axpy(), cpu)
    ones = np.ones(4, np.float32)
    assert (compiled([ones, ones])[0] == 3).all()
    with pytest.raises(clinfer.ShapeError, match=r'Axpy "only".*axis 0 of \'x\' and of \'y\''):
        compiled([ones, ones[:3]])
    core.add_extension(doubled(inputs={"x": ("float16", None)}))
    with pytest.raises(clinfer.ModelError, match=r"input 0 \('x'\).*float16.*found float32"):
        core.read_model(one("Doubled"))
    core.add_extension(doubled(inputs={"x": ("float32", ["A"])}))
    with pytest.raises(clinfer.ShapeError, match=r"1 dimensions.*found 2"):
        core.read_model(one("Doubled"))
    with pytest.raises(clinfer.ModelError, match="no attribute 'other'"):
        core.read_model(one("Doubled", other=1))


def test_a_text_that_does_not_compile_is_the_extensions(core, cpu):
    core.add_extension(axpy(source=AXPY.replace("int i", "ind i")))
    with pytest.raises(clinfer.BuildError, match=r"kernel 'axpy'.*text of an extension"):
        core.compile_model(one_axpy(), cpu)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Axpy"}, "domain::Operator"),
        ({"inputs": {"x": ("float33", None), "y": None}}, "'float33' is no dtype"),
        ({"outputs": {"z": ("float32", ["Q"])}}, "names 'Q'"),
        ({"outputs": {"z": ("float32", ["size(x"])}}, "no expression"),
        ({"outputs": {"z": ("float32", ["x.size"])}}, "is no size"),
        ({"outputs": {"z": ("float32", [None])}}, "must be known"),
        ({"outputs": {}}, "no outputs"),
        ({"arguments": ["x", "y", "z"]}, "4 parameters in the text; 3 arguments"),
        ({"arguments": ["x", "y", "z", ("long", "size(x)")]}, "parameter 'int n' does not take"),
        ({"arguments": ["x", "y", ("int", "1"), "z"]}, "does not take the argument 'int'"),
        ({"arguments": ["x", "y", "y", ("int", "size(x)")]}, "output 'z' is no argument"),
        ({"entry": "other"}, "no kernel 'other'"),
        ({"local_size": [1, 1]}, "local_size"),
        ({"global_size": []}, "one to three"),
        ({"attributes": {"alpha": object()}}, "attribute 'alpha'"),
    ],
)
def test_what_is_declared_wrongly_is_said(changes, said):
    with pytest.raises(clinfer.ExtensionError, match=said):
        axpy(**changes)


@pytest.mark.parametrize("wrong", ["libextension.so", object(), [axpy(), 3]])
def test_what_is_no_extension_is_refused(core, wrong):
    with pytest.raises(clinfer.ExtensionError):
        core.add_extension(wrong)


HALF = """
kernel void half_twice(global const x_t *x, global y_t *y, int n)
{
    int i = get_global_id(0);
    if (i < n) vstore_half(2 * vload_half(i, x), i, y);
}
"""


def test_tensors_have_the_declared_types_whatever_the_model_is_computed_in(core, cpu):
    """Products of float16 are computed in float32 on a CPU; the kernel still gets float16."""
    core.add_extension(
        extension.OpenCLOperator(
            "my::HalfTwice",
            HALF,
            "half_twice",
            {"x": ("float16", None)},
            {"y": ("x", "x")},
            ["x", "y", ("int", "size(x)")],
            ["size(x)"],
        )
    )
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["p"]),
        helper.make_node("HalfTwice", ["p"], ["y"], domain="my"),
    ]
    ports = [[helper.make_tensor_value_info(n, TensorProto.FLOAT16, [4, 4])] for n in "xy"]
    compiled = core.compile_model(finished(helper.make_graph(nodes, "g", *ports), my=1), cpu)
    x = np.arange(16).reshape(4, 4).astype(np.float16) / 16
    expected = 2 * (x.astype(np.float32) @ x.astype(np.float32))
    np.testing.assert_allclose(compiled(x)[0], expected, rtol=2e-3)


def test_commands_take_extensions_from_a_file(cpu, tmp_path, monkeypatch, capsys):
    from clinfer.cli import main

    path = save(one("Doubled"), tmp_path / "m.onnx")
    file = tmp_path / "ops.py"
    file.write_text(
        "from clinfer.extension import PythonOperator\n"
        "EXTENSIONS = [PythonOperator('my::Doubled', lambda x, times: times * x, {'x': None}, "
        "{'y': ('x', 'x')}, {'times': 2.0})]\n"
    )
    options = ["explain", str(path), "--device", "CPU", "--no-cache"]
    assert main([*options, "--extension", str(file)]) == 0
    assert 'my.Doubled "only": my::Doubled is a Python function' in capsys.readouterr().out
    assert main(options) == 1
    assert "add_extension" in capsys.readouterr().err
    file.write_text("import nothing_of_that_name\n")
    assert main([*options, "--extension", str(file)]) == 1
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_operators_of_clinfers_own_stay(core):
    with pytest.raises(clinfer.ExtensionError, match="domain of its own"):
        core.add_extension(axpy(name="com.microsoft::Gelu"))


def test_an_operator_belongs_to_its_core(core):
    core.add_extension(doubled())
    core.read_model(one("Doubled"))
    with pytest.raises(clinfer.ModelError, match="add_extension"):
        clinfer.Core().read_model(one("Doubled"))


def test_models_and_cores_take_their_extensions_along(core, cpu, tmp_path):
    core.add_extension(doubled())
    path = save(one("Doubled"), tmp_path / "m.onnx")
    x = np.ones((2, 3), np.float32)
    sent = pickle.loads(pickle.dumps(core.compile_model(path, cpu)))
    assert (sent(x)[0] == 2).all()
    sent = pickle.loads(pickle.dumps(core.compile_model(one("Doubled"), cpu)))  # as its blob
    assert (sent(x)[0] == 2).all()
    assert (pickle.loads(pickle.dumps(sent))(x)[0] == 2).all()
    apart = pickle.loads(pickle.dumps(core))
    apart.add_extension(doubled(name="my::Unsent", function=lambda x, times: x))
    pickle.loads(pickle.dumps(apart.compile_model(dense_model(), cpu)))  # which calls no function
    other = pickle.loads(pickle.dumps(core))
    assert (other.compile_model(path, cpu)(x)[0] == 2).all()


def test_a_branch_and_a_loop_that_is_written_out_may_use_all(core, device):
    core.add_extension([doubled(), axpy()])
    result = helper.make_tensor_value_info("r", FLOAT, None)
    then = [
        helper.make_node("Axpy", ["x", "x"], ["a"], domain="my", alpha=4.0),
        helper.make_node("Relu", ["a"], ["r"]),
    ]
    other = [helper.make_node("Doubled", ["x"], ["r"], domain="my", times=3.0)]
    step = [
        helper.make_node("Identity", ["go_on"], ["goes_on"]),
        helper.make_node("Axpy", ["state", "x"], ["r"], domain="my", alpha=2.0),
    ]
    body = helper.make_graph(
        step,
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, ["n", 3]),
        ],
        [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []), result],
    )
    branches = {
        "then_branch": helper.make_graph(then, "then", [], [result]),
        "else_branch": helper.make_graph(other, "else", [], [result]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["y"], name="if", **branches),
            helper.make_node("Loop", ["three", "", "y"], ["z"], body=body),
        ],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", FLOAT, ["n", 3]),
        ],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in "yz"],
        [helper.make_tensor("three", TensorProto.INT64, [], [3])],
    )
    compiled = core.compile_model(finished(graph, my=1), device)
    assert len(compiled.host_steps) == 1
    x = given()["x"]
    for taken, y in ((True, np.maximum(5 * x, 0)), (False, 3 * x)):
        found = compiled({"c": np.array(taken), "x": x})
        np.testing.assert_allclose(found["y"], y, rtol=1e-6)
        np.testing.assert_allclose(found["z"], 8 * y + 7 * x, rtol=1e-5, atol=1e-6)


def looped(shape):
    """A model whose Loop doubles `x` as many times as its input `times` says."""
    go_on, goes_on = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go_on", "goes_on")
    )
    number, times = (
        helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("number", "times")
    )
    state, after, x, y = (
        helper.make_tensor_value_info(name, FLOAT, shape) for name in ("state", "after", "x", "y")
    )
    nodes = [
        helper.make_node("Identity", ["go_on"], ["goes_on"]),
        helper.make_node("Doubled", ["state"], ["after"], domain="my"),
    ]
    body = helper.make_graph(nodes, "body", [number, go_on, state], [goes_on, after])
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], name="loop", body=body)
    return finished(helper.make_graph([loop], "g", [times, x], [y]), my=1)


def test_an_operator_in_a_loop_of_unknown_length(core, device):
    core.add_extension(doubled())
    compiled = core.compile_model(looped([2, 3]), device)
    x = np.float32([[1, 2, 3], [4, 5, 6]])
    for times in (3, 0, 1):
        np.testing.assert_array_equal(compiled({"times": np.array(times), "x": x})[0], x * 2**times)


def test_a_subgraph_on_the_host_refuses_what_it_cannot_run(core, cpu):
    """A state of unknown rank keeps the Loop there."""
    core.add_extension(doubled())
    with pytest.raises(clinfer.UnsupportedError, match=r'Loop "loop".*my::Doubled'):
        core.compile_model(looped(None), cpu)
