"""Operators of the default domain that only ONNX Runtime has, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from graph_helpers import by_onnxruntime, run
from onnx import TensorProto as T
from onnx import helper

from clinfer.errors import ModelError
from clinfer.graph.reader import read

IMAGE = (1, 3, 4, 5)
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], int]] = {
    # name: operator, attributes, shape of the input, operator set
    "affine": ("Affine", {"alpha": 2.0, "beta": -0.5}, (2, 3), 9),
    "affine as it is": ("Affine", {}, (2, 3), 8),
    "scale": ("Scale", {"scale": 3.0}, (2, 3), 9),
    "scaled tanh": ("ScaledTanh", {"alpha": 2.0, "beta": 0.5}, (2, 3), 9),
    "softplus": ("ParametricSoftplus", {"alpha": 2.0, "beta": 0.5}, (2, 3), 9),
    "image scaler": ("ImageScaler", {"scale": 0.5, "bias": [1.0, 2.0, 3.0]}, IMAGE, 8),
    "crop by borders": ("Crop", {"border": [1, 0, 2, 1]}, IMAGE, 9),
    "crop to a size": ("Crop", {"border": [1, 1, 0, 0], "scale": [2, 3]}, IMAGE, 9),
    "thresholded relu": ("ThresholdedRelu", {"alpha": 0.3}, (2, 3), 8),
    "mean and variance": ("MeanVarianceNormalization", {}, IMAGE, 8),
    "across channels": ("MeanVarianceNormalization", {"across_channels": 1}, IMAGE, 8),
    "mean alone": ("MeanVarianceNormalization", {"normalize_variance": 0}, IMAGE, 8),
}


def model(
    nodes: list[onnx.NodeProto], shapes: dict[str, Any], outputs: list[str], opset: int
) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(n, T.FLOAT, s) for n, s in shapes.items()]
    results = [helper.make_tensor_value_info(n, T.FLOAT, None) for n in outputs]
    graph = helper.make_graph(nodes, "g", infos, results)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=6)


def compared(content: onnx.ModelProto, feeds: dict[str, Any]) -> None:
    wanted = by_onnxruntime(content, feeds)
    found = run(read(content).graph(), list(feeds.values()))
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        assert got.dtype == want.dtype


@pytest.mark.parametrize("name", CASES)
def test_operators_of_onnx_runtime_in_the_default_domain(name: str) -> None:
    op, attrs, shape, opset = CASES[name]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    compared(
        model([helper.make_node(op, ["x"], ["y"], **attrs)], {"x": shape}, ["y"], opset), {"x": x}
    )


@pytest.mark.parametrize("opset", [9, 12, 16])
def test_layer_normalization_is_accepted_in_any_operator_set(opset: int) -> None:
    rng = np.random.default_rng(1)
    feeds = {
        n: rng.normal(size=s).astype(np.float32) for n, s in [("x", (2, 4)), ("s", 4), ("b", 4)]
    }
    node = helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3)
    shapes = {n: v.shape for n, v in feeds.items()}
    compared(model([node], {**shapes, "x": ["n", 4]}, ["y"], opset), feeds)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("outputs", [["y"], ["y", "spread"]])
def test_simplified_layer_normalization_is_rms_normalisation(axis: int, outputs: list[str]) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    scale = rng.normal(size=x.shape[axis:]).astype(np.float32)
    node = helper.make_node(
        "SimplifiedLayerNormalization", ["x", "s"], outputs, axis=axis, epsilon=1e-2
    )
    compared(model([node], {"x": x.shape, "s": scale.shape}, outputs, 13), {"x": x, "s": scale})


def test_an_unfit_border_is_named() -> None:
    content = model([helper.make_node("Crop", ["x"], ["y"], border=[1])], {"x": IMAGE}, ["y"], 9)
    with pytest.raises(ModelError, match="a border of 4 sizes"):
        read(content)
