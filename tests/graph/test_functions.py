"""A model's own functions, and operators written out as their definition."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from graph_helpers import model, run
from onnx import helper

from clinfer.errors import ModelError
from clinfer.graph.functions import expand
from clinfer.graph.reader import read
from clinfer.passes.expand import BY_DEFINITION, expand_definitions
from conformance_cases import Cases
from growth import operations

HEADER = '<ir_version: 10, opset_import: ["": 18, "my": 1]>'
SCALE = """
<domain: "my", opset_import: ["": 18]>
scale <factor: float = 3.0> (a) => (b) {
    f = Constant<value_float: float = @factor>()
    b = Mul(a, f)
}
"""


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEADER}\n{text}")


def test_calls_are_written_out_with_their_attributes() -> None:
    source = parse(
        """m (float[2] x) => (float[2] z) {
        y = my.scale<factor = 2.0>(x)
        z = my.scale(y)
    }"""
        + SCALE
    )
    graph = read(source).graph()
    assert {n.op for n in graph.nodes} == {"Mul"}
    assert run(graph, [np.float32([1, 2])])[0].tolist() == [6, 12]


def test_functions_call_functions_also_in_subgraphs() -> None:
    source = parse(
        """m (bool c, float[2] x) => (float[2] y) { y = my.choose(c, x) }
    <domain: "my", opset_import: ["": 18, "my": 1]>
    choose (c, a) => (r) {
        r = If(c) <then_branch = t () => (float[2] p) { p = my.scale(a) },
                   else_branch = e () => (float[2] q) { q = Neg(a) }>
    }"""
        + SCALE
    )
    graph = read(source).graph()
    x = np.float32([1, 2])
    assert run(graph, [np.array(True), x])[0].tolist() == [3, 6]
    assert run(graph, [np.array(False), x])[0].tolist() == [-1, -2]


def test_bodies_of_another_operator_set() -> None:
    """The body's Softmax is of version 11: dimensions from the axis on are one."""
    source = parse("""m (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = my.old(x) }
    <domain: "my", opset_import: ["": 11]>
    old (a) => (b) { b = Softmax<axis = 1>(a) }""")
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    (result,) = run(read(source).graph(), [x])
    np.testing.assert_allclose(result.sum((1, 2)), [1, 1], rtol=1e-5)


def test_a_function_that_calls_itself() -> None:
    source = parse("""m (float[2] x) => (float[2] y) { y = my.again(x) }
    <domain: "my", opset_import: ["": 18, "my": 1]>
    again (a) => (b) { b = my.again(a) }""")
    with pytest.raises(ModelError, match="calls itself"):
        read(source)


