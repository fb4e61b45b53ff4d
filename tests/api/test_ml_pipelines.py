"""Models as scikit-learn's exporters write them, from features to dictionaries of scores."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

FEATURES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def pipeline():
    """Scaler, LinearClassifier, Normalizer, ZipMap; labels are texts."""
    rng = np.random.default_rng(1)
    domain = {"domain": "ai.onnx.ml"}
    nodes = [
        helper.make_node(
            "Scaler", ["x"], ["s"], offset=[0.1, 0.2, 0.3], scale=[2.0, 1.0, 0.5], **domain
        ),
        helper.make_node(
            "LinearClassifier",
            ["s"],
            ["label", "raw"],
            coefficients=rng.normal(size=9).tolist(),
            intercepts=[0.1, 0.2, 0.3],
            classlabels_strings=["u", "v", "w"],
            post_transform="LOGISTIC",
            **domain,
        ),
        helper.make_node("Normalizer", ["raw"], ["p"], norm="L1", **domain),
        helper.make_node("ZipMap", ["p"], ["y"], classlabels_strings=["u", "v", "w"], **domain),
        helper.make_node("Mul", ["p", "p"], ["squares"]),
    ]
    key = helper.make_map_type_proto(onnx.TensorProto.STRING, helper.make_tensor_type_proto(1, []))
    outputs = [
        helper.make_tensor_value_info("label", onnx.TensorProto.STRING, ["N"]),
        helper.make_value_info("y", helper.make_sequence_type_proto(key)),
        helper.make_tensor_value_info("squares", onnx.TensorProto.FLOAT, ["N", 3]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    graph = helper.make_graph(nodes, "g", [x], outputs)
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def test_a_classifier_gives_labels_and_dictionaries(core, device):
    made = pipeline()
    label, scores, squares = onnxruntime.InferenceSession(made).run(None, {"x": FEATURES})
    compiled = core.compile_model(made, device)
    for model in (compiled, *reimported(core, compiled, device)):
        found = model([FEATURES])
        assert found["label"].tolist() == label.tolist()
        np.testing.assert_allclose(found["squares"], squares, rtol=1e-5)
        assert [list(row) for row in found["y"]] == [list(row) for row in scores]
        got = [list(row.values()) for row in found["y"]]
        np.testing.assert_allclose(got, [list(row.values()) for row in scores], rtol=1e-5)


def reimported(core, compiled, device):
    return [core.import_model(compiled.export_model(), device)] if device == "CPU" else []


@pytest.mark.parametrize("index", [np.int64(2), np.int64([2]), np.int64([[0, 2]])])
def test_a_picked_column_broadcasts(core, device, index):
    nodes = [
        helper.make_node("ArrayFeatureExtractor", ["x", "i"], ["c"], domain="ai.onnx.ml"),
        helper.make_node("Less", ["c", "edges"], ["y"]),
    ]
    edges = np.array([0.5], np.float32) if index.size > 1 else np.array([-1, 0, 1], np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.BOOL, None)],
        [
            onnx.numpy_helper.from_array(np.asarray(index), "i"),
            onnx.numpy_helper.from_array(edges, "edges"),
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    (expected,) = onnxruntime.InferenceSession(made).run(None, {"x": FEATURES})
    assert np.array_equal(core.compile_model(made, device)([FEATURES])["y"], expected)


def vectorizer():
    """Tokenizer, Flatten, TfIdfVectorizer and what scales its counts, as skl2onnx writes them."""
    microsoft = {"domain": "com.microsoft"}
    words = ["cat", "hat", "the", "cat", "hat", "the", "cat"]
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["rows"]),
        helper.make_node(
            "Tokenizer",
            ["rows"],
            ["tokens"],
            mark=0,
            mincharnum=1,
            pad_value="#",
            tokenexp="[a-zA-Z0-9_]+",
            **microsoft,
        ),
        helper.make_node("Flatten", ["tokens"], ["items"]),
        helper.make_node(
            "TfIdfVectorizer",
            ["items"],
            ["counts"],
            mode="TF",
            min_gram_length=1,
            max_gram_length=2,
            max_skip_count=0,
            ngram_counts=[0, 3],
            ngram_indexes=[0, 1, 2, 3, 4],
            pool_strings=words,
        ),
        helper.make_node("Mul", ["counts", "weights"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.STRING, ["N"])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 5])
    known = [
        onnx.numpy_helper.from_array(np.array([-1]), "flat"),
        onnx.numpy_helper.from_array(np.arange(1, 6, dtype=np.float32), "weights"),
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y], known)
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def test_a_vectorizer_counts_words(core, device):
    made = vectorizer()
    session = onnxruntime.InferenceSession(made)
    compiled = core.compile_model(made, device)
    for lines in (["the cat, the hat cat", "a cat"], ["x"], ["the cat", "", "hat the cat!"]):
        (wanted,) = session.run(None, {"x": np.array(lines, object)})
        np.testing.assert_array_equal(compiled([np.array(lines, object)])["y"], wanted)
