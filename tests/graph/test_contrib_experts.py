"""Mixtures of experts of com.microsoft against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_helpers import compared, model, numbers

from clinfer.errors import ClinferError
from clinfer.graph.reader import read

E, H, WIDE, T = 4, 32, 64, 5
HALVES = {"activation_type": "swiglu", "swiglu_fusion": 1}
LIMITED = {"activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 0.5}


def experts(rows: int) -> dict[str, Any]:
    return {
        "x": numbers(T, H),
        "router": numbers(T, E),
        "w1": numbers(E, rows, H) * 0.3,
        "b1": numbers(E, rows) * 0.1,
        "w2": numbers(E, H, WIDE) * 0.1,
        "b2": numbers(E, H) * 0.1,
    }


@pytest.mark.parametrize(
    ("attrs", "rows"),
    [
        ({"k": 1, "activation_type": "relu"}, WIDE),
        ({"k": 2, "activation_type": "gelu"}, WIDE),
        ({"k": 2, "activation_type": "silu", "normalize_routing_weights": 1}, WIDE),
        ({"k": 2, "activation_type": "identity", "normalize_routing_weights": 1}, WIDE),
        ({"k": 3, **HALVES, **LIMITED}, 2 * WIDE),
        ({"k": 2, **HALVES}, 2 * WIDE),
    ],
)
def test_experts(attrs: dict[str, Any], rows: int) -> None:
    inputs = experts(rows)
    constant = ("w1", "b1", "w2", "b2")
    compared("MoE", inputs, attrs, constant=constant, free={T: "tokens"}, atol=1e-4)


def _codes(*shape: int, bits: int, seed: int = 0) -> Any:
    wide = (*shape[:-1], shape[-1] * bits // 8)
    return np.random.default_rng([seed, *shape]).integers(0, 256, wide).astype(np.uint8)


@pytest.mark.parametrize(
    ("bits", "size", "zeros", "weights", "normalised"),
    [
        (4, 0, False, False, 0),
        (4, 32, False, True, 0),
        (4, 32, True, True, 1),
        (8, 0, True, False, 0),
    ],
)
def test_experts_in_few_bits(
    bits: int, size: int, zeros: bool, weights: bool, normalised: int
) -> None:
    count = 8 // bits

    def by_block(rows: int, inner: int) -> tuple[Any, Any]:
        shape = (E, rows, inner // size) if size else (E, rows)
        points = (*shape[:-1], -(-shape[-1] // count))
        scale = np.abs(numbers(*shape)) * 0.02 / (1 << bits - 4)
        return scale, _codes(*points[:-1], points[-1] * count, bits=bits, seed=3) if zeros else None

    (s1, z1), (s2, z2) = by_block(WIDE, H), by_block(H, WIDE)
    inputs = {
        "x": numbers(1, T, H),
        "router": numbers(T, E),
        "w1": _codes(E, WIDE, H, bits=bits),
        "s1": s1,
        "b1": numbers(E, WIDE) * 0.1,
        "w2": _codes(E, H, WIDE, bits=bits),
        "s2": s2,
        "b2": None,
        **dict.fromkeys(("w3", "s3", "b3")),
        "z1": z1,
        "z2": z2,
        "z3": None,
        "shares": np.abs(numbers(T, E)) if weights else None,
    }
    attrs = {"k": 2, "activation_type": "relu", "expert_weight_bits": bits}
    attrs |= {"normalize_routing_weights": normalised, **({"block_size": size} if size else {})}
    constant = ("w1", "s1", "b1", "w2", "s2", "z1", "z2")
    compared("QMoE", inputs, attrs, constant=constant, atol=2e-4)


def test_what_experts_are_not_supported_is_named() -> None:
    inputs = experts(2 * WIDE)
    with pytest.raises(ClinferError, match="use_sparse_mixer"):
        read(model("MoE", inputs, {"k": 2, "use_sparse_mixer": 1}))
    with pytest.raises(ClinferError, match="swiglu_fusion"):
        read(model("MoE", inputs, {"k": 2, "activation_type": "swiglu"}))
    with pytest.raises(ClinferError, match="activation_type"):
        read(model("MoE", inputs, {"k": 2, "activation_type": "tanh"}))
