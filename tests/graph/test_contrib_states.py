"""Layers of com.microsoft that keep a state, and their gates, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_helpers import compared, found, model, numbers

from clinfer.errors import ClinferError
from clinfer.graph.reader import read

B, S, C, K = 2, 5, 6, 4


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("dilation", [1, 2])
def test_causal_convolution(past: bool, last: int, dilation: int) -> None:
    held = (K - 1) * dilation
    shape, state = ((B, S, C), (B, held, C)) if last else ((B, C, S), (B, C, held))
    inputs = {
        "x": numbers(*shape),
        "w": numbers(C, 1, K),
        "b": numbers(C),
        "past": numbers(*state, seed=1) if past else None,
    }
    attrs = {"activation": "silu", "channels_last": last, "dilation": dilation}
    form: dict[str, Any] = {"constant": ("w", "b"), "outputs": 2, "free": {S: "s"}}
    compared("CausalConvWithState", inputs, attrs, **form)


@pytest.mark.parametrize(("queries", "keys", "heads"), [(2, 2, 2), (4, 2, 2), (2, 2, 4)])
def test_linear_attention(queries: int, keys: int, heads: int) -> None:
    size = 8
    inputs = {
        "q": numbers(B, S, queries * size),
        "k": numbers(B, S, keys * size) * 0.2,
        "v": numbers(B, S, heads * size),
        "past": numbers(B, heads, size, size),
        "decay": -np.abs(numbers(B, S, heads)),
        "beta": np.abs(numbers(B, S, heads)) * 0.3,
    }
    attrs = {"q_num_heads": queries, "kv_num_heads": heads}
    compared("LinearAttention", inputs, attrs, outputs=2, atol=1e-4)


def test_gates() -> None:
    inputs = {"a": numbers(B, S, C), "bias": numbers(C), "scale": -np.abs(numbers(C))}
    compared("LinearAttentionGate", inputs | {"b": numbers(B, S, C, seed=1)}, outputs=2)
    normed = {"x": numbers(B, S, 2 * C), "w": numbers(C), "gate": numbers(B, S, 2 * C, seed=1)}
    for kind in ("silu", "sigmoid"):
        compared("GatedRMSNorm", normed, {"activation": kind, "epsilon": 1e-5})


@pytest.mark.parametrize("layout", [0, 1])
def test_places_of_three_kinds(layout: int) -> None:
    """NumPy: ONNX Runtime computes it on GPUs only."""
    half, heads = 8, 2
    sections = [3, 3, 2]
    inputs = {
        "x": numbers(B, S, heads * 2 * half),
        "places": np.random.default_rng(0).integers(0, 9, (3, B, S)),
        "cos": numbers(9, half),
        "sin": numbers(9, half, seed=1),
    }
    stream = [0] * 3 + [1] * 3 + [2] * 2 if not layout else [0, 1, 2, 0, 1, 2, 0, 1]
    columns = np.arange(half)
    at = np.stack([inputs["places"][stream[c]] for c in columns], -1)
    cos, sin = (inputs[name][at, columns][:, :, None] for name in ("cos", "sin"))
    x = inputs["x"].reshape(B, S, heads, 2 * half)
    low, high = x[..., :half], x[..., half:]
    want = np.concatenate([low * cos - high * sin, low * sin + high * cos], -1)
    attrs = {"mrope_section": sections, "mrope_layout": layout, "num_heads": heads}
    got = found(model("MRotaryEmbedding", inputs, attrs), inputs)[0]
    np.testing.assert_allclose(got, want.reshape(inputs["x"].shape), rtol=1e-5, atol=1e-5)


def test_what_states_are_not_supported_is_named() -> None:
    inputs = {"x": numbers(B, C, S), "w": numbers(C, 1, K), "b": None, "past": None}
    with pytest.raises(ClinferError, match="state_window"):
        read(model("CausalConvWithState", inputs, {"state_window": 2}, outputs=2))
    with pytest.raises(ClinferError, match="activation"):
        read(model("CausalConvWithState", inputs, {"activation": "relu"}, outputs=2))
