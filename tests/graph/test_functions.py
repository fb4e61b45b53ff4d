"""A model's own functions, and operators written out as their definition."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from graph_helpers import model, run

from clinfer.errors import ModelError
from clinfer.graph.functions import expand
from clinfer.graph.reader import read
from clinfer.passes.expand import BY_DEFINITION, expand_definitions
from conformance_cases import Cases

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
