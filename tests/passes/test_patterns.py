"""What exporters write in pieces is recognised in every order, and near misses are left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clinfer_kernels.dims import sym
from passes.passes_helpers import check, kinds, model, optimised, random

F = np.float32
_X = "float[n, 3, 8] x => float[n, 3, 8] y"
NUMBERS = {
    "half": F(0.5),
    "one": F(1),
    "two": F(2),
    "three": F(3),
    "root": F(math.sqrt(2)),
    "inverse": F(math.sqrt(0.5)),
    "pi": F(math.sqrt(2 / math.pi)),
    "cubic": F(0.044715),
    "eps": F(1e-5),
    "last": np.array([-1]),
}
FEEDS = ({"x": random((2, 3, 8), 3)}, {"x": random((1, 3, 8), 4)})


def _kinds(body: str, signature: str = _X):
    proto = model(signature, body, NUMBERS)
    check(proto, *FEEDS, rtol=1e-4)
    return kinds(optimised(proto, "patterns")[0])


@pytest.mark.parametrize(
    "body",
    [
        "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        "a = Mul(inverse, x) b = Erf(a) c = Add(one, b) d = Mul(half, x) y = Mul(d, c)",
        "a = Mul(x, inverse) b = Erf(a) c = Add(b, one) d = Mul(c, half) y = Mul(x, d)",
        "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Div(d, two)",
        """a = Pow(x, three) b = Mul(a, cubic) c = Add(x, b) d = Mul(c, pi) e = Tanh(d)
           f = Add(e, one) g = Mul(x, half) y = Mul(g, f)""",
        """a = Mul(x, x) b = Mul(cubic, a) c = Add(one, b) p = Mul(x, pi) d = Mul(p, c)
           e = Tanh(d) f = Add(one, e) g = Mul(half, f) y = Mul(x, g)""",
    ],
)
def test_gelu(body):
    assert _kinds(body) == {"Gelu": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = Div(x, two) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(a, c) y = Mul(d, half)",
        "a = Div(x, root) b = Erf(a) c = Sub(b, one) d = Mul(x, c) y = Mul(d, half)",
    ],
)
def test_almost_gelu(body):
    assert "Gelu" not in _kinds(body)


_AWAY = "m = ReduceMean(x, last) a = Sub(x, m) "
_VARIANCE = "v = ReduceMean(q, last) e = Add(v, eps) s = Sqrt(e) "


@pytest.mark.parametrize(
    "body",
    [
        _AWAY + "q = Pow(a, two) " + _VARIANCE + "y = Div(a, s)",
        _AWAY + "q = Mul(a, a) " + _VARIANCE + "r = Reciprocal(s) y = Mul(r, a)",
        _AWAY + "b = Sub(x, m) q = Pow(b, two) " + _VARIANCE + "y = Div(a, s)",
    ],
)
def test_layer_norm(body):
    assert _kinds(body) == {"clinfer.Norm": 1}


def test_layer_norm_over_channels():
    signature = "float[2, 8, 3, 3] x => float[2, 8, 3, 3] y"
    body = """m = ReduceMean(x, c) a = Sub(x, m) q = Mul(a, a) v = ReduceMean(q, c)
              e = Add(v, eps) s = Sqrt(e) y = Div(a, s)"""
    proto = model(signature, body, {**NUMBERS, "c": np.array([1])})
    check(proto, {"x": random((2, 8, 3, 3))}, rtol=1e-4)
    graph, _ = optimised(proto, "patterns")
    assert kinds(graph) == {"clinfer.Norm": 1, "Transpose": 2}


def test_a_mean_and_a_variance_over_different_axes_are_no_layer_norm():
    body = """m = ReduceMean(x, last) a = Sub(x, m) q = Mul(a, a) v = ReduceMean(q, other)
              e = Add(v, eps) s = Sqrt(e) y = Div(a, s)"""
    proto = model(_X, body, {**NUMBERS, "other": np.array([1])})
    graph, report = optimised(proto, "patterns")
    assert any("its parts reduce different axes" in line for line in report.lines())
    assert [n.attrs["rms"] for n in graph.nodes if n.kind == "clinfer.Norm"] == [True]
    check(proto, *FEEDS, rtol=1e-4)


@pytest.mark.parametrize(
    "body",
    [
        "q = Pow(x, two) " + _VARIANCE + "y = Div(x, s)",
        "q = Mul(x, x) " + _VARIANCE + "r = Div(one, s) y = Mul(x, r)",
    ],
)
def test_rms_norm(body):
    proto = model(_X, body, NUMBERS)
    graph, _ = optimised(proto, "patterns")
    assert kinds(graph) == {"clinfer.Norm": 1}
    assert graph.nodes[0].attrs["rms"]
    check(proto, *FEEDS, rtol=1e-4)


def test_softmax_in_pieces():
    body = "m = ReduceMax(x, last) a = Sub(x, m) e = Exp(a) s = ReduceSum(e, last) y = Div(e, s)"
    assert _kinds(body) == {"clinfer.Softmax": 1}


# -- attention ----------------------------------------------------------------------------------

_QKV = "float[b, 2, s, 4] q, float[b, 2, t, 4] k, float[b, 2, t, 6] v"
_Y = "float[b, 2, s, 6] y"
_MASKS = {
    "": "",
    "additive": ", float[b, 1, s, t] mask",
    "bool": ", bool[b, 1, 1, t] mask",
}
SCALARS = {
    "c": F(0.5),
    "d": F(2.0),
    "root": F(math.sqrt(0.5)),
    "zero": F(0),
    "low": F(-np.inf),
    "lowest": F(np.finfo(np.float32).min),
}
_TURN = "kt = Transpose<perm = [0, 1, 3, 2]>(k) "
_TAIL = "p = Softmax<axis = -1>(s1) y = MatMul(p, v)"
_GUARDED = "p0 = Softmax<axis = -1>(s1) n = IsNaN(p0) p = Where(n, zero, p0) y = MatMul(p, v)"


def _feeds(mask: str, b: int = 2, s: int = 3, t: int = 5):
    feeds = {
        "q": random((b, 2, s, 4), 1),
        "k": random((b, 2, t, 4), 2),
        "v": random((b, 2, t, 6), 3),
    }
    if mask == "additive":
        feeds["mask"] = random((b, 1, s, t), 4)
    if mask == "bool":
        feeds["mask"] = np.arange(b * t).reshape(b, 1, 1, t) % 3 != 1
    return feeds


@pytest.mark.parametrize(
    ("mask", "body", "scale"),
    [
        ("", _TURN + "s1 = MatMul(q, kt) " + _TAIL, 1.0),
        ("", _TURN + "s0 = MatMul(q, kt) s1 = Mul(s0, c) " + _TAIL, 0.5),
        ("", _TURN + "s0 = MatMul(q, kt) s1 = Div(s0, d) " + _TAIL, 0.5),
        (
            "",
            _TURN + "q1 = Mul(q, root) k1 = Mul(kt, root) s1 = MatMul(q1, k1) " + _GUARDED,
            0.5,
        ),
        ("additive", _TURN + "s0 = MatMul(q, kt) s1 = Add(s0, mask) " + _TAIL, 1.0),
        (
            "additive",
            _TURN + "q1 = Mul(c, q) s0 = MatMul(q1, kt) s1 = Add(mask, s0) " + _TAIL,
            0.5,
        ),
        (
            "bool",
            _TURN + "m = Where(mask, zero, low) s0 = MatMul(q, kt) s1 = Add(s0, m) " + _GUARDED,
            1.0,
        ),
        ("bool", _TURN + "s0 = MatMul(q, kt) s1 = Where(mask, s0, low) " + _TAIL, 1.0),
        (
            "bool",
            _TURN + "s0 = MatMul(q, kt) s2 = Mul(s0, c) s1 = Where(mask, s2, lowest) " + _TAIL,
            0.5,
        ),
    ],
)
def test_attention(mask, body, scale):
    proto = model(f"{_QKV}{_MASKS[mask]} => {_Y}", body, SCALARS)
    graph = check(proto, _feeds(mask), _feeds(mask, b=1, s=4, t=4))
    (node,) = [n for n in graph.nodes if n.kind == "clinfer.Attention"]
    assert node.attrs["scale"] == pytest.approx(scale)
    guarded = "IsNaN" in body and mask != ""
    assert node.attrs.get("zeroed", "") == ("nan" if guarded else "")
    assert kinds(graph)["clinfer.Pointwise"] == ("lowest" in body)
    assert len(node.inputs) == (4 if mask else 3)
    assert kinds(graph)["Transpose"] == 0
    assert node.output.shape == (sym("b"), 2, sym("s"), 6)


def test_rows_that_see_no_key_are_zero_where_they_were():
    body = _TURN + "m = Where(mask, zero, low) s0 = MatMul(q, kt) s1 = Add(s0, m) " + _GUARDED
    feeds = _feeds("bool")
    feeds["mask"][0] = False
    check(model(f"{_QKV}{_MASKS['bool']} => {_Y}", body, SCALARS), feeds)


def test_a_constant_causal_mask_becomes_an_attribute():
    signature = (
        "float[2, 2, 4, 4] q, float[2, 2, 4, 4] k, float[2, 2, 4, 6] v => float[2, 2, 4, 6] y"
    )
    causal = np.where(np.tri(4, dtype=bool), F(0), F(-np.inf))[None, None]
    body = _TURN + "s0 = MatMul(q, kt) s1 = Add(s0, mask) " + _TAIL
    graph = check(model(signature, body, {"mask": causal}), _feeds("", s=4, t=4))
    (node,) = graph.nodes
    assert node.attrs["causal"]
    assert len(node.inputs) == 3


def test_attention_of_rank_3_gets_a_leading_dimension():
    signature = "float[6, s, 4] q, float[6, s, 4] k, float[6, s, 4] v => float[6, s, 4] y"
    body = "kt = Transpose<perm = [0, 2, 1]>(k) s1 = MatMul(q, kt) " + _TAIL
    feeds = {name: random((6, 5, 4), i) for i, name in enumerate("qkv")}
    graph = check(model(signature, body, SCALARS), feeds)
    assert kinds(graph) == {"Reshape": 4, "clinfer.Attention": 1}


def test_repeated_heads_are_read_once():
    signature = (
        "float[b, 6, s, 4] q, float[b, 2, s, 4] k, float[b, 2, s, 4] v => float[b, 6, s, 4] y"
    )
    repeat = "".join(
        f"""{x}1 = Unsqueeze({x}, two) sh{x} = Shape({x}1) ex{x} = Mul(sh{x}, three)
            {x}2 = Expand({x}1, ex{x}) to{x} = Shape(q) {x}3 = Reshape({x}2, to{x}) """
        for x in "kv"
    )
    body = repeat + "kt = Transpose<perm = [0, 1, 3, 2]>(k3) s1 = MatMul(q, kt) "
    tail = "p = Softmax<axis = -1>(s1) y = MatMul(p, v3)"
    constants = {"two": np.array([2]), "three": np.array([1, 1, 3, 1, 1])}
    feeds = {"q": random((2, 6, 5, 4)), "k": random((2, 2, 5, 4), 1), "v": random((2, 2, 5, 4), 2)}
    graph = check(model(signature, body + tail, constants), feeds)
    (node,) = [n for n in graph.nodes if n.kind == "clinfer.Attention"]
    assert [v.shape[1] for v in node.inputs] == [6, 2, 2]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (_TURN + "s0 = MatMul(q, kt) s1 = Tanh(s0) " + _TAIL, "its scores come from Tanh"),
        (
            _TURN + "s0 = MatMul(q, kt) m = Add(s0, mask) s1 = Mul(m, c) " + _TAIL,
            "masked before they are scaled",
        ),
    ],
)
def test_other_scores_are_refused(body, reason):
    proto = model(f"{_QKV}{_MASKS['additive']} => {_Y}", body, SCALARS)
    graph, report = optimised(proto)
    assert "clinfer.Attention" not in kinds(graph)
    assert any(reason in line for line in report.lines())
    check(proto, _feeds("additive"))


@pytest.mark.parametrize("size", ["600", "n"])
def test_heads_of_more_columns_than_registers_hold_stay_apart(size):
    """As where attention is among channels, and a head's size is that of the picture."""
    proto = model(
        f"float[1, 2, 3, {size}] q, float[1, 2, 5, {size}] k, float[1, 2, 5, {size}] v "
        f"=> float[1, 2, 3, {size}] y",
        _TURN + "s1 = MatMul(q, kt) " + _TAIL,
    )
    shapes = {"q": (1, 2, 3, 600), "k": (1, 2, 5, 600), "v": (1, 2, 5, 600)}
    graph = check(proto, {name: random(shape) / 5 for name, shape in shapes.items()})
    assert "clinfer.Attention" not in kinds(graph)


