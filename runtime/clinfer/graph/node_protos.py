"""Nodes as onnx takes them, to infer types and to read the bodies of functions.

Part of the reader; imports onnx inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.dtypes import BY_NAME
from clinfer.errors import UnsupportedError
from clinfer.graph.ir import Array, Node, Value
from clinfer.graph.protos import captured_names, subgraphs, value_type
from clinfer.graph.schemas import newest_opset, schema

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto


_CONTENT_LIMIT = 4096  # elements of a constant that type inference may want to read


def input_names(node: Node) -> tuple[list[str], list[str]]:
    """Names for a node's own inputs ('' where absent), and for those its subgraphs capture.

    Where there are subgraphs, both are the names that these use.
    """
    count = len(node.inputs) - node.captures
    own = [f"i{number}" for number in range(count)]
    captured: list[str] = []
    if node.proto is not None:
        original = encoded(node.proto)
        own = list(original.input)[:count]
        captured = captured_names(original)
    present = zip(own, node.inputs, strict=False)
    return ["" if value is None else name for name, value in present], captured


def outer_places(node: Node, proto: NodeProto) -> dict[str, int]:
    """The node's input by each name that its subgraphs may read from outside."""
    own = len(node.inputs) - node.captures
    places = {name: own + n for n, name in enumerate(captured_names(proto))}
    places.update((name, n) for n, name in enumerate(proto.input) if name and n < own)
    return places


def kinds_inside(node: Node) -> set[str]:
    """The kinds of the nodes in a node's subgraphs, whatever lies in what."""
    found: set[str] = set()
    waiting = [] if node.proto is None else [*subgraphs(encoded(node.proto))]
    while waiting:
        for inner in waiting.pop().node:
            found.add(f"{inner.domain}.{inner.op_type}" if inner.domain else inner.op_type)
            waiting += subgraphs(inner)
    return found


def encoded(data: bytes) -> NodeProto:
    """The node that these bytes encode."""
    from onnx import NodeProto

    proto: NodeProto = NodeProto.FromString(data)
    return proto


def to_proto(node: Node, names: Sequence[str], outputs: Sequence[str]) -> NodeProto:
    """The node in ONNX's encoding with the given value names ('' where absent)."""
    from onnx import NodeProto

    proto = NodeProto()
    if node.proto is not None:
        proto.ParseFromString(node.proto)
        kept = [a for a in proto.attribute if a.name not in node.attrs]
        del proto.attribute[:]
        proto.attribute.extend(kept)
    proto.op_type = node.op
    proto.domain = node.domain
    proto.name = node.name
    proto.input[:] = names
    proto.output[:] = outputs
    proto.attribute.extend(_attributes(node))
    return proto


def _attributes(node: Node) -> Iterable[Any]:
    from onnx import AttributeProto, helper, numpy_helper

    known = schema(node.domain, node.op, node.version or newest_opset())
    for name, value in node.attrs.items():
        declared = known.attributes.get(name) if known is not None else None
        kind = None if declared is None else int(declared.type.value)
        if isinstance(value, np.ndarray):
            tensor = numpy_helper.from_array(value)
            yield AttributeProto(name=name, type=AttributeProto.TENSOR, t=tensor)
        else:
            yield helper.make_attribute(name, value, attr_type=kind)


def default_attributes(node: Node) -> list[AttributeProto]:
    """The attributes that the node leaves to their defaults."""
    known = schema(node.domain, node.op, node.version or newest_opset())
    if known is None:
        return []
    declared = known.attributes.items()
    absent = ((n, a.default_value) for n, a in declared if n not in node.attrs)
    return [default for _, default in absent if default.type]


def type_proto(value: Value, dims: Sequence[Any] | None = None) -> TypeProto:
    """A value's type in ONNX's encoding; `dims` are sizes or names, by default the static ones."""
    from onnx import TypeProto

    proto = TypeProto()
    if value.type_proto is not None:
        proto.ParseFromString(value.type_proto)
        return proto
    if value.dtype not in BY_NAME:
        return proto
    proto.tensor_type.elem_type = BY_NAME[value.dtype].onnx
    if dims is None and value.shape is not None:
        dims = [d if isinstance(d, int) else "" for d in value.shape]
    if dims is None:
        return proto
    proto.tensor_type.shape.SetInParent()
    for size in dims:
        dim = proto.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size:
            dim.dim_param = size
    return proto


