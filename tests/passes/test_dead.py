"""What need not run: unread nodes, known results, repeated computations."""

from __future__ import annotations

import numpy as np

from clinfer_kernels.dims import sym
from passes.passes_helpers import check, kinds, model, optimised, random

_X = "float[n, 4] x"


def test_equal_nodes_are_computed_once():
    body = "a = Softmax(x) b = Softmax(x) c = MatMul(a, w) d = MatMul(b, v) y = Add(c, d)"
    same = random((4, 4))
    graph = check(
        model(f"{_X} => float[n, 4] y", body, {"w": same, "v": same.copy()}), {"x": random((3, 4))}
    )
    assert kinds(graph)["clinfer.Softmax"] == 1


def test_attributes_and_constants_tell_nodes_apart():
    body = "a = Softmax<axis = 0>(x) b = Softmax<axis = 1>(x) c = Add(a, b) y = Gather(c, i)"
    proto = model(f"{_X} => float[2, 4] y", body, {"i": np.array([1, 0])})
    graph = check(proto, {"x": random((3, 4))})
    assert kinds(graph)["clinfer.Softmax"] == 2


def test_reshapes_to_different_shapes_differ():
    body = "a = Reshape(x, s) b = Reshape(x, t) c = Relu(a) y = Softmax(c) z = Softmax(b)"
    proto = model(
        f"{_X} => float[n, 2, 2] y, float[n, 1, 4] z",
        body,
        {"s": np.array([0, 2, 2]), "t": np.array([0, 1, 4])},
    )
    check(proto, {"x": random((3, 4))})


def test_two_outputs_may_be_one_value():
    graph = check(
        model(f"{_X} => float[n, 4] y, float[n, 4] z", "y = Softmax(x) z = Softmax(x)"),
        {"x": random((3, 4))},
    )
    assert len(graph.nodes) == 1
    assert graph.outputs[0] is graph.outputs[1]
    assert graph.output_names == ["y", "z"]


def test_random_numbers_are_not_shared():
    body = "a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b)"
    graph, _ = optimised(model(f"{_X} => float[n, 4] y", body))
    assert kinds(graph)["clinfer.Random"] == kinds(graph)["clinfer.Seed"] == 2


def test_outputs_made_of_sizes_need_no_node():
    graph = check(
        model(f"{_X} => int64[2] s, float[n, 4] y", "s = Shape(x) y = Relu(x)"),
        {"x": random((3, 4))},
    )
    assert kinds(graph) == {"clinfer.Pointwise": 1}
    assert graph.outputs[0].symbolic.tolist() == [sym("n"), 4]
    assert graph.outputs[0].producer is None


def test_what_nothing_reads_goes():
    body = "a = Exp(x) b = MatMul(a, w) y = Relu(x)"
    graph, _ = optimised(model(f"{_X} => float[n, 4] y", body, {"w": random((4, 4))}))
    assert kinds(graph) == {"clinfer.Pointwise": 1}
