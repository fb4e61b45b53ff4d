"""What is known of sizes: bounds, broadcasts, first indices of slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer.passes.query import broadcast, compose, first_index, fits, inverse, is_at_least
from clinfer_kernels.dims import evaluate, maximum, minimum, sym

S = sym("s")
B = sym("b")


@pytest.mark.parametrize(
    ("dim", "bound", "known"),
    [
        (3, 3, True),
        (2, 3, False),
        (S, 1, True),
        (S, 2, False),
        (S - 1, 0, True),
        (S - 2, 0, False),
        (S * B - 1, 0, True),
        (S - B, 0, False),
        (S + minimum(S, 5), 1, True),
        (minimum(S - 5, 2), 0, False),
        (maximum(S - 5, 0), 0, True),
    ],
)
def test_lower_bounds(dim, bound, known):
    assert is_at_least(dim, bound, frozenset("bs")) is known
    assert is_at_least(S, 1, frozenset("b")) is False


@settings(deadline=None, max_examples=60)
@given(st.integers(-9, 9), st.integers(1, 6), st.sampled_from([-2, -1, 1, 3]))
def test_slices_start_where_numpy_starts_them(start, size, step):
    chosen = np.arange(size)[slice(start, None, step)]
    for known in (size, S):
        first = first_index(start, 0, (known,), step)
        if len(chosen):
            assert evaluate(first, {"s": size}) == chosen[0]


@given(st.integers(-9, 9), st.sampled_from([-1, 1]), st.integers(1, 9), st.sampled_from([-2, 1]))
def test_slices_start_at_a_symbolic_place_of_either_sign(offset, factor, size, step):
    start = factor * S + offset
    chosen = np.arange(size)[slice(evaluate(start, {"s": size}), None, step)]
    for known in (size, S):
        first = first_index(start, 0, (known,), step)
        if len(chosen):
            assert evaluate(first, {"s": size}) == chosen[0]


def test_a_dynamic_size_meets_another_one_as_shape_inference_required():
    assert broadcast([(B, S), (1, S)]) == (B, S)
    assert broadcast([(S,), (minimum(S, 512),)]) == (S,)
    assert broadcast([(2,), (3,)]) is None
    assert fits((minimum(S, 512), 4), (B, S, 4))
    assert not fits((S, 4), (1, 4))
    assert not fits((2, 2, 2), (2, 2))


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_permutations(first, second):
    x = np.arange(24).reshape(1, 2, 3, 4)
    both = x.transpose(first).transpose(second)
    assert np.array_equal(both, x.transpose(compose(first, second)))
    assert np.array_equal(x.transpose(first).transpose(inverse(first)), x)
