"""Convolutions that are added become one on GPUs where one of them is a projection."""

from __future__ import annotations

import pytest

from passes.passes_helpers import check, kinds, model, random

CONSTANTS = {
    "w3": random((12, 6, 3, 3), 1) / 7,
    "w1": random((12, 6, 1, 1), 2) / 3,
    "side": random((12, 5, 1, 1), 3) / 3,
    "grouped": random((12, 3, 1, 1), 4) / 3,
    "a": random((12,), 5),
    "b": random((12,), 6),
}
_SIGNATURE = "float[n, 6, 8, 10] x, float[n, 5, {size}] z => float[n, 12, 8, 10] y"


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w1, a) d = Conv(z, side, b) y = Add(c, d)",
        "c = Conv<pads = [1, 1, 1, 1]>(x, w3, a) d = Conv(z, side) s = Add(d, c) y = Relu(s)",
        "c = Conv<pads = [2, 2, 2, 2], dilations = [2, 2]>(x, w3) d = Conv(z, side) y = Add(c, d)",
    ],
)
def test_a_sum_with_a_projection_is_one_convolution(body):
    proto = model(_SIGNATURE.format(size="8, 10"), body, CONSTANTS)
    graph = check(proto, {"x": random((2, 6, 8, 10)), "z": random((2, 5, 8, 10))}, rtol=1e-4)
    assert kinds(graph)["clinfer.ProjectedConv"] == 1
    assert kinds(graph)["clinfer.Conv"] == 0


def test_a_projection_at_strides_reads_a_view():
    body = """c = Conv<pads = [1, 1, 1, 1]>(x, w3, a)
        d = Conv<strides = [2, 3]>(z, side, b) s = Add(c, d) y = Relu(s)"""
    proto = model(_SIGNATURE.format(size="15, 30"), body, CONSTANTS)
    graph = check(proto, {"x": random((2, 6, 8, 10)), "z": random((2, 5, 15, 30))}, rtol=1e-4)
    assert kinds(graph)["clinfer.ProjectedConv"] == kinds(graph)["Slice"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w1) d = Conv(z, side) e = Relu(d) y = Add(c, e)",
        "c = Conv<group = 2>(x, grouped) d = Conv(z, side) y = Add(c, d)",
        "c = Conv<pads = [1, 1, 1, 1]>(x, w3) d = Conv<pads = [1, 1, 1, 1]>(x, w3) "
        "e = Conv(z, side) f = Mul(e, c) y = Add(f, d)",
        "c = Conv(x, w1) d = Conv(z, side) s = Add(c, d) t = Sigmoid(d) y = Mul(s, t)",
    ],
)
def test_others_stay_apart(body):
    proto = model(_SIGNATURE.format(size="8, 10"), body, CONSTANTS)
    graph = check(proto, {"x": random((2, 6, 8, 10)), "z": random((2, 5, 8, 10))}, rtol=1e-4)
    assert kinds(graph)["clinfer.ProjectedConv"] == 0


def test_a_cpu_keeps_them_apart():
    body = "c = Conv(x, w1, a) d = Conv(z, side, b) y = Add(c, d)"
    proto = model(_SIGNATURE.format(size="8, 10"), body, CONSTANTS)
    feed = {"x": random((2, 6, 8, 10)), "z": random((2, 5, 8, 10))}
    assert kinds(check(proto, feed, cls="cpu"))["clinfer.ProjectedConv"] == 0
