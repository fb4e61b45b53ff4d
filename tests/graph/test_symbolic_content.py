"""Shape arithmetic of exporters, followed symbolically."""

from __future__ import annotations

import numpy as np
import pytest
from graph_helpers import Checked, by_onnxruntime, model, proto
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer.graph.ir import Graph
from clinfer.graph.reader import read
from clinfer_kernels.dims import evaluate, sym, symbols

N, S = sym("N"), sym("S")


def shape_of(graph: Graph, name: str) -> tuple[object, ...] | None:
    return next(v for v in graph.values() if v.name == name).shape


def test_heads_are_split_and_merged() -> None:
    graph = model("""m (float[N, S, 768] x) => (float[N, S, 768] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] at = {0}, int64[1] heads = {12},
         int64[1] size = {64}, int64[1] rest = {-1}> {
        s = Shape(x) n0 = Gather(s, zero) l0 = Gather(s, one)
        n = Unsqueeze(n0, at) l = Unsqueeze(l0, at)
        to = Concat<axis = 0>(n, l, heads, size)
        r = Reshape(x, to)
        t = Transpose<perm = [0, 2, 1, 3]>(r)
        u = Transpose<perm = [0, 2, 1, 3]>(t)
        back = Concat<axis = 0>(n, rest, heads, size)
        v = Reshape(u, back)
        all = Concat<axis = 0>(n, l, rest)
        y = Reshape(v, all)
    }""").graph()
    assert shape_of(graph, "t") == (N, 12, S, 64)
    assert shape_of(graph, "v") == (N, S, 12, 64)
    assert shape_of(graph, "y") == (N, S, 768)
    assert not graph.constraints
    Checked(graph).run([np.zeros((2, 5, 768), np.float32)])


def test_positions_are_sliced_to_the_sequence() -> None:
    graph = model("""m (int64[N, S] ids, float[1, 512, 8] table) => (float[N, S, 8] y)
        <int64 one = {1}, int64[1] zero = {0}, int64[1] at = {1}> {
        s = Shape(ids) l = Gather(s, one) e = Unsqueeze(l, zero)
        p = Slice(table, zero, e, at)
        f = Cast<to = 1>(ids) axes = Constant<value_ints = [2]>()
        g = Unsqueeze(f, axes)
        y = Add(g, p)
    }""").graph()
    # A sequence longer than the table would be cut, and then not fit: a constraint says so.
    assert str(shape_of(graph, "p")) == "(1, min(S, 512), 8)"
    assert shape_of(graph, "y") == (N, S, 8)
    ((cut, whole, _message, relation),) = graph.constraints
    assert (str(cut), str(whole), relation) == ("min(S, 512)", "S", "fits")
    Checked(graph).run([np.zeros((2, 5), np.int64), np.zeros((1, 512, 8), np.float32)])


def test_masks_are_made_from_ranges_and_expanded() -> None:
    graph = model("""m (float[N, S] mask) => (bool[N, 1, S, S] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] at = {0}, int64[1] unit = {1},
         int64[2] grid = {1, 2}> {
        s = Shape(mask) n0 = Gather(s, zero) l0 = Gather(s, one)
        row = Range(zero, l0, one)
        column = Unsqueeze(row, unit)
        causal = LessOrEqual(row, column)
        n = Unsqueeze(n0, at) l = Unsqueeze(l0, at)
        to = Concat<axis = 0>(n, unit, l, l)
        y = Expand(causal, to)
    }""").graph()
    assert shape_of(graph, "y") == (N, 1, S, S)
    Checked(graph).run([np.zeros((2, 5), np.float32)])


@pytest.mark.parametrize(
    ("start", "delta", "length"),
    [(0.0, 1.0, "S"), (0.5, 1.0, "(2*S)//2"), (2.0, 0.5, ""), (0.0, -1.0, "0"), (0.0, 0.1, None)],
)
def test_a_range_of_floats_up_to_a_size(start: float, delta: float, length: str | None) -> None:
    """As arange exports it: sizes tell its length where floats hold all of it exactly."""
    graph = model(f"""m (float[N, S] x) => (float[R] y)
        <int64 one = {{1}}, float start = {{{start}}}, float delta = {{{delta}}}> {{
        s = Shape(x) n = Gather(s, one) limit = Cast<to = 1>(n)
        y = Range(start, limit, delta)
    }}""").graph()
    (size,) = shape_of(graph, "y")
    assert (length is None) == (symbols(size) - {"S"} != set())
    Checked(graph).run([np.zeros((2, 5), np.float32)])
    Checked(graph).run([np.zeros((2, 1), np.float32)])


