"""Fusion: which pointwise operators join which node, and that the results stay the same."""

from __future__ import annotations

import numpy as np
import pytest

from clinfer.graph.ir import Graph, Value
from clinfer.passes.fuse.program import Program, inline
from clinfer_kernels.expr import Builder
from passes.passes_helpers import check, kinds, model, random

_X = "float[n, 3, 4] x"
CONSTANTS = {
    "w": random((4, 5)),
    "b": random((5,), 1),
    "two": np.float32(2),
    "axis": np.array([2]),
    "s": np.array([-1, 5]),
    "half": np.float32(0.5),
}
FEEDS = ({"x": random((2, 3, 4), 7)}, {"x": random((1, 3, 4), 8)})


def _fused(signature: str, body: str, **constants: np.ndarray):
    return check(model(signature, body, {**CONSTANTS, **constants}), *FEEDS)


def test_a_chain_becomes_one_node_with_constants_inside():
    graph = _fused(f"{_X} => bool[n, 3, 4] y", "a = Mul(x, two) b0 = Exp(a) y = Greater(b0, half)")
    (node,) = graph.nodes
    assert node.kind == "clinfer.Pointwise"
    assert len(node.inputs) == 1
    assert node.attrs["expr"].output_dtypes == ("bool",)


def test_a_diamond_is_read_once():
    graph = _fused(f"{_X} => float[n, 3, 4] y", "a = Exp(x) c = Neg(a) d = Sin(a) y = Add(c, d)")
    assert kinds(graph) == {"clinfer.Pointwise": 1}
    assert len(graph.nodes[0].inputs) == 1


def test_bias_and_activation_join_the_product():
    graph = _fused(f"{_X} => float[n, 3, 5] y", "a = MatMul(x, w) c = Add(a, b) y = Relu(c)")
    (node,) = graph.nodes
    assert (node.kind, node.attrs["own"], len(node.inputs)) == ("MatMul", 2, 3)


def test_of_two_products_the_later_one_takes_the_sum():
    body = "a = MatMul(x, w) c = Exp(x) d = MatMul(c, w) y = Add(a, d)"
    graph = _fused(f"{_X} => float[n, 3, 5] y", body)
    first, _, last = graph.nodes
    assert "epilogue" not in first.attrs
    assert last.inputs[2] is first.output


def test_a_result_that_others_read_keeps_its_own_node():
    body = "a = MatMul(x, w) y = Relu(a) z = Softmax(a)"
    graph = _fused(f"{_X} => float[n, 3, 5] y, float[n, 3, 5] z", body)
    assert kinds(graph) == {"MatMul": 1, "clinfer.Pointwise": 1, "clinfer.Softmax": 1}


def test_an_output_of_the_model_keeps_its_own_node():
    graph = _fused(f"{_X} => float[n, 3, 5] a, float[n, 3, 5] y", "a = MatMul(x, w) y = Relu(a)")
    assert kinds(graph) == {"MatMul": 1, "clinfer.Pointwise": 1}


def test_an_epilogue_does_not_enlarge_its_anchor():
    graph = _fused(
        "float[n, 3, 4] x => float[7, n, 3, 5] y",
        "a = MatMul(x, w) y = Add(a, large)",
        large=random((7, 1, 1, 5)),
    )
    assert kinds(graph) == {"MatMul": 1, "clinfer.Pointwise": 1}


def test_scale_and_mask_join_the_softmax_after_them():
    body = "a = Mul(x, half) c = Add(a, mask) y = Softmax(c)"
    graph = _fused(f"{_X} => float[n, 3, 4] y", body, mask=random((3, 4)))
    (node,) = graph.nodes
    assert (node.kind, node.attrs["own"]) == ("clinfer.Softmax", 2)


def test_costly_prologues_stay_apart_from_what_reads_them_several_times():
    graph = _fused(f"{_X} => float[n, 3, 4] y", "a = Erf(x) y = Softmax(a)")
    assert kinds(graph) == {"clinfer.Pointwise": 1, "clinfer.Softmax": 1}
    graph = _fused(f"{_X} => float[n, 3] y", "a = Erf(x) y = ReduceSum<keepdims = 0>(a, axis)")
    assert kinds(graph) == {"ReduceSum": 1, "Reshape": 1}


def test_a_number_of_the_run_stays_outside_a_convolution_of_channels_first():
    """It has no axes that a transposition between the two could turn."""
    signature = "float[n, 3, 8, 8] x, float p => float[n, 4, 6, 6] y"
    built = model(signature, "a = Mul(x, p) y = Conv(a, k)", {"k": random((4, 3, 3, 3))})
    graph = check(built, {"x": random((1, 3, 8, 8)), "p": np.array(0.5, np.float32)})
    assert kinds(graph)["clinfer.Conv"] == 1


