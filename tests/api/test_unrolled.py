"""Loop and Scan of a known number of steps, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from api.test_branches import FLOAT, assert_as, branch, compiled, finished, tensor

BOOL, INT = TensorProto.BOOL, TensorProto.INT64
RNG = np.random.default_rng(13)
WEIGHT = (RNG.standard_normal((3, 3)) * 0.5).astype(np.float32)


def loop(limit: Any, growing: bool = False, chooses: bool = False) -> bytes:
    """s = tanh(s w + x[i]), stacked; `growing` states double, `chooses` has an If in the body."""
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["part"]),
        helper.make_node("MatMul", ["s", "w"], ["product"]),
        helper.make_node("Add", ["product", "part"], ["sum"]),
        helper.make_node("Identity", ["going"], ["goes"]),
    ]
    state = "t"
    if chooses:
        then = branch("then", [helper.make_node("Tanh", ["sum"], ["p"])], "p")
        other = branch("other", [helper.make_node("Relu", ["sum"], ["q"])], "q")
        nodes.append(helper.make_node("If", ["c"], ["t"], then_branch=then, else_branch=other))
    else:
        nodes.append(helper.make_node("Tanh", ["sum"], ["t"]))
    if growing:
        nodes.append(helper.make_node("Concat", ["t", "t"], ["more"], axis=0))
        state = "more"
    results = [tensor("goes", BOOL, []), tensor(state, FLOAT, None)]
    if not growing:
        nodes.append(helper.make_node("Neg", ["t"], ["minus"]))
        results.append(tensor("minus", FLOAT, None))
    body = helper.make_graph(
        nodes,
        "body",
        [tensor("i", INT, []), tensor("going", BOOL, []), tensor("s", FLOAT, None)],
        results,
    )
    outputs = ["last"] if growing else ["last", "all"]
    inputs = [tensor("x", FLOAT, [4, "n", 3]), tensor("s0", FLOAT, ["n", 3])]
    inputs[1:] = [tensor("s0", FLOAT, [1, 3])] if growing else inputs[1:]
    inputs[:1] = [tensor("x", FLOAT, [4, 1, 3])] if growing else inputs[:1]
    constants: dict[str, Any] = {"w": WEIGHT}
    if limit is None:
        inputs.append(tensor("limit", INT, []))
    else:
        constants["limit"] = np.int64(limit)
    if chooses:
        inputs.append(tensor("c", BOOL, []))
    node = helper.make_node("Loop", ["limit", "", "s0"], outputs, body=body)
    return finished([node], inputs, [tensor(n, FLOAT, None) for n in outputs], constants)


def feeds(count: int, **more: Any) -> dict[str, np.ndarray]:
    x = RNG.standard_normal((4, count, 3)).astype(np.float32)
    s0 = RNG.standard_normal((count, 3)).astype(np.float32)
    return {"x": x, "s0": s0, **{name: np.array(value) for name, value in more.items()}}


@pytest.mark.parametrize("count", [2, 0])
def test_a_loop_of_so_many_steps_runs_on_the_device(core, device, count):
    content = loop(3)
    model = compiled(core, content, device)
    assert not model.host_steps
    assert_as(InferenceSession(content), model, feeds(count))


def test_states_may_grow(core, cpu):
    content = loop(4, growing=True)
    model = compiled(core, content, cpu)
    assert not model.host_steps
    assert_as(InferenceSession(content), model, feeds(1))


def test_an_if_in_a_loop(core, device):
    content = loop(3, chooses=True)
    model = compiled(core, content, device)
    assert not model.host_steps
    for choice in (True, False):
        assert_as(InferenceSession(content), model, feeds(2, c=choice))


def test_steps_that_only_a_run_counts_are_gone_through_again(core, cpu):
    content = loop(None)
    model = compiled(core, content, cpu)
    assert not model.host_steps
    for limit in (1, 3):
        assert_as(InferenceSession(content), model, feeds(2, limit=limit))


def test_a_loop_of_nothing_much_that_never_ends_is_not_written_out(core, cpu):
    body = helper.make_graph(
        [],
        "body",
        [tensor("i", INT, []), tensor("going", BOOL, []), tensor("s", FLOAT, [2])],
        [tensor("going", BOOL, []), tensor("s", FLOAT, [2])],
    )
    node = helper.make_node("Loop", ["limit", "", "x"], ["y"], body=body)
    ports = [tensor("x", FLOAT, [2])], [tensor("y", FLOAT, [2])]
    content = finished([node], *ports, {"limit": np.int64(2**62)})
    steps = compiled(core, content, cpu).plan.steps
    assert [type(step).__name__ for step in steps[:2]] == ["LoopStep", "AgainStep"]


@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_scan_in_either_direction(core, cpu, back, axis):
    nodes = [
        helper.make_node("MatMul", ["s", "w"], ["product"]),
        helper.make_node("Add", ["product", "part"], ["next"]),
        helper.make_node("Relu", ["next"], ["kept"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [tensor("s", FLOAT, None), tensor("part", FLOAT, None)],
        [tensor("next", FLOAT, None), tensor("kept", FLOAT, None)],
    )
    node = helper.make_node(
        "Scan",
        ["s0", "x"],
        ["last", "all"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[back],
        scan_output_axes=[axis],
        scan_output_directions=[1 - back],
    )
    shape = ["n", 4, 3] if axis else [4, "n", 3]
    inputs = [tensor("s0", FLOAT, ["n", 3]), tensor("x", FLOAT, shape)]
    outputs = [tensor("last", FLOAT, None), tensor("all", FLOAT, None)]
    content = finished([node], inputs, outputs, {"w": WEIGHT})
    model = compiled(core, content, cpu)
    assert not model.host_steps
    x = RNG.standard_normal((2, 4, 3) if axis else (4, 2, 3)).astype(np.float32)
    s0 = RNG.standard_normal((2, 3)).astype(np.float32)
    assert_as(InferenceSession(content), model, {"s0": s0, "x": x})
