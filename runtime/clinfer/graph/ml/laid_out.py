"""A forest's nodes in the order in which a kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml.forest import LEAF, MEMBER, Forest

# What leads to a node's first child, by the number of its mode: see `ForestSpec`.
_LESS, _EQUAL, _GREATER, _NONE, _NAN = 1, 2, 4, 8, 16
_MASKS = np.array(
    [
        _LESS | _EQUAL,
        _LESS,
        _GREATER | _EQUAL,
        _GREATER,
        _EQUAL,
        _LESS | _GREATER | _NONE,
    ],
    np.int32,
)
_NEUTRAL = {"sum": 0.0, "min": np.inf, "max": -np.inf}


@dataclass(frozen=True)
class LaidOut:
    """The constant operands and the fields of a `ForestSpec`; all that nodes name is there.

    `always` [targets]: whether a row gets a vote for the target whatever its features.
    """

    nodes: Array
    roots: Array
    votes: Array | None
    features: int
    mask: int
    always: Array


def lay_out(forest: Forest, aggregate: str) -> LaidOut:
    """The forest for a kernel; `aggregate` is 'sum', 'min' or 'max'.

    `ValueError` with the reason where a kernel cannot have it.
    """
    _check(forest)
    which, trees, children = _ordered(forest)
    inner = children >= 0
    if not inner.any():
        raise ValueError("its trees compare nothing")
    nodes = np.zeros((which.size, 4), np.int32)
    nodes[:, 2] = children
    at = which[inner]
    features = forest.features[at]
    if features.min() < 0:
        raise ValueError("a feature has a negative number")
    masks = _MASKS[forest.modes[at]] | np.where(forest.missing[at], _NAN, 0).astype(np.int32)
    nodes[inner, 0] = features
    nodes[inner, 1] = forest.thresholds[at].astype(np.float32).view(np.int32)
    nodes[inner, 3] = masks
    leaves = np.flatnonzero(~inner)
    cast, weights = forest.votes[which[leaves]], forest.weights[which[leaves]].astype(np.float32)
    counted = cast >= 0
    if not np.isfinite(weights[counted]).all():
        raise ValueError("a vote's weight is not finite")
    counts = counted.sum(1)
    votes = None
    if counts.max() <= 1:
        is_cast = counts > 0
        given = np.where(is_cast, weights[:, 0], np.float32(_NEUTRAL[aggregate]))
        nodes[leaves, 1] = given.astype(np.float32).view(np.int32)
        nodes[leaves, 3] = np.where(is_cast, cast[:, 0], 0)
    else:
        ends = np.cumsum(counts)
        nodes[leaves, 2] = ~(ends - counts)
        nodes[leaves, 3] = ends
        votes = np.empty((int(ends[-1]), 2), np.int32)
        votes[:, 0] = cast[counted]
        votes[:, 1] = weights[counted].view(np.int32)
    return LaidOut(
        nodes=nodes,
        roots=np.flatnonzero(np.diff(trees, prepend=-1)).astype(np.int32),
        votes=votes,
        features=int(features.max()) + 1,
        mask=_common(masks),
        always=_always(trees[leaves], cast, forest.roots.size, forest.targets),
    )


def _check(forest: Forest) -> None:
    count = forest.modes.size
    if (forest.modes == MEMBER).any():
        raise ValueError("nodes ask whether a set has the feature (BRANCH_MEMBER)")
    if not ((forest.modes >= 0) & (forest.modes <= LEAF)).all():
        raise ValueError("nodes have modes that there are not")
    fields = (forest.features, forest.thresholds, forest.true, forest.false, forest.missing)
    if any(field.size != count for field in fields):
        raise ValueError("its lists of nodes differ in length")
    if not forest.roots.size or not ((forest.roots >= 0) & (forest.roots < count)).all():
        raise ValueError("it has no trees, or roots that are not there")
    narrow = forest.thresholds.astype(np.float32).astype(forest.thresholds.dtype)
    if not np.array_equal(narrow, forest.thresholds, equal_nan=True):
        raise ValueError("its thresholds are no float32 numbers")


def _ordered(forest: Forest) -> tuple[Array, Array, Array]:
    """Of each place: the node that lies there, its tree, and the place of the first child or -1.

    Tree by tree, a tree level by level, so that children come behind their parents, in pairs.
    """
    level, trees = forest.roots, np.arange(forest.roots.size)
    found, owners, firsts = [level], [trees], []
    seen = np.zeros(forest.modes.size, bool)
    end = level.size
    while level.size:
        inner = forest.modes[level] != LEAF
        parents = level[inner]
        if seen[parents].any() or np.unique(parents).size < parents.size:
            raise ValueError("a node is the child of several, or a tree has a cycle")
        seen[parents] = True
        first = np.full(level.size, -1)
        first[inner] = end + 2 * np.arange(parents.size)
        firsts.append(first)
        level = np.stack([forest.true[parents], forest.false[parents]], 1).ravel()
        trees = np.repeat(trees[inner], 2)
        found.append(level)
        owners.append(trees)
        end += level.size
    which, trees, first = (np.concatenate(parts) for parts in (found, owners, firsts))
    order = np.argsort(trees, kind="stable")
    places = np.empty(order.size, np.int64)
    places[order] = np.arange(order.size)
    first = np.where(first >= 0, places[np.maximum(first, 0)], -1)[order]
    return which[order], trees[order], first


def _common(masks: Array) -> int:
    """The mask of all nodes, -1 where they differ; 32 where only those for NaN differ."""
    if (masks == masks[0]).all():
        return int(masks[0])
    compared = masks & ~_NAN
    return int(compared[0] | 32) if (compared == compared[0]).all() else -1


def _always(trees: Array, cast: Array, count: int, targets: int) -> Array:
    """Whether there is a tree all of whose leaves vote for a target."""
    leaf, _ = np.nonzero(cast >= 0)
    pairs = np.unique(leaf * targets + cast[cast >= 0])
    voted = np.bincount(
        trees[pairs // targets] * targets + pairs % targets, minlength=count * targets
    )
    leaves = np.bincount(trees, minlength=count)
    result: Array = (voted.reshape(count, targets) == leaves[:, None]).any(0)
    return result
