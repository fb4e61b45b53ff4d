"""Models with float64 on a device without it: moved as bits, computed on the host, or refused."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from clinfer.errors import UnsupportedError
from clinfer.graph.reader import read
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.lowering.plan import Plan
from clinfer.passes.pipeline import optimise
from clinfer_kernels.spec import Target

TARGET = Target(cls="gpu", vector_width=4, dialect="intel", fp64=False)


def plan_of(operator: str, **attributes: int) -> Plan:
    """The plan of one operator on a float64 vector."""
    names = ("x", "axis") if operator == "CumSum" else ("x",)
    node = helper.make_node(operator, names, ["y"], **attributes)
    vector = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, [8]) for n in ("x", "y")]
    axis = helper.make_tensor("axis", TensorProto.INT32, [], [0])
    made = helper.make_graph([node], "g", vector[:1], vector[1:], [axis])
    graph = read(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])).graph()
    optimise(graph)
    return lower(graph, TARGET, KernelChoice()).plan


@pytest.mark.parametrize("operator", ["Identity", "CumSum"])
def test_float64_is_moved_as_bits(operator):
    plan = plan_of(operator)
    assert plan.outputs[0].dtype == "float64"
    assert all("double" not in program.source for program in plan.programs)


def test_what_computes_in_float64_is_refused_with_the_reason():
    with pytest.raises(UnsupportedError, match=r"no float64 \(cl_khr_fp64\)"):
        plan_of("Sin")