def test_where_and_equal_on_known_shapes() -> None:
    """torch's expand: -1 in the wanted shape keeps the size."""
    graph = model("""m (float[N, 1, S] x) => (float[A, B, C] y)
        <int64[3] wanted = {-1, 7, -1}, int64[3] minus = {-1, -1, -1}, int64[3] ones = {1, 1, 1}> {
        keep = Equal(wanted, minus)
        to = Where(keep, ones, wanted)
        y = Expand(x, to)
    }""").graph()
    assert shape_of(graph, "y") == (N, 7, S)
    Checked(graph).run([np.zeros((2, 1, 3), np.float32)])


def test_float_detours_of_upsampling() -> None:
    graph = model("""m (float[N, 3, H, W] x) => (float[N, 3, A, B] y)
        <int64[1] two = {2}, int64[1] four = {4}, int64[1] zero = {0}, float factor = {2.5}> {
        s = Shape(x) hw = Slice(s, two, four)
        f = Cast<to = 1>(hw) g = Mul(f, factor) h = Floor(g) i = Cast<to = 7>(h)
        nc = Slice(s, zero, two)
        to = Concat<axis = 0>(nc, i)
        y = Resize<mode = "nearest">(x, , , to)
    }""").graph()
    assert str(shape_of(graph, "y")) == "(N, 3, ((5*H) // (2)), ((5*W) // (2)))"
    for size in (1, 2, 7):
        Checked(graph).run([np.zeros((1, 3, size, size + 1), np.float32)])


def test_inexact_fractions_are_left_to_the_run() -> None:
    graph = model("""m (float[H] x) => (float[A] y) <float factor = {0.7}> {
        s = Shape(x) f = Cast<to = 1>(s) g = Mul(f, factor) i = Cast<to = 7>(g)
        y = Expand(x, i)
    }""").graph()
    assert str(shape_of(graph, "y")) == "(y.0,)"


def test_window_padding() -> None:
    """Sizes rounded up to a multiple of a window, and the padding that takes."""
    graph = model("""m (float[1, H, 8] x) => (float[1, P, 8] y)
        <int64 one = {1}, int64 window = {7}, int64[1] zero = {0}, int64[4] none = {0, 0, 0, 0}> {
        s = Shape(x) h = Gather(s, one)
        r = Mod(h, window) d = Sub(window, r) p0 = Mod(d, window)
        p = Unsqueeze(p0, zero) pads = Concat<axis = 0>(none, p, zero)
        y = Pad(x, pads)
    }""").graph()
    for size in (7, 8, 13):
        checked = Checked(graph)
        (result,) = checked.run([np.zeros((1, size, 8), np.float32)])
        assert result.shape[1] % 7 == 0


def test_constraints_where_sizes_must_agree() -> None:
    graph = model("m (float[A] x, float[B] y) => (float[A] z) { z = Add(x, y) }").graph()
    ((left, right, message, relation),) = graph.constraints
    assert ({str(left), str(right)}, relation) == ({"A", "B"}, "join")
    assert str(shape_of(graph, "z")) == "(join(A, B),)"
    assert "Add" in message
    fixed = model("m (float[A] x, float[4] y) => (float[4] z) { z = Add(x, y) }").graph()
    assert fixed.outputs[0].shape == (4,)
    assert [(str(c.left), c[1], c.relation) for c in fixed.constraints] == [("A", 4, "fits")]
    free = model("m (float[A] x, float[1] y) => (float[A] z) { z = Add(x, y) }").graph()
    assert not free.constraints


def test_quotients_of_sizes_that_may_be_negative() -> None:
    """Division goes towards zero: (s - 1) / 4 as exporters write the size behind a stride of 4."""
    graph = model("""m (float[N] x) => (float[A, B, C] y) <int64[1] four = {4}, int64[1] one = {1},
        int64[1] back = {-3}, int64[1] ten = {10}, int64[1] six = {6}> {
        n = Shape(x) less = Sub(n, one) small = Div(less, four) a = Add(small, one)
        far = Sub(n, ten) half = Div(far, four) b = Add(half, six)
        third = Div(less, back) c = Add(third, six)
        to = Concat<axis = 0>(a, b, c) zero = Constant<value_float = 0.0>()
        y = Expand(zero, to)
    }""").graph()
    for size in (0, 1, 2, 4, 5, 6, 9, 10, 13, 14, 15):
        (result,) = Checked(graph).run([np.zeros(size, np.float32)])
        expected = (1 + int((size - 1) / 4), 6 + int((size - 10) / 4), 6 + int((size - 1) / -3))
        assert result.shape == expected


