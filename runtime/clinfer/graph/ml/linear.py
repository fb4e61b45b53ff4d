"""LinearClassifier and LinearRegressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs, Maker, Run
from clinfer.graph.ml.attributes import labels, numbers, objects, rows
from clinfer.graph.ml.scores import transform_of, transformed, two_classes


def classifier(attrs: Attrs) -> Run:
    """The label of the highest score, and the scores."""
    transform = transform_of(attrs)
    classes = labels(attrs, "classlabels_ints", "classlabels_strings")
    weights, bias = numbers(attrs, "coefficients"), numbers(attrs, "intercepts")
    count = bias.size or classes.size
    second = classes if classes.size == 2 else _usual(classes)

    def run(inputs: Sequence[Any]) -> list[Any]:
        scores = _scores(rows(np.asarray(inputs[0])), weights, bias, count)
        if count > 1:
            picked = classes[np.argmax(scores, axis=1)]
            return [picked, transformed(scores, transform).astype(np.float32)]
        picked = second[(scores[:, 0] > 0).astype(np.int64)]
        if classes.size == 2:
            made = two_classes(scores, transform, is_odds=False)
        else:
            made = transformed(scores, transform)
        return [picked, made.astype(np.float32)]

    return run


def regressor(attrs: Attrs) -> Run:
    """Scores for each target."""
    transform = transform_of(attrs)
    weights, bias = numbers(attrs, "coefficients"), numbers(attrs, "intercepts")
    count = int(attrs.get("targets", 1))

    def run(inputs: Sequence[Any]) -> list[Any]:
        scores = _scores(rows(np.asarray(inputs[0])), weights, bias, count)
        return [transformed(scores, transform).astype(np.float32)]

    return run


def _scores(x: Array, weights: Array, bias: Array, count: int) -> Array:
    if weights.size != count * x.shape[1]:
        raise ValueError(
            f"{count} x {x.shape[1]} coefficients for {x.shape[1]} features expected, found "
            f"{weights.size}"
        )
    scores = x.astype(np.float32) @ weights.reshape(count, -1).T
    return np.asarray(scores + bias if bias.size else scores)


def _usual(classes: Array) -> Array:
    """The two labels where the node names others than two."""
    return objects(["0", "1"]) if classes.dtype == object else np.array([0, 1])


MAKERS: dict[str, Maker] = {"LinearClassifier": classifier, "LinearRegressor": regressor}
