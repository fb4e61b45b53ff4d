"""A dimension that turns out to be 1 in a run repeats, whatever is fused around it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clinfer.graph.reader import read
from clinfer.passes.pipeline import PHASES, optimise
from passes.interpreter import run_graph
from passes.passes_helpers import random

SIZES = (3, 2, 5)  # of the dimensions that are not 1
LAST = 4
KINDS = ("binary", "where", "reduce", "softmax", "matmul", "expand", "turned")


def _step(data: st.DataObject, number: int, values: list[str]) -> list[object]:
    """A node or a few that make value `number` from earlier ones."""
    a, b, c = (data.draw(st.sampled_from(values)) for _ in range(3))
    made, node = f"v{number}", helper.make_node
    kind = data.draw(
        st.sampled_from(["binary", "where", "reduce", "softmax", "matmul", "expand", "turned"])
    )
    if kind == "where":
        return [node("Greater", [a, b], [f"{made}g"]), node("Where", [f"{made}g", b, c], [made])]
    if kind == "reduce":
        axis = data.draw(st.integers(0, 3))
        mean = node("ReduceMean", [a], [f"{made}m"], axes=[axis], keepdims=1)
        return [mean, node("Sub", [b, f"{made}m"], [made])]
    if kind == "softmax":
        return [node("Softmax", [a], [made], axis=data.draw(st.integers(-2, -1)))]
    if kind == "matmul":
        return [node("MatMul", [a, "w"], [f"{made}p"]), node("Add", [f"{made}p", b], [made])]
    if kind == "expand":
        return [node("Shape", [b], [f"{made}s"]), node("Expand", [a, f"{made}s"], [made])]
    if kind == "turned":
        perm = data.draw(st.permutations(range(4)))
        back = [perm.index(axis) for axis in range(4)]
        turned = [
            node("Transpose", [x], [made + end], perm=perm) for x, end in ((a, "a"), (b, "b"))
        ]
        added = node("Add", [f"{made}a", f"{made}b"], [f"{made}c"])
        return [*turned, added, node("Transpose", [f"{made}c"], [made], perm=back)]
    return [node(data.draw(st.sampled_from(["Add", "Mul", "Max"])), [a, b], [made])]


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_results_are_those_of_numpy(data):
    shapes, inputs = {}, []
    for name in ("x", "y", "z"):
        dims = [f"{name}{i}" if data.draw(st.booleans()) else n for i, n in enumerate(SIZES)]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [*dims, LAST]))
        runs = [n if isinstance(d, int) else data.draw(st.sampled_from([1, n]))
                for d, n in zip(dims, SIZES, strict=True)]  # fmt: skip
        shapes[name] = (*runs, LAST)
    nodes, values = [], list(shapes)
    for number in range(data.draw(st.integers(1, 7))):
        nodes += _step(data, number, values[-3:])
        values.append(f"v{number}")
    output = helper.make_empty_tensor_value_info(values[-1])
    weights = numpy_helper.from_array(random((LAST, LAST), 7), "w")
    graph = helper.make_graph(nodes, "g", inputs, [output], [weights])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {name: random(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    wanted = ReferenceEvaluator(proto).run(None, feeds)
    for phase in list(PHASES)[2:]:
        optimised = read(proto).graph()
        optimise(optimised, stop_after=phase, checked=True)
        for found, want in zip(run_graph(optimised, feeds), wanted, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5, err_msg=phase)
