"""Quantised operators of com.microsoft round where ONNX Runtime's do, to the last byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_helpers import EIGHT, eight, found, model, scale, zero
from graph_helpers import by_onnxruntime, proto
from onnx import helper, numpy_helper

from clinfer import Core
from passes.interpreter import run_graph
from passes.passes_helpers import optimised

SHAPES = {
    "of one shape": ((256, 256), (256, 256)),
    "with a number": ((256, 256), (1,)),
    "of a number and many": ((1,), (256, 256)),
    "by rows": ((3, 1, 1), (2, 3, 16, 16)),
}


@EIGHT
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("name", SHAPES)
def test_binary_operators_round_where_onnxruntime_does(dtype: Any, op: str, name: str) -> None:
    """With decimal scales many results lie so near a half that each rounding counts."""
    a, b = (eight(*shape, dtype=dtype, seed=n) for n, shape in enumerate(SHAPES[name]))
    known = {"as": scale(0.017), "az": zero(5, dtype), "bs": scale(0.034), "bz": zero(101, dtype)}
    known |= {"cs": scale(0.052 if op == "QLinearAdd" else 0.06), "cz": zero(77, dtype)}
    order = ("a", "as", "az", "b", "bs", "bz", "cs", "cz")
    inputs = {key: {"a": a, "b": b, **known}[key] for key in order}
    content = model(op, inputs, constant=tuple(known))
    feeds = {"a": a, "b": b}
    (want,) = by_onnxruntime(content, feeds)
    np.testing.assert_array_equal(found(content, feeds)[0], want)
    np.testing.assert_array_equal(Core().compile_model(content, "CPU")(feeds)["y0"], want)


BLOCK = """agraph (uint8[2, 4, 6, 6] x) => (uint8[2, 4, 6, 6] y)
<float s = {0.02}, uint8 z = {121}, float t = {0.01}, int8 u = {0}, float r = {0.031}> {
    c = QLinearConv(x, s, z, w, t, u, s, z)
    d = QLinearConv(x, s, z, w, t, u, r, z)
    a = com.microsoft.QLinearAdd(c, s, z, d, r, z, r, z)
    g = com.microsoft.QLinearGlobalAveragePool(a, r, z, t, z)
    y = com.microsoft.QLinearMul(a, r, z, g, t, z, t, z)
}"""


def test_a_residual_block_of_qlinear_operators_gives_the_same_bytes() -> None:
    """Behind a convolution, whose channels kernels take last."""
    content = proto(BLOCK)
    content.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    weight = eight(4, 4, 1, 1, dtype=np.int8)
    content.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    feeds = {"x": eight(2, 4, 6, 6)}
    (want,) = by_onnxruntime(content, feeds)
    np.testing.assert_array_equal(Core().compile_model(content, "CPU")(feeds)["y"], want)


CHAIN = """agraph (uint8[256] x) => (uint8[256] y)
<float s = {0.02}, uint8 z = {121}, float t = {0.01}, uint8 k = {200}> {
    a = com.microsoft.QLinearSigmoid(x, s, z, t, z)
    m = com.microsoft.QLinearMul(x, s, z, a, t, z, t, z)
    y = com.microsoft.QLinearAdd(m, t, z, k, t, z, s, z)
}"""


def test_a_chain_on_one_tensor_is_a_table_of_the_same_bytes() -> None:
    content = proto(CHAIN)
    content.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    graph, _ = optimised(content, cls="cpu")
    (node,) = graph.nodes
    assert [line.op for line in node.attrs["expr"].lines] == ["lookup"]
    feeds = {"x": np.arange(256, dtype=np.uint8)}
    (want,) = by_onnxruntime(content, feeds)
    np.testing.assert_array_equal(run_graph(graph, feeds)[0], want)


@EIGHT
@pytest.mark.parametrize("last", [0, 1])
def test_global_averages_are_sums_by_one_factor(dtype: Any, last: int) -> None:
    inputs = {
        "x": eight(16, 40, 5, 8, dtype=dtype),
        "xs": scale(0.02),
        "xz": zero(7, dtype),
        "ys": scale(0.001),
        "yz": zero(3, dtype),
    }
    constant = ("xs", "xz", "ys", "yz")
    attrs = {"channels_last": last}
    content = model("QLinearGlobalAveragePool", inputs, attrs, constant=constant)
    feeds = {"x": inputs["x"]}
    (want,) = by_onnxruntime(content, feeds)
    np.testing.assert_array_equal(found(content, feeds)[0], want)
    np.testing.assert_array_equal(Core().compile_model(content, "CPU")(feeds)["y0"], want)


@EIGHT
@pytest.mark.parametrize("last", [0, 1])
def test_halves_of_averages_go_to_even_behind_the_zero_point(dtype: Any, last: int) -> None:
    """A quarter of these averages are halves of a step, which is the input's too."""
    point = {"s": scale(0.02387), "z": zero(7, dtype)}
    inputs = {"x": eight(2, 6, 8, 8, dtype=dtype), **point, "ys": point["s"], "yz": point["z"]}
    attrs = {"kernel_shape": [2, 2], "strides": [2, 2], "channels_last": last}
    constant = ("s", "z", "ys", "yz")
    content = model("QLinearAveragePool", inputs, attrs, constant=constant)
    (want,) = by_onnxruntime(content, {"x": inputs["x"]})
    np.testing.assert_array_equal(found(content, {"x": inputs["x"]})[0], want)
    compiled = Core().compile_model(content, "CPU")
    np.testing.assert_array_equal(compiled({"x": inputs["x"]})["y0"], want)
