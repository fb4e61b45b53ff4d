"""Softmax and norms over other axes than the last: results go where the next step wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer
from clinfer.graph.reader import read
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.passes.pipeline import optimise
from clinfer_kernels.spec import Target

Array = np.ndarray[Any, Any]


def model(nodes: list[Any], shape: tuple[int, ...], **constants: Array) -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy")
    made = [helper.make_node(op, ins, [out], **attrs) for op, ins, out, attrs in nodes]
    held = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(made, "g", [x], [y], held)
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


SOFTMAX = [("Softmax", ["x"], "y", {"axis": 1})]


@pytest.mark.parametrize("shape", [(2, 21, 64), (2, 33, 10)])
def test_softmax_over_channels(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
    compiled = clinfer.Core().compile_model(model(SOFTMAX, shape), "CPU")
    e = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(compiled({"x": x})[0], e / e.sum(1, keepdims=True), rtol=5e-6)


@pytest.mark.parametrize("shape", [(2, 90, 64), (1, 7, 5)])
def test_norm_over_time_of_channels_that_lie_last(shape: tuple[int, ...]) -> None:
    turn = {"perm": [0, 2, 1]}
    nodes = [
        ("Transpose", ["x"], "t", turn),
        ("InstanceNormalization", ["t", "scale", "bias"], "n", {}),
        ("Transpose", ["n"], "y", turn),
    ]
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, shape).astype(np.float32)
    scale, bias = (rng.random(shape[2], np.float32) for _ in range(2))
    source = model(nodes, shape, scale=scale, bias=bias)
    compiled = clinfer.Core().compile_model(source, "CPU")
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    wanted = scale * centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) + bias
    np.testing.assert_allclose(compiled({"x": x})[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls, launches", [("cpu", 1), ("gpu", 2)])
def test_a_softmax_over_channels_is_one_launch_on_a_cpu(cls: str, launches: int) -> None:
    graph = read(model(SOFTMAX, (1, 21, 4096))).graph()
    optimise(graph, cls=cls)
    assert len(lower(graph, Target(cls=cls), KernelChoice()).plan.steps) == launches
