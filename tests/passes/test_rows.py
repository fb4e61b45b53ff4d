"""Norms between products become part of them on GPUs, where all readers can do without."""

from __future__ import annotations

import numpy as np
import pytest

from passes.passes_helpers import check, kinds, model, optimised, random

WIDE = {
    "a": random((48, 64), 1) / 7,
    "b": random((64, 128), 2) / 8,
    "c": random((128, 64), 3) / 11,
    "gain": random((64,), 4),
    "shift": random((64,), 5),
    "bias": random((64,), 6),
}
_SIGNATURE = "float[n, s, 48] x, float[n, s, 64] r => float[n, s, {}] y"
_FEED = {"x": random((2, 5, 48)), "r": random((2, 5, 64), 9) + 2}
_FIRST = "p = MatMul(x, a) u = Add(p, r) "
_NORM = "v = LayerNormalization<axis = -1, epsilon = 1e-5>(u, gain, shift) "


def built(body, columns=128, **constants):
    return model(_SIGNATURE.format(columns), body, {**WIDE, **constants})


@pytest.mark.parametrize("norm", [_NORM, _NORM.replace(", shift)", ")")])
def test_a_norm_between_products_has_no_launch(norm):
    graph = check(built(_FIRST + norm + "y = MatMul(v, b)"), _FEED, rtol=1e-4)
    assert kinds(graph) == {"clinfer.RowMatMul": 2}


def test_a_residual_sum_computes_the_norm_from_means_and_deviations():
    """As in encoders that normalise behind the sum."""
    body = "w = MatMul(v, b) g = Relu(w) q = MatMul(g, c) k = Add(q, bias) y = Add(k, v)"
    graph = check(built(_FIRST + _NORM + body, 64), _FEED, rtol=1e-4, atol=1e-4)
    assert kinds(graph) == {"clinfer.RowMatMul": 2, "MatMul": 1}


def test_what_follows_a_norm_is_read_through():
    body = "z = Relu(v) w = MatMul(z, b) y = Relu(w)"
    graph = check(built(_FIRST + _NORM + body), _FEED, rtol=1e-4)
    assert kinds(graph) == {"clinfer.RowMatMul": 2}


def test_several_products_and_a_pointwise_reader():
    body = "y1 = MatMul(v, b) y2 = Relu(y1) y3 = MatMul(y2, c) y4 = Sigmoid(v) y5 = Mul(y3, y4) "
    graph = check(built(_FIRST + _NORM + body + "y = Softmax<axis = -1>(y5)", 64), _FEED, rtol=1e-4)
    assert kinds(graph)["clinfer.Norm"] == 0


@pytest.mark.parametrize(
    "body",
    [
        _NORM + "z = MatMul(v, b) y = Concat<axis = 2>(z, v)",  # read as it is
        _NORM + "z = Softmax<axis = -1>(v) y = MatMul(z, b)",  # no product reads it
        "u2 = Relu(u) " + _NORM.replace("(u,", "(u1,") + "y = MatMul(v, b)",
    ],
)
def test_others_keep_theirs(body):
    first = _FIRST.replace("Add(p, r)", "Add(p, r) u0 = Transpose<perm = [1, 0, 2]>(u) "
                           "u1 = Softmax<axis = 0>(u)") if "u1" in body else _FIRST  # fmt: skip
    columns = 192 if "Concat" in body else 128
    graph = check(built(first + body, columns), _FEED, rtol=1e-4)
    assert kinds(graph)["clinfer.Norm"] == 1


def test_rows_that_are_no_multiple_keep_theirs():
    odd = {
        "a": random((48, 60)),
        "b": random((60, 128)),
        "gain": random((60,)),
        "shift": random((60,)),
    }
    proto = model(
        "float[n, 48] x => float[n, 128] y", "u = MatMul(x, a) " + _NORM + "y = MatMul(v, b)", odd
    )
    graph = check(proto, {"x": random((3, 48))}, rtol=1e-3, atol=1e-3)
    assert kinds(graph)["clinfer.Norm"] == 1


def test_a_norm_of_mean_squares():
    half = {"one": np.float32([1e-6]), "two": np.float32(2)}
    body = (
        "s = Pow(u, two) m = ReduceMean<keepdims = 1, axes = [-1]>(s) e = Add(m, one) "
        "q = Sqrt(e) d = Div(u, q) v = Mul(d, gain) y = MatMul(v, b)"
    )
    proto = model(_SIGNATURE.format(128), _FIRST + body, {**WIDE, **half}, opset=13)
    graph = check(proto, _FEED, rtol=1e-4)
    assert kinds(graph) == {"clinfer.RowMatMul": 2}


@pytest.mark.parametrize(("rows", "joined"), [(512, True), (513, False), ("s", False)])
def test_many_rows_stay_apart_where_the_device_is_faster_so(rows, joined):
    proto = model(
        f"float[1, {rows}, 48] x, float[1, {rows}, 64] r => float[1, {rows}, 128] y",
        _FIRST + _NORM + "y = MatMul(v, b)",
        WIDE,
    )
    graph, _ = optimised(proto, features=("norms apart",))
    apart = {"MatMul": 2, "clinfer.Norm": 1}
    assert kinds(graph) == ({"clinfer.RowMatMul": 2} if joined else apart)
