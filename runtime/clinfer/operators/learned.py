"""Classical models (domain ai.onnx.ml) and training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clinfer.operators import Operator
from clinfer.operators.values import NATURAL, POSITIVE, TEXT, Expected, among, words
from clinfer_kernels.dims import product

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call

_AFTER = words("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_NODES = words(
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
    "BRANCH_MEMBER",
    "LEAF",
)
_SUMS = words("AVERAGE", "SUM", "MIN", "MAX")
_KERNELS = words("LINEAR", "POLY", "RBF", "SIGMOID")
_LABELS = {"classlabels_strings": TEXT}
_CATEGORIES = {"cats_strings": TEXT}
_KEYS = dict.fromkeys(("default_string", "keys_strings", "values_strings", "classes_strings"), TEXT)


def _features(call: Call) -> None:
    """Rows (a vector is one) have the features that a forest's nodes ask for."""
    shape = call.shape(0)
    if not shape:
        raise call.error("rows of features expected, found a scalar")
    named: Any = call.attr("nodes_featureids")
    modes: Any = call.attr("nodes_modes") if call.op != "TreeEnsemble" else None
    numbers = [] if named is None else [int(n) for n in named]
    if modes is not None and len(modes) == len(numbers):
        numbers = [n for n, mode in zip(numbers, modes, strict=True) if mode != "LEAF"]
    if numbers:
        width = product(shape[1:]) if len(shape) > 1 else shape[0]
        call.at_most(max(numbers) + 1, width, "the features that its trees name and those of a row")


def _ml(op: str, **values: Expected) -> Operator:
    return Operator(f"ai.onnx.ml.{op}", values)


def _forest(op: str, **values: Expected) -> Operator:
    return Operator(f"ai.onnx.ml.{op}", values, (_features,))


OPERATORS = (
    *map(
        _ml,
        ["ArrayFeatureExtractor", "Binarizer", "FeatureVectorizer", "Imputer", "Scaler"],
    ),
    _ml(
        "CastMap",
        cast_to=words("TO_FLOAT", "TO_INT64", "TO_STRING"),
        map_form=words("DENSE", "SPARSE"),
    ),
    _ml("CategoryMapper", default_string=TEXT, **_CATEGORIES),
    _ml("DictVectorizer", string_vocabulary=TEXT),
    _ml("LabelEncoder", **_KEYS),
    _ml("LinearClassifier", post_transform=_AFTER, **_LABELS),
    _ml("LinearRegressor", post_transform=_AFTER, targets=POSITIVE),
    _ml("Normalizer", norm=words("MAX", "L1", "L2")),
    _ml("OneHotEncoder", **_CATEGORIES),
    _ml("SVMClassifier", kernel_type=_KERNELS, post_transform=_AFTER, **_LABELS),
    _ml("SVMRegressor", kernel_type=_KERNELS, post_transform=_AFTER),
    _forest(
        "TreeEnsemble",
        aggregate_function=among(0, 1, 2, 3),
        post_transform=among(0, 1, 2, 3, 4),
        nodes_featureids=NATURAL,
    ),
    _forest("TreeEnsembleClassifier", post_transform=_AFTER, nodes_modes=_NODES, **_LABELS),
    _forest(
        "TreeEnsembleRegressor",
        aggregate_function=_SUMS,
        post_transform=_AFTER,
        nodes_modes=_NODES,
    ),
    _ml("ZipMap", **_LABELS),
    *(Operator(f"ai.onnx.preview.training.{op}") for op in ("Adagrad", "Adam")),
    Operator("ai.onnx.preview.training.Gradient", {"xs": TEXT, "y": TEXT, "zs": TEXT}),
    Operator("ai.onnx.preview.training.Momentum", {"mode": words("standard", "nesterov")}),
)