def test_an_absent_input_stays_absent() -> None:
    source = parse("""m (float[2] x) => (float[2] y) { y = my.clip(x) }
    <domain: "my", opset_import: ["": 18]>
    clip (a, low, high) => (b) { b = Clip(a, low, high) }""")
    (node,) = read(source).graph().nodes
    assert [v.name for v in node.inputs if v] == ["x"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_definitions_give_the_operators_results() -> None:
    """Every operator that runs as its definition, on ONNX's own cases for it."""
    cases = Cases()
    tried: set[str] = set()
    for name in cases.kinds:
        kinds = set(cases.operators(name)) & BY_DEFINITION
        if not kinds or name.endswith("_expanded"):
            continue
        graph = read(cases.model(name)).graph()
        expand_definitions(graph)
        if kinds & {n.kind for n in graph.nodes}:
            continue
        tried |= kinds
        for inputs, expected in cases.data(name):
            cases.compare(name, expected, run(graph, inputs))
    assert tried == BY_DEFINITION


def test_what_is_kept_stays() -> None:
    made = model("m (float[2, 3] x) => (float[2, 3] y) { y = HardSwish(x) }")
    graph = made.graph()
    assert expand(graph, lambda node: True) == []
    assert expand(graph, lambda node: node.op != "HardSwish") == ['HardSwish "y"']
    assert "HardSwish" not in {n.op for n in graph.nodes}
    x = np.float32([[-4, -1, 0], [1, 2, 5]])
    np.testing.assert_allclose(run(graph, [x])[0], x * np.clip(x / 6 + 0.5, 0, 1), rtol=1e-6)


def test_a_norm_whose_statistics_are_read_is_written_out() -> None:
    text = """m (float[2, 3] x, float[3] a) => (float[2, 3] y {more}) {{
        y, m, d = LayerNormalization(x, a) }}"""
    alone, full = (model(text.format(more=more)).graph() for more in ("", ", float[2, 1] m"))
    assert expand_definitions(alone) == []
    assert expand_definitions(full) == ['LayerNormalization "y"']
    x = np.float32([[1, 2, 6], [0, 0, 3]])
    assert run(full, [x, np.ones(3, np.float32)])[1].tolist() == [[3], [1]]


def doubling(count: int, last: str = "Neg") -> onnx.ModelProto:
    """Functions of which each calls the one before it twice: 2 ** (count - 1) nodes."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    names = [f"f{i}" for i in range(count)]
    bodies = [[helper.make_node(last, ["a"], ["b"], domain="" if last == "Neg" else "my")]]
    for name in names[:-1]:
        pair = (("a", "t"), ("t", "b"))
        bodies.append([helper.make_node(name, [x], [y], domain="my") for x, y in pair])
    made = zip(names, bodies, strict=True)
    functions = [helper.make_function("my", n, ["a"], ["b"], body, opsets) for n, body in made]
    return called(names[-1], functions)


def called(name: str, functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], domain="my")],
        "m",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (4,))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (4,))],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def test_functions_that_call_one_another_twice() -> None:
    assert len(read(doubling(9)).graph().nodes) == 256


@pytest.mark.parametrize("count", [20, 40, 3000])
def test_functions_that_stand_for_too_much_are_refused_before(count: int) -> None:
    with pytest.raises(ModelError, match=r"stand for .*; at most 262144 nodes or 1024 MiB"):
        read(doubling(count))


def test_functions_that_call_themselves_are_refused() -> None:
    with pytest.raises(ModelError, match=r"function 'f\d' of domain 'my' calls itself"):
        read(doubling(3, last="f2"))
    with pytest.raises(ModelError, match="function 'f0' of domain 'my' calls itself"):
        read(doubling(1, last="f0"))


def test_a_long_chain_of_functions() -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    functions = []
    for i in range(1500):
        kind, domain = ("Neg", "") if i == 0 else (f"f{i - 1}", "my")
        body = [helper.make_node(kind, ["a"], ["b"], domain=domain)]
        functions.append(helper.make_function("my", f"f{i}", ["a"], ["b"], body, opsets))
    (node,) = read(called("f1499", functions)).graph().nodes
    assert len(node.name) < 300


def test_subgraphs_of_functions_too_deep_in_one_another_are_refused() -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    functions = []
    for i in range(60):
        kind, domain = ("Neg", "") if i == 0 else (f"f{i - 1}", "my")
        output = [onnx.ValueInfoProto(name="r")]
        inner = helper.make_node(kind, ["a"], ["r"], domain=domain)
        branch = helper.make_graph([inner], "t", [], output)
        other = helper.make_graph([helper.make_node("Abs", ["a"], ["r"])], "e", [], output)
        body = [
            helper.make_node("ReduceMax", ["a"], ["m"], keepdims=0),
            helper.make_node("Cast", ["m"], ["c"], to=onnx.TensorProto.BOOL),
            helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=other),
        ]
        functions.append(helper.make_function("my", f"f{i}", ["a"], ["b"], body, opsets))
    with pytest.raises(ModelError, match="more than 30 deep in one another"):
        read(called("f59", functions))
    read(called("f2", functions))


def test_what_reading_costs_grows_with_what_is_written_out() -> None:
    models = {n: doubling(n) for n in (2, 6, 8)}
    read(models[2])
    few = operations(lambda: read(models[6]))
    assert operations(lambda: read(models[8])) < 5 * few