def function_body(node: Node, opset: int) -> FunctionProto | None:
    """The operator's definition as a function of other operators, where ONNX has one.

    `opset` is the version of ONNX's operator set that the body should be written for. Definitions
    that depend on types are made for the types of the node's inputs.
    """
    from onnx import FunctionProto

    known = schema(node.domain, node.op, node.version or newest_opset())
    if known is None:
        return None
    if known.has_function:
        version = _nearest(known.function_opset_versions, opset)
        body = known.get_function_with_opset_version(version)
    elif known.has_context_dependent_function:
        version = _nearest(known.context_dependent_function_opset_versions, opset)
        proto = to_proto(node, _names(node.inputs, "i"), _names(node.outputs, "o"))
        types = [_function_input_type(v) for v in node.inputs]
        body = known.get_context_dependent_function_with_opset_version(
            version, proto.SerializeToString(), types
        )
    else:
        return None
    if not body:
        return None
    function = FunctionProto.FromString(body)
    return function if function.node else None


def _function_input_type(value: Value | None) -> bytes:
    from onnx import TypeProto

    proto = TypeProto() if value is None else type_proto(value)
    return bytes(proto.SerializeToString())


def _nearest(versions: Sequence[int], opset: int) -> int:
    older = [v for v in versions if v <= opset]
    return max(older) if older else min(versions)


def _names(values: Sequence[Value | None], prefix: str) -> list[str]:
    return ["" if v is None else f"{prefix}{i}" for i, v in enumerate(values)]


def infer_types(
    node: Node, opsets: Mapping[str, int], dims: Mapping[int, Sequence[Any]]
) -> list[tuple[str | None, tuple[int | str | None, ...] | None, bytes | None]]:
    """ONNX's own type inference: (dtype, dimensions, encoded type if no tensor) per output.

    `dims` gives the sizes or names of the dimensions of input number i. What ONNX cannot tell is
    None. `UnsupportedError` where it rejects the node.
    """
    from onnx import helper, numpy_helper, shape_inference

    known = schema(node.domain, node.op, node.version or newest_opset())
    nothing = [(None, None, None)] * len(node.outputs)
    if known is None:
        return list(nothing)
    own, captured = input_names(node)
    outputs = _names(node.outputs, "o")
    proto = to_proto(node, own, outputs)
    types: dict[str, TypeProto] = {}
    data: dict[str, Any] = {}
    for index, (name, value) in enumerate(zip([*own, *captured], node.inputs, strict=True)):
        if value is None:
            continue
        types[name] = type_proto(value, dims.get(index))
        if not _says_its_elements(types[name]):
            return list(nothing)
        if value.const is not None and _is_plain(value.const) and index < len(own):
            data[name] = numpy_helper.from_array(value.const)
    imports = {**opsets, node.domain: node.version or opsets.get(node.domain, 1)}
    try:
        found = shape_inference.infer_node_outputs(
            known,
            proto,
            types,
            data,
            opset_imports=[helper.make_opsetid(d, v) for d, v in imports.items()],
        )
    except Exception as error:  # onnx raises classes of its C++ extension
        raise UnsupportedError(
            f"{node.describe()}: ONNX's type inference refuses it: {_first_line(error)}"
        ) from error
    results: list[tuple[str | None, tuple[int | str | None, ...] | None, bytes | None]] = []
    for name in outputs:
        if name not in found:
            results.append((None, None, None))
            continue
        dtype, shape = value_type(found[name])
        tensor = found[name].HasField("tensor_type")
        results.append((dtype, shape, None if tensor else found[name].SerializeToString()))
    return results


def _says_its_elements(proto: TypeProto) -> bool:
    """Whether a type is known down to the element type of its tensors."""
    which = proto.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        return _says_its_elements(getattr(proto, which).elem_type)
    return which is not None and (which != "tensor_type" or proto.tensor_type.elem_type != 0)


def _is_plain(array: Array) -> bool:
    return array.size <= _CONTENT_LIMIT and array.dtype.kind in "iufb"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
