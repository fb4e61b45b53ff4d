"""Small models made by hand, with their answers in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def dense_model(seed: int = 0, name: str = "dense", rows: str | int = "batch") -> onnx.ModelProto:
    """relu(x @ w + b): x [rows, 24] -> y [rows, 10]."""
    weights, bias = dense_parameters(seed)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="product"),
        helper.make_node("Add", ["xw", "b"], ["sum"], name="bias"),
        helper.make_node("Relu", ["sum"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 10])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    return finished(graph)


def dense_parameters(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The weights [24, 10] and bias [10] of `dense_model(seed)`."""
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((24, 10)).astype(np.float32)
    return weights, generator.standard_normal(10).astype(np.float32)


def dense_answer(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """What `dense_model(seed)` gives for x."""
    weights, bias = dense_parameters(seed)
    return np.maximum(x @ weights + bias, 0)


def finished(graph: onnx.GraphProto, opset: int = 17, **more: int) -> onnx.ModelProto:
    """A checked model of a graph; `more` imports other domains."""
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, version) for domain, version in more.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def one_node(
    op: str,
    inputs: dict[str, tuple[int, list]],
    outputs: dict[str, tuple[int, list | None]],
    **attrs,
) -> onnx.ModelProto:
    """A model of one operator; inputs and outputs map names to (element type, shape)."""
    domain = attrs.pop("domain", "")
    node = helper.make_node(op, list(inputs), list(outputs), name="only", domain=domain, **attrs)
    ins = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()]
    outs = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()]
    graph = helper.make_graph([node], "one", ins, outs)
    return finished(graph, **({domain: 1} if domain else {}))


def save(model: onnx.ModelProto, path: Path, external: bool = False) -> Path:
    """Writes a model, its tensors to PATH.data where `external`."""
    if external:
        onnx.save(
            model,
            path,
            save_as_external_data=True,
            location=f"{path.name}.data",
            size_threshold=0,
        )
    else:
        onnx.save(model, path)
    return path
