"""ONNX file, bytes or ModelProto -> `Model`.

Every operator of opset 7 (6 where it differs only in ways `upgrade` knows) to the newest of the
installed onnx is accepted. Calls of the model's own functions are written out, initialisers become
constants even where they are also listed as inputs, old forms of operators become new ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from clinfer.errors import ModelError
from clinfer.graph.build import NodeBuilder, describe
from clinfer.graph.cutting import cut
from clinfer.graph.functions import Inliner, Opsets, domain_of, imports
from clinfer.graph.ir import Array, Declared, Graph, Shape, Value
from clinfer.graph.model import Model
from clinfer.graph.protos import (
    ExternalData,
    captured_names,
    sparse_array,
    tensor_array,
    value_type,
)
from clinfer.graph.schemas import OLDEST_OPSET, newest_opset, schema
from clinfer.graph.upgrade import typed
from clinfer.mapping import MappedFile
from clinfer.ports import PortShape
from clinfer_kernels.dims import Dim, sym

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

Source = Union[str, "os.PathLike[str]", bytes, "ModelProto"]


def read(source: Source) -> Model:
    """Reads and checks a model; `source` is a path, a model's bytes or an `onnx.ModelProto`.

    Raises `ModelError` for what is not a readable ONNX model (the message names the file, and the
    node where there is one) and `ShapeError` where its shapes contradict each other.
    """
    origin, label, content, file = _load(source)
    structure = cut(content)
    proto = _parse(structure.encoded, label, len(content))
    folder = origin.parent if isinstance(origin, Path) else None
    try:
        return _Reader(proto, ExternalData(folder, file, structure.contents)).model(origin)
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from error
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        # Damaged bytes can still be a protocol buffer, of names that are no text and odd numbers.
        raise ModelError(f"{label}: the model is damaged ({error}); get it anew") from error


def _load(source: Source) -> tuple[Path | bytes, str, Array, MappedFile | None]:
    """Where the model comes from, its name for messages, its bytes, and its file if it has one."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        file = _file(path)
        return path, f"'{path}'", file.content, file
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return data, f"the model's {len(data)} bytes", _array(data), None
    from onnx import ModelProto

    if not isinstance(source, ModelProto):
        raise ModelError(
            f"a path, bytes or an onnx.ModelProto expected, found {type(source).__name__}"
        )
    data = source.SerializeToString(deterministic=True)
    return data, "the ModelProto", _array(data), None


def _file(path: Path) -> MappedFile:
    try:
        if path.is_dir():
            raise ModelError(f"'{path}' is a folder; expected an ONNX file")
        if path.exists() and not path.is_file():
            raise ModelError(f"'{path}' is a pipe or a device; expected an ONNX file, or its bytes")
        return MappedFile(path)
    except FileNotFoundError:
        raise ModelError(f"'{path}' does not exist (looked in {Path.cwd()})") from None
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{str(path)!r} cannot be the name of a file: {error}") from None


def _array(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)


