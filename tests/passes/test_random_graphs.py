"""Random graphs of views, reductions, products and pointwise operators keep their results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clinfer.graph.reader import read
from clinfer.passes.pipeline import PHASES, optimise
from passes.interpreter import run_graph
from passes.passes_helpers import random

BATCH = 2


class Builder:
    """A model grown node by node; `values` maps names to shapes of values to build upon.

    The first dimension of the input is dynamic ('n') where `dynamic`.
    """

    def __init__(self, shape: tuple[int, ...], dynamic: bool) -> None:
        self.nodes = []
        self.constants = []
        self.values = {"x": shape}
        first = "n" if dynamic else shape[0]
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, *shape[1:]])
        self.used: set[str] = set()

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attrs: object) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attrs))
        self.values[name] = shape
        self.used.update(inputs)

    def model(self) -> ModelProto:
        """The values that nothing reads are the outputs."""
        loose = [n for n in self.values if n not in self.used] or list(self.values)[-1:]
        outputs = [helper.make_empty_tensor_value_info(n) for n in loose if n != "x"]
        graph = helper.make_graph(self.nodes, "g", [self.input], outputs, self.constants)
        imports = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


Step = Callable[[Builder, st.DataObject, str, tuple[int, ...]], None]


def _unary(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    b.add(data.draw(st.sampled_from(["Relu", "Neg", "Sigmoid", "Abs"])), [x], shape)


def _binary(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    """With a constant that broadcasts, or with another value of the same shape."""
    same = [name for name, other in b.values.items() if other == shape]
    op = data.draw(st.sampled_from(["Add", "Mul", "Sub", "Max"]))
    if data.draw(st.booleans()):
        other = data.draw(st.sampled_from(same))
    else:
        sizes = [n if data.draw(st.booleans()) else 1 for n in shape]
        sizes[0] = 1
        other = b.constant(random(tuple(sizes[data.draw(st.integers(0, len(shape) - 1)) :])))
    inputs = [x, other] if data.draw(st.booleans()) else [other, x]
    b.add(op, inputs, shape)


def _transpose(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    """The dynamic dimension stays first, so that constants need not know it."""
    perm = [0, *data.draw(st.permutations(range(1, len(shape))))]
    b.add("Transpose", [x], tuple(shape[p] for p in perm), perm=perm)


def _reshape(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    """Two neighbours merged, or one dimension split."""
    axis = data.draw(st.integers(1, len(shape) - 1))
    if axis + 1 < len(shape) and data.draw(st.booleans()):
        made = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    else:
        part = data.draw(st.sampled_from([d for d in (1, 2, 3) if shape[axis] % d == 0]))
        made = (*shape[:axis], part, shape[axis] // part, *shape[axis + 1 :])
    target = b.constant(np.array([0, *made[1:]], np.int64))
    b.add("Reshape", [x, target], made)


def _reduce(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    axis = data.draw(st.integers(1, len(shape) - 1))
    keep = len(shape) == 2 or data.draw(st.booleans())
    made = (*shape[:axis], *([1] if keep else []), *shape[axis + 1 :])
    op = data.draw(st.sampled_from(["ReduceMean", "ReduceMax", "ReduceSum"]))
    b.add(op, [x, b.constant(np.array([axis], np.int64))], made, keepdims=int(keep))


def _softmax(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    b.add("Softmax", [x], shape, axis=data.draw(st.integers(1, len(shape) - 1)))


def _matmul(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) > 1:
        b.add("MatMul", [x, b.constant(random((shape[-1], 3)))], (*shape[:-1], 3))


def _concat(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    same = [name for name, other in b.values.items() if other == shape]
    axis = data.draw(st.integers(1, len(shape) - 1))
    parts = [x, data.draw(st.sampled_from(same))]
    b.add("Concat", parts, (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :]), axis=axis)


def _slice(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    axis = data.draw(st.integers(1, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    count = shape[axis] - start
    bounds = [b.constant(np.array([v], np.int64)) for v in (start, 2**31, axis)]
    b.add("Slice", [x, *bounds], (*shape[:axis], count, *shape[axis + 1 :]))


def _conv(b: Builder, data: st.DataObject, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) == 4:
        weights = b.constant(random((4, shape[1], 1, 1)))
        b.add("Conv", [x, weights], (shape[0], 4, *shape[2:]))


STEPS: list[Step] = [
    _unary,
    _binary,
    _transpose,
    _transpose,
    _reshape,
    _reduce,
    _softmax,
    _matmul,
    _concat,
    _slice,
    _conv,
]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_results_stay_the_same(data):
    shape = (BATCH, *data.draw(st.tuples(*[st.sampled_from([1, 2, 4, 6])] * 3)))
    builder = Builder(shape, data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(2, 12))):
        name = data.draw(st.sampled_from(list(builder.values)[-4:]))
        data.draw(st.sampled_from(STEPS))(builder, data, name, builder.values[name])
    if not builder.nodes:
        return
    proto = builder.model()
    feeds = {"x": random(shape, 5)}
    wanted = ReferenceEvaluator(proto).run(None, feeds)
    for phase in list(PHASES)[2:]:
        graph = read(proto).graph()
        optimise(graph, stop_after=phase, checked=True)
        for found, want in zip(run_graph(graph, feeds), wanted, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5, err_msg=phase)
