"""Forests as kernels, against ONNX Runtime: random trees that are whole or stop early."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from clinfer.errors import ClinferError

MODES = tuple(f"BRANCH_{name}" for name in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ"))
FEATURES = 5


def trees(seed, modes, depth=4, missing=(0, 1)):
    """Attributes of 7 trees, and their leaves as pairs (tree, node)."""
    rng = np.random.default_rng(seed)
    columns, leaves = [], []
    for tree in range(7):
        pending = [(0, 0)]
        while pending:
            node, level = pending.pop(0)
            is_leaf = level == depth or (level > 0 and rng.random() < 0.2)
            links = (0, 0) if is_leaf else (2 * node + 1, 2 * node + 2)
            mode = "LEAF" if is_leaf else str(rng.choice(modes))
            numbers = (int(rng.integers(FEATURES)), float(rng.integers(-1, 2)))
            columns.append((tree, node, *numbers, mode, *links, int(rng.choice(missing))))
            if is_leaf:
                leaves.append((tree, node))
            else:
                pending += [(link, level + 1) for link in links]
    names = ["treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"]
    names.append("missing_value_tracks_true")
    return {
        f"nodes_{n}": list(c) for n, c in zip(names, zip(*columns, strict=True), strict=True)
    }, leaves


def votes(leaves, targets, seed, kind="target", spread=(-1.0, 1.0)):
    """Every leaf votes for each of `targets`."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(*spread, len(leaves) * len(targets)).astype(np.float32)
    count = {"n_targets": max(targets) + 1} if kind == "target" else {}
    return count | {
        f"{kind}_treeids": [tree for tree, _ in leaves for _ in targets],
        f"{kind}_nodeids": [node for _, node in leaves for _ in targets],
        f"{kind}_ids": [target for _ in leaves for target in targets],
        f"{kind}_weights": [float(w) for w in weights],
    }


def model_of(op, attrs, outputs, dtype=1, rank=2, version=3):
    node = helper.make_node(op, ["x"], [f"y{i}" for i in range(len(outputs))], domain="ai.onnx.ml")
    node.attribute.extend(helper.make_attribute(k, v) for k, v in attrs.items())
    x = helper.make_tensor_value_info("x", dtype, ["N", FEATURES][-rank:])
    made = [helper.make_tensor_value_info(f"y{i}", t, None) for i, t in enumerate(outputs)]
    graph = helper.make_graph([node], "g", [x], made)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def rows(count, dtype=np.float32):
    """Many elements are equal to a threshold; some are NaN."""
    x = np.random.default_rng(count).integers(-2, 3, (count, FEATURES)).astype(dtype)
    if dtype == np.float32:
        x[np.random.default_rng(count + 1).random(x.shape) < 0.1] = np.nan
    return x


def compare(core, device, proto, *feeds, on_host=None):
    """`on_host`: what `explain` says of the one host step, None where there must be none."""
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    model = core.compile_model(proto, device)
    reasons = [step.reason for step in model.host_steps]
    assert not reasons if on_host is None else len(reasons) == 1 and on_host in reasons[0]
    for x in feeds:
        expected = session.run(None, {"x": x})
        for number, wanted in enumerate(expected):
            found = model([x])[f"y{number}"]
            assert found.shape == wanted.shape
            if wanted.dtype.kind == "f":
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
            else:
                assert found.tolist() == wanted.tolist()


SIZES = tuple(map(rows, (0, 1, 33, 300)))


@pytest.mark.parametrize(
    ("modes", "missing"),
    [
        *(((mode,), (0,)) for mode in MODES),
        (MODES[:1], (1,)),
        (MODES[1:2], (0, 1)),
        (MODES, (0, 1)),
    ],
)
def test_regressors_of_each_mode(core, device, modes, missing):
    attrs, leaves = trees(len(modes), modes, missing=missing)
    attrs |= votes(leaves, [0], 1) | {"base_values": [0.25]}
    compare(core, device, model_of("TreeEnsembleRegressor", attrs, [1]), *SIZES)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_regressors_of_many_targets(core, device, aggregate):
    attrs, leaves = trees(3, MODES[:1])
    attrs |= votes(leaves, [2, 0, 1], 1) | {"n_targets": 4, "aggregate_function": aggregate}
    compare(core, device, model_of("TreeEnsembleRegressor", attrs, [1]), *SIZES)
    attrs |= {f"target_{n}": attrs[f"target_{n}"][::3] for n in ("treeids", "nodeids", "weights")}
    attrs["target_ids"] = [i % 4 for i in range(len(leaves))]  # each leaf votes for one
    compare(core, device, model_of("TreeEnsembleRegressor", attrs, [1]), *SIZES)


@pytest.mark.parametrize(
    ("voted", "base", "least", "transforms"),
    [
        ([0], 0, -0.3, ("NONE", "LOGISTIC", "SOFTMAX")),
        ([0], 1, 0.0, ("NONE", "LOGISTIC")),
        ([1], 0, 0.0, ("NONE",)),
        ([1], 0, -0.3, ("LOGISTIC", "SOFTMAX")),
        ([0, 1, 2], 0, 0.0, ("NONE",)),
        ([0, 1, 2], 1, -0.3, ("LOGISTIC", "SOFTMAX")),
    ],
)
def test_classifiers(core, device, voted, base, least, transforms):
    attrs, leaves = trees(4, MODES[:1])
    attrs |= votes(leaves, voted, 2, "class", (least, 0.3))
    classes = max(len(voted), 2)
    # With votes for the second of two classes ONNX Runtime knows no other labels.
    attrs["classlabels_int64s"] = [0, 1] if voted == [1] else [7, 3, 5][:classes]
    if base:
        attrs["base_values"] = [0.1] if classes == 2 else [0.1, 0.2, 0.3]
    for transform in transforms:
        attrs["post_transform"] = transform
        compare(core, device, model_of("TreeEnsembleClassifier", attrs, [7, 1]), *SIZES[:3])


