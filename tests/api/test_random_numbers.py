"""Operators that draw: what a seed fixes, what is fresh, and how the numbers are spread."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from clinfer.graph import numpy_random

HEAD = '<ir_version: 8, opset_import: ["": 18]> m '
ZEROS = np.zeros((9, 3), np.float32)


def compiled(core, device, text: str):
    proto = onnx.parser.parse_model(HEAD + text)
    return core.compile_model(proto.SerializeToString(), device)


def test_a_seed_gives_the_same_numbers_in_each_inference_and_size(core, device):
    model = compiled(
        core,
        device,
        """(float[N, 3] x) => (u, n) {
            u = RandomUniformLike<seed = 3.0, low = -1.0, high = 2.0>(x)
            n = RandomNormalLike<seed = 3.0, mean = 5.0, scale = 0.5>(x) }""",
    )
    assert [step.reason for step in model.host_steps] == []
    first = model({"x": ZEROS}).to_tuple()
    for found, again in zip(first, model({"x": ZEROS[:4]}).to_tuple(), strict=True):
        assert again.shape == (4, 3)
        np.testing.assert_array_equal(again, found[:4])
    key = np.array([3, 0], np.float32).view(np.uint32)
    for found, kind, form in zip(first, ("uniform", "normal"), ((3, -1), (0.5, 5)), strict=True):
        inputs = [key, np.array(form, np.float32), np.array(ZEROS.shape)]
        np.testing.assert_array_equal(found, numpy_random.random({"kind": kind}, inputs)[0])


def test_without_a_seed_each_inference_and_node_has_its_own(core, device):
    model = compiled(
        core,
        device,
        """(float[N, 3] x) => (a, b, c, d) {
            a = RandomNormalLike(x) b = RandomNormalLike(x)
            c = RandomUniform<shape = [2, 5], dtype = 10>() d = Bernoulli<dtype = 7>(x) }""",
    )
    assert {step.label.split()[0] for step in model.host_steps} == {"clinfer.Seed"}
    first, second = (model({"x": ZEROS}).to_tuple() for _ in range(2))
    drawn = [first[0], first[1], second[0], second[1]]
    assert all(not np.array_equal(a, b) for n, a in enumerate(drawn) for b in drawn[:n])
    assert (first[2].dtype, first[2].shape) == (np.float16, (2, 5))
    assert not np.array_equal(first[2], second[2])
    assert (first[3].dtype, first[3].any()) == (np.int64, False)


@pytest.mark.parametrize("count", ["n", "three"])
def test_each_step_of_a_loop_draws_numbers_of_its_own(core, device, count):
    model = compiled(
        core,
        device,
        f"""(int64 n, float[2] x) => (y) <bool go = {{1}}, int64 three = {{3}}> {{
            y = Loop({count}, go) <body = b (int64 i, bool c) => (d, t) {{
                d = Identity(c) t = RandomNormalLike(x) }}> }}""",
    )
    (found,) = model({"n": np.int64(3), "x": ZEROS[0, :2]}).to_tuple()
    assert found.shape == (3, 2)
    assert np.unique(found).size == 6


def test_outcomes_are_as_frequent_as_their_probabilities_say(core, device):
    model = compiled(
        core,
        device,
        """(float[N, 4] p, float[M, 4] x) => (b, k) {
            b = Bernoulli<seed = 1.0, dtype = 9>(p)
            k = Multinomial<seed = 2.0, sample_size = 20000, dtype = 7>(x) }""",
    )
    assert [step.reason for step in model.host_steps] == []
    chances = np.array([0, 0.3, 0.9, 1], np.float32)
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], [0, 0, 0, 9]], np.float32)
    with np.errstate(divide="ignore"):
        hits, classes = model({"p": np.tile(chances, (20000, 1)), "x": np.log(weights)}).to_tuple()
    np.testing.assert_allclose(hits.mean(0), chances, atol=0.015)
    assert (hits.dtype, classes.dtype, classes.shape) == (np.bool_, np.int64, (3, 20000))
    shares = np.array([np.bincount(row, minlength=4) / row.size for row in classes])
    wanted = weights / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(shares, wanted, atol=0.015)
    assert not shares[wanted == 0].any()
