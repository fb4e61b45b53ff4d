"""The operators of ai.onnx.ml against ONNX Runtime, by host steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from graph_helpers import by_onnxruntime, run
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from clinfer.errors import InputError
from clinfer.graph.reader import read

X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
WORDS = np.array(["a", "c", "zz", "b"], object)
NUMBERS = np.array([[1, 5], [2, 9]], np.int64)
HOLES = np.array([[1, np.nan, 3, 0], [np.nan, 0, 2, 5]], np.float32)
TYPES = {"float32": 1, "float64": 11, "int64": 7, "int32": 6, "object": 8}
Case = tuple[str, tuple[Any, ...], list[int], dict[str, Any]]


def vector(count: int, seed: int = 0, spread: float = 1.0) -> list[float]:
    drawn = np.random.default_rng(seed).normal(0, spread, count).astype(np.float32)
    return [float(x) for x in drawn]


def model(
    op: str, inputs: tuple[Any, ...], outputs: list[Any], attrs: Mapping[str, Any], version: int = 3
) -> onnx.ModelProto:
    """One node; outputs are element types or type protos."""
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(len(outputs))]
    node = helper.make_node(op, names, results, domain="ai.onnx.ml", **attrs)
    infos = [
        helper.make_tensor_value_info(n, TYPES[x.dtype.name], [None] * x.ndim)
        for n, x in zip(names, inputs, strict=True)
    ]
    declared = [
        helper.make_tensor_value_info(n, t, None)
        if isinstance(t, int)
        else helper.make_value_info(n, t)
        for n, t in zip(results, outputs, strict=True)
    ]
    graph = helper.make_graph([node], "g", infos, declared)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def compare(made: onnx.ModelProto, inputs: tuple[Any, ...]) -> None:
    wanted = by_onnxruntime(made, {f"x{i}": x for i, x in enumerate(inputs)})
    found = run(read(made).graph(), list(inputs))
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        else:
            assert got.tolist() == want.tolist()


CASES: dict[str, Case] = {
    "columns picked": ("ArrayFeatureExtractor", (X, np.array([[3, 1]])), [1], {}),
    "a column by a scalar": ("ArrayFeatureExtractor", (X, np.array(2)), [1], {}),
    "columns of a vector": ("ArrayFeatureExtractor", (X[0], np.array([0, 2])), [1], {}),
    "columns of texts": ("ArrayFeatureExtractor", (WORDS, np.array([1])), [8], {}),
    "binarizer": ("Binarizer", (X,), [1], {"threshold": 0.3}),
    "scaler": (
        "Scaler",
        (X,),
        [1],
        {"offset": [0.1, 0.2, 0.3, 0.4], "scale": [1.0, 2.0, 3.0, 4.0]},
    ),
    "scaler of integers": ("Scaler", (NUMBERS,), [1], {"offset": [1.0], "scale": [0.5]}),
    "the largest, not the largest magnitude": ("Normalizer", (-np.abs(X),), [1], {"norm": "MAX"}),
    "norm of magnitudes": ("Normalizer", (X,), [1], {"norm": "L1"}),
    "length": ("Normalizer", (X[0],), [1], {"norm": "L2"}),
    "a row of zeros": ("Normalizer", (X * 0,), [1], {"norm": "L2"}),
    "holes filled by column": (
        "Imputer",
        (HOLES,),
        [1],
        {"imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": float("nan")},
    ),
    "integers filled": (
        "Imputer",
        (NUMBERS,),
        [7],
        {"imputed_value_int64s": [7], "replaced_value_int64": 9},
    ),
    "inputs side by side": ("FeatureVectorizer", (X, X[:, :2]), [1], {"inputdimensions": [3, 3]}),
    "one-hot texts": ("OneHotEncoder", (WORDS,), [1], {"cats_strings": ["a", "b", "c"]}),
    "one-hot numbers": ("OneHotEncoder", (NUMBERS,), [1], {"cats_int64s": [1, 2, 5]}),
    "categories of texts": (
        "CategoryMapper",
        (WORDS,),
        [7],
        {"cats_strings": ["a", "b"], "cats_int64s": [7, 8]},
    ),
    "categories of numbers": (
        "CategoryMapper",
        (NUMBERS,),
        [8],
        {"cats_strings": ["a", "b"], "cats_int64s": [1, 2], "default_string": "?"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_columns_and_labels(name: str) -> None:
    op, inputs, outputs, attrs = CASES[name]
    compare(model(op, inputs, outputs, attrs, version=1), inputs)


KEYS = {"strings": ["a", "b", "c"], "int64s": [1, 2, 5], "floats": [1.0, 2.5, 5.0]}
READ = {"strings": WORDS, "int64s": NUMBERS, "floats": np.array([1, 5, 7], np.float32)}


@pytest.mark.parametrize("default", [{}, {"default_string": "D", "default_int64": 7}])
@pytest.mark.parametrize("values", KEYS)
@pytest.mark.parametrize("keys", KEYS)
def test_labels_of_every_kind(keys: str, values: str, default: dict[str, Any]) -> None:
    attrs = {f"keys_{keys}": KEYS[keys], f"values_{values}": KEYS[values], **default}
    result = {"strings": 8, "int64s": 7, "floats": 1}[values]
    compare(model("LabelEncoder", (READ[keys],), [result], attrs), (READ[keys],))


def test_labels_given_as_tensors_match_nan() -> None:
    x = np.array([1, 2, np.nan])
    attrs = {
        "keys_tensor": numpy_helper.from_array(np.array([1, np.nan])),
        "values_tensor": numpy_helper.from_array(np.array(["x", "y"], object)),
        "default_tensor": numpy_helper.from_array(np.array(["none"], object)),
    }
    compare(model("LabelEncoder", (x,), [8], attrs, version=4), (x,))


@pytest.mark.parametrize("texts", [False, True])
def test_scores_zipped_with_labels(texts: bool) -> None:
    keys = ["u", "v", "w", "z"] if texts else [4, 5, 6, 7]
    attrs = {"classlabels_strings" if texts else "classlabels_int64s": keys}
    kind = helper.make_map_type_proto(
        T.STRING if texts else T.INT64, helper.make_tensor_type_proto(1, [])
    )
    made = model("ZipMap", (X,), [helper.make_sequence_type_proto(kind)], attrs, version=1)
    assert run(read(made).graph(), [X]) == by_onnxruntime(made, {"x0": X})


def linear() -> Iterator[tuple[str, dict[str, Any]]]:
    for transform in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"):
        for scores, labels in ((3, 3), (2, 2), (1, 2)):
            yield (
                f"{transform} {scores} {labels}",
                {
                    "coefficients": vector(4 * scores),
                    "intercepts": vector(scores, 1),
                    "classlabels_strings": ["u", "v", "w"][:labels],
                    "post_transform": transform,
                },
            )


@pytest.mark.parametrize("attrs", [pytest.param(a, id=n) for n, a in linear()])
def test_linear_classifiers(attrs: dict[str, Any]) -> None:
    compare(model("LinearClassifier", (X,), [8, 1], attrs, version=1), (X,))


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_linear_regressors(targets: int, transform: str) -> None:
    attrs = {
        "coefficients": vector(4 * targets),
        "intercepts": vector(targets),
        "targets": targets,
        "post_transform": transform,
    }
    compare(model("LinearRegressor", (X,), [1], attrs, version=1), (X,))


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("with_probabilities", [False, True])
def test_support_vector_classifiers(kernel: str, classes: int, with_probabilities: bool) -> None:
    counts = [2, 3, 1][:classes]
    total, pairs = sum(counts), classes * (classes - 1) // 2
    attrs: dict[str, Any] = {
        "kernel_type": kernel,
        "kernel_params": [0.3, 0.1, 2.0],
        "support_vectors": vector(total * 4),
        "vectors_per_class": counts,
        "coefficients": vector((classes - 1) * total, 1),
        "rho": vector(pairs, 2),
        "classlabels_ints": [3, 4, 5][:classes],
    }
    if with_probabilities:
        attrs |= {"prob_a": [-abs(v) for v in vector(pairs, 3)], "prob_b": vector(pairs, 4)}
    compare(model("SVMClassifier", (X,), [7, 1], attrs, version=1), (X,))


@pytest.mark.parametrize("extra", [{}, {"one_class": 1}])
@pytest.mark.parametrize("vectors", [0, 5])
def test_support_vector_regressors(vectors: int, extra: dict[str, int]) -> None:
    attrs: dict[str, Any] = {"coefficients": vector(vectors or 4), "rho": [0.2], **extra}
    attrs |= {"kernel_type": "RBF" if vectors else "LINEAR", "kernel_params": [0.3, 0.0, 0.0]}
    if vectors:
        attrs |= {
            "support_vectors": vector(20),
            "n_supports": 5,
        }
    compare(model("SVMRegressor", (X,), [1], attrs, version=1), (X,))


def trees(count: int, modes: tuple[str, ...], missing: bool = False) -> tuple[dict[str, Any], Any]:
    """Trees of depth 2 to 3, and their leaves as (tree, node)."""
    rng = np.random.default_rng(count)
    rows: list[tuple[Any, ...]] = []
    leaves: list[tuple[int, int]] = []
    for tree in range(count):
        for node in range(15):
            is_leaf = node >= 7 or (node in (3, 4) and rng.random() < 0.4)
            mode = "LEAF" if is_leaf else str(rng.choice(modes))
            value = float(rng.integers(-1, 2))
            links = (0, 0) if is_leaf else (2 * node + 1, 2 * node + 2)
            rows.append((tree, node, int(rng.integers(4)), value, mode, *links, int(missing)))
            if is_leaf:
                leaves.append((tree, node))
    names = "treeids nodeids featureids values modes truenodeids falsenodeids"
    columns = zip(*rows, strict=True)
    fields = [*names.split(), "missing_value_tracks_true"]
    return {f"nodes_{n}": list(c) for n, c in zip(fields, columns, strict=True)}, leaves


ALL_MODES = tuple(f"BRANCH_{m}" for m in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ"))
ROUND = np.vstack([np.clip(X.round(), -1, 1), [[np.nan, 0, np.nan, 1]]]).astype(np.float32)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("missing", [False, True])
def test_tree_regressors(aggregate: str, targets: int, missing: bool) -> None:
    attrs, leaves = trees(4, ALL_MODES, missing)
    attrs |= {
        "n_targets": targets,
        "target_treeids": [tree for tree, _ in leaves],
        "target_nodeids": [node for _, node in leaves],
        "target_ids": [i % targets for i in range(len(leaves))],
        "target_weights": vector(len(leaves)),
        "aggregate_function": aggregate,
        "base_values": [0.5] * targets,
    }
    for x in (ROUND, ROUND.astype(np.float64)):
        compare(model("TreeEnsembleRegressor", (x,), [1], attrs), (x,))


@pytest.mark.parametrize("aggregate", ["SUM", "MAX"])
@pytest.mark.parametrize("targets", [1, 2])
def test_leaves_that_vote_twice_for_a_target(aggregate: str, targets: int) -> None:
    """As exporters write the numbers of a classifier's leaves, with one target."""
    attrs, leaves = trees(1, ("BRANCH_LEQ",))
    attrs |= {
        "n_targets": targets,
        "target_treeids": [tree for tree, _ in leaves * 2],
        "target_nodeids": [node for _, node in leaves * 2],
        "target_ids": [i % targets for i in range(len(leaves))] * 2,
        "target_weights": vector(len(leaves) * 2),
        "aggregate_function": aggregate,
    }
    compare(model("TreeEnsembleRegressor", (X,), [1], attrs), (X,))


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("are_positive", [False, True])
def test_trees_that_vote_for_the_second_class_only(transform: str, are_positive: bool) -> None:
    attrs, leaves = trees(3, ("BRANCH_LEQ",))
    weights = vector(len(leaves), spread=0.4)
    attrs |= {
        "class_treeids": [tree for tree, _ in leaves],
        "class_nodeids": [node for _, node in leaves],
        "class_ids": [1] * len(leaves),
        "class_weights": [abs(w) for w in weights] if are_positive else weights,
        "classlabels_int64s": [5, 6],
        "post_transform": transform,
    }
    compare(model("TreeEnsembleClassifier", (X,), [7, 1], attrs), (X,))


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("are_positive", [False, True])
def test_tree_classifiers(transform: str, classes: int, base: int, are_positive: bool) -> None:
    """Of two classes, exporters give one number for both, the votes for the second."""
    attrs, leaves = trees(3, ("BRANCH_LEQ",))
    voters = 1 if classes == 2 else classes
    weights = vector(len(leaves) * voters)
    attrs |= {
        "class_treeids": [tree for tree, _ in leaves for _ in range(voters)],
        "class_nodeids": [node for _, node in leaves for _ in range(voters)],
        "class_ids": [i for _ in leaves for i in range(voters)],
        "class_weights": [abs(w) for w in weights] if are_positive else weights,
        "classlabels_int64s": [5, 6, 7][:classes],
        "post_transform": transform,
    }
    if base:
        attrs["base_values"] = [0.1] if classes == 2 else [0.1, 0.2, 0.3]
    compare(model("TreeEnsembleClassifier", (X,), [7, 1], attrs), (X,))


