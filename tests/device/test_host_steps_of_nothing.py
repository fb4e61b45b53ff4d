"""Host steps whose results have no element do not run, whatever an implementation does then."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from clinfer.device.hoststep import empty_results
from clinfer.graph.reader import read
from clinfer.lowering.binding import Sizes
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.lowering.plan import HostStep
from clinfer_kernels.spec import Target


def host_step(op: str, shape: list[int | str], **attributes: int) -> HostStep:
    """The host step of a model of one operator without a kernel."""
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)], "g", infos, result
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    steps = lower(read(proto).graph(), Target(), KernelChoice()).plan.steps
    (step,) = (step for step in steps if isinstance(step, HostStep))
    return step


def test_an_empty_batch_is_not_computed():
    step = host_step("DFT", ["n", 8, 1], axis=1)
    (result,) = empty_results(step, Sizes({"n": 0})) or (None,)
    assert result is not None
    assert (result.shape, result.dtype) == ((0, 8, 2), np.float32)


@pytest.mark.parametrize("sizes", [{"n": 2}, {}])
def test_what_has_elements_or_unknown_sizes_is_computed(sizes: dict[str, int]):
    assert empty_results(host_step("DFT", ["n", 8, 1], axis=1), Sizes(sizes)) is None
