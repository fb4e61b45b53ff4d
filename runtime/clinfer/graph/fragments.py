"""Nodes put in front of a model's inputs and behind its outputs, as ONNX encodes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinfer.boundary import first_line
from clinfer.dtypes import BY_NAME
from clinfer.errors import InputError, ModelError
from clinfer.graph.build import NodeBuilder
from clinfer.graph.ir import Array, Graph, Node, Shape, Value
from clinfer.graph.protos import subgraphs
from clinfer.graph.schemas import newest_version
from clinfer.graph.shapes import infer
from clinfer.graph.upgrade import typed
from clinfer.sha256 import sha256

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

OPSET = 18
"""The operator set that the nodes are written for."""


NewInput = tuple[str, str, tuple[Any, ...] | None]


class Fragment(NamedTuple):
    """What is put around a model; plain, so that it can be sent and be part of a key.

    `inputs` maps inputs that are replaced to those that stand in their place: name, dtype, sizes as
    `Model.reshape` takes them (None: of any rank). `outputs` names those whose tensors are now made
    by `back`. Of both, the model's own tensors are `renamed`, (before, after), so that the new ones
    have the names that users know.
    """

    inputs: tuple[tuple[str, tuple[NewInput, ...]], ...]
    outputs: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    front: tuple[bytes, ...]
    back: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        """Names the content, for keys."""
        return sha256(repr(tuple(self)).encode()).hexdigest()


class Writer:
    """Writes nodes and knows the types of their results; their names begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[bytes] = []
        self._prefix = prefix
        self._graph = Graph(prefix)
        self._builder = NodeBuilder(self._graph, {})

    def tensor(self, name: str, dtype: str, shape: Shape | None) -> Value:
        """A tensor that is given."""
        value = self._builder.scope[name] = Value(name, dtype, shape)
        return value

    def emit(self, op: str, *inputs: Value | Array, into: str = "", **attrs: Any) -> Value:
        """One node; its result, named `into` where that is given.

        Raises `ShapeError` where the operands do not fit.
        """
        from onnx import helper

        names = [v.name if isinstance(v, Value) else self._constant(v) for v in inputs]
        name = self._fresh(op)
        return self._add(helper.make_node(op, names, [into or name], name, **attrs))

    def include(self, given: GraphProto | ModelProto, value: Value) -> Value:
        """The nodes of a graph of one input and one output, applied to a tensor.

        Raises `InputError` for another graph, or for what is none.
        """
        from onnx import numpy_helper
        from onnx.compose import add_prefix_graph

        graph = _graph(given)
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [info.name for info in graph.input if info.name not in constants]
        if len(inputs) != 1 or len(graph.output) != 1 or graph.sparse_initializer:
            raise InputError(
                f"a graph of one input and one output expected, found {len(inputs)} and "
                f"{len(graph.output)}"
            )
        prefix = self._fresh("custom") + "/"
        inner = add_prefix_graph(graph, prefix)
        self.emit("Identity", value, into=prefix + inputs[0])
        for tensor in inner.initializer:
            self._constant(numpy_helper.to_array(tensor), tensor.name)
        for node in inner.node:
            self._add(node)
        return self._builder.scope[inner.output[0].name]

    def _constant(self, content: Array, name: str = "") -> str:
        from onnx import helper, numpy_helper

        name = name or self._fresh("Constant")
        tensor = numpy_helper.from_array(np.asarray(content))
        self._add(helper.make_node("Constant", [], [name], name, value=tensor))
        return name

    def _add(self, node: NodeProto) -> Value:
        made = self._builder.add(node, {"": OPSET})
        if made is not None:
            typed(self._graph, [made])
        self.nodes.append(node.SerializeToString(deterministic=True))
        return self._builder.scope[node.output[0]]

    def _fresh(self, op: str) -> str:
        return f"{self._prefix}/{op}_{len(self.nodes)}"


def _graph(given: Any) -> GraphProto:
    from onnx import GraphProto, ModelProto

    if isinstance(given, ModelProto):
        if given.functions:
            raise InputError("a model without functions of its own expected")
        return _of_opset(given, "this graph", newer=False).graph
    if not isinstance(given, GraphProto):
        raise InputError(f"an onnx GraphProto or ModelProto expected, found {type(given).__name__}")
    return given


