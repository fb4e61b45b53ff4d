"""What converters, quantisers and older optimisers write of com.microsoft."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from contrib_helpers import compared, found, model, numbers
from graph_helpers import by_onnxruntime

from clinfer.errors import ModelError
from clinfer.graph.reader import read

B, H, D = 2, 4, 8


def eight(*shape: int, dtype: Any = np.int8) -> Any:
    info = np.iinfo(dtype)
    return np.random.default_rng([*shape]).integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_to_one_token(other: bool, masked: bool) -> None:
    """Keys and values of another sequence, or of a past that shares its buffer with what comes."""
    mask = np.ones((B, 6), np.int32)
    mask[1, :2] = 0
    inputs = {
        "q": numbers(B, 1, H * D),
        "k": numbers(B, H, 6, D) if other else numbers(B, 1, H * D, seed=1),
        "v": numbers(B, H, 6, D, seed=2) if other else numbers(B, 1, H * D, seed=2),
        "mask": mask if masked else None,
        "bias": None,
        "past_k": None if other else numbers(B, H, 9, D),
        "past_v": None if other else numbers(B, H, 9, D, seed=3),
        "past": None if other else np.array([5], np.int32),
    }
    attrs = {"num_heads": H, "past_present_share_buffer": 0 if other else 1}
    compared("DecoderMaskedMultiHeadAttention", inputs, attrs, outputs=1 if other else 3)


@pytest.mark.parametrize("both", [0, 1])
def test_biases_by_distance(both: int) -> None:
    """T5's function in NumPy: ONNX Runtime has the operator on GPUs only."""
    buckets, most, count = 8, 20, 30
    table = numbers(buckets, H)
    sizes = {"table": table, "q": np.array([count]), "k": np.array([count])}
    attrs = {"max_distance": most, "is_bidirectional": both}
    got = found(model("RelativePositionBias", sizes, attrs), sizes)[0]
    distance = np.arange(count)[None] - np.arange(count)[:, None]
    half = buckets // 2 if both else buckets
    first = (distance > 0) * half if both else 0
    size = np.abs(distance) if both else np.maximum(-distance, 0)
    exact = half // 2
    with np.errstate(divide="ignore"):
        grown = np.log(size / exact) / np.log(most / exact) * (half - exact)
    far = np.minimum(exact + np.where(size < exact, 0, grown).astype(np.int64), half - 1)
    number = first + np.where(size < exact, size, far)
    np.testing.assert_array_equal(got[0], table.reshape(H, buckets)[:, number])


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstm_of_dynamic_quantisation(columns: bool, direction: str) -> None:
    """States of one row: of more, ONNX Runtime rounds as many together as a thread has."""
    steps, wide, size = 6, 10, 12
    both = 2 if direction == "bidirectional" else 1
    shape = (both, 4 * size) if columns else (both,)
    scales = (np.abs(numbers(*shape)) + 1).astype(np.float32) * 0.002
    inputs = {
        "x": numbers(steps, 1, wide),
        "w": eight(both, wide, 4 * size),
        "r": eight(both, size, 4 * size),
        "b": numbers(both, 8 * size),
        **dict.fromkeys(("lengths", "h", "c", "p")),
        "ws": scales,
        "wz": np.zeros(shape, np.int8),
        "rs": scales,
        "rz": np.zeros(shape, np.int8),
    }
    attrs = {"hidden_size": size, "direction": direction}
    form: dict[str, Any] = {"constant": ("w", "r", "b", "ws", "wz", "rs", "rz"), "outputs": 3}
    compared("DynamicQuantizeLSTM", inputs, attrs, **form)


def test_embeddings_in_8_bits() -> None:
    words, places, size = 9, 6, 16
    tables = {"words": words, "places": places, "kinds": 2}
    inputs: dict[str, Any] = {
        "ids": np.array([[1, 5, 8]], np.int32),
        "segments": np.array([[0, 1, 1]], np.int32),
        **{name: eight(rows, size, dtype=np.uint8) for name, rows in tables.items()},
        "gamma": eight(size, dtype=np.uint8),
        "beta": eight(size + 1, dtype=np.uint8)[:size],
        "mask": np.array([[1, 1, 0]], np.int32),
    }
    for name in (*tables, "gamma", "beta"):
        inputs[f"{name}_scale"] = np.array(0.02, np.float32)
    for name in (*tables, "gamma", "beta"):
        inputs[f"{name}_zero"] = np.array(120, np.uint8)
    form: dict[str, Any] = {"outputs": 2, "types": {"y0": 1, "y1": 6}}
    compared("QEmbedLayerNormalization", inputs, {"epsilon": 1e-5}, atol=1e-4, **form)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_distances(metric: str) -> None:
    inputs = {"a": numbers(5, 7), "b": numbers(3, 7)}
    compared("CDist", inputs, {"metric": metric}, atol=1e-4)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_samples_at_places_of_a_grid(mode: str) -> None:
    """What exporters wrote before ONNX had the operator.

    Behind the edges ONNX Runtime clamps bicubic places, ONNX and PyTorch their neighbours.
    """
    grid = np.clip(numbers(2, 4, 3, 2), -0.7, 0.7) if mode == "bicubic" else numbers(2, 4, 3, 2)
    inputs = {"x": numbers(2, 3, 5, 6), "grid": grid}
    for padding, aligned in (("zeros", 0), ("border", 1), ("reflection", 0)):
        attrs = {"mode": mode, "padding_mode": padding, "align_corners": aligned}
        compared("GridSample", inputs, attrs)