def test_the_newest_form_of_trees_with_sets() -> None:
    def tensor(values: Any, dtype: Any = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype))

    x = np.array([1.2, 3.4, -0.12, np.nan, 12, 7], np.float32).reshape(-1, 1)
    attrs = {
        "n_targets": 4,
        "membership_values": tensor([1.2, 3.7, 8, 9, np.nan, 12, 7, np.nan]),
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": tensor([0, 6, 6], np.uint8),
        "nodes_splits": tensor([11, 232344.0, np.nan]),
        "nodes_trueleafs": [0, 1, 1],
        "nodes_truenodeids": [1, 0, 1],
        "nodes_falseleafs": [1, 0, 1],
        "nodes_falsenodeids": [2, 2, 3],
        "leaf_targetids": [0, 1, 2, 3],
        "leaf_weights": tensor([1, 10, 1000, 100]),
        "tree_roots": [0],
    }
    compare(model("TreeEnsemble", (x,), [1], attrs, version=5), (x,))


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "message"),
    [
        ("ArrayFeatureExtractor", (X, np.array([4])), {}, r"indices in \[0, 4\) expected"),
        ("ArrayFeatureExtractor", (X, np.array([-1])), {}, r"indices in \[0, 4\) expected"),
        ("OneHotEncoder", (NUMBERS,), {"cats_int64s": [1], "zeros": 0}, "one of the 1 categories"),
        ("Scaler", (X,), {"offset": [1.0], "scale": [1.0, 2.0]}, "'scale' of one number"),
        ("ZipMap", (X,), {"classlabels_int64s": [1]}, "a row of 1 scores"),
        ("LinearRegressor", (X,), {"coefficients": [1.0]}, "1 x 4 coefficients"),
    ],
)
def test_what_does_not_fit_is_named(
    op: str, inputs: tuple[Any, ...], attrs: dict[str, Any], message: str
) -> None:
    made = model(op, inputs, [1], attrs, version=1)
    with pytest.raises(InputError, match=f"ai.onnx.ml.{op} .*{message}"):
        run(read(made).graph(), list(inputs))