def attach(graph: Graph, fragment: Fragment, made: Mapping[str, Value]) -> None:
    """Puts a fragment around a graph, `made` being its inputs; types are inferred anew.

    Raises `InputError` where it is for another graph, `ShapeError` where sizes do not fit.
    """
    renamed = dict(fragment.renamed)
    own = {value.name: value for value in graph.values() if value.name in renamed}
    for name, after in renamed.items():
        if name not in own:
            raise InputError(f"the model has no tensor {name!r}")
        own[name].name = after
        if name in graph.declared:
            graph.declared[after] = graph.declared.pop(name)
    scope = {value.name: value for value in own.values()}
    replaced = {renamed[name]: [made[new[0]] for new in news] for name, news in fragment.inputs}
    first = graph.nodes[0] if graph.nodes else None
    before = {value.name: value for value in graph.inputs if value.name in replaced}
    graph.inputs = [new for value in graph.inputs for new in replaced.get(value.name, [value])]
    typed(graph, _added(graph, fragment.front, dict(made), before, first))
    infer(graph)
    typed(graph, _added(graph, fragment.back, scope, {}, None))
    for index, name in enumerate(graph.output_names):
        if name in fragment.outputs:
            graph.outputs[index] = scope[name]
        else:  # an input may be an output too
            graph.output_names[index] = renamed.get(name, name)


def _added(
    graph: Graph,
    nodes: Iterable[bytes],
    scope: dict[str, Value],
    results: Mapping[str, Value],
    before: Node | None,
) -> list[Node]:
    builder = NodeBuilder(graph, scope, results=results, before=before)
    made = [builder.add(node, {"": OPSET}) for node in _parsed(nodes)]
    return [node for node in made if node is not None]


def _parsed(nodes: Iterable[bytes]) -> list[NodeProto]:
    from onnx import NodeProto

    return [NodeProto.FromString(node) for node in nodes]


# -- in files --------------------------------------------------------------------------------------


def merge(proto: ModelProto, fragment: Fragment) -> ModelProto:
    """A model's file with a fragment around its graph; types of its new inputs have no shape.

    Raises `ModelError` where its operator set is older than the fragment's, and stays so.
    """
    from onnx import helper

    proto = _of_opset(proto, "the model")
    graph = proto.graph
    _rename(graph, dict(fragment.renamed))
    after = dict(fragment.renamed)
    replaced = {
        after[name]: [helper.make_tensor_value_info(n, BY_NAME[d].onnx, None) for n, d, _ in news]
        for name, news in fragment.inputs
    }
    infos = [new for info in graph.input for new in replaced.get(info.name, [info])]
    front, back = _parsed(fragment.front), _parsed(fragment.back)
    known = {entry.domain for entry in proto.opset_import} | {"", "ai.onnx"}
    for domain in sorted({node.domain for node in (*front, *back)} - known):
        proto.opset_import.append(helper.make_opsetid(domain, newest_version(domain)))
    nodes = [*front, *graph.node, *back]
    made = {after[name]: name for name in fragment.outputs}
    for output in graph.output:
        output.name = made.get(output.name, output.name)
    for field, content in (("input", infos), ("node", nodes)):
        graph.ClearField(field)
        getattr(graph, field).extend(content)
    return proto


def _of_opset(proto: ModelProto, what: str, newer: bool = True) -> ModelProto:
    """The model for the nodes' operator set, or as it is where it is `newer` and may be."""
    from onnx import version_converter

    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version == OPSET or (newer and version > OPSET):
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as error:  # onnx's own, of several kinds
        raise ModelError(
            f"clinfer.preprocess makes nodes of operator set {OPSET}; {what} is of {version}, and "
            f"onnx cannot convert it ({first_line(error)}): export it for operator set {OPSET}"
        ) from error


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Gives tensors other names wherever a graph and the graphs in it speak of them."""
    sparse = (tensor.values for tensor in graph.sparse_initializer)
    infos = (*graph.input, *graph.output, *graph.value_info)
    for item in (*infos, *graph.initializer, *sparse):
        item.name = names.get(item.name, item.name)
    for node in graph.node:
        for field in (node.input, node.output):
            _replace(field, names)
        for inner in subgraphs(node):
            _rename(inner, names)


def _replace(field: Any, names: Mapping[str, str]) -> None:
    found: Sequence[str] = [names.get(name, name) for name in field]
    if list(field) != found:
        del field[:]
        field.extend(found)
