"""No kernel takes more bytes of arguments than every device allows: 1024."""

from __future__ import annotations

import random

import onnx
import pytest
from onnx import TensorProto, helper

from clinfer.errors import UnsupportedError
from clinfer.graph.reader import read
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.lowering.plan import Plan
from clinfer.passes.pipeline import optimise
from clinfer_kernels.spec import MOST_ARGUMENT_BYTES, Target


def ragged(op: str, count: int, rank: int) -> onnx.ModelProto:
    """Inputs that broadcast along dimensions at random, so that none can be joined to another."""
    rng = random.Random(1)
    every = [f"d{axis}" for axis in range(rank)]
    shapes = [every, *([d if rng.random() < 0.5 else 1 for d in every] for _ in range(count - 1))]
    if op == "Where":
        shapes[1:] = ([d if n % 2 == odd else 1 for n, d in enumerate(every)] for odd in range(2))
    kinds = [TensorProto.BOOL if op == "Where" else TensorProto.FLOAT] + [TensorProto.FLOAT] * count
    described = enumerate(zip(kinds, shapes, strict=False))
    inputs = [helper.make_tensor_value_info(f"x{n}", k, s) for n, (k, s) in described]
    names = [info.name for info in inputs]
    if op == "chain":
        steps = [("x0" if n == 1 else f"t{n - 1}", n) for n in range(1, count)]
        nodes = [
            helper.make_node(("Add", "Mul")[n % 2], [last, f"x{n}"], [f"t{n}"]) for last, n in steps
        ]
    else:
        nodes = [helper.make_node(op, names, ["y"])]
    result = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "ragged", inputs, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def planned(proto: onnx.ModelProto, cls: str) -> Plan:
    graph = read(proto).graph()
    optimise(graph)
    return lower(graph, Target(cls=cls), KernelChoice()).plan


@pytest.mark.parametrize("cls", ["cpu", "gpu"])
@pytest.mark.parametrize(("count", "rank"), [(12, 8), (24, 20), (60, 12), (12, 32)])
@pytest.mark.parametrize("op", ["chain", "Sum"])
def test_kernels_of_many_operands_are_cut(op: str, count: int, rank: int, cls: str) -> None:
    plan = planned(ragged(op, count, rank), cls)
    assert not list(plan.host_steps)
    for launch in plan.launches:
        nbytes = sum(4 if (a.kind, a.ctype) == ("scalar", "int") else 8 for a in launch.args)
        assert nbytes <= MOST_ARGUMENT_BYTES


def test_what_cannot_be_cut_is_refused_with_a_reason() -> None:
    with pytest.raises(UnsupportedError, match=r"bytes of arguments.*too many dimensions"):
        planned(ragged("Where", 3, 64), "gpu")
