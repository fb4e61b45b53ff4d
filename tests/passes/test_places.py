"""Operators that pick by position, and LRN: kernels' operators compute what ONNX says."""

from __future__ import annotations

import numpy as np
import pytest
from onnxruntime import InferenceSession

import clinfer
from passes.passes_helpers import check, kinds, model, random

I = np.int64  # noqa: E741 - the dtype of shapes and axes


def _runs(proto, *feeds, left=()):
    """Compares with ONNX Runtime after each phase, and a run on the device with it."""
    graph = check(proto, *feeds)
    assert not kinds(graph).keys() & set(left)
    session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    compiled = clinfer.Core().compile_model(proto, "CPU")
    assert not compiled.host_steps
    request = compiled.create_infer_request()
    for feed in feeds:
        found = request.infer(feed)
        for value, want in zip(proto.graph.output, session.run(None, feed), strict=True):
            np.testing.assert_allclose(found[value.name], want, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_compares_with_positions(axis):
    shape = ["n", "3"]
    shape.insert(axis % 3, "5")
    proto = model(
        f"int64[n, 3] x, float[2] v => float[{', '.join(shape)}] y",
        f"y = OneHot<axis = {axis}>(x, depth, v)",
        {"depth": np.array(5, I)},
    )
    rng = np.random.default_rng(1)
    feeds = [
        {"x": rng.integers(-7, 7, (n, 3)), "v": np.array([-1.5, 2.5], np.float32)} for n in (1, 4)
    ]
    _runs(proto, *feeds, left=["OneHot"])


def test_one_hot_takes_indices_in_floating_point():
    proto = model(
        "float[4] x => float[4, 3] y",
        "y = OneHot(x, depth, v)",
        {"depth": np.array([3], np.float32), "v": np.array([0, 1], np.float32)},
    )
    _runs(proto, {"x": np.array([0, 2, -1, 3], np.float32)}, left=["OneHot"])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_hardmax_is_one_at_the_first_maximum(axis):
    proto = model("float[n, m, 4] x => float[n, m, 4] y", f"y = Hardmax<axis = {axis}>(x)")
    x = np.round(random((3, 5, 4)))
    _runs(proto, {"x": x}, {"x": x[:1, :2].copy()}, left=["Hardmax"])


@pytest.mark.parametrize("batch", [0, 1])
def test_sequences_are_reversed_up_to_their_lengths(batch):
    time = 1 - batch
    proto = model(
        "float[a, b, 3] x, int64[s] l => float[a, b, 3] y",
        f"y = ReverseSequence<batch_axis = {batch}, time_axis = {time}>(x, l)",
    )
    for rows, steps in ((1, 1), (4, 6)):
        shape = (rows, steps, 3) if batch == 0 else (steps, rows, 3)
        lengths = np.array([steps, 1, 2, 3][:rows], I)
        _runs(proto, {"x": random(shape), "l": lengths}, left=["ReverseSequence"])


def test_maxima_go_back_to_where_they_came_from():
    proto = model(
        "float[2, 3, 6, 8] x => float[2, 3, 6, 8] y",
        """p, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
           y = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(p, i)""",
    )
    _runs(proto, {"x": random((2, 3, 6, 8))}, left=["MaxUnpool"])


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_local_responses_are_pooled_along_the_channels(size, beta):
    proto = model(
        "float[n, 7, h, 5] x => float[n, 7, h, 5] y",
        f"y = LRN<size = {size}, alpha = 0.3, beta = {beta}, bias = 1.5>(x)",
    )
    feeds = [{"x": random((n, 7, h, 5))} for n, h in ((1, 4), (2, 3))]
    _runs(proto, *feeds, left=["LRN"])


@pytest.mark.parametrize("upper", [0, 1])
def test_triangles_of_sizes_known_in_a_run(upper):
    proto = model("float[n, m] x => float[n, m] y", f"y = Trilu<upper = {upper}>(x)")
    _runs(proto, {"x": random((3, 5))}, {"x": random((4, 2))}, left=["Trilu"])
