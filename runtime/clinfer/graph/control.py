"""If, Loop and Scan on the host: their bodies run node by node as host steps.

A body is built into a graph for each combination of element types and ranks it meets, so that old
operator forms in it are brought up to date like those of the main graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.errors import ShapeError, UnsupportedError
from clinfer.graph.bodies import define_constants
from clinfer.graph.build import NodeBuilder
from clinfer.graph.ir import Array, Graph, Node, Value
from clinfer.graph.node_protos import encoded
from clinfer.graph.opsets import Opsets
from clinfer.graph.protos import (
    ExternalData,
    free_names,
    plain_attributes,
    value_type,
)
from clinfer.graph.upgrade import typed
from clinfer.graph.value_types import type_of
from clinfer_kernels.dims import sym

if TYPE_CHECKING:
    from onnx import GraphProto, TypeProto

    from clinfer.graph.reference import HostOp

KINDS = frozenset({"If", "Loop", "Scan"})


class Runs(Protocol):
    """What runs one node of a graph on the host."""

    def run(self, inputs: Sequence[Any]) -> list[Any]: ...


StepMaker = Callable[[Node, Opsets], Runs]
"""Of a node and the operator sets of its graph (`clinfer.graph.reference.host_step`)."""


class HostBranch:
    """An If whose bodies a pass has made, evaluated on the host."""

    def __init__(self, node: Node, make: StepMaker) -> None:
        assert node.bodies is not None
        self._bodies = node.bodies.all
        graphs = (body.graph for body in self._bodies)
        self._graphs = [None if graph is None else HostGraph(graph, make) for graph in graphs]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The results of the branch taken. Raises `ShapeError` where no input fits that."""
        number = 0 if np.asarray(inputs[0]).item() else 1
        body, graph = self._bodies[number], self._graphs[number]
        if graph is None:
            raise ShapeError(f"{body.name}: {body.error}")
        return graph.run([inputs[index] for index in body.captured])


class HostGraph:
    """A graph evaluated on the host, every node a host step."""

    def __init__(self, graph: Graph, make: StepMaker) -> None:
        self._graph = graph
        self._steps = [(make(n, graph.opsets), n) for n in graph.nodes]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The graph's results for inputs in its order."""
        known: dict[int, Any] = {}
        for value, content in zip(self._graph.inputs, inputs, strict=True):
            known[id(value)] = content

        def content_of(value: Value | None) -> Any:
            if value is None or id(value) in known:
                return known.get(id(value))
            return value.const

        for step, node in self._steps:
            results = step.run([content_of(v) for v in node.inputs])
            for output, content in zip(node.outputs, results, strict=False):
                if output is not None:
                    known[id(output)] = content
        return [content_of(v) for v in self._graph.outputs]


class Body:
    """A subgraph that can be called; outer values come by name."""

    def __init__(self, proto: GraphProto, opsets: Opsets, make: StepMaker) -> None:
        self.proto = proto
        self._make = make
        self._opsets = opsets
        self._outer = list(dict.fromkeys(free_names(proto)))
        self._programs: dict[Any, HostGraph] = {}

    def __call__(self, arguments: Sequence[Any], outer: Mapping[str, Any]) -> list[Any]:
        """The body's results."""
        values = [*arguments, *(outer[name] for name in self._outer)]
        signature = tuple(_signature(v) for v in values)
        if signature not in self._programs:
            self._programs[signature] = HostGraph(self._built(values), self._make)
        return self._programs[signature].run(values)

    def shaped(self, index: int, scalar: Array) -> Array:
        """A scalar in the rank that the body declares for that input: exporters write [1] too."""
        declared = self.proto.input[index].type.tensor_type
        rank = len(declared.shape.dim) if declared.HasField("shape") else 0
        return scalar.reshape((1,) * rank)

    def _built(self, values: Sequence[Any]) -> Graph:
        graph = Graph(self.proto.name or "body", opsets=dict(self._opsets))
        declared = {info.name: info.type for info in self.proto.input}
        scope: dict[str, Value] = {}
        for name, content in zip([*declared, *self._outer], values, strict=True):
            scope[name] = _typed_value(name, content, declared.get(name))
            graph.inputs.append(scope[name])
        define_constants(graph, self.proto, scope)
        builder = NodeBuilder(graph, scope)
        for node in self.proto.node:
            builder.add(node, self._opsets)
        typed(graph, list(graph.nodes))
        graph.outputs = [scope[info.name] for info in self.proto.output]
        return graph