def _parse(data: bytes, label: str, size: int) -> ModelProto:
    """The model's structure; `size` is that of the whole model in bytes, for messages."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    if not data:
        raise ModelError(f"{label}: the file is empty; expected an ONNX model")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{label}: not an ONNX model, or a truncated one: its {size} bytes are no "
            "complete protocol buffer; export or download it again"
        ) from error
    if not proto.HasField("graph") or not (proto.opset_import or proto.ir_version):
        raise ModelError(f"{label}: not an ONNX model: it has no graph and no operator-set version")
    return proto


class _Reader:
    """The state of one reading: the graph being built and what names stand for."""

    def __init__(self, proto: ModelProto, external: ExternalData) -> None:
        self._proto = proto
        self._external = external
        self._opsets = imports(proto.opset_import) or {"": 1}
        self._graph = Graph(proto.graph.name or "model", opsets=dict(self._opsets))
        self._builder = NodeBuilder(self._graph, {}, external=external)
        self._unnamed: set[str] = set()

    def model(self, origin: Path | bytes) -> Model:
        """The finished model."""
        self._graph.metadata = _metadata(self._proto)
        if not self._proto.graph.output:
            raise ModelError("the graph has no outputs, so there is nothing to compute")
        self._check_opsets()
        self._constants()
        for info in self._proto.graph.input:
            self._input(info)
        calls = Inliner(self._proto.functions).calls(self._proto.graph.node, self._opsets)
        for call, opsets in _in_order(list(calls), self._builder.scope):
            self._builder.add(call, opsets)
        infos = (*self._proto.graph.value_info, *self._proto.graph.output)
        self._graph.declared = {v.name: Declared(*value_type(v.type)) for v in infos}
        declared = {info.name: self._output(info) for info in self._proto.graph.output}
        typed(self._graph, list(self._graph.nodes))
        files = tuple(self._external.files)
        unnamed = frozenset(self._unnamed)
        return Model(self._graph, origin, files, declared, unnamed, _external=self._external)

    def _check_opsets(self) -> None:
        version = self._opsets.get("")
        newest = newest_opset()
        if version is None:
            return
        if version < OLDEST_OPSET:
            for node in self._proto.graph.node:
                self._check_unchanged(node, version, newest)
        if version > newest:
            raise ModelError(
                f"operator set {version} is newer than the installed onnx knows: expected 7 to "
                f"{newest}; install a newer onnx, or export for operator set {newest}"
            )

    def _check_unchanged(self, node: NodeProto, version: int, newest: int) -> None:
        """Of very old operator sets only what has not changed since is accepted."""
        if domain_of(node.domain):
            return
        then, later = (schema("", node.op_type, v) for v in (version, OLDEST_OPSET))
        if then is None or later is None or then.since_version != later.since_version:
            raise ModelError(
                f"{describe(node)}: operator set {version} is too old: expected 7 to {newest}; "
                "convert the model with onnx.version_converter, or export it again"
            )

    def _constants(self) -> None:
        graph = self._proto.graph
        external = self._external
        arrays: list[tuple[str, Any]] = [
            *((tensor.name, tensor_array(tensor, external)) for tensor in graph.initializer),
            *((s.values.name, sparse_array(s, external)) for s in graph.sparse_initializer),
        ]
        for name, array in arrays:
            if name in self._builder.scope:
                raise ModelError(f"two initialisers are named '{name}'")
            dtype = "string" if array.dtype == object else array.dtype.name
            value = Value(name, dtype, tuple(array.shape), const=array)
            self._builder.scope[name] = value

    def _input(self, info: ValueInfoProto) -> None:
        scope = self._builder.scope
        if info.name in scope:
            if scope[info.name].const is not None:
                return
            raise ModelError(f"two inputs are named '{info.name}'")
        dtype, dims = value_type(info.type)
        if dtype is None:
            raise ModelError(
                f"input '{info.name}': a tensor, sequence or optional of a known element type "
                "expected"
            )
        shape = None if dims is None else self._input_shape(info.name, dims)
        value = Value(info.name, dtype, shape)
        if info.type.WhichOneof("value") != "tensor_type":
            value.type_proto = info.type.SerializeToString()
        scope[info.name] = value
        self._graph.inputs.append(value)

    def _input_shape(self, name: str, dims: PortShape) -> Shape:
        made: list[Dim] = []
        for axis, dim in enumerate(dims):
            if isinstance(dim, int):
                made.append(dim)
                continue
            if dim is None:
                dim = f"{name}.{axis}"
                self._unnamed.add(dim)
            made.append(sym(dim))
        return tuple(made)

    def _output(self, info: ValueInfoProto) -> PortShape | None:
        value = self._builder.scope.get(info.name)
        if value is None:
            raise ModelError(f"output '{info.name}' is defined by no node, input or constant")
        self._graph.outputs.append(value)
        self._graph.output_names.append(info.name)
        return value_type(info.type)[1]


Call = tuple["NodeProto", Opsets]


def _in_order(calls: Sequence[Call], scope: Iterable[str]) -> list[Call]:
    """The nodes so that each comes after those it reads; almost every file has them so already."""
    known = {"", *scope}
    ordered: list[Call] = []
    defined = {name for node, _ in calls for name in node.output}
    waiting = list(calls)
    while waiting:
        left: list[Call] = []
        for node, opsets in waiting:
            needed = [n for n in (*node.input, *captured_names(node)) if n in defined]
            if all(n in known for n in needed):
                ordered.append((node, opsets))
                known.update(node.output)
            else:
                left.append((node, opsets))
        if len(left) == len(waiting):
            names = ", ".join(describe(node) for node, _ in left[:5])
            raise ModelError(
                f"the graph has a cycle: each of {names} waits for another one's result"
            )
        waiting = left
    return ordered


def _metadata(proto: ModelProto) -> dict[str, str]:
    known = {
        "producer_name": proto.producer_name,
        "producer_version": proto.producer_version,
        "domain": proto.domain,
        "model_version": str(proto.model_version or ""),
        "description": proto.doc_string,
    }
    known.update((entry.key, entry.value) for entry in proto.metadata_props)
    return {key: text for key, text in known.items() if text}