def test_a_tree_that_runs_in_circles_is_refused() -> None:
    attrs = {
        "nodes_treeids": [0, 0],
        "nodes_nodeids": [0, 1],
        "nodes_featureids": [0, 0],
        "nodes_values": [0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ"],
        "nodes_truenodeids": [1, 0],
        "nodes_falsenodeids": [1, 0],
    }
    with pytest.raises(InputError, match="a tree has a cycle"):
        run(read(model("TreeEnsembleRegressor", (X,), [1], attrs)).graph(), [X])


@pytest.mark.parametrize(
    ("op", "given", "attrs", "expected"),
    [
        ("DictVectorizer", {"a": 1.5, "z": 9.0}, {"string_vocabulary": ["b", "a"]}, [[0, 1.5]]),
        ("CastMap", {3: 1.5, 1: 2.5}, {}, [[2.5, 1.5]]),
        ("CastMap", {3: 1.5, 1: 2.5}, {"map_form": "SPARSE", "max_map": 4}, [[0, 2.5, 0, 1.5]]),
    ],
)
def test_dictionaries_as_rows(
    op: str, given: dict[Any, float], attrs: dict[str, Any], expected: list[list[float]]
) -> None:
    key = T.STRING if op == "DictVectorizer" else T.INT64
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(T.FLOAT, []))
    node = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml", **attrs)
    info = helper.make_value_info("x", kind)
    result = helper.make_tensor_value_info("y", T.FLOAT, None)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    graph = helper.make_graph([node], "g", [info], [result])
    made = helper.make_model(graph, opset_imports=imports, ir_version=8)
    (found,) = run(read(made).graph(), [given])
    assert found.tolist() == expected
    assert found.tolist() == by_onnxruntime(made, {"x": given})[0].tolist()
