"""Models that explode: reading and compiling them takes work that grows with their size.

Work is counted in calls of functions. Four times the nodes may take five times the calls; what
looks at every node for each node would take sixteen.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clinfer.graph.model import Model
from clinfer.graph.reader import read
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.lowering.plan import Plan
from clinfer.lowering.plan_dump import dump
from clinfer.passes.fuse import program
from clinfer.passes.limits import MAX_OPERANDS
from clinfer.passes.pipeline import optimise
from clinfer_kernels.spec import Target
from growth import growth

FLOAT = TensorProto.FLOAT


def built(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: list[str],
    weights: list[onnx.TensorProto] = (),  # type: ignore[assignment]
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "m",
        [helper.make_tensor_value_info(n, FLOAT, shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs],
        weights,
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def weight(number: int, shape: tuple[int, ...] = (4,)) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full(shape, number, np.float32), f"w{number}")


def chain(count: int) -> bytes:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(count)]
    return built(nodes, {"v0": ["N", 4]}, [f"v{count}"])


def reversed_chain(count: int) -> bytes:
    nodes = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"]) for i in range(count)]
    return built(nodes[::-1], {"v0": ["N", 4]}, [f"v{count}"])


def products(count: int) -> bytes:
    nodes = [helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"v{i + 1}"]) for i in range(count)]
    weights = [weight(i, (4, 4)) for i in range(count)]
    return built(nodes, {"v0": ["N", 4]}, [f"v{count}"], weights)


def branches(count: int) -> bytes:
    """Results of one value, each by a node of its own and an output."""
    nodes = [helper.make_node("Neg", ["x"], ["t"])]
    nodes += [helper.make_node("Mul", ["t", f"w{i}"], [f"y{i}"]) for i in range(count)]
    weights = [weight(i) for i in range(count)]
    return built(nodes, {"x": ["N", 4]}, [f"y{i}" for i in range(count)], weights)


def equal_branches(count: int) -> bytes:
    nodes = [helper.make_node("Neg", ["x"], [f"t{i}"]) for i in range(count)]
    nodes += [helper.make_node("Identity", [f"t{i}"], [f"y{i}"]) for i in range(count)]
    return built(nodes, {"x": ["N", 4]}, [f"y{i}" for i in range(count)])


def symbols(count: int) -> bytes:
    """Inputs of sizes of their own, that must fit each other."""
    nodes = [helper.make_node("Add", [f"x{i}", f"y{i}"], [f"z{i}"]) for i in range(count)]
    inputs = {f"{n}{i}": [f"{n}{i}"] for i in range(count) for n in "xy"}
    return built(nodes, inputs, [f"z{i}" for i in range(count)])


def total(count: int) -> bytes:
    inputs = {f"x{i}": [2] for i in range(count)}
    return built([helper.make_node("Sum", list(inputs), ["y"])], inputs, ["y"])


def joined(count: int) -> bytes:
    nodes = [helper.make_node("Neg", [f"x{i}"], [f"t{i}"]) for i in range(count)]
    nodes.append(helper.make_node("Concat", [f"t{i}" for i in range(count)], ["y"], axis=0))
    return built(nodes, {f"x{i}": [2] for i in range(count)}, ["y"])


def parts(count: int) -> bytes:
    names = [f"y{i}" for i in range(count)]
    node = helper.make_node("Split", ["x"], names, axis=0, num_outputs=count)
    return built([node], {"x": [count]}, names)


MODELS = [
    chain,
    reversed_chain,
    products,
    branches,
    equal_branches,
    symbols,
    total,
    joined,
    parts,
]


def planned(model: Model) -> Plan:
    graph = model.graph()
    optimise(graph, cls="cpu")
    return lower(graph, Target(), KernelChoice()).finish()


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_the_work_grows_with_the_model(make: Callable[[int], bytes]) -> None:
    encoded = {count: make(count) for count in (2, 30, 120)}
    # Within a kernel's lines each operator that joins takes up those before it.
    with patch.object(program, "MAX_LINES", 4):
        assert growth(lambda count: dump(planned(read(encoded[count]))), 30) < 5.5


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
@pytest.mark.parametrize("count", [12, 13, 300])
def test_no_kernel_reads_more_than_it_can(op: str, count: int) -> None:
    inputs = {f"x{i}": [2] for i in range(count)}
    plan = planned(read(built([helper.make_node(op, list(inputs), ["y"])], inputs, ["y"])))
    most = max(sum(arg.kind == "buffer" for arg in launch.args) for launch in plan.launches)
    assert most <= MAX_OPERANDS + 1
    assert sum(1 for _ in plan.launches) <= -(-count // 11) + 3
    assert len(plan.programs) <= 5


def test_concatenations_deep_in_one_another() -> None:
    nodes = [
        helper.make_node("Concat", [f"v{i}", f"x{i + 1}"], [f"v{i + 1}"], axis=0)
        for i in range(200)
    ]
    inputs = {"v0": [2], **{f"x{i + 1}": [1] for i in range(200)}}
    assert planned(read(built(nodes, inputs, ["v200"]))).outputs[0].shape == (202,)
