"""What a model's file says of its inputs and outputs, word for word, without reading its nodes.

`Model` and compiled models have ports: dimensions without a usable name are None there, and a
sequence is just a sequence. Here stands what is written in the file, for `clinfer.ort`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.dtypes import BY_ONNX
from clinfer.errors import ModelError, UnsupportedError
from clinfer.graph.opening import open_model

if TYPE_CHECKING:
    from onnx import ModelProto, TypeProto, ValueInfoProto

    from clinfer.sizes import PortShape

_OVERRIDES_FROM = 4
"""The version of the file format from which an initialiser that is listed as an input is only that
input's default."""

_ONNX_NAMES = {"float32": "float", "float64": "double"}


class Argument(NamedTuple):
    """An input or output: `type` as 'tensor(float)', '' where the file has none.

    `shape` has sizes, names and None; it is None where there is no rank. `denotations` has the
    meaning of each dimension ('DATA_BATCH'), mostly ''.
    """

    name: str
    type: str
    shape: PortShape | None
    denotations: tuple[str, ...] = ()


class Signature(NamedTuple):
    """`overridable` are initialisers that are listed as inputs: a run may give other values."""

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    overridable: tuple[Argument, ...]
    texts: Mapping[str, str]
    version: int
    custom: Mapping[str, str]


class SignedModel:
    """A model as a path or bytes, opened now and parsed when something of it is asked for.

    Raises `ModelError` where it cannot be opened, later where it is no ONNX model.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self.source = source
        self._opened = open_model(source)

    @property
    def head(self) -> bytes:
        """The first bytes of the file."""
        return self._opened.content[:16].tobytes()

    @cached_property
    def signature(self) -> Signature:
        """What the file says."""
        from clinfer.graph.reader import parsed

        return _signature(parsed(self._opened)[0])

    def with_values(self, values: Mapping[str, Any]) -> bytes:
        """The model with other values of initialisers. Raises `ModelError` for unknown names."""
        from onnx import numpy_helper

        proto = self._whole(values)
        for tensor in proto.graph.initializer:
            if tensor.name in values:
                tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
        return _encoded(proto)

    def with_inputs(self, names: Mapping[str, Any]) -> bytes:
        """The model with initialisers that are listed as inputs being nothing but inputs."""
        proto = self._whole(names)
        kept = [tensor for tensor in proto.graph.initializer if tensor.name not in names]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
        return _encoded(proto)

    def _whole(self, names: Mapping[str, Any]) -> ModelProto:
        """The model with all its tensors."""
        import onnx

        origin = self._opened.origin
        if isinstance(origin, Path):
            proto = onnx.load(origin)
        else:
            proto = onnx.load_from_string(origin)
        known = {tensor.name for tensor in proto.graph.initializer}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ModelError(f"{self._opened.label}: there is no initialiser named '{unknown[0]}'")
        return proto


def _encoded(proto: ModelProto) -> bytes:
    from google.protobuf.message import EncodeError

    try:
        return bytes(proto.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise UnsupportedError(
            "a model of 2 GB or more cannot be given other initialisers: change its file"
        ) from error


def _signature(proto: ModelProto) -> Signature:
    graph = proto.graph
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {sparse.values.name for sparse in graph.sparse_initializer}
    given = [_argument(info) for info in graph.input]
    may_override = proto.ir_version >= _OVERRIDES_FROM
    return Signature(
        tuple(a for a in given if a.name not in constant),
        tuple(_argument(info) for info in graph.output),
        tuple(a for a in given if may_override and a.name in constant),
        {
            "description": proto.doc_string,
            "domain": proto.domain,
            "graph_description": graph.doc_string,
            "graph_name": graph.name,
            "producer_name": proto.producer_name,
        },
        proto.model_version,
        {entry.key: entry.value for entry in proto.metadata_props},
    )


def _argument(info: ValueInfoProto) -> Argument:
    tensor: Any = _tensor(info.type)
    if tensor is None or not tensor.HasField("shape"):
        return Argument(info.name, _type(info.type), None)
    dims = tensor.shape.dim
    return Argument(
        info.name,
        _type(info.type),
        tuple(_dimension(dim) for dim in dims),
        tuple(dim.denotation for dim in dims),
    )


def _tensor(proto: TypeProto) -> Any:
    """The tensor in a type that is one, or that is an optional one."""
    kind = proto.WhichOneof("value")
    if kind == "optional_type":
        return _tensor(proto.optional_type.elem_type)
    return getattr(proto, kind) if kind in ("tensor_type", "sparse_tensor_type") else None


def _dimension(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return str(dim.dim_param) or None


def _type(proto: TypeProto) -> str:
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return tensor_type(proto.tensor_type.elem_type)
    if kind == "sparse_tensor_type":
        return f"sparse_{tensor_type(proto.sparse_tensor_type.elem_type)}"
    if kind == "sequence_type":
        return f"seq({_type(proto.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({_type(proto.optional_type.elem_type)})"
    if kind == "map_type":
        key = _element(proto.map_type.key_type)
        return f"map({key},{_type(proto.map_type.value_type)})"
    return ""


def tensor_type(number: int) -> str:
    """A tensor's type in ONNX's words, 'tensor(float)', from its element type's number."""
    return f"tensor({_element(number)})"


def _element(number: int) -> str:
    entry = BY_ONNX.get(number)
    if entry is None:
        return "undefined"
    return _ONNX_NAMES.get(entry.name, entry.name.replace("float8_", "float8"))
