"""SVMClassifier and SVMRegressor: kernels with support vectors, or products with coefficients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs, Maker, Run
from clinfer.graph.ml.attributes import ints, labels, numbers, rows
from clinfer.graph.ml.scores import transform_of, transformed, two_classes

_ROUNDS = 100  # of the coupling of pairwise probabilities, as in LIBSVM
_LEAST = 1e-7


def regressor(attrs: Attrs) -> Run:
    """One score a row; with `one_class`, 1 inside and -1 outside."""
    transform = transform_of(attrs)
    weights, rho = numbers(attrs, "coefficients"), numbers(attrs, "rho")
    count = int(attrs.get("n_supports", 0))
    vectors = numbers(attrs, "support_vectors") if count else weights
    kernel = _kernel(attrs if count else {}, vectors, count or 1)
    is_one_class = bool(attrs.get("one_class", 0))

    def run(inputs: Sequence[Any]) -> list[Any]:
        products = kernel(rows(np.asarray(inputs[0])))
        scores = products @ weights.reshape(-1, 1) if count else products
        scores = scores + (rho[0] if rho.size else 0)
        if is_one_class:
            return [np.where(scores > 0, 1, -1).astype(np.float32)]
        return [transformed(scores, transform).astype(np.float32)]

    return run


def classifier(attrs: Attrs) -> Run:
    """The label that wins most pairs, or has the highest score, and the scores."""
    classes = labels(attrs, "classlabels_ints", "classlabels_strings")
    counts = ints(attrs, "vectors_per_class")
    return _pairs(attrs, classes, counts) if counts.size else _linear(attrs, classes)


def _linear(attrs: Attrs, classes: Array) -> Run:
    transform = transform_of(attrs)
    weights, rho = numbers(attrs, "coefficients"), numbers(attrs, "rho")
    kernel = _kernel({}, weights, classes.size)

    def run(inputs: Sequence[Any]) -> list[Any]:
        scores = kernel(rows(np.asarray(inputs[0]))) + (rho[0] if rho.size else 0)
        picked = classes[np.argmax(scores, axis=1)]
        return [picked, transformed(scores, transform).astype(np.float32)]

    return run


def _pairs(attrs: Attrs, classes: Array, counts: Array) -> Run:
    transform = transform_of(attrs)
    total = int(counts.sum())
    kernel = _kernel(attrs, numbers(attrs, "support_vectors"), total)
    decide, rho = _decisions(numbers(attrs, "coefficients"), counts), numbers(attrs, "rho")
    pairs = np.array(list(combinations(range(counts.size), 2)), np.int64).reshape(-1, 2)
    a, b = numbers(attrs, "prob_a"), numbers(attrs, "prob_b")
    if rho.size != len(pairs) or a.size != b.size or a.size not in (0, len(pairs)):
        raise ValueError(f"'rho', and 'prob_a' and 'prob_b' if any, of {len(pairs)} expected")

    def run(inputs: Sequence[Any]) -> list[Any]:
        scores = kernel(rows(np.asarray(inputs[0]))) @ decide + rho
        winners = np.where(scores > 0, pairs[:, 0], pairs[:, 1])
        votes = (winners[:, :, None] == np.arange(counts.size)).sum(axis=1)
        best = np.argmax(votes, axis=1)
        if a.size:
            scores = _coupled(scores, a, b, pairs, counts.size)
        elif classes.size == 2:
            made = two_classes(scores, transform, is_odds=transform == "NONE")
            return [classes[best], made.astype(np.float32)]
        return [classes[best], transformed(scores, transform).astype(np.float32)]

    return run


def _decisions(coefficients: Array, counts: Array) -> Array:
    """[vectors, pairs]: a pair's weights of the vectors of its two classes.

    Row j - 1 of the coefficients [classes - 1, vectors] has those of class i against class j > i.
    """
    total = int(counts.sum())
    given = coefficients.reshape(counts.size - 1, total)
    ends = np.cumsum(counts)
    made = np.zeros((total, counts.size * (counts.size - 1) // 2))
    for number, (i, j) in enumerate(combinations(range(counts.size), 2)):
        first, second = slice(ends[i] - counts[i], ends[i]), slice(ends[j] - counts[j], ends[j])
        made[first, number] = given[j - 1, first]
        made[second, number] = given[i, second]
    return made


def _coupled(scores: Array, a: Array, b: Array, pairs: Array, classes: int) -> Array:
    """Probabilities of the classes from those of the pairs (Wu, Lin and Weng, second method)."""
    won = np.clip(1 / (1 + np.exp(scores * a + b)), _LEAST, 1 - _LEAST)
    p = np.zeros((len(scores), classes, classes))
    p[:, pairs[:, 0], pairs[:, 1]] = won
    p[:, pairs[:, 1], pairs[:, 0]] = 1 - won
    q = -p * p.transpose(0, 2, 1)
    places = np.arange(classes)
    q[:, places, places] = np.square(p).sum(axis=1)
    found = np.full((len(scores), classes), 1 / classes)
    active = np.arange(len(scores))
    for _ in range(_ROUNDS):
        qp = np.einsum("nij,nj->ni", q[active], found[active])
        pqp = (found[active] * qp).sum(axis=1)
        going = np.abs(qp - pqp[:, None]).max(axis=1, initial=0) >= 0.005 / classes
        active, qp, pqp = active[going], qp[going], pqp[going]
        if not active.size:
            break
        found[active] = _round(q[active], found[active], qp, pqp)
    return found


def _round(q: Array, p: Array, qp: Array, pqp: Array) -> Array:
    for t in range(p.shape[1]):
        own = q[:, t, t]
        step = (pqp - qp[:, t]) / own
        p[:, t] += step
        pqp = (pqp + step * (step * own + 2 * qp[:, t])) / np.square(1 + step)
        qp = (qp + step[:, None] * q[:, t]) / (1 + step[:, None])
        p /= 1 + step[:, None]
    return p


def _kernel(attrs: Attrs, vectors: Array, count: int) -> Callable[[Array], Array]:
    """Rows -> the kernel's value for each of the vectors; products without attributes."""
    name = str(attrs.get("kernel_type", "LINEAR"))
    gamma, offset, degree = (*numbers(attrs, "kernel_params"), 0.0, 0.0, 0.0)[:3]
    if name not in _KERNELS or not count or vectors.size % count:
        raise ValueError(
            f"a kernel of {', '.join(_KERNELS)} and {count} vectors of one length expected, found "
            f"{name!r} and {vectors.size} numbers"
        )
    table = vectors.reshape(count, -1).astype(np.float64)
    function = _KERNELS[name]

    def run(x: Array) -> Array:
        if x.shape[1] != table.shape[1]:
            raise ValueError(f"{table.shape[1]} features expected, found {x.shape[1]}")
        return function(x.astype(np.float64), table, float(gamma), float(offset), float(degree))

    return run


def _rbf(x: Array, vectors: Array, gamma: float, offset: float, degree: float) -> Array:
    squares = np.square(x).sum(axis=1)[:, None] + np.square(vectors).sum(axis=1)
    return np.asarray(np.exp(-gamma * np.maximum(squares - 2 * (x @ vectors.T), 0)))


_KERNELS: dict[str, Callable[..., Array]] = {
    "LINEAR": lambda x, v, gamma, offset, degree: x @ v.T,
    "POLY": lambda x, v, gamma, offset, degree: (gamma * (x @ v.T) + offset) ** degree,
    "RBF": _rbf,
    "SIGMOID": lambda x, v, gamma, offset, degree: np.tanh(gamma * (x @ v.T) + offset),
}

MAKERS: dict[str, Maker] = {"SVMClassifier": classifier, "SVMRegressor": regressor}
