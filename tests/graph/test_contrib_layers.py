"""Activations, normalisations and products of com.microsoft against ONNX Runtime or NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from contrib_helpers import compared, found, model, numbers
from graph_helpers import by_onnxruntime

FREE = {2: "n", 3: "s"}
HALF = {"rtol": 2e-3, "atol": 2e-3}
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float16])


def erf(x: Any) -> Any:
    return np.vectorize(math.erf)(x)


@pytest.mark.parametrize(
    ("op", "bias", "attrs"),
    [
        ("Gelu", False, {}),
        ("BiasGelu", True, {}),
        ("FastGelu", False, {}),
        ("FastGelu", True, {}),
        ("QuickGelu", False, {}),
        ("QuickGelu", False, {"alpha": 1.3}),
    ],
)
def test_activations(op: str, bias: bool, attrs: dict[str, Any]) -> None:
    inputs = {"x": numbers(2, 3, 8)} | ({"b": numbers(8)} if bias else {})
    compared(op, inputs, attrs, free=FREE)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_bias_softmax(axis: int) -> None:
    inputs = {"x": numbers(2, 3, 8), "b": numbers(2, 1, 8)[:1]}
    content = model("BiasSoftmax", inputs, {"axis": axis, "is_inner_broadcast": 1})
    total = (inputs["x"] + inputs["b"]).reshape(2, -1) if axis == 1 else inputs["x"] + inputs["b"]
    e = np.exp(total - total.max(-1, keepdims=True))
    want = (e / e.sum(-1, keepdims=True)).reshape(2, 3, 8)
    np.testing.assert_allclose(found(content, inputs)[0], want, rtol=1e-5)


def test_bias_split_gelu_and_bias_add() -> None:
    x, b, s = numbers(2, 3, 8), numbers(8), numbers(2, 3, 8, seed=1)
    left, right = np.split(x + b, 2, -1)
    want = left * right * 0.5 * (1 + erf(right / math.sqrt(2)))
    inputs = {"x": x, "b": b}
    got = found(model("BiasSplitGelu", inputs, free=FREE), inputs)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    inputs = {"x": x, "b": b, "s": s}
    np.testing.assert_allclose(found(model("BiasAdd", inputs), inputs)[0], x + b + s, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("outputs", [["y"], ["y", "", "", "sum"]])
@pytest.mark.parametrize("optional", ["", "beta", "bias", "beta bias"])
@pytest.mark.parametrize("simple", [False, True])
def test_skip_layer_normalization(
    dtype: Any, outputs: list[str], optional: str, simple: bool
) -> None:
    def maybe(name: str, seed: int) -> Any:
        return numbers(8, seed=seed, dtype=dtype) if name in optional else None

    inputs = {
        "x": numbers(2, 3, 8, dtype=dtype),
        "s": numbers(2, 3, 8, seed=1, dtype=dtype),
        "gamma": numbers(8, seed=2, dtype=dtype),
        "beta": maybe("beta", 3),
        "bias": maybe("bias", 4),
    }
    op = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    if simple:
        del inputs["beta"]
    tolerance = HALF if dtype is np.float16 else {}
    form = {"outputs": outputs, "free": FREE}
    compared(op, inputs, {"epsilon": 1e-3}, **form, **tolerance)


def test_a_skip_is_broadcast_over_the_batch() -> None:
    inputs = {"x": numbers(2, 3, 8), "s": numbers(3, 8), "gamma": numbers(8)}
    compared("SkipLayerNormalization", inputs, free=FREE)
    inputs["s"] = numbers(1, 3, 8)
    compared("SkipSimplifiedLayerNormalization", inputs, free=FREE)


def test_statistics_of_skip_layer_normalizations() -> None:
    inputs = {"x": numbers(2, 3, 8), "s": numbers(2, 3, 8, seed=1), "gamma": numbers(8)}
    total = inputs["x"] + inputs["s"]
    mean = total.mean(-1, keepdims=True)
    spread = 1 / np.sqrt(total.var(-1, keepdims=True) + 1e-3)
    attrs = {"epsilon": 1e-3}
    got = found(model("SkipLayerNormalization", inputs, attrs, 4), inputs)
    for found_, want in zip(got[1:], (mean, spread, total), strict=True):
        np.testing.assert_allclose(found_, want, rtol=1e-5, atol=1e-6)
    content = model(
        "SkipSimplifiedLayerNormalization", inputs, attrs, outputs=["y", "", "spread", "sum"]
    )
    want = 1 / np.sqrt((total**2).mean(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(found(content, inputs)[1], want, rtol=1e-5)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("places", [None, 1, 2])
def test_embed_layer_normalization(segments: bool, masked: bool, places: int | None) -> None:
    rng = np.random.default_rng(0)

    def ids(most: int, batch: int = 2) -> Any:
        return rng.integers(0, most, (batch, 3)).astype(np.int32)

    inputs = {
        "ids": ids(10),
        "segments": ids(2) if segments else None,
        "word": numbers(10, 8),
        "position": numbers(6, 8),
        "segment": numbers(2, 8) if segments else None,
        "gamma": numbers(8),
        "beta": numbers(8, seed=1),
        "mask": np.array([[1, 1, 0], [1, 0, 0]], np.int32) if masked else None,
        "places": None if places is None else ids(6, places),
    }
    compared(
        "EmbedLayerNormalization",
        inputs,
        {"epsilon": 1e-3},
        outputs=["y", "mask_index", "sum"],
        types={"y": 1, "sum": 1},
        constant=("word", "position", "segment", "gamma", "beta"),
        free=FREE,
    )


@BOTH
@pytest.mark.parametrize("trans", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("batch", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_fused_matmul(dtype: Any, trans: tuple[int, int], batch: tuple[int, int]) -> None:
    def operand(rows: int, columns: int, swap: int, moved: int) -> Any:
        shape = [3, rows, columns] if not swap else [3, columns, rows]
        array = numbers(*shape, seed=rows, dtype=dtype)
        return np.moveaxis(array, 1, 0).copy() if moved else array

    inputs = {"a": operand(4, 5, trans[0], batch[0]), "b": operand(5, 6, trans[1], batch[1])}
    attrs = {
        "alpha": 0.5,
        **dict(zip(("transA", "transB"), trans, strict=True)),
        **dict(zip(("transBatchA", "transBatchB"), batch, strict=True)),
    }
    if dtype is np.float16:
        a, b = (
            np.moveaxis(inputs[n], 1, 0) if moved else inputs[n]
            for n, moved in zip("ab", batch, strict=True)
        )
        a, b = (np.swapaxes(x, 1, 2) if t else x for x, t in zip((a, b), trans, strict=True))
        got = found(model("FusedMatMul", inputs, attrs), inputs)[0]
        np.testing.assert_allclose(got, 0.5 * (a @ b), rtol=5e-3, atol=5e-3)
        return
    compared("FusedMatMul", inputs, attrs, free={3: "b"})


def test_transpose_matmul_and_vectors() -> None:
    inputs = {"a": numbers(2, 5, 4), "b": numbers(2, 5, 6)}
    compared("TransposeMatMul", inputs, {"transA": 1}, free={2: "n"})
    compared("FusedMatMul", {"a": numbers(5), "b": numbers(6, 5)}, {"transA": 1, "transB": 1})


ACTIVATIONS = {
    "": [],
    "Relu": [],
    "Tanh": [],
    "Sigmoid": [],
    "LeakyRelu": [0.2],
    "HardSigmoid": [0.3, 0.4],
    "Clip": [-0.5, 0.5],
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("added", [False, True])
def test_fused_conv(kind: str, added: bool) -> None:
    inputs = {
        "x": numbers(2, 4, 5, 5),
        "w": numbers(6, 2, 3, 3),
        "b": numbers(6),
        "z": numbers(2, 6, 3, 3) if added else None,
    }
    attrs: dict[str, Any] = {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 2]}
    if kind:
        attrs |= {"activation": kind}
    if ACTIVATIONS[kind]:
        attrs["activation_params"] = ACTIVATIONS[kind]
    compared("FusedConv", inputs, attrs, free={2: "n"}, constant=("w", "b"), atol=1e-4)


@pytest.mark.parametrize("kind", [k for k in ACTIVATIONS if k not in ("", "Clip")])
@pytest.mark.parametrize("bias", [False, True])
def test_fused_gemm(kind: str, bias: bool) -> None:
    inputs = {"a": numbers(4, 3), "b": numbers(6, 4), "c": numbers(6) if bias else None}
    attrs = {"activation": kind, "alpha": 0.5, "beta": 2.0, "transA": 1, "transB": 1}
    names = ("activation_alpha", "activation_beta")
    attrs |= dict(zip(names, ACTIVATIONS[kind], strict=False))
    compared("FusedGemm", inputs, attrs, free={3: "n"})


def test_convolution_with_channels_last() -> None:
    x, w, b = numbers(2, 5, 6, 4), numbers(6, 3, 3, 2), numbers(6)
    inputs = {"x": x, "w": w, "b": b}
    attrs = {"group": 2, "pads": [1, 0, 1, 0], "strides": [1, 2], "dilations": [1, 1]}
    got = found(model("NhwcConv", inputs, attrs, free={2: "n"}), inputs)[0]
    first = {n: np.moveaxis(inputs[n], 3, 1).copy() for n in "xw"} | {"b": b}
    want = by_onnxruntime(model("Conv", first, attrs, domain=""), first)[0]
    np.testing.assert_allclose(got, np.moveaxis(want, 1, 3), rtol=1e-4, atol=1e-5)


def grouped(x: Any, gamma: Any, beta: Any, groups: int, swish: int) -> Any:
    """GroupNorm of images with channels last."""
    parts = x.reshape(*x.shape[:3], groups, -1).astype(np.float64)
    mean, var = (f(parts, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    y = ((parts - mean) / np.sqrt(var + 1e-3)).reshape(x.shape) * gamma + beta
    return y / (1 + np.exp(-y)) if swish else y


@pytest.mark.parametrize("swish", [0, 1])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("skip", [None, (2, 4), (2, 1, 1, 4), (2, 3, 5, 4)])
def test_group_norm(swish: int, last: int, skip: tuple[int, ...] | None) -> None:
    x, gamma, beta, bias = numbers(2, 3, 5, 4), numbers(4), numbers(4, seed=1), numbers(4, seed=2)
    attrs = {"groups": 2, "activation": swish, "channels_last": last, "epsilon": 1e-3}

    def stored(array: Any) -> Any:
        return array if last or array.ndim < 4 else np.moveaxis(array, 3, 1).copy()

    inputs = {"x": stored(x), "gamma": gamma, "beta": beta}
    total = x
    if skip:
        inputs |= {"skip": stored(numbers(*skip)), "bias": bias}
        total = x + numbers(*skip).reshape(2, *(skip[1:-1] or (1, 1)), 4) + bias
    content = model(
        "SkipGroupNorm" if skip else "GroupNorm", inputs, attrs, 2 if skip else 1, free={2: "n"}
    )
    got = found(content, inputs)
    want = grouped(total, gamma, beta, 2, swish)
    np.testing.assert_allclose(got[0], stored(want), rtol=1e-4, atol=1e-5)
    if skip:
        np.testing.assert_allclose(got[1], stored(total), rtol=1e-5, atol=1e-6)


def test_operators_that_onnx_has_too() -> None:
    x = numbers(2, 3, 4)
    compared("Trilu", {"x": x, "k": np.array(1, np.int64)}, {"upper": 0}, free=FREE)
    compared("Pad", {"x": x, "p": np.array([0, 1, 0, 1, 0, 2], np.int64)}, {"mode": "edge"})
    compared("ExpandDims", {"x": x, "axis": np.array(1, np.int32)}, constant=("axis",), free=FREE)
    compared("GatherND", {"x": x, "i": np.array([[0, 1], [1, 2]], np.int64)})
    limits = {n: np.array(v, np.float32) for n, v in (("a", 1), ("b", 4), ("c", 0.5))}
    compared("Range", limits)
    compared("Range", {n: limits[n] for n in "ab"})
