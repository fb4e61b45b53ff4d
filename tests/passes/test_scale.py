"""Factors and shifts behind a convolution are folded into its weights and bias."""

from __future__ import annotations

import numpy as np
import pytest

from passes.passes_helpers import check, kinds, model, optimised, random

STATISTICS = {
    "s": random((6,), 1),
    "b": random((6,), 2),
    "m": random((6,), 3),
    "v": random((6,), 4) ** 2,
}
_NORM = "BatchNormalization<epsilon = 0.01>"
_X = "float[2, 4, 5, 5] x => float[2, 6, h, w] y"


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_batch_norm_goes_into_the_weights(op, group):
    shape = (6, 4 // group, 3, 3) if op == "Conv" else (4, 6 // group, 3, 3)
    body = f"c = {op}<group = {group}>(x, w, t) y = {_NORM}(c, s, b, m, v)"
    constants = {**STATISTICS, "w": random(shape), "t": random((6,), 5)}
    proto = model(_X, body, constants)
    graph, _ = optimised(proto, "canonicalise")
    assert kinds(graph) == {op: 1}
    check(proto, {"x": random((2, 4, 5, 5))})


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w) y = Mul(c, by_channel)",
        "c = Conv(x, w, t) y = Div(c, by_channel)",
        "c = Conv(x, w) d = Mul(two, c) y = Add(by_channel, d)",
        "c = Conv(x, w, t) y = Sub(c, by_channel)",
        "c = Conv(x, w) y = Add(c, two)",
    ],
)
def test_factors_and_shifts_by_channel(body):
    constants = {
        "w": random((6, 4, 3, 3)),
        "t": random((6,), 5),
        "by_channel": random((6, 1, 1), 6) + 3,
        "two": np.float32(2),
    }
    proto = model(_X, body, constants)
    graph, _ = optimised(proto, "canonicalise")
    assert kinds(graph) == {"Conv": 1}
    check(proto, {"x": random((2, 4, 5, 5))})


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w) d = Mul(c, two) y = Add(c, d)",
        "c = Conv(x, w) y = Sub(two, c)",
        "c = Conv(x, w) y = Mul(c, by_column)",
        "c = Conv(x, w) y = Div(c, zero)",
    ],
)
def test_what_is_not_linear_by_channel_stays(body):
    constants = {
        "w": random((6, 4, 3, 3)),
        "two": np.float32(2),
        "zero": np.float32(0),
        "by_column": random((3,)),
    }
    proto = model(_X, body, constants)
    graph, _ = optimised(proto, "canonicalise")
    assert len(graph.nodes) > 1
    check(proto, {"x": random((2, 4, 5, 5))})


def test_the_products_are_rounded_once():
    weights = random((6, 4, 1, 1))
    body = f"c = Conv(x, w) y = {_NORM}(c, s, b, m, v)"
    graph, _ = optimised(model(_X, body, {**STATISTICS, "w": weights}), "canonicalise")
    folded = graph.nodes[0].required(1).const
    exact = {name: value.astype(np.float64) for name, value in STATISTICS.items()}
    factor = exact["s"] / np.sqrt(exact["v"] + np.float32(0.01))
    wanted = (weights * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
    np.testing.assert_array_equal(folded, wanted)


def test_zero_padding_goes_into_the_convolution():
    constants = {
        "w": random((6, 4, 3, 3)),
        "p": np.array([0, 0, 0, 1, 0, 0, 1, 1]),
        "zero": np.float32(0),
    }
    body = "a = Pad(x, p, zero) y = Conv<strides = [2, 2], pads = [1, 0, 0, 0]>(a, w)"
    proto = model(_X, body, constants)
    graph, _ = optimised(proto, "canonicalise")
    assert [n.attrs["pads"] for n in graph.nodes] == [[1, 1, 1, 1]]
    check(proto, {"x": random((2, 4, 5, 5))})


def test_other_padding_stays():
    constants = {"w": random((6, 4, 3, 3)), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    proto = model(_X, 'a = Pad<mode = "reflect">(x, p) y = Conv(a, w)', constants)
    graph, _ = optimised(proto, "canonicalise")
    assert kinds(graph) == {"Pad": 1, "Conv": 1}
    check(proto, {"x": random((2, 4, 5, 5))})
