"""Projections move before resizes, into products of matrices, and stay where that is no gain."""

from __future__ import annotations

import numpy as np
import pytest

from passes.passes_helpers import check, kinds, model, random

_SIGNATURE = "float[1, 8, 4, 5] x, float[1, 4, 8, 10] z => float[1, 4, 8, 10] y"
_FEED = {"x": random((1, 8, 4, 5)), "z": random((1, 4, 8, 10), 1)}
CONSTANTS = {
    "w": random((4, 20, 1, 1), 2),
    "v": random((4, 8, 1, 1), 3),
    "t": random((4,), 4),
    "e": random((8, 8, 3, 3), 7),
    "f": random((4, 4, 3, 3), 8),
    "s": np.array([1, 1, 2, 2], np.float32),
}


def _pixels(graph):
    """Pixels that each projection is applied to."""
    convolutions = [n for n in graph.nodes if n.kind == "clinfer.Conv"]
    found = [n.output.known_shape for n in convolutions if n.attrs["kernel"] == [1, 1]]
    return sorted(shape[1] * shape[2] for shape in found)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_parts_of_a_concatenation_are_projected_where_they_are_small(mode):
    body = f"""j = Conv<pads = [1, 1, 1, 1]>(x, e) k = Neg(j)
        o = Conv<pads = [1, 1, 1, 1]>(z, f) r = Resize<mode = "{mode}">(j, , s)
        l = Resize<mode = "{mode}">(k, , s) c = Concat<axis = 1>(r, o, l)
        p = Conv(c, w, t) y = Relu(p)"""
    graph = check(model(_SIGNATURE, body, CONSTANTS), _FEED, rtol=1e-4, atol=1e-4)
    assert _pixels(graph) == [20, 20, 80]
    assert not kinds(graph)["Concat"]


def test_a_resize_that_others_read_stays_before_the_projection():
    body = """j = Conv<pads = [1, 1, 1, 1]>(x, e) r = Resize<mode = "linear">(j, , s)
        p = Conv(r, v, t) m = ReduceMean<keepdims = 1>(r) q = Add(p, m) y = Add(q, z)"""
    graph = check(model(_SIGNATURE, body, CONSTANTS), _FEED, rtol=1e-4, atol=1e-4)
    assert _pixels(graph) == [80]


def test_a_projection_behind_a_product_becomes_part_of_it():
    constants = {
        "m": random((3, 8), 5),
        "b": random((8,), 6),
        "image": np.array([1, 8, 4, 5]),
        **CONSTANTS,
    }
    body = """g = MatMul(x, m) h = Add(g, b) i = Transpose<perm = [0, 2, 1]>(h)
        j = Reshape(i, image) y = Conv(j, v, t)"""
    signature = "float[1, 20, 3] x => float[1, 4, 4, 5] y"
    graph = check(model(signature, body, constants), {"x": random((1, 20, 3))}, rtol=1e-4)
    assert not kinds(graph)["clinfer.Conv"]
    assert kinds(graph)["MatMul"] == 1