def test_a_scale_before_the_heads_are_split_joins_the_operator():
    signature = "float[b, s, 8] x => float[b, s, 8] y"
    body = """m = MatMul(x, w) q0 = Add(m, bias) q1 = Mul(q0, c) q2 = Reshape(q1, heads)
              q = Transpose<perm = [0, 2, 1, 3]>(q2) k0 = MatMul(x, u) k1 = Reshape(k0, heads)
              kt = Transpose<perm = [0, 2, 3, 1]>(k1) v = Transpose<perm = [0, 2, 1, 3]>(k1)
              s1 = MatMul(q, kt) p = Softmax<axis = -1>(s1) z = MatMul(p, v)
              z1 = Transpose<perm = [0, 2, 1, 3]>(z) y = Reshape(z1, whole)"""
    constants = {
        **SCALARS,
        "w": random((8, 8)),
        "u": random((8, 8), 2),
        "bias": random((8,), 1),
        "heads": np.array([0, 0, 2, 4]),
        "whole": np.array([0, 0, 8]),
    }
    graph = check(model(signature, body, constants), {"x": random((2, 3, 8))})
    (node,) = [n for n in graph.nodes if n.kind == "clinfer.Attention"]
    assert node.attrs["scale"] == pytest.approx(0.5)
    (product,) = [n for n in graph.nodes if n.kind == "MatMul"]
    assert len(product.inputs) == 3


