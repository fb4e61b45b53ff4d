"""Products of one value with constant matrices become one on GPUs, where that is a gain."""

from __future__ import annotations

import numpy as np
import pytest

from passes.passes_helpers import check, kinds, model, random

CONSTANTS = {
    "w0": random((8, 8), 1),
    "w1": random((8, 4), 2),
    "w2": random((8, 4), 3),
    "b0": random((8,), 4),
    "b1": random((4,), 5),
    "four": np.array([0, 0, 2, 4]),
    "two": np.array([0, 0, 1, 4]),
    "whole": np.array([0, 0, 8]),
    "flat": np.array([0, -1]),
}
_SIGNATURE = "float[n, s, 8] x => float[n, s, 8] y"
_FEED = {"x": random((2, 5, 8))}
_HEADS = """q1 = Reshape(q0, four) q = Transpose<perm = [0, 2, 1, 3]>(q1)
    k1 = Reshape(k0, two) kt = Transpose<perm = [0, 2, 3, 1]>(k1)
    v1 = Reshape(v0, two) v = Transpose<perm = [0, 2, 1, 3]>(v1)
    s = MatMul(q, kt) p = Softmax<axis = -1>(s) z = MatMul(p, v)
    z1 = Transpose<perm = [0, 2, 1, 3]>(z) y = Reshape(z1, whole)"""


@pytest.mark.parametrize(
    "products",
    [
        "q0 = MatMul(x, w0) k0 = MatMul(x, w1) v0 = MatMul(x, w2) ",
        "q2 = MatMul(x, w0) q0 = Add(q2, b0) k0 = MatMul(x, w1) "
        "v2 = MatMul(x, w2) v0 = Add(b1, v2) ",
    ],
)
def test_queries_keys_and_values_come_from_one_product(products):
    graph = check(model(_SIGNATURE, products + _HEADS, CONSTANTS), _FEED, rtol=1e-4)
    assert (
        sum(n.input(1) is not None and n.required(1).const is not None for n in _products(graph))
        == 1
    )
    assert kinds(graph)["clinfer.Attention"] + kinds(graph)["MatMul"] in (2, 4)


def _products(graph):
    return [node for node in graph.nodes if node.kind == "MatMul"]


def test_weights_stored_transposed_stay_so():
    body = "".join(
        f"t{i} = Transpose<perm = [1, 0]>(u{i}) {n}0 = MatMul(x, t{i}) "
        for i, n in enumerate("qkv")
    )
    wide = {f"u{i}": random((n, 1100), i) / 30 for i, n in enumerate((8, 4, 4))}
    signature = "float[n, s, 1100] x => float[n, s, 8] y"
    proto = model(signature, body + _HEADS, {**CONSTANTS, **wide})
    graph = check(proto, {"x": random((2, 5, 1100))}, rtol=1e-4)
    assert len([n for n in _products(graph) if len(n.required(1).known_shape) == 2]) == 1


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = MatMul(x, w0) b = MatMul(x, w0b) c = Sigmoid(a) d = Tanh(b) y = Mul(c, d)", 2),
        ("a = MatMul(x, w0) b = MatMul(x, w0b) y = Concat<axis = 1>(a, b)", 1),
        (
            "a = MatMul(x, w0) b = MatMul(x, w0b) c = Reshape(a, flat) e = Reshape(b, flat) "
            "y = Concat<axis = 1>(c, e)",
            2,
        ),
    ],
)
def test_results_that_are_more_than_viewed_stay_apart(body, left):
    rank = "m, k" if "flat" in body else "n, t, 8"
    signature = f"float[n, s, 8] x => float[{rank}] y"
    graph = check(model(signature, body, {**CONSTANTS, "w0b": random((8, 8), 9)}), _FEED)
    assert len(_products(graph)) == left


def test_results_of_the_model_stay_apart():
    signature = "float[n, 8] x => float[n, 4] y, float[n, 4] z"
    body = "y = MatMul(x, w1) z = MatMul(x, w2)"
    graph = check(model(signature, body, CONSTANTS), {"x": random((3, 8))})
    assert len(_products(graph)) == 2


def test_a_cpu_keeps_them_apart():
    products = "q0 = MatMul(x, w0) k0 = MatMul(x, w1) v0 = MatMul(x, w2) "
    graph = check(model(_SIGNATURE, products + _HEADS, CONSTANTS), _FEED, rtol=1e-4, cls="cpu")
    assert len([n for n in _products(graph) if len(n.required(1).known_shape) == 2]) == 3
