"""The operators of ai.onnx.ml: rows of features become rows of scores."""

from __future__ import annotations

from clinfer.graph.ir import Shape
from clinfer.graph.shape_call import Call, Rule, Type, same
from clinfer_kernels.dims import Dim, product


def _rows(shape: Shape) -> Dim:
    """A vector is one row."""
    return shape[0] if len(shape) > 1 else 1


def _like(dtype: str) -> Rule:
    return lambda call: [Type(dtype, call.shape(0))]


def _count(call: Call, *names: str) -> int:
    return max(len(call.attr(name) if call.attr(name) is not None else ()) for name in names)


def _regressor(targets: str) -> Rule:
    return lambda call: [Type("float32", (_rows(call.shape(0)), int(call.attr(targets, 1))))]


def _svm_regressor(call: Call) -> list[Type]:
    return [Type("float32", (_rows(call.shape(0)), 1))]


def _ensemble(call: Call) -> list[Type]:
    return [Type(call.dtype(0), (_rows(call.shape(0)), int(call.attr("n_targets", 1))))]


def _classifier(call: Call) -> list[Type]:
    """Labels and scores."""
    rows = _rows(call.shape(0))
    dtype = "string" if _count(call, "classlabels_strings") else "int64"
    return [Type(dtype, (rows,)), Type("float32", (rows, _scores(call)))]


def _scores(call: Call) -> int:
    """How many scores a row has: one a class, of an SVM without probabilities one a pair."""
    classes = _count(call, "classlabels_strings", "classlabels_ints", "classlabels_int64s")
    if call.op == "LinearClassifier":
        given = _count(call, "intercepts") or classes
        return 2 if given == 1 and classes == 2 else given
    pairs = _count(call, "vectors_per_class")
    if call.op == "SVMClassifier" and pairs > 2 and not _count(call, "prob_a"):
        return pairs * (pairs - 1) // 2
    return classes


def _feature_extractor(call: Call) -> list[Type]:
    shape = call.shape(0)
    lead = shape[:-1] if len(shape) > 1 else (1,)
    return [Type(call.dtype(0), (*lead, product(call.shape(1))))]


def _feature_vectorizer(call: Call) -> list[Type]:
    shapes = [call.shape(i) for i in range(call.count)]
    widths = call.attr("inputdimensions")
    if widths is None:
        widths = [product(s[1:] if len(s) > 1 else s) for s in shapes]
    return [Type("float32", (_rows(shapes[0]), sum(widths, start=0)))]


def _one_hot(call: Call) -> list[Type]:
    return [Type("float32", (*call.shape(0), _count(call, "cats_int64s", "cats_strings")))]


def _label_encoder(call: Call) -> list[Type]:
    tensor = call.attr("values_tensor")
    if tensor is not None:
        dtype = "string" if tensor.dtype.kind in "OUS" else tensor.dtype.name
    elif call.attr("classes_strings") is not None:
        return _category_mapper(call)
    elif call.attr("values_strings") is not None:
        dtype = "string"
    else:
        dtype = "float32" if call.attr("values_floats") is not None else "int64"
    return [Type(dtype, call.shape(0))]


def _category_mapper(call: Call) -> list[Type]:
    return [Type("int64" if call.dtype(0) == "string" else "string", call.shape(0))]


def _zip_map(call: Call) -> list[Type]:
    return [Type("sequence", None)]


_RULES: dict[str, Rule] = {
    "ArrayFeatureExtractor": _feature_extractor,
    "Binarizer": same,
    "CategoryMapper": _category_mapper,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": same,
    "LabelEncoder": _label_encoder,
    "LinearClassifier": _classifier,
    "LinearRegressor": _regressor("targets"),
    "Normalizer": _like("float32"),
    "OneHotEncoder": _one_hot,
    "SVMClassifier": _classifier,
    "SVMRegressor": _svm_regressor,
    "Scaler": _like("float32"),
    "TreeEnsemble": _ensemble,
    "TreeEnsembleClassifier": _classifier,
    "TreeEnsembleRegressor": _regressor("n_targets"),
    "ZipMap": _zip_map,
}
RULES = {f"ai.onnx.ml.{name}": rule for name, rule in _RULES.items()}