def test_reductions_with_both():
    body = """a = Mul(x, x) c = ReduceMean<keepdims = 0>(a, axis) d = Add(c, two) e = Sqrt(d)
              y = Reciprocal(e)"""
    graph = _fused(f"{_X} => float[n, 3] y", body)
    assert kinds(graph) == {"ReduceMean": 1, "Reshape": 1}
    assert {"prologue", "epilogue"} <= set(graph.nodes[0].attrs)


def test_scale_and_bias_join_the_normalisation():
    body = "a = LayerNormalization(x, g, h) y = Relu(a)"
    graph = _fused(f"{_X} => float[n, 3, 4] y", body, g=random((4,)), h=random((4,), 2))
    assert kinds(graph) == {"clinfer.Norm": 1}
    assert len(graph.nodes[0].inputs) == 3


def test_pointwise_operators_move_before_a_reshape():
    body = """f = Reshape(x, rows) a = MatMul(f, w) c = Reshape(a, back) d = Add(c, b)
              e = Exp(x) g = MatMul(e, w) h = Add(d, g) y = Relu(h)"""
    graph = _fused(
        f"{_X} => float[n, 3, 5] y", body, rows=np.array([-1, 4]), back=np.array([-1, 3, 5])
    )
    assert kinds(graph)["MatMul"] == 2
    assert kinds(graph)["clinfer.Pointwise"] == 1  # exp, which no operator before it takes


def test_expansions_are_read_through():
    body = "shape = Shape(x) a = Expand(row, shape) y = Where(c, x, a)"
    graph = check(
        model(
            "float[n, 3, 4] x, bool[3, 1] c => float[n, 3, 4] y",
            body,
            {"row": random((4,))},
        ),
        {"x": random((2, 3, 4)), "c": np.array([[True], [False], [True]])},
    )
    assert kinds(graph) == {"clinfer.Pointwise": 1}


def test_small_costly_producers_are_not_repeated_for_every_element():
    body = "a = ReduceMax(x, axis) c = Concat<axis = 2>(a, a) d = Erf(a) y = Mul(x, d)"
    signature = f"{_X} => float[n, 3, 4] y, float[n, 3, 2] c"
    assert kinds(_fused(signature, body))["clinfer.Pointwise"] == 2
    cheap = body.replace("Erf", "Neg")
    assert kinds(_fused(signature, cheap))["clinfer.Pointwise"] == 1


def test_cheap_producers_are_repeated_for_each_reader():
    body = "a = Cast<to = 1>(k) y = Add(x, a) c = Mul(x, a) z = Softmax(c)"
    graph = check(
        model("float[3, 4] x, int32[3, 4] k => float[3, 4] y, float[3, 4] z", body),
        {"x": random((3, 4)), "k": np.arange(12, dtype=np.int32).reshape(3, 4)},
    )
    assert kinds(graph) == {"clinfer.Pointwise": 1, "clinfer.Softmax": 1}


def test_a_kernel_reads_only_so_many_operands():
    names = [f"k{i}" for i in range(20)]
    body = "a0 = Add(x, k0) " + " ".join(
        f"a{i} = Add(a{i - 1}, {name})" for i, name in enumerate(names) if i
    )
    graph = _fused(
        f"{_X} => float[n, 3, 4] a19",
        body,
        **{name: random((3, 4), i) for i, name in enumerate(names)},
    )
    assert kinds(graph) == {"clinfer.Pointwise": 2}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -0.0])
def test_special_numbers_inside_expressions(value):
    graph = _fused(
        f"{_X} => float[n, 3, 4] y",
        "a = Greater(x, half) y = Where(a, x, special)",
        special=np.float32(value),
    )
    assert kinds(graph) == {"clinfer.Pointwise": 1}


def test_inlining_shares_operands_and_drops_what_is_not_read():
    graph = Graph()
    x, y = (graph.constant(random((2,), i)) for i in (0, 1))
    made = Value("m", "float32", (2,))
    first = Builder(["float32", "float32"])
    inner = Program(first.build(first.op("add", 0, 1)), (x, y))
    second = Builder(["float32", "float32", "float32"])
    outer = Program(second.build(second.op("mul", 0, 1)), (made, x, y))
    whole = inline(outer, {id(made): inner})
    assert whole.operands == (x, y)
    assert [line.op for line in whole.expr.lines] == ["add", "mul"]
    assert inline(Program(second.build(second.op("neg", 1)), (made, x, y)), {}).operands == (x,)
