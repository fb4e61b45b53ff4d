"""LSTM, GRU and RNN on the device, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(3)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def random(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def layer(op: str, direction: str, units: int, states: bool, **attrs) -> onnx.ModelProto:
    """One layer over x [steps, batch, 5] with all its results; `states` are inputs, else zeros."""
    count, rows = DIRECTIONS[direction], GATES[op] * units
    names = ["x", "w", "r", "b", "", "h0", "c0"][: 7 if op == "LSTM" else 6]
    names = names if states else names[:4]
    outs = ["y", "h", "c"] if op == "LSTM" else ["y", "h"]
    node = helper.make_node(
        op, names, outs, "layer", hidden_size=units, direction=direction, **attrs
    )
    sizes = [count, "batch", units]
    first = [helper.make_tensor_value_info(n, TensorProto.FLOAT, sizes) for n in names[5:]]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["steps", "batch", 5])
    every = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["steps", *sizes])
    last = [helper.make_tensor_value_info(n, TensorProto.FLOAT, sizes) for n in outs[1:]]
    weights = {"w": random(count, rows, 5), "r": random(count, rows, units)}
    weights["b"] = random(count, 2 * rows)
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([node], "recurrent", [x, *first], [every, *last], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("LSTM", {}),
        ("GRU", {"linear_before_reset": 1}),
        ("RNN", {}),
        ("RNN", {"activations": ["Relu"]}),
    ],
    ids=["lstm", "gru", "tanh", "relu"],
)
def test_a_layer_of_any_number_of_steps(core, device, op, attrs, direction):
    if "activations" in attrs:
        attrs = {"activations": attrs["activations"] * DIRECTIONS[direction]}
    for units, states in ((7, True), (70, False)):
        proto = layer(op, direction, units, states, **attrs)
        model = core.compile_model(proto, device)
        assert not model.host_steps
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        for steps, batch in ((1, 1), (6, 3)):
            feed = {"x": random(steps, batch, 5)}
            if states:
                names = [i.name for i in session.get_inputs()[1:]]
                feed |= {n: random(DIRECTIONS[direction], batch, units) for n in names}
            for found, wanted in zip(model(feed).to_tuple(), session.run(None, feed), strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_batch_first(core, device):
    proto = layer("GRU", "bidirectional", 6, False, linear_before_reset=1)
    x = random(4, 3, 5)
    expected = core.compile_model(proto, device)({"x": x})
    proto.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    for value, sizes in zip(
        (*proto.graph.input, *proto.graph.output), ("bs", "bsdh", "bdh"), strict=True
    ):
        for dim, name in zip(value.type.tensor_type.shape.dim, sizes, strict=False):
            dim.dim_param = name
    found = core.compile_model(proto, device)({"x": np.ascontiguousarray(x.swapaxes(0, 1))})
    assert np.array_equal(found["y"], expected["y"].transpose(2, 0, 1, 3))
    assert np.array_equal(found["h"], expected["h"].swapaxes(0, 1))


def test_what_the_kernel_does_not_do_runs_on_the_host(core, cpu):
    proto = layer("GRU", "forward", 6, False)
    model = core.compile_model(proto, cpu)
    assert len(model.host_steps) == 1
    x = random(4, 2, 5)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for found, wanted in zip(model([x]).to_tuple(), session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
