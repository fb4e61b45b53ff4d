"""A forest as flat arrays, and the way of rows through it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs
from clinfer.graph.ml.attributes import ints, numbers, texts

_AT_ONCE = 1 << 19  # ways (rows times trees) that are walked at once
_COMPARE = {
    "BRANCH_LEQ": np.less_equal,
    "BRANCH_LT": np.less,
    "BRANCH_GTE": np.greater_equal,
    "BRANCH_GT": np.greater,
    "BRANCH_EQ": np.equal,
    "BRANCH_NEQ": np.not_equal,
}
# In the order of the numbers that TreeEnsemble has for them.
_MODES = [*_COMPARE, "BRANCH_MEMBER", "LEAF"]
LEAF, MEMBER = _MODES.index("LEAF"), _MODES.index("BRANCH_MEMBER")
_AGGREGATES: dict[str, tuple[np.ufunc, float]] = {
    "SUM": (np.add, 0.0),
    "AVERAGE": (np.add, 0.0),
    "MIN": (np.minimum, np.inf),
    "MAX": (np.maximum, -np.inf),
}


@dataclass(frozen=True)
class Members:
    """The sets of BRANCH_MEMBER nodes: sorted pairs (node, place of the value in `values`)."""

    values: Array
    pairs: Array

    def hold(self, nodes: Array, x: Array) -> Array:
        """Whether each node's set has the element."""
        places = np.minimum(np.searchsorted(self.values, x), self.values.size - 1)
        pairs = nodes * self.values.size + places
        at = np.minimum(np.searchsorted(self.pairs, pairs), self.pairs.size - 1)
        found: Array = (self.values[places] == x) & (self.pairs[at] == pairs)
        return found