def _typed_value(name: str, content: Any, declared: TypeProto | None) -> Value:
    """An input of a body: a tensor of the content's type, or a host object of the declared one."""
    if isinstance(content, np.ndarray):
        shape = tuple(sym(f"{name}.{axis}") for axis in range(content.ndim))
        dtype = "string" if content.dtype.kind in "OUT" else content.dtype.name
        return Value(name, dtype, shape)
    proto = type_of(content)
    if declared is not None and declared.WhichOneof("value") not in (None, "tensor_type"):
        proto = declared
    return Value(name, value_type(proto)[0], type_proto=proto.SerializeToString())


def _signature(content: Any) -> Any:
    if isinstance(content, np.ndarray):
        return content.dtype.name, content.ndim
    return type(content).__name__


class Control:
    """One control-flow operator, ready to run."""

    def __init__(self, op: HostOp, make: StepMaker) -> None:
        proto = encoded(op.node)
        self._label = op.label
        self._names = op.inputs
        self._own = len(proto.input)
        self._outputs = len(proto.output)
        self._attrs, _ = plain_attributes(proto, ExternalData(None))
        self._version = dict(op.opsets)[proto.domain]
        opsets = dict(op.opsets)
        self._bodies = {a.name: Body(a.g, opsets, make) for a in proto.attribute if a.HasField("g")}
        self._run = {"If": self._if, "Loop": self._loop, "Scan": self._scan}[op.kind]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The operator's results."""
        outer = {n: v for n, v in zip(self._names, inputs, strict=True) if n}
        return self._run(list(inputs[: self._own]), outer)

    def _if(self, inputs: list[Any], outer: Mapping[str, Any]) -> list[Any]:
        branch = "then_branch" if np.asarray(inputs[0]).item() else "else_branch"
        return self._bodies[branch]([], outer)

    def _loop(self, inputs: list[Any], outer: Mapping[str, Any]) -> list[Any]:
        body = self._bodies["body"]
        limit = None if inputs[0] is None else int(np.asarray(inputs[0]).item())
        going = True if len(inputs) < 2 or inputs[1] is None else bool(np.asarray(inputs[1]).item())
        state = inputs[2:]
        rows: list[list[Any]] = []
        step = 0
        while going and (limit is None or step < limit):
            turn = [body.shaped(0, np.array(step, np.int64)), body.shaped(1, np.array(going))]
            results = body([*turn, *state], outer)
            going = bool(np.asarray(results[0]).item())
            state = results[1 : 1 + len(state)]
            rows.append(results[1 + len(state) :])
            step += 1
        first = 1 + len(state)
        count = len(body.proto.output) - first
        scans = [_stacked([r[i] for r in rows], body, first + i, 0) for i in range(count)]
        return [*state, *scans]

    def _scan(self, inputs: list[Any], outer: Mapping[str, Any]) -> list[Any]:
        if self._version >= 9:
            return self._scanned(inputs, outer)
        # Version 8: sequence lengths come first, and every operand has a leading batch axis.
        if inputs[0] is not None:
            raise UnsupportedError(
                f"{self._label}: sequence lengths are not supported; expected none, or Scan of "
                "operator set 9"
            )
        batch = range(inputs[1].shape[0])
        results = [self._scanned([v[b] for v in inputs[1:]], outer) for b in batch]
        return [np.stack(column) for column in zip(*results, strict=True)]

    def _scanned(self, inputs: list[Any], outer: Mapping[str, Any]) -> list[Any]:
        body = self._bodies["body"]
        count = int(self._attrs["num_scan_inputs"])
        state, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
        axes = self._attrs.get("scan_input_axes") or [0] * count
        back = self._attrs.get("scan_input_directions") or self._attrs.get("directions") or []
        moved = [np.moveaxis(v, a, 0) for v, a in zip(scanned, axes, strict=True)]
        turned = [v[::-1] if i < len(back) and back[i] else v for i, v in enumerate(moved)]
        rows: list[list[Any]] = []
        for items in zip(*turned, strict=True):
            results = body([*state, *map(np.asarray, items)], outer)
            state = results[: len(state)]
            rows.append(results[len(state) :])
        outputs = len(body.proto.output) - len(state)
        places = self._attrs.get("scan_output_axes") or [0] * outputs
        flips = self._attrs.get("scan_output_directions") or [0] * outputs
        scans: list[Any] = []
        for i in range(outputs):
            column = [r[i] for r in rows]
            if flips[i]:
                column.reverse()
            scans.append(_stacked(column, body, len(state) + i, places[i]))
        return [*state, *scans]


def _stacked(items: Sequence[Any], body: Body, output: int, axis: int) -> Array:
    """The values an output took, along a new axis; of none, the size is as declared."""
    if items:
        return np.stack(items, axis=axis)
    dtype, dims = value_type(body.proto.output[output].type)
    sizes = [d if isinstance(d, int) else 0 for d in dims or ()]
    sizes.insert(axis, 0)
    return np.empty(sizes, to_numpy(dtype or "float32"))
