"""Models from text, and runs of graphs on the host, for the tests of `clinfer.graph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser

from bound import bind_symbols
from clinfer.graph.ir import Graph
from clinfer.graph.model import Model
from clinfer.graph.reader import read
from clinfer.graph.reference import HostOp, host_step
from clinfer_kernels.dims import RELATIONS, evaluate, sym, symbols


def proto(text: str, opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    """A model from ONNX's textual form, without its header."""
    return onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}]>\n{text}')


def model(text: str, opset: int = 17) -> Model:
    """The same, read."""
    return read(proto(text, opset))


def run(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """The graph's outputs; every value is checked against its inferred type and content."""
    return Checked(graph).run(inputs)


class Checked:
    """Evaluates a graph with host steps and compares each result with what was inferred of it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sizes: dict[str, int] = {}

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        shapes = [np.shape(x) if isinstance(x, np.ndarray) else () for x in inputs]
        self.sizes = bind_symbols(self.graph.inputs, shapes)
        known = {id(v): x for v, x in zip(self.graph.inputs, inputs, strict=True)}

        def content(value: Any) -> Any:
            return None if value is None else known.get(id(value), value.const)

        for node in self.graph.nodes:
            step = host_step(node, self.graph.opsets)
            if isinstance(step, HostOp):
                step = HostOp.from_json(step.to_json())
            results = step.run([content(v) for v in node.inputs])
            for value, result in zip(node.outputs, results, strict=False):
                if value is not None:
                    known[id(value)] = result
                    if isinstance(result, np.ndarray):
                        self._check(node, value, result)
        return [content(v) for v in self.graph.outputs]

    def _check(self, node: Any, value: Any, result: np.ndarray[Any, Any]) -> None:
        dtype = "string" if result.dtype.kind in "OUT" else result.dtype.name
        assert value.dtype == dtype, f"{node}: {dtype} computed"
        if value.shape is None:
            return
        assert len(value.shape) == result.ndim, f"{node}: shape {result.shape} computed"
        for dim, size in zip(value.shape, result.shape, strict=True):
            fresh = symbols(dim) - self.sizes.keys()
            if fresh:
                assert dim == sym(min(fresh)), f"{node}: {dim} cannot be bound"
                self.sizes[min(fresh)] = size
            found = evaluate(dim, self.sizes)
            assert found == size, f"{node}: shape {result.shape} computed"
        if value.symbolic is not None:
            sizes = [evaluate(d, self.sizes) for d in value.symbolic.ravel()]
            assert sizes == result.ravel().tolist(), f"{node}: {value.symbolic}, not {result}"
        if value.const is not None:
            assert value.const.dtype == result.dtype
            assert np.array_equal(value.const, result), f"{node}: {value.const}, not {result}"
        if value.rational is not None:
            for number, found in zip(value.rational.ravel(), result.ravel(), strict=True):
                exact = evaluate(number.numerator, self.sizes) / number.denominator
                assert np.float32(exact) == found, f"{node}: {number}, not {found}"

    def violated(self) -> list[str]:
        """Messages of constraints that do not hold for the sizes of this run."""
        messages = []
        for left, right, message, relation in self.graph.constraints:
            if symbols(left) | symbols(right) <= self.sizes.keys() and not RELATIONS[relation](
                evaluate(left, self.sizes), evaluate(right, self.sizes)
            ):
                messages.append(message)
        return messages


def by_onnxruntime(source: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """The outputs that ONNX Runtime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(source.SerializeToString(), options)
    return list(session.run(None, dict(feeds)))
