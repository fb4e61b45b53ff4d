"""Attention operators of com.microsoft against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from contrib_helpers import compared, found, model, numbers
from graph_helpers import by_onnxruntime

from clinfer.errors import ClinferError
from clinfer.graph.reader import read

B, S, H, D, P = 2, 3, 4, 16, 5
FREE = {2: "b", 3: "s", 5: "p", 6: "t"}
HALF = {"rtol": 5e-3, "atol": 5e-3}
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float16])


def ints(*content: Any) -> Any:
    return np.array(content, np.int32)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("form", ["rank 3", "rank 4", "partial"])
@pytest.mark.parametrize("first", [False, True])
def test_rotary_embedding(interleaved: int, form: str, first: bool) -> None:
    half = D // 4 if form == "partial" else D // 2
    inputs = {
        "x": numbers(B, H, S, D) if form == "rank 4" else numbers(B, S, H * D),
        "places": np.array([2] if first else [[0, 3, 1], [4, 2, 5]], np.int64),
        "cos": numbers(9, half),
        "sin": numbers(9, half, seed=1),
    }
    attrs = {"interleaved": interleaved}
    if form == "partial":
        attrs |= {"num_heads": H, "rotary_embedding_dim": D // 2}
    compared("RotaryEmbedding", inputs, attrs, free={2: "b", 3: "s"})


MASKS = {
    "none": None,
    "ends": ints(2, 3),
    "ends and starts": ints(2, 3, 0, 1),
    "keys": ints([1, 1, 0], [0, 1, 1]),
    "pairs": np.random.default_rng(0).integers(0, 2, (B, S, S)).astype(np.int32),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_attention_with_masks(mask: str, unidirectional: int) -> None:
    inputs = {
        "x": numbers(B, S, 16),
        "w": numbers(16, 3 * H * D),
        "b": numbers(3 * H * D),
        "mask": MASKS[mask],
    }
    attrs = {"num_heads": H, "unidirectional": unidirectional}
    free = {} if mask == "ends and starts" else {2: "b", 3: "s"}
    compared("Attention", inputs, attrs, constant=("w", "b"), free=free, atol=1e-4)


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_with_a_past(unidirectional: int, masked: bool) -> None:
    mask = np.ones((B, P + S), np.int32)
    mask[0, :2] = 0
    inputs = {
        "x": numbers(B, S, 16),
        "w": numbers(16, 3 * H * D) * 0.3,
        "b": numbers(3 * H * D),
        "mask": mask if masked else None,
        "past": numbers(2, B, H, P, D),
    }
    attrs = {"num_heads": H, "unidirectional": unidirectional, "scale": 0.3}
    compared(
        "Attention", inputs, attrs, outputs=2, constant=("w", "b"), free={3: "s", 5: "p"}, atol=1e-4
    )


def test_attention_with_values_of_another_width() -> None:
    inputs = {
        "x": numbers(B, S, 16),
        "w": numbers(16, 2 * H * D + H * 2),
        "b": numbers(2 * H * D + H * 2),
    }
    attrs = {
        "num_heads": H,
        "qkv_hidden_sizes": [H * D, H * D, H * 2],
        "mask_filter_value": -5.0,
    }
    inputs["mask"] = MASKS["keys"]
    compared("Attention", inputs, attrs, constant=("w", "b"), free={2: "b"}, atol=1e-4)


@BOTH
@pytest.mark.parametrize("cross", ["same", "longer", "rank 4"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mask", ["none", "keys", "pairs"])
def test_multi_head_attention(dtype: Any, cross: str, bias: bool, mask: str) -> None:
    if dtype is np.float16 and (mask != "keys" or bias):
        pytest.skip("one form of float16 will do")
    length = S if cross == "same" else 6
    shape = (B, H, length, D) if cross == "rank 4" else (B, length, H * D)
    masks = {
        "none": None,
        "keys": ints([1] * (length - 1) + [0], [0] + [1] * (length - 1)),
        "pairs": np.random.default_rng(1).integers(0, 2, (B, S, length)).astype(np.int32),
    }
    inputs = {
        "q": numbers(B, S, H * D, dtype=dtype),
        "k": numbers(*shape, seed=1, dtype=dtype),
        "v": numbers(*shape, seed=2, dtype=dtype),
        "bias": numbers(3 * H * D, dtype=dtype) if bias and cross != "rank 4" else None,
        "mask": masks[mask],
        "added": numbers(1, 1, S, length, dtype=dtype),
    }
    tolerance = HALF if dtype is np.float16 else {}
    compared("MultiHeadAttention", inputs, {"num_heads": H}, free=FREE, **tolerance)


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_multi_head_attention_with_a_past(unidirectional: int, packed: bool) -> None:
    inputs = {
        "q": numbers(B, S, H * D),
        "k": numbers(B, S, H * D, seed=1),
        "v": numbers(B, S, H * D, seed=2),
        "bias": None,
        "mask": None,
        "added": None,
        "past_k": numbers(B, H, P, D),
        "past_v": numbers(B, H, P, D, seed=1),
    }
    attrs = {"num_heads": H, "unidirectional": unidirectional, "scale": 0.4}
    compared("MultiHeadAttention", inputs, attrs, outputs=3, free={2: "b", 3: "s", 5: "p"})


@pytest.mark.parametrize("unidirectional", [0, 1])
def test_scores_are_a_result(unidirectional: int) -> None:
    inputs = {
        "q": numbers(B, S, H * D),
        "k": numbers(B, S, H * D, seed=1),
        "v": numbers(B, S, H * D, seed=2),
        "bias": None,
        "mask": MASKS["keys"],
        "added": numbers(1, H, S, S),
    }
    attrs = {"num_heads": H, "unidirectional": unidirectional}
    compared("MultiHeadAttention", inputs, attrs, outputs=["y", "", "", "scores"])


@pytest.mark.parametrize("bias", [False, True])
def test_packed_operands_are_those_apart(bias: bool) -> None:
    parts = {n: numbers(B, S, H, D, seed=i) for i, n in enumerate("qkv")}
    apart = {n: a.reshape(B, S, H * D) for n, a in parts.items()}
    given = numbers(3 * H * D) if bias else None
    want = by_onnxruntime(
        model("MultiHeadAttention", apart | {"b": given}, {"num_heads": H}),
        apart | ({"b": given} if bias else {}),
    )[0]
    forms = [{"q": np.stack(list(parts.values()), 3), "k": None, "v": None, "b": given}]
    if not bias:
        forms.append({"q": apart["q"], "k": np.stack([parts["k"], parts["v"]], 3)})
    for form in forms:
        content = model("MultiHeadAttention", form, {"num_heads": H}, free={2: "b", 3: "s"})
        got = found(content, form)[0]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def grouped(
    past: int,
    length: int,
    room: int,
    *,
    packed: bool = False,
    dtype: Any = np.float32,
    batch: int = B,
) -> dict[str, Any]:
    """Inputs of GroupQueryAttention with 4 heads of queries, 2 of keys."""
    widths = (H * D, 2 * D, 2 * D)
    parts = [numbers(batch, length, w, seed=i, dtype=dtype) for i, w in enumerate(widths)]
    total = past + length
    return {
        "q": np.concatenate(parts, -1) if packed else parts[0],
        "k": None if packed else parts[1],
        "v": None if packed else parts[2],
        "past_k": numbers(batch, 2, room, D, dtype=dtype),
        "past_v": numbers(batch, 2, room, D, seed=1, dtype=dtype),
        "last": np.full(batch, total - 1, np.int32),
        "total": np.array(total, np.int32),
        "cos": numbers(16, D // 2, seed=5, dtype=dtype),
        "sin": numbers(16, D // 2, seed=6, dtype=dtype),
    }


GQA = {"num_heads": H, "kv_num_heads": 2}


@BOTH
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("past", "length", "room"), [(0, 3, 0), (5, 1, 5), (0, 3, 9), (5, 1, 9)])
@pytest.mark.parametrize("interleaved", [None, 0, 1])
def test_grouped_queries(
    dtype: Any, packed: bool, past: int, length: int, room: int, interleaved: int | None
) -> None:
    inputs = grouped(past, length, room, packed=packed, dtype=dtype)
    attrs = dict(GQA)
    if interleaved is None:
        inputs["cos"] = inputs["sin"] = None
    else:
        attrs |= {"do_rotary": 1, "rotary_interleaved": interleaved}
    _alike(inputs, attrs, dtype=dtype)


def _alike(
    inputs: dict[str, Any],
    attrs: dict[str, Any],
    filled: int | None = None,
    dtype: Any = np.float32,
) -> None:
    """Results and the cache, or the part of it that is filled, are ONNX Runtime's."""
    free = {2: "b"} | ({0: "p"} if inputs["past_k"].shape[2] == 0 else {9: "p", 5: "p"})
    content = model("GroupQueryAttention", inputs, attrs, 3, free=free)
    feeds = {n: a for n, a in inputs.items() if a is not None}
    wanted, got = by_onnxruntime(content, feeds), found(content, feeds)
    tolerance = HALF if dtype is np.float16 else {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(got[0], wanted[0], **tolerance)
    for a, b in zip(got[1:], wanted[1:], strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a[:, :, :filled], b[:, :, :filled], **tolerance)


@pytest.mark.parametrize("window", [1, 2, 3, 10])
@pytest.mark.parametrize(("past", "length"), [(0, 5), (5, 1)])
def test_a_window_of_keys(window: int, past: int, length: int) -> None:
    _alike(grouped(past, length, past), GQA | {"local_window_size": window})


@pytest.mark.parametrize(
    "attrs",
    [{"softcap": 1.5}, {"scale": 0.2}, {"smooth_softmax": 1}, {"softcap": 2.0, "scale": 0.7}],
)
def test_attributes_of_grouped_queries(attrs: dict[str, Any]) -> None:
    _alike(grouped(5, 1, 5), GQA | attrs)


@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_optional_inputs_of_grouped_queries(softcap: float) -> None:
    inputs = grouped(5, 1, 5, batch=1)
    inputs |= {
        "places": np.array([[7]], np.int64),
        "bias": numbers(1, H, 1, 6),
        "sink": numbers(H),
    }
    _alike(inputs, GQA | {"do_rotary": 1, "softcap": softcap})


def test_queries_and_keys_are_normalised() -> None:
    inputs = grouped(5, 1, 5)
    weights = {"q": numbers(D), "k": numbers(D, seed=1)}

    def normed(name: str) -> Any:
        x = inputs[name].reshape(B, 1, -1, D)
        spread = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3)
        return (x / spread * weights[name]).reshape(inputs[name].shape)

    attrs = GQA | {"do_rotary": 1}
    want = by_onnxruntime(
        model("GroupQueryAttention", inputs | {n: normed(n) for n in "qk"}, attrs, 3),
        inputs | {n: normed(n) for n in "qk"},
    )
    none = dict.fromkeys(["places", "bias", "sink", "k_scale", "v_scale"])
    given = inputs | none | {"q_norm": weights["q"], "k_norm": weights["k"]}
    content = model("GroupQueryAttention", given, attrs | {"qk_norm_epsilon": 1e-3}, 3)
    for a, b in zip(found(content, given), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_attention_with_a_bias_of_the_scores() -> None:
    inputs = {
        "x": numbers(B, S, 16),
        "w": numbers(16, 3 * H * D) * 0.3,
        "b": None,
        "mask": None,
        "past": None,
        "bias": numbers(1, H, S, S),
    }
    compared("Attention", inputs, {"num_heads": H}, constant=("w",), atol=1e-4)


def test_rows_with_pasts_of_their_own_lengths() -> None:
    inputs = grouped(5, 1, 9)
    inputs["last"] = ints(3, 5)  # pasts of 3 and 5
    content = model("GroupQueryAttention", inputs, GQA | {"do_rotary": 1}, 3, free={2: "b"})
    wanted, got = by_onnxruntime(content, inputs), found(content, inputs)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(got[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("window", [-1, 1, 2, 3])
def test_prompts_with_padding_behind(window: int) -> None:
    inputs = grouped(0, 5, 0)
    inputs["last"] = ints(2, 4)
    attrs = GQA | {"do_rotary": 1, "local_window_size": window}
    content = model("GroupQueryAttention", inputs, attrs, 3, free={2: "b"})
    wanted, got = by_onnxruntime(content, inputs), found(content, inputs)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_more_tokens_behind_a_past() -> None:
    _alike(grouped(5, 3, 5, batch=1), GQA | {"do_rotary": 1})


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("past", "length", "room"), [(0, 5, 4), (3, 1, 4), (11, 1, 4), (9, 3, 5)])
def test_a_cache_of_a_window(past: int, length: int, room: int, biased: bool) -> None:
    """Rows behind those that are kept are not specified."""
    inputs = grouped(past, length, room, batch=1)
    if biased:
        inputs |= {"places": None, "bias": numbers(1, H, length, past + length)}
    attrs = GQA | {"do_rotary": 1, "sliding_window_cache": 1, "local_window_size": 4}
    total, slack = past + length, room - 4 + 1
    kept = total if total <= room else total - slack * -(-(total - room) // slack)
    _alike(inputs, attrs, kept)


@pytest.mark.parametrize("kind", ["PER_TENSOR", "PER_CHANNEL"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("past", "length"), [(0, 3), (5, 1)])
def test_a_cache_in_integers(kind: str, bits: int, past: int, length: int) -> None:
    inputs = grouped(past, length, past)
    dtype, width = (np.uint8, D // 2) if bits == 4 else (np.int8, D)
    rng = np.random.default_rng(0)
    for name in ("past_k", "past_v"):
        inputs[name] = rng.integers(0, 100, (B, 2, past, width)).astype(dtype)
    shape = (1,) if kind == "PER_TENSOR" else (1, 2, 1, D)
    scale = (np.abs(numbers(*shape)) + 0.5).astype(np.float32) / (1 << bits - 2)
    inputs |= {"places": None, "bias": None, "sink": None, "k_scale": scale, "v_scale": scale}
    attrs = GQA | {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": bits}
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    types = {"y1": number, "y2": number}
    compared("GroupQueryAttention", inputs, attrs, outputs=3, types=types)


def test_queries_with_padding_behind() -> None:
    inputs = grouped(4, 3, 9)
    inputs["last"], inputs["total"] = ints(5, 4), np.array(7, np.int32)
    inputs |= dict.fromkeys(("places", "bias", "sink", "k_scale", "v_scale", "q", "k"))
    inputs |= {"q": grouped(4, 3, 9)["q"], "k": grouped(4, 3, 9)["k"]}
    given = inputs | {"q_norm": None, "k_norm": None, "lengths": ints(2, 1)}
    content = model("GroupQueryAttention", given, GQA | {"do_rotary": 1}, 3)
    feeds = {n: a for n, a in given.items() if a is not None}
    wanted, got = by_onnxruntime(content, feeds), found(content, feeds)
    for row, (count, filled) in enumerate(((2, 6), (1, 5))):
        np.testing.assert_allclose(got[0][row, :count], wanted[0][row, :count], atol=1e-5)
        for a, b in zip(got[1:], wanted[1:], strict=True):
            np.testing.assert_allclose(a[row, :, :filled], b[row, :, :filled], rtol=1e-5)


@pytest.mark.parametrize("kind", [1, 2])
def test_scores_of_grouped_queries(kind: int) -> None:
    inputs = grouped(5, 3, 5, batch=1)
    compared("GroupQueryAttention", inputs, GQA | {"qk_output": kind}, outputs=4)


def test_what_is_not_supported_is_named() -> None:
    inputs = grouped(5, 1, 5)
    with pytest.raises(ClinferError, match="local_window_size"):
        read(model("GroupQueryAttention", inputs, GQA | {"sliding_window_cache": 1}))
    with pytest.raises(ClinferError, match="multiple of kv_num_heads"):
        read(model("GroupQueryAttention", inputs, {"num_heads": 4, "kv_num_heads": 3}))
