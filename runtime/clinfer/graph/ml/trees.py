"""Forests: every row goes down every tree at once, one level after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs, Maker, Run
from clinfer.graph.ml.attributes import ints, labels, numbers, rows
from clinfer.graph.ml.forest import Forest, old_forest, tree_ensemble_forest
from clinfer.graph.ml.scores import transform_of, transformed, two_classes

# In the order of the numbers that TreeEnsemble has for them.
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def regressor(attrs: Attrs) -> Run:
    """What the leaves add up to, for each target."""
    forest = old_forest(attrs, "target", int(attrs.get("n_targets", 1)))
    return _summed(attrs, forest, str(attrs.get("aggregate_function", "SUM")), np.float32)


def ensemble(attrs: Attrs) -> Run:
    """The same in its newest form."""
    forest = tree_ensemble_forest(attrs)
    chosen = {"post_transform": TRANSFORMS[int(attrs.get("post_transform", 0))]}
    return _summed(chosen, forest, AGGREGATES[int(attrs.get("aggregate_function", 1))], None)


def _summed(attrs: Attrs, forest: Forest, aggregate: str, dtype: Any) -> Run:
    transform = transform_of(attrs)
    base = numbers(attrs, "base_values")
    if base.size not in (0, forest.targets):
        raise ValueError(f"{forest.targets} base values expected, found {base.size}")

    def run(inputs: Sequence[Any]) -> list[Any]:
        x = rows(np.asarray(inputs[0]))
        scores, voted = forest.scores(x, aggregate)
        if base.size:
            scores = np.where(voted, scores + base.astype(scores.dtype), scores)
        return [transformed(scores, transform).astype(dtype or x.dtype)]

    return run


def classifier(attrs: Attrs) -> Run:
    """The label of the highest score, and the scores."""
    classes = labels(attrs, "classlabels_int64s", "classlabels_strings")
    forest = old_forest(attrs, "class", classes.size)
    transform, base = transform_of(attrs), numbers(attrs, "base_values")
    threshold = threshold_of(attrs)
    voted_for = ints(attrs, "class_ids")
    if is_one_score(classes, base, voted_for):
        return _binary(replace(forest, targets=1), classes, transform, base, threshold)
    if base.size == 1 and classes.size == 2:
        base = np.append(base, 0)
    if base.size not in (0, classes.size):
        raise ValueError(f"{classes.size} base values expected, found {base.size}")
    is_second_only = classes.size == 2 and voted_for.size > 0 and bool((voted_for == 1).all())

    def run(inputs: Sequence[Any]) -> list[Any]:
        scores, voted = forest.scores(rows(np.asarray(inputs[0])), "SUM")
        if base.size:
            scores, voted = scores + base.astype(scores.dtype), np.ones_like(voted)
        best = np.argmax(np.where(voted, scores, -np.inf), axis=1)
        if is_second_only:
            best = (scores[:, 1] > threshold).astype(np.int64)
        return [classes[best], transformed(scores, transform).astype(np.float32)]

    return run


def is_one_score(classes: Array, base: Array, voted_for: Array) -> bool:
    """Whether of two classes all votes are for number 0: the one score is that of the second."""
    return classes.size == 2 and base.size < 2 and not voted_for.any()


def threshold_of(attrs: Attrs) -> float:
    """What the one score of two classes must be above for the second.

    0.5 where weights make it a probability, 0 where they may be negative.
    """
    return 0.5 if (numbers(attrs, "class_weights") >= 0).all() else 0.0


def _binary(forest: Forest, classes: Array, transform: str, base: Array, threshold: float) -> Run:
    """Two classes and one score, that of the second: all votes are for number 0."""

    def run(inputs: Sequence[Any]) -> list[Any]:
        scores = forest.scores(rows(np.asarray(inputs[0])), "SUM")[0]
        scores = scores + base.astype(scores.dtype) if base.size else scores
        picked = classes[(scores[:, 0] > threshold).astype(np.int64)]
        made = two_classes(scores, transform, is_odds=threshold == 0)
        return [picked, made.astype(np.float32)]

    return run


MAKERS: dict[str, Maker] = {
    "TreeEnsemble": ensemble,
    "TreeEnsembleClassifier": classifier,
    "TreeEnsembleRegressor": regressor,
}
