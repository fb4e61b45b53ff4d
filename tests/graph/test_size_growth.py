"""Expressions of sizes that would explode: left to the run where that will do, else refused."""

from __future__ import annotations

import numpy as np
import pytest
from graph_helpers import model, run

from clinfer.errors import ShapeError
from clinfer_kernels.dims import MOST_DEPTH, Dim, Expr, TooComplex, floordiv, sym


def squares(count: int) -> str:
    """Sizes s with s = s * (s + 1), again and again: polynomials of degree 2 ** count."""
    steps = [f"t{i} = Add(s{i}, one) s{i + 1} = Mul(s{i}, t{i})" for i in range(count)]
    return f"""m (float[N, M] x) => (int64[2] s{count}) {{
        one = Constant<value_ints = [1, 1]>()
        s0 = Shape(x)
        {" ".join(steps)}
    }}"""


@pytest.mark.parametrize("count", [2, 4, 40])
def test_polynomials_in_sizes_are_computed_in_the_run(count: int) -> None:
    with np.errstate(over="ignore"):
        (found,) = run(model(squares(count)).graph(), [np.zeros((2, 3), np.float32)])
        expected = np.array([2, 3])
        for _ in range(count):
            expected = expected * (expected + 1)  # wraps as int64 does
    assert found.tolist() == expected.tolist()


def test_factors_beyond_64_bits_are_computed_in_the_run() -> None:
    steps = " ".join(f"s{i + 1} = Mul(s{i}, many)" for i in range(8))
    text = f"""m (float[N] x) => (int64[1] s8) {{
        many = Constant<value_ints = [1000003]>()
        s0 = Shape(x)
        {steps}
    }}"""
    with np.errstate(over="ignore"):
        (found,) = run(model(text).graph(), [np.zeros(5, np.float32)])
        expected = np.array([5]) * np.prod(np.full(8, 1000003))
    assert found.tolist() == expected.tolist()


def test_shapes_that_grow_by_squares_are_refused() -> None:
    steps = [
        f"""a{i} = Reshape(v{i}, column) b{i} = Reshape(v{i}, row)
            m{i} = Mul(a{i}, b{i}) v{i + 1} = Reshape(m{i}, flat)"""
        for i in range(30)
    ]
    text = f"""m (float[N] v0) => (float[K] v30) {{
        column = Constant<value_ints = [-1, 1]>()
        row = Constant<value_ints = [1, -1]>()
        flat = Constant<value_ints = [-1]>()
        {" ".join(steps)}
    }}"""
    with pytest.raises(ShapeError, match=r"Mul .*an expression of the inputs' sizes becomes too"):
        model(text)


def test_quotients_of_quotients_are_refused() -> None:
    pool = "MaxPool<kernel_shape = [3], strides = [2]>"
    steps = " ".join(f"v{i + 1} = {pool}(v{i})" for i in range(200))
    with pytest.raises(ShapeError, match=r"MaxPool .*becomes too long to be followed"):
        model(f"m (float[1, 1, N] v0) => (float[a, b, c] v200) {{ {steps} }}")


def test_wavelets_of_any_size_are_followed() -> None:
    """Every second place from 0 and from 1, broadcast to each other, level by level."""
    steps = " ".join(
        f"e{i} = Slice(v{i}, zero, end, axis, two) o{i} = Slice(v{i}, one, end, axis, two)"
        f" v{i + 1} = Add(e{i}, o{i})"
        for i in range(6)
    )
    text = f"""m (float[2, N] v0) => (float[2, K] v6) {{
        zero = Constant<value_ints = [0]>()
        one = Constant<value_ints = [1]>()
        two = Constant<value_ints = [2]>()
        end = Constant<value_ints = [9223372036854775807]>()
        axis = Constant<value_ints = [1]>()
        {steps}
    }}"""
    graph = model(text).graph()
    size = graph.outputs[0].known_shape[1]
    assert isinstance(size, Expr)
    assert size.weight < 1024
    for n in (0, 1, 64, 128):
        expected = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
        (found,) = run(graph, [expected])
        for _ in range(6):
            expected = expected[:, ::2] + expected[:, 1::2]
        np.testing.assert_array_equal(found, expected)


def test_expressions_have_a_weight_and_a_depth() -> None:
    n, m = sym("n"), sym("m")
    assert isinstance(n * m + 3, type(n))
    with pytest.raises(TooComplex):
        power: Dim = n + m
        for _ in range(20):
            power = power * power
    with pytest.raises(TooComplex):
        quotient: Dim = n
        for _ in range(MOST_DEPTH + 1):
            quotient = floordiv(quotient + 1, 2)