_LINES = np.array([["The  cat, the hat", "a"], ["", "b2 c_d e-f \u00e9t\u00e9"]], object)


@pytest.mark.parametrize(
    "how",
    [
        {"tokenexp": "[a-zA-Z0-9_]+"},
        {"tokenexp": "\\b\\w\\w+\\b"},
        {"tokenexp": "."},
        {"separators": [" "]},
        {"separators": [",? +", "-", "[.!]"]},
        {"separators": [""]},
        {"tokenexp": "[XYZ]"},
    ],
    ids=str,
)
@pytest.mark.parametrize("mark", [0, 1])
def test_tokens_of_text(how: dict[str, Any], mark: int) -> None:
    """What vectorisers of text become."""
    least = 1 if "." in how.values() or [""] in how.values() else 2
    attrs = {"mark": mark, "mincharnum": least, "pad_value": "#", **how}
    for lines in (_LINES, _LINES[0]):
        content = model("Tokenizer", {"x": lines}, attrs)
        (wanted,) = by_onnxruntime(content, {"x": lines})
        (got,) = found(content, {"x": lines})
        assert got.shape == wanted.shape
        assert got.tolist() == wanted.tolist()


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64", "float32", "float64", "O"])
@pytest.mark.parametrize("attrs", [{}, {"seed": 7, "positive": 0}], ids=str)
def test_hashes(dtype: str, attrs: dict[str, int]) -> None:
    """What hashers of features become: texts of all lengths to a block's, and numbers."""
    texts = ["", "a", "ab", "abc", "abcd", "abcde", "caf\u00e9 au lait", "x" * 33]
    x = np.array(texts if dtype == "O" else [0, 1, 2, 3, 5, 8, 13, 100], dtype).reshape(2, 4)
    kind = onnx.TensorProto.UINT32 if attrs.get("positive", 1) else onnx.TensorProto.INT32
    content = model("MurmurHash3", {"x": x}, attrs, types={"y0": kind})
    (wanted,) = by_onnxruntime(content, {"x": x})
    (got,) = found(content, {"x": x})
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("text", ["a|ab", "a+?", "[[:alpha:]]+", "(?i)a", "a$", "("])
def test_expressions_that_may_mean_something_else(text: str) -> None:
    attrs = {"mark": 0, "mincharnum": 1, "pad_value": "", "tokenexp": text}
    with pytest.raises(ModelError, match="regular expression"):
        read(model("Tokenizer", {"x": _LINES}, attrs)).graph()


def test_sums_and_products_of_integers() -> None:
    data = eight(3, 4, 5, dtype=np.uint8)
    got = found(model("ReduceSumInteger", {"x": data}, {"axes": [1], "keepdims": 0}), {"x": data})
    np.testing.assert_array_equal(got[0], data.astype(np.int32).sum(1))
    inputs = {"a": eight(3, 4), "az": np.array(3, np.int8), "b": eight(4), "bz": None}
    want = (inputs["a"].astype(np.int32) - 3) * inputs["b"].astype(np.int32)
    given = {n: a for n, a in inputs.items() if a is not None}
    np.testing.assert_array_equal(found(model("MulInteger", inputs), given)[0], want)


def test_products_with_activations() -> None:
    """ONNX Runtime's own of the parts: these fusions are for other devices."""
    inputs = {"a": numbers(2, 3, 4), "b": numbers(5, 4)}
    attrs = {"transB": 1, "alpha": 0.5}
    plain = by_onnxruntime(model("FusedMatMul", inputs, attrs), inputs)[0]
    fused = model("FusedMatMulActivation", inputs, attrs | {"activation": "Relu"})
    np.testing.assert_allclose(found(fused, inputs)[0], np.maximum(plain, 0), atol=1e-5)
    x = {"x": numbers(2, 3, 4), "w": numbers(4, 5), "b": numbers(5)}
    want = by_onnxruntime(
        model("FastGelu", {"x": x["x"] @ x["w"], "b": x["b"]}), {"x": x["x"] @ x["w"], "b": x["b"]}
    )[0]
    np.testing.assert_allclose(found(model("GemmFastGelu", x), x)[0], want, atol=1e-5)
