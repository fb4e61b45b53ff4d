"""Layout: channels-last operators, and transposes that move down until they cancel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer.passes.reshapes import factor, moves_only_units, operand_through, reshape_first
from clinfer_kernels.dims import sym
from passes.passes_helpers import check, kinds, model, optimised, random

B, S = sym("b"), sym("s")
SHAPES = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4)


def _splits(draw, shape):
    """A reshape of `shape`: dimensions merged and split at random, ones put in."""
    target: list[int] = []
    for size in shape:
        if target and draw(st.booleans()):
            target[-1] *= size
        else:
            target.append(size)
    wide: list[int] = []
    for size in target:
        part = draw(st.sampled_from([d for d in (1, 2, 3, 4) if size % d == 0]))
        wide += [part, size // part] if draw(st.booleans()) else [size]
    return wide


@st.composite
def _reshapes(draw):
    shape = draw(SHAPES)
    perm = draw(st.permutations(range(len(shape))))
    return shape, list(perm), _splits(draw, [shape[p] for p in perm])


@settings(deadline=None, max_examples=150)
@given(_reshapes())
def test_a_reshape_before_a_transpose_gives_the_same(case):
    shape, perm, target = case
    swapped = reshape_first(shape, perm, target)
    x = np.arange(np.prod(shape)).reshape(shape)
    if swapped is not None:
        new_shape, new_perm = swapped
        wanted = x.transpose(perm).reshape(target)
        assert np.array_equal(x.reshape(new_shape).transpose(new_perm), wanted)
    if moves_only_units(shape, perm):
        assert np.array_equal(x.reshape([shape[p] for p in perm]), x.transpose(perm))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_an_operand_through_a_reshape_broadcasts_alike(data):
    shape = data.draw(SHAPES)
    target = _splits(data.draw, shape)
    operand = [1 if data.draw(st.booleans()) else n for n in shape]
    operand = operand[data.draw(st.integers(0, len(operand))) :]
    moved = operand_through(operand, shape, target)
    if moved is None:
        return
    x = np.arange(np.prod(operand, dtype=int)).reshape(operand)
    wanted = np.broadcast_to(x, shape).reshape(target)
    assert np.array_equal(np.broadcast_to(x.reshape(moved), target), wanted)


def test_factors_of_reshapes_with_dynamic_sizes():
    assert factor([B, S, 768], [B, S, 12, 64]) == [([0], [0]), ([1], [1]), ([2], [2, 3])]
    assert factor([B, S, 4], [B * S, 4]) == [([0, 1], [0]), ([2], [1])]
    assert factor([B, S], [S, B]) == [([0, 1], [0, 1])]
    assert factor([B, 0], [0, B]) is None
    assert reshape_first([B, 7, 7, 8], [0, 3, 1, 2], [B, 8, 49]) == ((B, 49, 8), [0, 2, 1])
    assert reshape_first([B, S, 12, 64], [0, 2, 1, 3], [B, 12, S * 64]) is None


_IMAGE = "float[n, 3, 9, 8] x"
WEIGHTS = {
    "w": random((4, 3, 3, 3)),
    "d": random((4, 1, 3, 3), 1),
    "u": random((4, 4, 1, 1), 2),
    "t": random((4,), 3),
    "c": random((4, 1, 1), 4),
}


def _one_transpose(body: str, **constants: np.ndarray) -> None:
    """The layout of the input changes, nothing else does, and the result is in order."""
    proto = model(f"{_IMAGE} => float[a, b] y", body, {**WEIGHTS, **constants})
    graph = check(proto, {"x": random((2, 3, 9, 8))}, {"x": random((1, 3, 9, 8))})
    assert kinds(graph)["Transpose"] == 1


def test_a_residual_block_with_squeeze_and_excitation():
    _one_transpose(
        """a = Conv<pads = [1, 1, 1, 1]>(x, w, t) b = Relu(a)
           e = Conv<group = 4, pads = [1, 1, 1, 1]>(b, d) f = Mul(e, c)
           g = ReduceMean(f, hw) h = Conv(g, u) i = Sigmoid(h) j = Mul(f, i)
           k = Add(b, j) l = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(k)
           m = GlobalAveragePool(l) y = Flatten(m)""",
        hw=np.array([2, 3]),
    )


def test_concatenation_padding_slices_and_interpolation():
    _one_transpose(
        """a = Conv(x, w, t) b = Slice(a, zero, two, one)
           e = Pad(a, p) f = Slice(e, zero, six, axes)
           g = Resize<mode = "linear">(b, , s) h = Concat<axis = 1>(g, f)
           i = Softmax<axis = 1>(h) j = ReduceMax<keepdims = 0>(i, axes) y = Identity(j)""",
        zero=np.array([0, 0]),
        two=np.array([2, 99]),
        one=np.array([1, 3]),
        six=np.array([7, 6]),
        axes=np.array([2, 3]),
        p=np.array([0, 0, 0, 1, 0, 0, 1, 2]),
        s=np.array([1, 1, 1, 1], np.float32),
    )


def test_patches_become_a_sequence_without_a_transpose():
    _one_transpose(
        """a = Conv<strides = [3, 3]>(x, w, t) b = Reshape(a, s)
           e = Transpose<perm = [0, 2, 1]>(b) f = LayerNormalization(e, t, t)
           g = MatMul(f, m) h = Transpose<perm = [0, 2, 1]>(g) i = Reshape(h, image)
           j = Conv(i, u) k = ReduceSum<keepdims = 0>(j, hw) y = Identity(k)""",
        s=np.array([0, 4, -1]),
        m=random((4, 4), 9),
        image=np.array([0, 4, 3, 2]),
        hw=np.array([2, 3]),
    )


_NORMS = {
    "instance": "b = InstanceNormalization(a, g, t)",
    "groups": """i = Reshape(a, two) j = InstanceNormalization(i, ones, zeros)
                 k = Reshape(j, image) m = Mul(k, c) b = Add(m, c)""",
    "one group": """i = Reshape(a, one) j = InstanceNormalization(i, n, z)
                    k = Reshape(j, image) b = Mul(k, c)""",
}


@pytest.mark.parametrize("norm", _NORMS.values(), ids=_NORMS)
@pytest.mark.parametrize("far", [0, 300])
def test_norms_of_channels_are_taken_where_the_channels_are(norm, far):
    """The second convolution reads what the norm leaves as it lies."""
    constants = {
        **WEIGHTS,
        "g": random((4,), 5),
        "two": np.array([0, 2, -1]),
        "one": np.array([0, 1, -1]),
        "image": np.array([0, 4, 8, 7]),
        "ones": np.ones(2, np.float32),
        "zeros": np.zeros(2, np.float32),
        "n": np.ones(1, np.float32),
        "z": np.zeros(1, np.float32),
        "hw": np.array([2, 3]),
        "far": np.array(far, np.float32),
    }
    body = f"""h = Conv<pads = [1, 1, 0, 0]>(x, w, t) a = Add(h, far) {norm} d2 = Relu(b)
               e = Conv(d2, u) y = ReduceMean<keepdims = 0>(e, hw)"""
    proto = model(f"{_IMAGE} => float[a, b] y", body, constants)
    tolerance = 1e-4 if far else 1e-5
    graph = check(proto, {"x": random((2, 3, 9, 8))}, cls="cpu", rtol=tolerance, atol=tolerance)
    assert kinds(graph)["Transpose"] == 1


def test_the_layout_of_outputs_is_kept():
    proto = model(
        f"{_IMAGE} => float[n, 4, 7, 6] y, float[n, 4] z",
        "y = Conv(x, w) m = GlobalMaxPool(y) z = Flatten(m)",
        WEIGHTS,
    )
    graph = check(proto, {"x": random((2, 3, 9, 8))})
    assert kinds(graph)["Transpose"] == 2


def test_a_small_operand_is_transposed_the_other_way():
    proto = model(
        f"{_IMAGE}, float[n, 4, 1, 6] v => float[n, 4] z",
        "a = Conv(x, w) b = Mul(a, v) m = GlobalMaxPool(b) z = Flatten(m)",
        WEIGHTS,
    )
    graph = check(proto, {"x": random((2, 3, 9, 8)), "v": random((2, 4, 1, 6), 5)})
    moved = [n.required(0).shape for n in graph.nodes if n.kind == "Transpose"]
    assert moved == [(sym("n"), 3, 9, 8), (sym("n"), 4, 1, 6)]


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("Conv", 'auto_pad = "SAME_UPPER", strides = [2, 2]'),
        ("Conv", 'auto_pad = "SAME_LOWER", strides = [2, 3]'),
        ("Conv", 'auto_pad = "VALID", dilations = [2, 1]'),
        ("ConvTranspose", "strides = [2, 3], output_padding = [1, 2], pads = [1, 0, 0, 1]"),
        ("ConvTranspose", 'auto_pad = "SAME_UPPER", strides = [2, 2]'),
        ("ConvTranspose", "strides = [2, 2], output_shape = [17, 18]"),
    ],
)
def test_windows(op, attrs):
    shape = (4, 3, 3, 3) if op == "Conv" else (3, 4, 3, 3)
    signature = "float[2, 3, 9, 8] x => float[2, 4, h, w] y"
    proto = model(signature, f"y = {op}<{attrs}>(x, w, t)", {**WEIGHTS, "w": random(shape)})
    assert kinds(check(proto, {"x": random((2, 3, 9, 8))}))[f"clinfer.{op}"] == 1


@pytest.mark.parametrize(
    "pool",
    [
        "MaxPool<kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 1], ceil_mode = 1>",
        "MaxPool<kernel_shape = [3, 3], dilations = [2, 2]>",
        "AveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>",
        "AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>",
        'AveragePool<kernel_shape = [2, 2], auto_pad = "SAME_UPPER">',
        "LpPool<kernel_shape = [2, 2], p = 3>",
    ],
)
def test_pools(pool):
    proto = model("float[2, 3, 9, 8] x => float[2, 3, h, w] y", f"y = {pool}(x)")
    assert kinds(check(proto, {"x": random((2, 3, 9, 8))}))["clinfer.Pool"] == 1


def test_pool_indices_count_in_the_layout_of_the_model():
    proto = model(
        "float[2, 3, 9, 8] x => float[2, 3, h, w] y, int64[2, 3, h, w] i",
        "y, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)",
    )
    check(proto, {"x": random((2, 3, 9, 8))})


def test_one_dimensional_convolutions():
    proto = model(
        "float[1, 3, 20] x => float[1, 10, 5] y",
        """a = Conv<strides = [2], pads = [1, 1]>(x, w) b = Relu(a)
           y = Transpose<perm = [0, 2, 1]>(b)""",
        {"w": random((5, 3, 3))},
    )
    assert kinds(check(proto, {"x": random((1, 3, 20))}))["Transpose"] == 1


def test_a_convolution_without_a_kernel_stays_and_says_why():
    proto = model(
        "float[1, 1, 3, 3, 3, 3] x => float[1, 1, 2, 2, 2, 2] y",
        "y = Conv(x, w)",
        {"w": random((1, 1, 2, 2, 2, 2))},
    )
    graph, report = optimised(proto)
    assert kinds(graph) == {"Conv": 1}
    assert any("1 to 3 spatial dimensions" in line for line in report.lines())


@pytest.mark.parametrize(
    ("attrs", "size", "kernel"),
    [
        ("dilations = [12, 12], pads = [12, 12, 12, 12]", (9, 14), [1, 3]),
        ("dilations = [6, 3], pads = [6, 2, 7, 4], strides = [2, 1]", (5, 3), [1, 2]),
        ("dilations = [5, 5], pads = [4, 6, 6, 1]", (4, 11), [2, 3]),
        ("pads = [3, 3, 3, 3]", (2, 1), [3, 3]),
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_taps_that_meet_only_padding_are_cut(attrs, size, kernel, group):
    constants = {"w": random((4, 4 // group, 3, 3), 1), "b": random((4,), 2)}
    height, width = size
    body = f"y = Conv<{attrs}, group = {group}>(x, w, b)"
    proto = model(f"float[n, 4, {height}, {width}] x => float[n, 4, h, v] y", body, constants)
    graph = check(proto, {"x": random((2, 4, *size))}, rtol=1e-5, atol=1e-5)
    (conv,) = [n for n in graph.nodes if n.kind == "clinfer.Conv"]
    assert conv.attrs["kernel"] == kernel == list(conv.required(1).const.shape[2:])
