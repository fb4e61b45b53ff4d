"""What the tests of convolution and pooling share: one-node ONNX models with known results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray[Any, Any]


def run_node(
    op: str, inputs: Sequence[Array], attrs: Mapping[str, Any], outputs: int = 1, opset: int = 18
) -> list[Array]:
    """The outputs of a model that is one node; float64 by onnx's reference, which has it."""
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(outputs)]
    types = [helper.np_dtype_to_tensor_dtype(a.dtype) for a in inputs]
    ins = [
        helper.make_tensor_value_info(n, t, a.shape)
        for n, t, a in zip(names, types, inputs, strict=True)
    ]
    outs = [helper.make_tensor_value_info(n, onnx.TensorProto.UNDEFINED, None) for n in results]
    for index, out in enumerate(outs):
        out.type.tensor_type.elem_type = types[0] if index == 0 else onnx.TensorProto.INT64
    graph = helper.make_graph([helper.make_node(op, names, results, **attrs)], op, ins, outs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    feeds = dict(zip(names, inputs, strict=True))
    made: list[Array]
    if inputs[0].dtype == np.float64:
        made = ReferenceEvaluator(model).run(None, feeds)
        return made
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    made = session.run(None, feeds)
    return made


def channels_last(array: Array) -> Array:
    """[N, C, spatial...] as a contiguous [N, spatial..., C]."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def channels_first(array: Array) -> Array:
    """[N, spatial..., C] as a contiguous [N, C, spatial...]."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))