def test_of_two_classes_with_votes_the_higher_score_is_the_label(core, device):
    """As the specification has it; ONNX Runtime compares the second score alone."""
    attrs, leaves = trees(4, MODES[:1])
    attrs |= votes(leaves, [0, 1], 2, "class") | {"classlabels_int64s": [7, 3]}
    proto = model_of("TreeEnsembleClassifier", attrs, [7, 1])
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    expected = session.run(["y1"], {"x": rows(33)})[0]
    found = core.compile_model(proto, device)([rows(33)])
    np.testing.assert_allclose(found["y1"], expected, rtol=1e-5, atol=1e-6)
    assert found["y0"].tolist() == np.array([7, 3])[expected.argmax(1)].tolist()


@pytest.mark.parametrize("voted", [[0], [0, 1, 2]])
def test_labels_of_text_are_picked_on_the_host(core, device, voted):
    attrs, leaves = trees(4, MODES[:1])
    attrs |= votes(leaves, voted, 2, "class")
    attrs["classlabels_strings"] = ["u", "v", "w"][: max(len(voted), 2)]
    proto = model_of("TreeEnsembleClassifier", attrs, [8, 1])
    compare(core, device, proto, *SIZES[1:], on_host="string")


def test_integers_and_a_single_row(core, device):
    attrs, leaves = trees(5, MODES[:2])
    attrs |= votes(leaves, [0, 1, 2], 1, "class") | {"classlabels_int64s": [4, 5, 6]}
    for dtype, number in ((np.int64, 7), (np.int32, 6)):
        proto = model_of("TreeEnsembleClassifier", attrs, [7, 1], number)
        compare(core, device, proto, rows(33, dtype))
    alone = core.compile_model(model_of("TreeEnsembleClassifier", attrs, [7, 1], rank=1), device)
    proto = model_of("TreeEnsembleClassifier", attrs, [7, 1])
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    expected = session.run(None, {"x": rows(1)})[1]
    assert not alone.host_steps
    np.testing.assert_allclose(alone([rows(1)[0]])["y1"], expected, rtol=1e-6)


def newest(splits, **changes):
    """One tree: x0 <= 0 to a node, which splits by x1 < 1, else to a leaf."""
    attrs = {
        "n_targets": 2,
        "nodes_featureids": [0, 1],
        "nodes_modes": numpy_helper.from_array(np.array([0, 1], np.uint8)),
        "nodes_splits": numpy_helper.from_array(np.array(splits, np.float32)),
        "nodes_trueleafs": [0, 1],
        "nodes_truenodeids": [1, 0],
        "nodes_falseleafs": [1, 1],
        "nodes_falsenodeids": [2, 1],
        "leaf_targetids": [0, 1, 1],
        "leaf_weights": numpy_helper.from_array(np.array([1, 10, 100], np.float32)),
        "tree_roots": [0],
    }
    return model_of("TreeEnsemble", attrs | changes, [1], version=5)


def test_the_newest_form(core, device):
    compare(core, device, newest([0, 1]), *SIZES[1:])


def test_what_kernels_cannot_have_stays_on_the_host_with_its_reason(core, device):
    attrs, leaves = trees(6, MODES[:1])
    attrs |= votes(leaves, [0, 1, 2], 2, "class") | {"classlabels_int64s": [1, 2, 3]}
    op = "TreeEnsembleClassifier"
    kept = [i for i, n in enumerate(attrs["class_ids"]) if n != 1 or i % 2]
    sparse = {
        f"class_{n}": [attrs[f"class_{n}"][i] for i in kept]
        for n in ("treeids", "nodeids", "ids", "weights")
    }
    for change, reason in (
        ({"post_transform": "PROBIT"}, "PROBIT"),
        ({"post_transform": "SOFTMAX_ZERO"}, "SOFTMAX_ZERO"),
        (sparse, "gets no vote"),
    ):
        model = core.compile_model(model_of(op, {**attrs, **change}, [7, 1]), device)
        assert reason in model.host_steps[0].reason
    compare(core, device, model_of(op, {**attrs, **sparse}, [7, 1]), *SIZES, on_host="gets no vote")
    doubles = core.compile_model(model_of(op, attrs, [7, 1], 11), device)
    assert "float64" in doubles.host_steps[0].reason


def test_trees_that_are_none_are_refused(core, device):
    attrs, leaves = trees(6, MODES[:1])
    attrs |= votes(leaves, [0], 2)
    ring = {**attrs, "nodes_truenodeids": [0] * len(attrs["nodes_treeids"])}
    lost = {**attrs, "nodes_truenodeids": [99] * len(attrs["nodes_treeids"])}
    for change, message in ((ring, "a tree has a cycle"), (lost, "has no node 99")):
        proto = model_of("TreeEnsembleRegressor", change, [1])
        with pytest.raises(ClinferError, match=message):
            core.compile_model(proto, device)([np.full((2, FEATURES), -9, np.float32)])


def test_rows_have_the_features_that_trees_name(core, device):
    attrs, leaves = trees(6, MODES[:1])
    attrs |= votes(leaves, [0], 2)
    proto = model_of("TreeEnsembleRegressor", attrs, [1])
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "F"
    model = core.compile_model(proto, device)
    assert model([np.zeros((2, FEATURES + 3), np.float32)])["y0"].shape == (2, 1)
    with pytest.raises(ClinferError, match="features"):
        model([np.zeros((2, FEATURES - 1), np.float32)])
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = FEATURES - 1
    with pytest.raises(ClinferError, match="features"):
        core.compile_model(proto, device)
