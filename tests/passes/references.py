"""Single ONNX operators through onnx's reference implementation, or ONNX Runtime where it errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.graph.node_protos import to_proto
from clinfer.graph.reference import HostOp
from clinfer.graph.schemas import newest_opset


def reference(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """An ONNX operator through onnx's reference implementation."""
    from onnx.reference import ReferenceEvaluator

    assert node.domain != "clinfer", f"{node} has no rule here"
    if "zero" in node.attrs:  # of a convolution of 8-bit integers
        inputs = [v.astype(np.int32) for v in inputs]
        inputs[0] -= node.attrs["zero"]
        attrs = {name: value for name, value in node.attrs.items() if name != "zero"}
        node = replace(node, attrs=attrs)
    if node.proto is not None or "positions" in node.attrs:
        return list(HostOp.from_node(node, {"": node.version}).run(list(inputs)))
    if node.op in ("ConvTranspose", "GridSample"):
        return _by_onnxruntime(node, inputs)
    names = ["" if v is None else f"i{i}" for i, v in enumerate(inputs)]
    outputs = ["" if v is None else f"o{i}" for i, v in enumerate(node.outputs)]
    proto = to_proto(node, names, outputs)
    evaluator = ReferenceEvaluator(proto, opsets={"": node.version or newest_opset()})
    found = iter(evaluator.run(None, {n: v for n, v in zip(names, inputs, strict=True) if n}))
    return [next(found) if name else None for name in outputs]


def _by_onnxruntime(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """Operators that the reference implementation gets wrong.

    Groups and `output_shape` of ConvTranspose; cubic places of GridSample behind a border.
    """
    from onnx import helper, numpy_helper
    from onnxruntime import InferenceSession

    names = [f"i{i}" for i in range(len(inputs))]
    tensors = [numpy_helper.from_array(v, n) for v, n in zip(inputs, names, strict=True)]
    result = helper.make_empty_tensor_value_info("o0")
    graph = helper.make_graph([to_proto(node, names, ["o0"])], "g", [], [result], tensors)
    imports = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return list(InferenceSession(model.SerializeToString()).run(None, {}))


def onnx_op(op: str, inputs: Sequence[Any], version: int, **attrs: Any) -> Any:
    """One ONNX operator of one output."""
    values = [None if v is None else Value("i") for v in inputs]
    return reference(Node(op, values, [Value("o")], attrs, version=version), inputs)[0]
