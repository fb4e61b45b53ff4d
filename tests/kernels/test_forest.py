"""Forests by every tile, against a walk in Python."""

from __future__ import annotations

import numpy as np
import pytest

from clinfer_kernels.families import candidates, family_of
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import ForestSpec
from kernels.harness import TARGETS, run_kernel

LEQ, LT, NEQ, NAN, SOME_NAN = 3, 1, 13, 16, 32
DEPTH, TREES, FEATURES = 3, 5, 4
SIZE = 2 ** (DEPTH + 1) - 1
RNG = np.random.default_rng(3)


def forest(masks, targets, alone):
    """Whole trees whose nodes lie level by level; a leaf votes once, or up to three times."""
    nodes = np.zeros((TREES * SIZE, 4), np.int32)
    votes = []
    for at in range(TREES * SIZE):
        start, place = at // SIZE * SIZE, at % SIZE
        number = np.float32(RNG.integers(-1, 2)).view(np.int32)
        if place < SIZE // 2:
            nodes[at] = RNG.integers(FEATURES), number, start + 2 * place + 1, RNG.choice(masks)
        elif alone:
            nodes[at] = 0, number, -1, RNG.integers(targets)
        else:
            first = len(votes)
            votes += [(RNG.integers(targets), number) for _ in range(RNG.integers(4))]
            nodes[at] = 0, 0, ~first, len(votes)
    roots = np.arange(TREES, dtype=np.int32) * SIZE
    return [nodes, roots, *([] if alone else [np.array(votes, np.int32)])]


def goes_first(value, threshold, mask):
    if np.isnan(value) and mask & NAN:
        return True
    found = [value < threshold, value == threshold, value > threshold]
    return bool(mask & (8 if not any(found) else 1 << found.index(True)))


def walked(x, targets, function, nodes, roots, votes=None):
    start = {np.add: 0, np.minimum: np.inf, np.maximum: -np.inf}[function]
    scores = np.full((len(x), targets), start, np.float32)
    for row, own in zip(x, scores, strict=True):
        for at in roots:
            feature, bits, child, mask = nodes[at]
            while child >= 0:
                first = goes_first(row[feature], bits.view(np.float32), mask)
                feature, bits, child, mask = nodes[child + (not first)]
            cast = [(mask, bits)] if votes is None else votes[~child:mask]
            for target, weight in cast:
                own[target] = function(own[target], weight.view(np.float32))
    return np.where(np.isinf(scores), 0, scores)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize(
    ("masks", "mask", "aggregate", "targets", "alone"),
    [
        ([LEQ], LEQ, "sum", 1, True),
        ([LT, LT | NAN], LT | SOME_NAN, "sum", 3, False),
        ([LEQ | NAN], LEQ | NAN, "min", 2, True),
        ([LEQ, LT, 2, 4, 6, NEQ, LT | NAN], -1, "max", 3, False),
    ],
)
def test_forests_are_walked(cls, masks, mask, aggregate, targets, alone):
    constants = forest(masks, targets, alone)
    function = {"sum": np.add, "min": np.minimum, "max": np.maximum}[aggregate]
    for rows in (1, 45, 1200 if cls == "cpu" and alone else 8):
        x = RNG.integers(-2, 3, (rows, FEATURES)).astype(np.float32)
        x[RNG.random(x.shape) < 0.1] = np.nan
        ins = [x, *constants]
        views = tuple(dense(a.dtype.name, a.shape) for a in ins)
        outs = (dense("float32", (rows, targets)),)
        spec = ForestSpec(aggregate, alone, mask, FEATURES, views, outs)
        expected = walked(x, targets, function, *constants)
        for tile in candidates(spec, TARGETS[cls]):
            kernel = family_of(spec).emit(spec, tile, TARGETS[cls])
            (found,) = run_kernel(kernel, ins, [((rows, targets), "float32")])
            assert np.array_equal(found, expected), tile
