"""Which forests a kernel walks, and how their scores become what the operator gives.

`Forest.scores` and `graph.ml.trees` are the host's form of the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from clinfer.graph.ir import Array, Node
from clinfer.graph.ml import Attrs
from clinfer.graph.ml.attributes import ints, labels, numbers
from clinfer.graph.ml.forest import Forest, old_forest, tree_ensemble_forest
from clinfer.graph.ml.laid_out import LaidOut, lay_out
from clinfer.graph.ml.scores import transform_of
from clinfer.graph.ml.trees import AGGREGATES, TRANSFORMS, is_one_score, threshold_of
from clinfer_kernels.dims import product

_ON_HOST = ("PROBIT", "SOFTMAX_ZERO")
_KERNELS_REACH = 2**31


@dataclass(frozen=True)
class Summed:
    """The trees' `aggregate` of each target ('average': their sum over their count), plus `base`
    where that is not empty, after `transform`."""

    laid: LaidOut
    aggregate: str
    base: Array
    transform: str


@dataclass(frozen=True)
class Classified(Summed):
    """Scores and the labels `classes` picked by them: of the highest, or of two classes the second
    where its score is above the threshold. With `is_one` that is the only score there is."""

    classes: Array
    threshold: float
    is_one: bool
    is_second_only: bool


def kernel_form(node: Node) -> Summed:
    """How a kernel does the node's work; `ValueError` with the reason where none does."""
    x, op = node.required(0), node.op
    if not x.shape:
        raise ValueError("the rank of its features is not known")
    if x.dtype not in _FEATURES[op]:
        raise ValueError(f"its features are {x.dtype}")
    size = product(x.shape)
    if isinstance(size, int) and size >= _KERNELS_REACH:
        raise ValueError("its features exceed the kernels' 32-bit indices")
    form = _FORMS[op](node.attrs)
    if form.transform in _ON_HOST:
        raise ValueError(f"its post transform is {form.transform}")
    if form.base.size not in (0, form.laid.always.size):
        raise ValueError("its base values are not as many as its scores")
    return form


def _regressor(attrs: Attrs) -> Summed:
    aggregate = str(attrs.get("aggregate_function", "SUM"))
    forest = old_forest(attrs, "target", int(attrs.get("n_targets", 1)))
    return _summed(attrs, forest, aggregate, transform_of(attrs))


def _ensemble(attrs: Attrs) -> Summed:
    aggregate = AGGREGATES[int(attrs.get("aggregate_function", 1))]
    transform = TRANSFORMS[int(attrs.get("post_transform", 0))]
    return _summed(attrs, tree_ensemble_forest(attrs), aggregate, transform)


def _summed(attrs: Attrs, forest: Forest, aggregate: str, transform: str) -> Summed:
    kind = aggregate.lower()
    laid = lay_out(forest, "sum" if kind == "average" else kind)
    base = numbers(attrs, "base_values")
    if base.size and not laid.always.all():
        raise ValueError("base values count only where a tree votes, and rows may get no vote")
    return Summed(laid, kind, base, transform)


def _classifier(attrs: Attrs) -> Classified:
    classes = labels(attrs, "classlabels_int64s", "classlabels_strings")
    base, voted = numbers(attrs, "base_values"), ints(attrs, "class_ids")
    forest = old_forest(attrs, "class", classes.size)
    is_one = is_one_score(classes, base, voted)
    laid = lay_out(replace(forest, targets=1) if is_one else forest, "sum")
    if base.size == 1 and classes.size == 2 and not is_one:
        base = np.append(base, 0)
    is_second_only = classes.size == 2 and voted.size > 0 and bool((voted == 1).all())
    if not (is_one or is_second_only or base.size or laid.always.all()):
        raise ValueError("a class that gets no vote cannot be the label, and rows may give none")
    transform, threshold = transform_of(attrs), threshold_of(attrs)
    return Classified(laid, "sum", base, transform, classes, threshold, is_one, is_second_only)


_FORMS: dict[str, Callable[[Attrs], Summed]] = {
    "TreeEnsemble": _ensemble,
    "TreeEnsembleClassifier": _classifier,
    "TreeEnsembleRegressor": _regressor,
}
_NUMBERS = ("float32", "int32", "int64")
_FEATURES = {  # integers are rounded to float32, as on the host
    "TreeEnsemble": ("float32",),
    "TreeEnsembleClassifier": _NUMBERS,
    "TreeEnsembleRegressor": _NUMBERS,
}
KINDS = tuple(f"ai.onnx.ml.{op}" for op in _FORMS)
