"""LSTM, GRU and RNN on a device, against ONNX Runtime and, for what it lacks, onnx's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession

import clinfer

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
RNG = np.random.default_rng(5)


def numbers(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 0.4).astype(np.float32)


def layer(
    kind: str,
    size: int,
    hidden: int,
    direction: str = "forward",
    biased: bool = True,
    peepholes: bool = False,
    extra: tuple[str, ...] = (),
    **attrs: Any,
) -> ModelProto:
    """One layer over x [steps, batch, size]; `extra` of lengths, h and c are the model's inputs."""
    directions = 2 if direction == "bidirectional" else 1
    count = GATES[kind]
    constants = {
        "w": numbers(directions, count * hidden, size),
        "r": numbers(directions, count * hidden, hidden),
    }
    if biased:
        constants["b"] = numbers(directions, 2 * count * hidden)
    if peepholes:
        constants["p"] = numbers(directions, 3 * hidden)
    order = ["x", "w", "r", "b", "lengths", "h", "c", "p"][: 8 if kind == "LSTM" else 6]
    names = [name if name in ("x", *constants, *extra) else "" for name in order]
    while not names[-1]:
        names.pop()
    outputs = ["y", "last", "cells"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(kind, names, outputs, hidden_size=hidden, direction=direction, **attrs)
    kinds = {"lengths": TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        "layer",
        [
            helper.make_tensor_value_info(
                name,
                kinds.get(name, TensorProto.FLOAT),
                {"x": ["steps", "batch", size], "lengths": ["batch"]}.get(
                    name, [directions, "batch", hidden]
                ),
            )
            for name in ("x", *extra)
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def compare(
    core: clinfer.Core, device: str, proto: ModelProto, *feeds: dict[str, np.ndarray]
) -> None:
    model = core.compile_model(proto, device)
    assert not model.host_steps
    session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for feed in feeds:
        found = model(feed).to_tuple()
        for have, want in zip(found, session.run(None, feed), strict=True):
            np.testing.assert_allclose(have, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_every_kind_in_every_direction(core, device, kind, direction):
    proto = layer(kind, 7, 21, direction)
    compare(core, device, proto, {"x": numbers(5, 3, 7)}, {"x": numbers(2, 9, 7)})


@pytest.mark.parametrize("kind", GATES)
def test_rows_end_at_their_own_lengths_and_states_go_on(core, device, kind):
    extra = ("lengths", "h", "c") if kind == "LSTM" else ("lengths", "h")
    proto = layer(kind, 6, 16, "bidirectional", extra=extra)
    feed = {
        "x": numbers(6, 4, 6),
        "lengths": np.array([6, 1, 4, 3], np.int32),
        "h": numbers(2, 4, 16),
        "c": numbers(2, 4, 16),
    }
    compare(core, device, proto, {name: feed[name] for name in ("x", *extra)})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"peepholes": True}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"clip": 0.3}),
        ("LSTM", {"biased": False, "activations": ["HardSigmoid", "Softsign", "Relu"]}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.2]}),
        ("RNN", {"activations": ["Relu"]}),
        ("RNN", {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
    ],
)
def test_options(core, device, kind, options):
    compare(core, device, layer(kind, 5, 12, **options), {"x": numbers(4, 2, 5)})


@pytest.mark.parametrize("kind", GATES)
def test_batch_first(core, device, kind):
    proto = layer(kind, 5, 9, layout=1)
    x = numbers(3, 4, 5)
    found = core.compile_model(proto, device)({"x": x}).to_tuple()
    for have, want in zip(found, ReferenceEvaluator(proto).run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(have, want, rtol=2e-5, atol=2e-6)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(GATES)),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(0, 6),
    st.integers(1, 9),
)
def test_any_size(core, cpu, kind, hidden, size, steps, batch):
    compare(core, cpu, layer(kind, size, hidden), {"x": numbers(max(steps, 1), batch, size)})


def test_no_more_programs_for_more_steps(core, cpu):
    model = core.compile_model(layer("LSTM", 8, 16), cpu)
    model({"x": numbers(3, 2, 8)})
    built = len(model.plan.programs)
    model({"x": numbers(50, 5, 8)})
    assert len(model.plan.programs) == built


def test_computed_weights_are_a_host_step_with_its_reason(core, cpu):
    proto = layer("RNN", 3, 4)
    (weights,) = [t for t in proto.graph.initializer if t.name == "w"]
    proto.graph.initializer.remove(weights)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 4, 3]))
    model = core.compile_model(proto, cpu)
    assert len(model.host_steps) == 1


def test_float16_is_computed_in_float32(core, device):
    wide = layer("LSTM", 6, 20, "bidirectional")
    narrow = layer("LSTM", 6, 20, "bidirectional")
    for have, want in zip(narrow.graph.initializer, wide.graph.initializer, strict=True):
        weights = numpy_helper.to_array(want).astype(np.float16)
        have.CopyFrom(numpy_helper.from_array(weights, want.name))
        want.CopyFrom(numpy_helper.from_array(weights.astype(np.float32), want.name))
    for port in (*narrow.graph.input, *narrow.graph.output):
        port.type.tensor_type.elem_type = TensorProto.FLOAT16
    x = numbers(5, 3, 6).astype(np.float16)
    model = core.compile_model(narrow, device)
    assert not model.host_steps
    session = InferenceSession(wide.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, {"x": x.astype(np.float32)})
    for have, want in zip(model({"x": x}).to_tuple(), results, strict=True):
        assert have.dtype == np.float16
        np.testing.assert_allclose(have, want, rtol=2e-3, atol=1e-3)
