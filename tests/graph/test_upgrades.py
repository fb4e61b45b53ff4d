"""Old forms of operators give the results that ONNX Runtime gives for them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_helpers import by_onnxruntime, model, proto, run

from clinfer.errors import UnsupportedError
from clinfer.graph.reader import read

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)

# (opset, node of x: float[2, 3, 4, 5])
FORMS = [
    (7, "y = Clip<min = -0.5, max = 0.25>(x)"),
    (7, "y = Clip<max = 0.25>(x)"),
    (9, "y = Slice<starts = [1, -3], ends = [9, 4], axes = [0, 3]>(x)"),
    (9, "y = Slice<starts = [1, 0], ends = [2, 2]>(x)"),
    (10, "y = Pad<pads = [0, 1, 0, 2, 0, 0, 1, 0], value = 2.5>(x)"),
    (10, 'y = Pad<pads = [0, 0, 1, 2, 0, 0, 1, 0], mode = "reflect">(x)'),
    (12, "y = Softmax(x)"),
    (12, "y = Softmax<axis = 2>(x)"),
    (12, "y = Softmax<axis = 3>(x)"),
    (12, "y = LogSoftmax<axis = 1>(x)"),
    (12, "y = Hardmax<axis = 2>(x)"),
    (12, "y = ReduceSum<axes = [1, -1], keepdims = 0>(x)"),
    (12, "y = ReduceSum(x)"),
    (17, "y = ReduceMean<axes = [2]>(x)"),
    (17, "y = ReduceLogSumExp<axes = [0, 3], keepdims = 0>(x)"),
    (12, "u = Unsqueeze<axes = [0, 5]>(x) y = Squeeze<axes = [5]>(u)"),
    (12, "y = Split<axis = 3, split = [5]>(x)"),
    (9, "y, i = TopK<k = 2, axis = 3>(x)"),
    (7, 'y = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.0, 3.0]>(x)'),
    (7, 'y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]>(x)'),
    (10, "s = Constant<value = float[4] {1, 1, 2, 1.5}>() y = Resize(x, s)"),
    (10, "s = Constant<value = float[4] {1, 1, 0.6, 1.5}>() y = Resize(x, s)"),
    (10, 's = Constant<value = float[4] {1, 1, 0.6, 1}>() y = Resize<mode = "linear">(x, s)'),
    (7, "y = Dropout<ratio = 0.3>(x)"),
    (11, "y = Dropout(x)"),
    (8, "y = Flatten<axis = 2>(x)"),
]


@pytest.mark.parametrize(("opset", "body"), FORMS, ids=[f"{o} {b[:40]}" for o, b in FORMS])
@pytest.mark.parametrize("fixed", [True, False])
def test_old_forms(opset: int, body: str, fixed: bool) -> None:
    dims = "2, 3, 4, 5" if fixed else "A, B, C, D"
    source = proto(f"m (float[{dims}] x) => (float y) {{ {body} }}", opset, 7)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    (expected,) = by_onnxruntime(source, {"x": X})
    (result,) = run(read(source).graph(), [X])
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_old_batch_normalisation() -> None:
    source = proto(
        """m (float[2, 3, 4, 5] x, float[3] a, float[3] b, float[3] m, float[3] v)
        => (float[2, 3, 4, 5] y) { y = BatchNormalization<epsilon = 0.01>(x, a, b, m, v) }""",
        8,
        7,
    )
    feeds = {n: np.abs(RNG.normal(size=3)).astype(np.float32) for n in "abmv"}
    (expected,) = by_onnxruntime(source, {"x": X, **feeds})
    (result,) = run(read(source).graph(), [X, *feeds.values()])
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_group_normalisation_with_a_scale_per_group() -> None:
    text = """m (float[2, 6, 4] x, float[{n}] a, float[{n}] b) => (float[2, 6, 4] y)
        {{ y = GroupNormalization<num_groups = 3, epsilon = 0.001>(x, a, b) }}"""
    x = RNG.normal(size=(2, 6, 4)).astype(np.float32)
    a, b = RNG.normal(size=(2, 3)).astype(np.float32)
    (result,) = run(model(text.format(n=3), 18).graph(), [x, a, b])
    grouped = x.reshape(2, 3, 8)
    mean, var = grouped.mean(-1, keepdims=True), grouped.var(-1, keepdims=True)
    normal = ((grouped - mean) / np.sqrt(var + 1e-3)).reshape(2, 3, 2, 4)
    expected = normal * a[None, :, None, None] + b[None, :, None, None]
    np.testing.assert_allclose(result, expected.reshape(2, 6, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ("broadcast = 1, axis = 1", (3, 4)),
        ("broadcast = 1, axis = 0", (2,)),
        ("broadcast = 1", (5,)),
    ],
)
def test_broadcast_aligned_at_an_axis(attributes: str, shape: tuple[int, ...]) -> None:
    dims = ", ".join(map(str, shape))
    made = model(
        f"m (float[2, 3, 4, 5] x, float[{dims}] b) => (float[2, 3, 4, 5] y)"
        f"{{ y = Add<{attributes}>(x, b) }}",
        6,
    )
    b = RNG.normal(size=shape).astype(np.float32)
    axis = 1 if shape == (3, 4) else 0 if shape == (2,) else 3
    expected = X + b.reshape(b.shape + (1,) * (4 - axis - b.ndim))
    np.testing.assert_array_equal(run(made.graph(), [X, b])[0], expected)


def test_statistics_per_element_are_refused() -> None:
    source = proto(
        """m (float[2, 3] x, float[3] a, float[3] b, float[3] m, float[3] v) => (float[2, 3] y)
        { y = BatchNormalization<spatial = 0>(x, a, b, m, v) }""",
        8,
    )
    with pytest.raises(UnsupportedError, match="spatial = 0"):
        read(source)


def test_new_forms_are_left_alone() -> None:
    text = "m (float[2, 3] x) => (float[2, 3] y) { y = Softmax<axis = 0>(x) }"
    (node,) = model(text, onnx.defs.onnx_opset_version()).graph().nodes
    assert (node.op, node.attrs) == ("Softmax", {"axis": 0})


@pytest.mark.parametrize(("opset", "kind"), [(7, "float"), (10, "bool")])
def test_dropouts_mask_has_the_type_of_its_version(opset: int, kind: str) -> None:
    text = f"m (float[3] x) => (float[3] y, {kind}[3] m) {{ y, m = Dropout<ratio = 0.9>(x) }}"
    x = np.float32([1, 2, 3])
    y, mask = run(model(text, opset).graph(), [x])
    np.testing.assert_array_equal(y, x)
    assert mask.dtype == np.dtype("float32" if kind == "float" else "bool")
    assert mask.all()