def test_weights_that_the_model_returns_keep_attention_apart():
    body = _TURN + "s1 = MatMul(q, kt) " + _TAIL
    proto = model(f"{_QKV} => {_Y}, float[b, 2, s, t] p", body, SCALARS)
    graph = check(proto, _feeds(""))
    assert kinds(graph) == {"Transpose": 1, "MatMul": 2, "clinfer.Softmax": 1}


_ROWS = "top = ReduceMax(m, keys) empty = Equal(top, low) "
_EMPTY = "p0 = Softmax<axis = -1>(s1) p = Where(empty, zero, p0) y = MatMul(p, v)"


def test_a_guard_of_empty_rows():
    body = _TURN + "m = Where(mask, zero, low) s0 = MatMul(q, kt) s1 = Add(s0, m) "
    proto = model(
        f"{_QKV}{_MASKS['bool']} => {_Y}",
        body + _ROWS + _EMPTY,
        {**SCALARS, "keys": np.array([3])},
    )
    feeds = _feeds("bool")
    feeds["mask"][0] = False
    graph = check(proto, feeds)
    (node,) = [n for n in graph.nodes if n.kind == "clinfer.Attention"]
    assert node.inputs[3].dtype == "bool"


@pytest.mark.parametrize("axis", [2, 3])
def test_a_guard_of_constant_rows(axis):
    mask = np.where(np.arange(15).reshape(3, 5) % 4 == 1, F(-np.inf), F(0))
    mask[1] = -np.inf
    empty = mask.max(axis=1, keepdims=True) == -np.inf
    signature = (
        "float[2, 2, 3, 4] q, float[2, 2, 5, 4] k, float[2, 2, 5, 6] v => float[2, 2, 3, 6] y"
    )
    constants = {**SCALARS, "m": mask, "empty": empty if axis == 3 else np.roll(empty, 1)}
    proto = model(signature, _TURN + "s0 = MatMul(q, kt) s1 = Add(s0, m) " + _EMPTY, constants)
    graph, report = optimised(proto)
    assert kinds(graph)["clinfer.Attention"] == (axis == 3)
    assert axis == 3 or any("replaces other rows" in line for line in report.lines())
    check(proto, _feeds(""))


