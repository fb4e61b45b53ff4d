"""Affine forms of integer tensors agree with their content, and what follows from them holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer.passes.affine import Affine, least, of_array, settled
from clinfer.passes.forms import Forms
from clinfer.passes.query import positive_symbols
from clinfer_kernels.dims import evaluate, maximum, minimum, sym
from passes.interpreter import Interpreter
from passes.passes_helpers import check, kinds, model, optimised, random

B, S = sym("b"), sym("s")
CONSTANTS = {
    "zero": np.array(0),
    "one": np.array(1),
    "two": np.array(2),
    "three": np.array(3),
    "a0": np.array([0]),
    "a1": np.array([1]),
    "ends": np.array([2**62]),
    "minus": np.array([-1]),
    "row": np.array([10, 12, 14, 16]),
}
# Positions of the dimensions of x [b, s]: i [b, 1] and j [1, s].
_POSITIONS = """shape = Shape(x) b = Gather(shape, zero) s = Gather(shape, one)
                r = Range(zero, b, one) i = Unsqueeze(r, a1) q = Range(zero, s, one)
                j = Unsqueeze(q, a0) """


def _graph(body: str, output: str):
    proto = model(f"float[b, s] x => {output} y", _POSITIONS + body, CONSTANTS)
    return optimised(proto, "canonicalise")[0]


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("y = Add(i, j)", "int64[b, s]"),
        ("k = Mul(i, s) y = Sub(k, j)", "int64[b, s]"),
        ("k = Mul(i, s) l = Add(k, j) y = Reshape(l, minus)", "int64[n]"),
        ("k = Expand(j, shape) t = Transpose<perm = [1, 0]>(k) y = Neg(t)", "int64[s, b]"),
        ("k = Slice(j, a1, ends, a1) l = Mul(k, three) y = Cast<to = 6>(l)", "int32[1, t]"),
        ("k = Sub(j, three) l = GreaterOrEqual(j, zero) m = Cast<to = 7>(l) y = Add(m, k)",
         "int64[1, s]"),
        ("k = Sub(minus, a0) l = Concat<axis = 0>(k, q) y = Add(l, one)", "int64[t]"),
        ("k = Sub(q, q) y = CumSum(k, zero)", "int64[s]"),
        ("k = Equal(q, q) l = Cast<to = 7>(k) y = CumSum(l, zero)", "int64[s]"),
        ("y = Gather(row, a1)", "int64[1]"),
        ("k = Mul(i, three) l = Range(one, b, two) m = Sub(k, i) y = Add(m, zero)", "int64[b, 1]"),
        ("k = Less(j, zero) l = Not(k) m = And(l, l) n = Or(k, m) y = Cast<to = 7>(n)",
         "int64[1, s]"),
    ],
)  # fmt: skip
def test_forms_agree_with_the_content(body, output):
    graph = _graph(body, output)
    value = graph.outputs[0]
    form = Forms().of(value)
    assert form is not None
    for sizes in ((1, 1), (3, 5), (2, 1)):
        run = Interpreter(graph)
        (found,) = run.run({"x": random(sizes)})
        grid = np.full(found.shape, evaluate(form.offset, run.symbols))
        for axis, step in enumerate(form.steps):
            shape = [1] * found.ndim
            shape[axis] = -1
            places = np.arange(found.shape[axis]).reshape(shape)
            grid = grid + places * evaluate(step, run.symbols)
        np.testing.assert_array_equal(found, grid)
        low = least(form, value.shape) if found.size else None
        assert low is None or evaluate(low, run.symbols) == found.min()


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("k = Mul(q, q) y = Add(k, one)", "int64[s]"),
        ("k = Cast<to = 7>(x) y = Add(k, one)", "int64[b, s]"),
        ("k = Less(q, three) y = Cast<to = 7>(k)", "int64[s]"),
        ("y = Concat<axis = 0>(q, q)", "int64[t]"),
        ("k = Add(q, one) y = CumSum(k, zero)", "int64[s]"),
    ],
)
def test_what_is_not_affine_has_no_form(body, output):
    assert Forms().of(_graph(body, output).outputs[0]) is None


@pytest.mark.parametrize(
    ("dim", "result"),
    [
        (minimum(1, S), 1),
        (minimum(S, S + 1), S),
        (maximum(S - 1, 0), S - 1),
        (minimum(S, 512), minimum(S, 512)),
        (maximum(S - minimum(1, S + minimum(1, S)) + minimum(1, S), 0), S),
        ((S * B + 3) // 2 + minimum(1, B), (S * B + 3) // 2 + 1),
    ],
)
def test_sizes_settle(dim, result):
    assert settled(dim, frozenset("bs")) == result


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9))
def test_settled_sizes_are_the_sizes(s, b):
    dim = maximum(S - minimum(B, S * B) + minimum(1, B) * 2, minimum(S, 3)) * (B % 4)
    values = {"s": s, "b": b}
    assert evaluate(settled(dim, frozenset("bs")), values) == evaluate(dim, values)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((), ""),
        ((B, 3), "b"),
        ((B * S, 1), "bs"),
        ((S + 1,), ""),
        ((minimum(1, S), B + minimum(S, 2)), "s"),
        ((S + minimum(1, S),), "s"),
    ],
)
def test_symbols_that_elements_imply(shape, names):
    assert positive_symbols(shape) == frozenset(names)


def test_a_size_that_may_be_zero_decides_nothing():
    body = "k = Equal(s, zero) l = Cast<to = 7>(k) y = Add(l, one)"
    assert Forms().of(_graph(body, "int64[]").outputs[0]) is None
    body = "k = GreaterOrEqual(s, zero) l = Cast<to = 7>(k) y = Add(l, one)"
    assert Forms().of(_graph(body, "int64[]").outputs[0]) == Affine(2, ())


def test_constants_are_examined():
    def form(*rows):
        return Forms().of(
            optimised(model("int64[1] x => int64[1] y", "y = Neg(x)"))[0].constant(np.array(rows))
        )

    assert form(3, 5, 7) == Affine(3, (2,))
    assert form([0, 1], [4, 5]) == Affine(0, (4, 1))
    assert form(0, 1, 3) is None


FEEDS = ({"x": random((3, 5))}, {"x": random((1, 4), 1)})


def _checked(body: str, output: str):
    constants = {**CONSTANTS, "w": random((8, 4))}
    return check(model(f"float[b, s] x => {output} y", _POSITIONS + body, constants), *FEEDS)


def test_a_condition_that_always_holds_is_a_constant():
    body = "k = GreaterOrEqual(j, zero) l = Cast<to = 1>(i) y = Where(k, x, l)"
    graph = _checked(body, "float[b, s]")
    assert "GreaterOrEqual" not in kinds(graph)


def test_positions_gather_a_slice():
    graph = _checked("k = Gather(w, j) y = Neg(k)", "float[1, s, 4]")
    assert kinds(graph) == {"Slice": 1, "Reshape": 1, "clinfer.Pointwise": 1}
    (constraint,) = graph.constraints
    assert evaluate(constraint.left, {"s": 8}) == evaluate(constraint.right, {"s": 8})
    assert evaluate(constraint.left, {"s": 9}) != evaluate(constraint.right, {"s": 9})
    assert "where the data has 8 places along axis 0" in constraint.message


def test_flat_positions_gather_the_whole():
    body = "f = Reshape(x, minus) k = Mul(i, s) l = Add(k, j) y = Gather(f, l)"
    graph = _checked(body, "float[b, s]")
    assert not graph.nodes


def test_pairs_of_positions_gather_the_whole():
    body = """shape3 = Concat<axis = 0>(shape, a1) m = Expand(i, shape) n = Expand(j, shape)
              m1 = Reshape(m, shape3) n1 = Reshape(n, shape3) k = Concat<axis = 2>(m1, n1)
              g = GatherND(x, k) y = Relu(g)"""
    assert kinds(_checked(body, "float[b, s]")) == {"clinfer.Pointwise": 1}


def test_positions_in_another_order_still_gather():
    body = """shape3 = Concat<axis = 0>(shape, a1) m = Expand(i, shape) n = Expand(j, shape)
              m1 = Reshape(m, shape3) n1 = Reshape(n, shape3) k = Concat<axis = 2>(n1, m1)
              t = Transpose<perm = [1, 0]>(x) g = GatherND(t, k) y = Relu(g)"""
    assert kinds(_checked(body, "float[b, s]"))["GatherND"] == 1


_ATTENTION = """q4 = Unsqueeze(x, four) kt = Transpose<perm = [0, 1, 3, 2]>(q4)
                s0 = MatMul(q4, kt) """
_TAIL = " p = Softmax<axis = -1>(s1) y4 = MatMul(p, q4) y = Squeeze(y4, four)"


@pytest.mark.parametrize(
    "mask",
    [
        "c = LessOrEqual(j, it) s1 = Where(c, s0, low)",
        "c = Less(j, jt) d = Not(c) e = GreaterOrEqual(it, j) s1 = Where(e, s0, low)",
        "c = Greater(it1, j) m = Where(c, fzero, lowest) s1 = Add(s0, m)",
        "k = Sub(it, j) c = GreaterOrEqual(k, zero) m = Where(c, fzero, low) s1 = Add(s0, m)",
        "c = LessOrEqual(j, it) t = Equal(j, j) d = And(t, c) s1 = Where(d, s0, low)",
    ],
)
def test_causal_masks(mask):
    body = """shape = Shape(x) s = Gather(shape, zero) q = Range(zero, s, one) j = Unsqueeze(q, a0)
              it = Unsqueeze(q, a1) it1 = Add(it, one) jt = Neg(it) """
    constants = {
        **CONSTANTS,
        "four": np.array([0, 1]),
        "fzero": np.float32(0),
        "low": np.float32(-np.inf),
        "lowest": np.finfo(np.float32).min,
    }
    proto = model("float[s, 4] x => float[s, 4] y", body + _ATTENTION + mask + _TAIL, constants)
    graph = check(proto, {"x": random((5, 4))}, {"x": random((1, 4))})
    (node,) = [n for n in graph.nodes if n.kind == "clinfer.Attention"]
    assert node.attrs["causal"]
    assert len(node.inputs) == 3
    assert not {"Range", "clinfer.Pointwise"} & set(kinds(graph))


def test_a_padding_mask_stays_beside_the_causal_one():
    body = """shape = Shape(x) s = Gather(shape, zero) q = Range(zero, s, one) j = Unsqueeze(q, a0)
              it = Unsqueeze(q, a1) c = LessOrEqual(j, it) d = And(c, keep) """
    mask = "s1 = Where(d, s0, low)"
    constants = {**CONSTANTS, "four": np.array([0, 1]), "low": np.float32(-np.inf)}
    signature = "float[s, 4] x, bool[1, s] keep => float[s, 4] y"
    proto = model(signature, body + _ATTENTION + mask + _TAIL, constants)
    graph = check(proto, {"x": random((4, 4)), "keep": np.array([[True, False, True, True]])})
    (node,) = graph.nodes[-2:-1]
    assert node.attrs["causal"]
    assert len(node.inputs) == 4


def test_constants_of_differences_beyond_64_bits_have_no_form():
    ends = np.iinfo(np.int64)
    assert of_array(np.array([ends.min, ends.max])) is None
    assert of_array(np.array([0, 2**60, 2**61])) is None