OPERATIONS = ("Add", "Sub", "Mul", "Div", "Mod", "Min", "Max")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 4), st.integers(1, 9)), max_size=5
    )
)
def test_integer_arithmetic_holds_for_every_size(steps: list[tuple[str, int, int]]) -> None:
    """A random chain of operations on a shape: what is inferred equals what is computed."""
    lines = ["s = Shape(x)", "v0 = Identity(s)"]
    for number, (op, source, constant) in enumerate(steps, 1):
        lines.append(f"c{number} = Constant<value_ints = [{constant}, {constant + 1}]>()")
        lines.append(f"v{number} = {op}(v{min(source, number - 1)}, c{number})")
    text = f"m (float[N, S] x) => (int64[2] v{len(steps)}) {{ {' '.join(lines)} }}"
    for sizes in ((0, 1), (3, 8), (10, 2)):
        Checked(model(text).graph()).run([np.zeros(sizes, np.float32)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-9, 9),
    st.integers(-9, 9),
    st.sampled_from([-3, -2, -1, 1, 2, 3]),
    st.booleans(),
)
def test_slices_hold_for_every_size(start: int, end: int, step: int, endless: bool) -> None:
    if endless:
        end = (2**63 - 1) if step > 0 else -(2**63) + 1
    graph = model(f"""m (float[N] x) => (float[M] y) {{
        a = Constant<value_ints = [{start}]>() b = Constant<value_ints = [{end}]>()
        axes = Constant<value_ints = [0]>() steps = Constant<value_ints = [{step}]>()
        y = Slice(x, a, b, axes, steps)
    }}""").graph()
    for size in (0, 1, 2, 5, 8, 11):
        x = np.arange(size, dtype=np.float32)
        last = None if endless and step < 0 else end
        expected = x[start:last:step].tolist()
        if not expected and graph.outputs[0].shape == (1,):
            continue  # a slice of one place: a constraint requires the place
        (result,) = Checked(graph).run([x])
        assert result.tolist() == expected


@pytest.mark.parametrize(("start", "end"), [(0, 1), (2, 3), (-1, 2**63 - 1), (-2, -1)])
def test_one_place_of_any_axis_is_broadcast(start: int, end: int) -> None:
    graph = model(f"""m (float[B, N] x) => (float[B, N] y)
        <int64[1] a = {{{start}}}, int64[1] b = {{{end}}}, int64[1] axes = {{1}}> {{
        part = Slice(x, a, b, axes) y = Add(x, part)
    }}""").graph()
    assert shape_of(graph, "part") == (sym("B"), 1)
    for size in (0, 3, 5):
        x = np.arange(2 * size, dtype=np.float32).reshape(2, size)
        checked = Checked(graph)
        checked.sizes = {"B": 2, "N": size}
        assert bool(checked.violated()) == (x[:, start:end].shape[1] == 0)
        if size:
            (result,) = checked.run([x])
            assert np.array_equal(result, x + x[:, start:end])


def test_slices_of_one_place_may_be_empty_of_known_sizes() -> None:
    graph = model(
        "m (float[0] x) => (float[0] y) <int64[1] a = {0}, int64[1] b = {1}> { y = Slice(x, a, b) }"
    ).graph()
    assert graph.outputs[0].shape == (0,)
    assert not graph.constraints


def test_slices_around_a_place_that_the_size_decides() -> None:
    """A table's middle, as relative positions are read: the start is negative for a large N."""
    graph = model("""m (float[N] x, float[6] table) => (float[M] y)
        <int64[1] middle = {3}, int64[1] axes = {0}> {
        n = Shape(x) a = Sub(middle, n) b = Add(middle, n)
        y = Slice(table, a, b, axes)
    }""").graph()
    assert all(name == "N" for dim in shape_of(graph, "y") or () for name in symbols(dim))
    table = np.arange(6, dtype=np.float32)
    for size in (0, 1, 3, 4, 8, 12):
        (result,) = Checked(graph).run([np.zeros(size, np.float32), table])
        assert result.tolist() == table[3 - size : 3 + size].tolist()


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 1),
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from(["NOTSET", "SAME_UPPER", "VALID"]),
)
def test_pooling_sizes(
    op: str, kernel: int, stride: int, pad: int, dilation: int, ceil: bool, auto: str
) -> None:
    pads = f"pads = [{min(pad, kernel - 1)}, 0]," if auto == "NOTSET" else ""
    dilation = dilation if auto == "NOTSET" else 1
    kernel = kernel if auto == "NOTSET" else max(kernel, stride)
    source = proto(
        f"""m (float[1, 2, N] x) => (float[1, 2, M] y) {{
        y = {op}<kernel_shape = [{kernel}], strides = [{stride}], {pads} auto_pad = "{auto}",
                 dilations = [{dilation}], ceil_mode = {int(ceil and auto == "NOTSET")}>(x)
    }}""",
        19,
    )
    inferred = read(source).graph().outputs[0].known_shape
    for size in (9, 10, 12, 13):
        (result,) = by_onnxruntime(source, {"x": np.zeros((1, 2, size), np.float32)})
        assert tuple(evaluate(d, {"N": size}) for d in inferred) == result.shape
