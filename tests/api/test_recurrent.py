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


@pytest.mark.parametrize("kind", GATES)
def test_weights_may_be_inputs_with_every_option(core, device, kind):
    options: dict[str, Any] = {"clip": 0.6}
    if kind == "GRU":
        options["linear_before_reset"] = 1
    if kind == "LSTM":
        options["input_forget"] = 1
    extra = ("lengths", "h", "c") if kind == "LSTM" else ("lengths", "h")
    names = ["HardSigmoid", "Elu", "Softsign", "Sigmoid", "LeakyRelu", "ScaledTanh"]
    count = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind]
    proto = layer(
        kind,
        5,
        11,
        "bidirectional",
        peepholes=kind == "LSTM",
        extra=extra,
        activations=[*names[:count], *names[3 : 3 + count]],
        activation_alpha=[0.3, 0.7, 0.2, 1.5],
        activation_beta=[0.4, 0.8],
        **options,
    )
    feed = {
        "x": numbers(6, 4, 5),
        "lengths": np.array([6, 0, 4, 1], np.int32),
        "h": numbers(2, 4, 11),
        "c": numbers(2, 4, 11),
    }
    compare(core, device, *as_inputs(proto, {name: feed[name] for name in ("x", *extra)}))


@pytest.mark.parametrize("kind", GATES)
def test_an_activation_without_parameters_has_those_of_onnx_runtime(core, cpu, kind):
    count = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind]
    for name in ("ThresholdedRelu", "HardSigmoid"):
        proto = layer(kind, 4, 6, activations=[name] * count)
        compare(core, cpu, proto, {"x": numbers(3, 2, 4) * 3})


def test_an_unknown_activation_is_an_error_that_names_it(core, cpu):
    proto = layer("RNN", 3, 4, activations=["Gelu"])
    with pytest.raises(clinfer.ClinferError, match="Gelu"):
        core.compile_model(proto, cpu)


def test_operands_of_other_sizes_are_an_error(core, cpu):
    proto, feed = as_inputs(layer("GRU", 3, 4, extra=("h",)), {"x": numbers(2, 2, 3)})
    for port in proto.graph.input:
        del port.type.tensor_type.shape.dim[:]
        for name in "abc"[: feed[port.name].ndim] if port.name in feed else "abc":
            port.type.tensor_type.shape.dim.add().dim_param = f"{port.name}_{name}"
    model = core.compile_model(proto, cpu)
    feed["h"] = numbers(1, 2, 4)
    model(feed)
    for name in ("w", "r", "b", "h"):
        wrong = {**feed, name: np.ascontiguousarray(feed[name][..., :-1])}
        with pytest.raises(clinfer.ClinferError):
            model(wrong)


def test_float64_is_computed_in_float64(core, device):
    proto = layer("LSTM", 6, 10, "bidirectional")
    feed = as_inputs(proto, {"x": numbers(4, 3, 6)})[1]
    session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(None, feed)
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.elem_type = TensorProto.DOUBLE
    model = core.compile_model(proto, device)
    assert not model.host_steps
    for have, expected in zip(
        model({k: v.astype(np.float64) for k, v in feed.items()}).to_tuple(), want, strict=True
    ):
        assert have.dtype == np.float64
        np.testing.assert_allclose(have, expected, rtol=2e-5, atol=2e-6)


def test_a_layer_inside_a_branch_is_computed_with_its_options(core, cpu):
    plain = layer("LSTM", 5, 7, "bidirectional", extra=("lengths",), clip=0.4, input_forget=1)
    branch = helper.make_graph(
        list(plain.graph.node), "branch", [], list(plain.graph.output), plain.graph.initializer
    )
    node = helper.make_node("If", ["yes"], ["a", "b", "c0"], then_branch=branch, else_branch=branch)
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in node.output]
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    graph = helper.make_graph([node], "if", [*plain.graph.input, yes], outputs)
    proto = helper.make_model(graph, opset_imports=plain.opset_import, ir_version=8)
    feed = {"x": numbers(5, 3, 5), "lengths": np.array([5, 0, 2], np.int32)}
    session = InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    found = core.compile_model(proto, cpu)({**feed, "yes": np.array(True)}).to_tuple()
    for have, want in zip(found, session.run(None, feed), strict=True):
        np.testing.assert_allclose(have, want, rtol=2e-5, atol=2e-6)


def as_inputs(
    proto: ModelProto, feed: dict[str, np.ndarray]
) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """The layer with its weights as inputs, and the feed with them."""
    for tensor in proto.graph.initializer:
        feed[tensor.name] = numpy_helper.to_array(tensor)
        proto.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    del proto.graph.initializer[:]
    return proto, feed


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
