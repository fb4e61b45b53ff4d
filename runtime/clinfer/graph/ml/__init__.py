"""The operators of ai.onnx.ml on the host, in NumPy: what scikit-learn's exporters write.

A maker takes a node's attributes and returns the function that runs it, so that forests and tables
are laid out once. Where the specification leaves something open, ONNX Runtime decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

Attrs = Mapping[str, Any]
Run = Callable[[Sequence[Any]], "list[Any]"]
Maker = Callable[[Attrs], Run]

DOMAIN = "ai.onnx.ml"
# The module that makes each operator; loaded with the first step that needs it.
MODULES: dict[str, str] = {
    **dict.fromkeys(("ArrayFeatureExtractor", "Binarizer", "FeatureVectorizer"), "columns"),
    **dict.fromkeys(("Imputer", "Normalizer", "Scaler"), "columns"),
    **dict.fromkeys(("CategoryMapper", "LabelEncoder", "OneHotEncoder"), "labels"),
    **dict.fromkeys(("CastMap", "DictVectorizer", "ZipMap"), "maps"),
    **dict.fromkeys(("LinearClassifier", "LinearRegressor"), "linear"),
    **dict.fromkeys(("SVMClassifier", "SVMRegressor"), "svm"),
    **dict.fromkeys(("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"), "trees"),
}


def has(kind: str) -> bool:
    """Whether an operator, named as `Node.kind` names it, is one of these."""
    domain, _, name = kind.rpartition(".")
    return domain == DOMAIN and name in MODULES


def make(kind: str, attrs: Attrs) -> Run:
    """What runs the operator. Raises `ValueError` where attributes contradict each other."""
    return _makers(MODULES[kind.rpartition(".")[2]])[kind.rpartition(".")[2]](attrs)


@cache
def _makers(module: str) -> Mapping[str, Maker]:
    makers: Mapping[str, Maker] = import_module(f"clinfer.graph.ml.{module}").MAKERS
    return makers
