"""From raw scores to what classifiers and regressors give: post transforms and labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs

_NEAR_ZERO = np.float32(1e-7)


def transform_of(attrs: Attrs) -> str:
    """The node's post transform."""
    return str(attrs.get("post_transform", "NONE"))


def transformed(scores: Array, name: str) -> Array:
    """Rows of scores after the post transform; as ONNX Runtime does, one score a row has none.

    PROBIT apart, which works on each score.
    """
    if scores.shape[1] == 1 and name != "PROBIT":
        return scores
    return _TRANSFORMS[name](scores)


def two_classes(scores: Array, name: str, is_odds: bool) -> Array:
    """Scores [rows, 2] for the one score of the second class; ONNX Runtime's rules.

    `is_odds` says that a score may be negative; else it is a probability.
    """
    if name == "PROBIT":
        return logit_normal(scores)
    second = logistic(scores) if name == "LOGISTIC" else scores
    if is_odds and name != "LOGISTIC":
        return np.hstack([-second, second])
    return np.hstack([1 - second, second])


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    positive = 1 / (1 + np.exp(-np.abs(x)))
    return np.where(x < 0, 1 - positive, positive)


def softmax(x: Array) -> Array:
    """exp(x) by row, of sum 1."""
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _softmax_zero(x: Array) -> Array:
    """The same over the scores other than 0, which stay near 0."""
    largest = x.max(axis=1, keepdims=True)
    is_zero = np.abs(x) <= _NEAR_ZERO
    powers = np.where(is_zero, 0, np.exp(x - largest))
    total = powers.sum(axis=1, keepdims=True)
    kept = np.where(is_zero, x * np.exp(-largest), powers)
    return np.asarray(kept / np.where(total == 0, 1, total))


def logit_normal(x: Array) -> Array:
    """sqrt(2) * erfinv(2 x - 1), by ONNX Runtime's approximation."""
    y = 2 * x - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log((1 - y) * (1 + y))
        v = 2 / (3.14159 * 0.147) + 0.5 * log
        size = np.sqrt(np.sqrt(v * v - log / 0.147) - v)
    return np.asarray(np.sqrt(2) * np.where(y < 0, -size, size))


_TRANSFORMS: dict[str, Callable[[Array], Array]] = {
    "NONE": lambda x: x,
    "SOFTMAX": softmax,
    "LOGISTIC": logistic,
    "SOFTMAX_ZERO": _softmax_zero,
    "PROBIT": logit_normal,
}
