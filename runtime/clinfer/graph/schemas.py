"""What the installed onnx knows about an operator: schema, attribute kinds, function body, types.

Part of the reader; imports onnx inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.dtypes import BY_NAME
from clinfer.errors import ModelError, UnsupportedError
from clinfer.graph.ir import Array, Node, Value
from clinfer.graph.protos import captured_names, value_type

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto

OLDEST_OPSET = 6
_CONTENT_LIMIT = 4096  # elements of a constant that type inference may want to read


@lru_cache(maxsize=1)
def newest_opset() -> int:
    """The newest version of ONNX's own operator set that the installed onnx knows."""
    from onnx import defs

    return int(defs.onnx_opset_version())


@cache
def schema(domain: str, op: str, version: int) -> Any | None:
    """The operator's schema in force at `version` of its domain; None where there is none."""
    from onnx import defs

    try:
        return defs.get_schema(op, version, "" if domain == "ai.onnx" else domain)
    except Exception:  # onnx's SchemaError is not importable from a stable place
        return None


@lru_cache(maxsize=1)
def known_domains() -> frozenset[str]:
    """The operator domains of the installed onnx."""
    from onnx import defs

    return frozenset(s.domain for s in defs.get_all_schemas())


@dataclass(frozen=True)
class Signature:
    """How many inputs and outputs an operator takes, and which attributes it must have."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    required: frozenset[str]


@cache
def signature(domain: str, op: str, version: int) -> Signature | None:
    """The operator's signature; None where ONNX has no such operator."""
    known = schema(domain, op, version)
    if known is None:
        return None
    required = frozenset(name for name, a in known.attributes.items() if a.required)
    inputs, outputs = (known.min_input, known.max_input), (known.min_output, known.max_output)
    return Signature(inputs, outputs, required)


def check_node(proto: NodeProto, domain: str, version: int, where: str) -> None:
    """`ModelError` for an unknown operator, or one with inputs or attributes missing."""
    known = signature(domain, proto.op_type, version)
    if known is None:
        raise _unknown(domain, proto.op_type, version, where)
    lists = ((proto.input, known.inputs, "inputs"), (proto.output, known.outputs, "outputs"))
    for names, (least, most), what in lists:
        if not least <= len(names) <= most:
            raise ModelError(f"{where}: {least} to {most} {what} expected, found {len(names)}")
    missing = known.required - {a.name for a in proto.attribute}
    if missing:
        raise ModelError(f"{where}: it must have the attribute '{min(missing)}'")


def _unknown(domain: str, op: str, version: int, where: str) -> ModelError:
    if domain not in known_domains():
        return ModelError(
            f"{where}: operator '{op}' of the custom domain '{domain}' is not known and the model "
            "carries no function of that name; export the model with standard ONNX operators"
        )
    newest = schema(domain, op, newest_opset())
    hint = (
        f"it exists from version {newest.since_version} of the operator set on"
        if newest is not None
        else "ONNX has no such operator"
    )
    name = domain or "ai.onnx"
    return ModelError(
        f"{where}: operator '{op}' is not in version {version} of the operator set '{name}', which "
        f"the model imports; {hint}: export the model again, or install a newer onnx"
    )


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

    known = schema(node.domain, node.op, node.version or opset)
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