@dataclass(frozen=True)
class Forest:
    """Nodes by number: a leaf has mode LEAF; its votes are row `node` of `votes` and `weights`.

    `votes` [nodes, most votes of a leaf] are targets, -1 where there is none.
    """

    roots: Array
    features: Array
    thresholds: Array
    modes: Array
    true: Array
    false: Array
    missing: Array
    votes: Array
    weights: Array
    targets: int
    members: Members | None = None

    def scores(self, x: Array, aggregate: str) -> tuple[Array, Array]:
        """What the trees give rows [n, features], and whether any has voted: [n, targets].

        In the order of the trees, in float32 for what is not float64: rounding decides ties, and
        so as ONNX Runtime's.
        """
        if self.features.size and x.shape[1] <= self.features.max():
            raise ValueError(
                f"{self.features.max() + 1} features or more expected, found {x.shape[1]}"
            )
        wide = x if x.dtype == np.float64 else x.astype(np.float32)
        step = max(_AT_ONCE // max(self.roots.size, 1), 1)
        parts = [self._part(wide[i : i + step], aggregate) for i in range(0, len(wide), step)]
        empty = np.zeros((0, self.targets))
        scores, voted = zip(*parts, strict=True) if parts else ([empty], [empty > 0])
        return np.concatenate(scores), np.concatenate(voted)

    def _part(self, x: Array, aggregate: str) -> tuple[Array, Array]:
        leaves = self._leaves(x)
        votes, weights = self.votes[leaves], self.weights[leaves]  # [rows, trees, votes]
        counted = votes >= 0
        rows = np.broadcast_to(np.arange(len(x))[:, None, None], votes.shape)
        at = (rows * self.targets + votes)[counted]
        size = len(x) * self.targets
        total = _aggregated(at, weights[counted].astype(x.dtype), size, aggregate)
        if aggregate == "AVERAGE":
            total /= x.dtype.type(self.roots.size)
        voted = np.bincount(at, minlength=size) > 0
        return total.reshape(-1, self.targets), voted.reshape(-1, self.targets)

    def _leaves(self, x: Array) -> Array:
        """The leaf of each row in each tree."""
        count = len(x)
        nodes = np.tile(self.roots, count)
        rows = np.repeat(np.arange(count), self.roots.size)
        active = np.flatnonzero(self.modes[nodes] != LEAF)
        for _ in range(self.modes.size + 1):
            if not active.size:
                return nodes.reshape(count, -1)
            at = nodes[active]
            nodes[active] = after = self._next(at, x[rows[active], self.features[at]])
            active = active[self.modes[after] != LEAF]
        raise ValueError("a tree has a cycle: no leaf is reached")

    def _next(self, nodes: Array, x: Array) -> Array:
        modes = self.modes[nodes]
        thresholds = self.thresholds[nodes]
        first = modes[0]
        if (modes == first).all():
            goes = self._compare(first, nodes, x, thresholds)
        else:
            goes = np.zeros(nodes.size, bool)
            for mode in np.unique(modes):
                these = np.flatnonzero(modes == mode)
                goes[these] = self._compare(mode, nodes[these], x[these], thresholds[these])
        if self.missing.any():
            goes |= np.isnan(x) & self.missing[nodes]
        return np.where(goes, self.true[nodes], self.false[nodes])

    def _compare(self, mode: int, nodes: Array, x: Array, thresholds: Array) -> Array:
        if mode == MEMBER:
            assert self.members is not None
            return self.members.hold(nodes, x)
        result: Array = _COMPARE[_MODES[mode]](x, thresholds)
        return result


def _aggregated(at: Array, given: Array, size: int, aggregate: str) -> Array:
    """The votes for each place together, one after the other; 0 where there is none."""
    function, start = _AGGREGATES[aggregate]
    result = np.full(size, start, given.dtype)
    function.at(result, at, given)
    return np.where(np.isinf(result), 0, result) if start else result


def old_forest(attrs: Attrs, kind: str, targets: int) -> Forest:
    """The forest of a TreeEnsembleClassifier (`kind` 'class') or -Regressor ('target')."""
    trees, numbers_ = ints(attrs, "nodes_treeids"), ints(attrs, "nodes_nodeids")
    count = trees.size
    index = _Index(trees, numbers_)
    modes = _modes(texts(attrs, "nodes_modes"))
    inner = modes != LEAF
    true, false = (_filled(attrs, f"nodes_{n}nodeids", count) for n in ("true", "false"))
    links = [np.where(inner, index.of(trees, n, inner), 0) for n in (true, false)]
    voters = index.of(ints(attrs, f"{kind}_treeids"), ints(attrs, f"{kind}_nodeids"))
    votes, weights = _votes(
        count, voters, ints(attrs, f"{kind}_ids"), numbers(attrs, f"{kind}_weights"), targets
    )
    return Forest(
        roots=np.sort(np.unique(trees, return_index=True)[1]),  # a tree's first node
        features=np.where(inner, _filled(attrs, "nodes_featureids", count), 0),
        thresholds=numbers(attrs, "nodes_values") if count else np.zeros(0),
        modes=modes,
        true=links[0],
        false=links[1],
        missing=_filled(attrs, "nodes_missing_value_tracks_true", count).astype(bool),
        votes=votes,
        weights=weights,
        targets=targets,
    )


def tree_ensemble_forest(attrs: Attrs) -> Forest:
    """The forest of TreeEnsemble: inner nodes first, then leaves."""
    splits = numbers(attrs, "nodes_splits", np.float64)
    inner = splits.size
    weights = numbers(attrs, "leaf_weights", np.float64)
    leaves = weights.size
    targets = int(attrs.get("n_targets", 1))
    links = []
    for side in ("true", "false"):
        to, is_leaf = ints(attrs, f"nodes_{side}nodeids"), ints(attrs, f"nodes_{side}leafs")
        limits = np.where(is_leaf != 0, leaves, inner)
        if to.size != inner or is_leaf.size != inner or (to < 0).any() or (to >= limits).any():
            raise ValueError(f"'nodes_{side}nodeids' names nodes that are not there")
        links.append(np.concatenate([to + np.where(is_leaf != 0, inner, 0), np.zeros(leaves, int)]))
    raw = np.asarray(attrs.get("nodes_modes", np.zeros(0))).astype(np.int64).ravel()
    modes = np.concatenate([raw, np.full(leaves, LEAF)])
    roots = ints(attrs, "tree_roots")
    # A tree that is one leaf is a node both of whose links are that leaf.
    votes, voted = _votes(
        inner + leaves, np.arange(leaves) + inner, ints(attrs, "leaf_targetids"), weights, targets
    )
    features = ints(attrs, "nodes_featureids")
    missing = _filled(attrs, "nodes_missing_value_tracks_true", inner).astype(bool)
    return Forest(
        roots=roots,
        features=_widened(features, leaves),
        thresholds=_widened(splits, leaves),
        modes=modes,
        true=links[0],
        false=links[1],
        missing=_widened(missing, leaves),
        votes=votes,
        weights=voted,
        targets=targets,
        members=_members(modes, numbers(attrs, "membership_values", np.float64)),
    )


class _Index:
    """Where the node of a tree and a number stands."""

    def __init__(self, trees: Array, nodes: Array) -> None:
        if trees.size != nodes.size:
            raise ValueError(f"{trees.size} trees' numbers for {nodes.size} nodes")
        self._width = int(nodes.max(initial=0)) + 1
        keys = trees * self._width + nodes
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def of(self, trees: Array, nodes: Array, where: Array | None = None) -> Array:
        """Their places; those that `where` leaves out are arbitrary."""
        if trees.size != nodes.size:
            raise ValueError(f"{trees.size} trees' numbers for {nodes.size} nodes")
        if not self._keys.size:
            return np.zeros(0, np.int64)
        keys = trees * self._width + nodes
        at = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        lost = (self._keys[at] != keys) | (nodes < 0) | (nodes >= self._width)
        if where is not None:
            lost &= where
        if lost.any():
            first = np.flatnonzero(lost)[0]
            raise ValueError(f"tree {trees[first]} has no node {nodes[first]}, which it names")
        return np.asarray(self._order[at])


def _modes(names: list[str]) -> Array:
    unknown = set(names) - set(_MODES)
    if unknown:
        raise ValueError(f"a mode of {', '.join(_MODES)} expected, found {min(unknown)!r}")
    return np.array([_MODES.index(name) for name in names], np.int64)


def _filled(attrs: Attrs, name: str, count: int) -> Array:
    found = ints(attrs, name)
    if found.size not in (0, count):
        raise ValueError(f"'{name}' of {count} numbers expected, found {found.size}")
    return found if found.size else np.zeros(count, np.int64)


def _votes(
    nodes: int, voters: Array, targets: Array, weights: Array, count: int
) -> tuple[Array, Array]:
    """Each node's votes side by side: targets [nodes, most], -1 for none, and weights.

    Of several votes of a leaf where there is one target the first counts, as in ONNX Runtime.
    """
    if not voters.size == targets.size == weights.size:
        raise ValueError(
            f"as many targets and weights as leaves' votes, {voters.size}, expected, found "
            f"{targets.size} and {weights.size}"
        )
    if targets.size and not 0 <= targets.min() <= targets.max() < max(count, 1):
        raise ValueError(f"targets in [0, {count}) expected, found {targets.min()} and more")
    order = np.argsort(voters, kind="stable")
    sorted_ = voters[order]
    place = np.arange(sorted_.size) - np.searchsorted(sorted_, sorted_)
    most = int(place.max(initial=0)) + 1
    votes = np.full((nodes, most), -1, np.int64)
    given = np.zeros((nodes, most), np.float64)
    votes[sorted_, place] = targets[order]
    given[sorted_, place] = weights[order]
    return (votes[:, :1], given[:, :1]) if count == 1 else (votes, given)


def _widened(values: Array, leaves: int) -> Array:
    return np.concatenate([values, np.zeros(leaves, values.dtype)])


def _members(modes: Array, values: Array) -> Members | None:
    """Sets are given one after the other, each ended by NaN, for the member nodes in order."""
    nodes = np.flatnonzero(modes == MEMBER)
    if not nodes.size:
        return None
    ends = np.isnan(values)
    which = np.cumsum(ends) - ends
    kept = ~ends
    if (kept.any() and which[kept].max() >= nodes.size) or not kept.any():
        raise ValueError(f"values for the sets of {nodes.size} nodes expected")
    unique = np.unique(values[kept])
    pairs = nodes[which[kept]] * unique.size + np.searchsorted(unique, values[kept])
    return Members(unique, np.sort(pairs))