def test_half_precision_with_a_softmax_in_single():
    signature = "float16[1, 2, 3, 4] q, float16[1, 2, 3, 4] k, float16[1, 2, 3, 4] v"
    body = """kt = Transpose<perm = [0, 1, 3, 2]>(k) s0 = MatMul(q, kt) s1 = Cast<to = 1>(s0)
              s2 = Add(s1, mask) p0 = Softmax<axis = -1>(s2) p = Cast<to = 10>(p0)
              y = MatMul(p, v)"""
    proto = model(f"{signature} => float16[1, 2, 3, 4] y", body, {"mask": random((3, 3))})
    feeds = {n: random((1, 2, 3, 4), i, "float16") for i, n in enumerate("qkv")}
    graph = check(proto, feeds, rtol=1e-2, atol=1e-2)
    assert kinds(graph) == {"clinfer.Attention": 1}


@pytest.mark.parametrize("positions", [(7, 4), (1, 7, 4), (4,), (1, 1)])
def test_a_constant_is_added_to_the_parts_of_a_concatenation(positions):
    body = """m = MatMul(x, w) a = Concat<axis = 1>(first, m, last) y = Add(a, p)"""
    constants = {
        "w": random((5, 4)),
        "first": random((1, 1, 4), 1),
        "last": random((1, 2, 4), 2),
        "p": random(positions, 3),
    }
    proto = model("float[1, 4, 5] x => float[1, 7, 4] y", body, constants)
    graph = check(proto, {"x": random((1, 4, 5))})
    assert kinds(graph) == {"MatMul": 1, "Concat": 1}


def test_several_computed_parts_are_added_to_at_once():
    body = "m = MatMul(x, w) a = Concat<axis = 1>(m, m) y = Add(a, p)"
    constants = {"w": random((5, 4)), "p": random((8, 4), 3)}
    proto = model("float[1, 4, 5] x => float[1, 8, 4] y", body, constants)
    assert kinds(check(proto, {"x": random((1, 4, 5))}))["clinfer.Pointwise"] == 1
