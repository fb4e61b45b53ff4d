"""ONNX file, bytes or ModelProto -> `Model`.

Every operator of opset 7 (6 where it differs only in ways `upgrade` knows) to the newest of the
installed onnx is accepted. Calls of the model's own functions are written out, initialisers become
constants even where they are also listed as inputs, old forms of operators become new ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.errors import ModelError
from clinfer.graph.build import NodeBuilder, describe
from clinfer.graph.cutting import cut
from clinfer.graph.functions import Inliner
from clinfer.graph.ir import MOST_ELEMENTS, Declared, Graph, Shape, Value
from clinfer.graph.model import Model
from clinfer.graph.opening import Opened, Source, open_model
from clinfer.graph.opsets import Opsets, domain_of, imports
from clinfer.graph.protos import (
    ExternalData,
    captured_names,
    check_texts,
    sparse_array,
    tensor_array,
    value_type,
)
from clinfer.graph.schemas import OLDEST_OPSET, is_known, newest_opset, newest_version, schema
from clinfer.graph.upgrade import typed
from clinfer.log import Log
from clinfer.sizes import PortShape
from clinfer_kernels.dims import Dim, sym

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto, ValueInfoProto

    from clinfer.operators.extensions import Extensions

_LOG = Log(__name__)


def read(source: Source, extensions: Extensions | None = None) -> Model:
    """Reads and checks a model; `source` is a path, a model's bytes or an `onnx.ModelProto`.

    `extensions` are operators and functions that the program adds to ONNX's.
    Raises `ModelError` for what is not a readable ONNX model (the message names the file, and the
    node where there is one) and `ShapeError` where its shapes contradict each other.
    """
    opened = open_model(source)
    proto, external = parsed(opened)
    try:
        return _Reader(proto, external, extensions).model(opened.origin)
    except ModelError as error:
        raise ModelError(f"{opened.label}: {error}") from error
    except MemoryError:
        raise ModelError(f"{opened.label}: reading it takes more memory than there is") from None


def parsed(opened: Opened) -> tuple[ModelProto, ExternalData]:
    """A model's structure, and the contents of its tensors, which `graph.cutting` has taken out.

    Raises `ModelError` for what is no ONNX model.
    """
    origin, label, content, file = opened
    _refuse_ir(content, label)
    structure = cut(content)
    proto = _parse(structure.encoded, label, len(content))
    folder = origin.parent if isinstance(origin, Path) else None
    return proto, ExternalData(folder, file, structure.contents)


def _parse(data: bytes, label: str, size: int) -> ModelProto:
    """The model's structure; `size` is that of the whole model in bytes, for messages."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    if not data:
        raise ModelError(f"{label}: the file is empty; expected an ONNX model")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        if data[:100].lstrip().startswith((b"<?xml", b"<net")):
            raise ModelError(
                f"{label}: this is OpenVINO's own format; give the ONNX model it was made from"
            ) from error
        raise ModelError(
            f"{label}: not an ONNX model, or a truncated one: its {size} bytes are no "
            "complete protocol buffer; export or download it again"
        ) from error
    if not proto.HasField("graph") or not (proto.opset_import or proto.ir_version):
        raise ModelError(f"{label}: not an ONNX model: it has no graph and no operator-set version")
    return proto


def _refuse_ir(content: Any, label: str) -> None:
    """Raises `ModelError` for OpenVINO's own format, which is no protocol buffer."""
    if bytes(content[:64]).lstrip().startswith((b"<?xml", b"<net")):
        raise ModelError(
            f"{label}: this is a model in OpenVINO's IR (.xml and .bin), and clinfer reads ONNX: "
            "convert the model that it was made of, with torch.onnx.export, tf2onnx or optimum"
        )


class _Reader:
    """The state of one reading: the graph being built and what names stand for."""

    def __init__(
        self, proto: ModelProto, external: ExternalData, extensions: Extensions | None
    ) -> None:
        self._proto = proto
        self._extensions = extensions
        self._external = external
        self._opsets = imports(proto.opset_import) or {"": 1}
        custom = None if extensions is None else extensions.operators
        self._graph = Graph(proto.graph.name or "model", opsets=dict(self._opsets), custom=custom)
        self._builder = NodeBuilder(self._graph, {}, external=external)
        self._unnamed: set[str] = set()

    def model(self, origin: Path | bytes) -> Model:
        """The finished model."""
        check_texts(self._proto)
        self._graph.metadata = _metadata(self._proto)
        if not self._proto.graph.output:
            raise ModelError("the graph has no outputs, so there is nothing to compute")
        self._check_opsets()
        self._constants()
        for info in self._proto.graph.input:
            self._input(info)
        functions = [*self._added_functions(), *self._proto.functions]
        calls = Inliner(functions).calls(self._proto.graph.node, self._opsets)
        for call, opsets in _in_order(list(calls)):
            self._builder.add(call, opsets)
        infos = (*self._proto.graph.value_info, *self._proto.graph.output)
        self._graph.declared = {v.name: Declared(*value_type(v.type)) for v in infos}
        declared = {info.name: self._output(info) for info in self._proto.graph.output}
        typed(self._graph, list(self._graph.nodes))
        _warn_of_declared(self._graph)
        files = tuple(self._external.files)
        unnamed = frozenset(self._unnamed)
        return Model(
            self._graph,
            origin,
            files,
            declared,
            unnamed,
            _external=self._external,
            extensions=self._extensions,
        )

    def _added_functions(self) -> list[FunctionProto]:
        """The functions that the program has added; a model's own of the same name count more."""
        if self._extensions is None:
            return []
        from onnx import FunctionProto

        return [FunctionProto.FromString(data) for data in self._extensions.functions]

    def _check_opsets(self) -> None:
        from onnx import IR_VERSION

        if self._proto.ir_version > IR_VERSION:
            raise ModelError(
                f"version {self._proto.ir_version} of the file format is newer than the installed "
                f"onnx knows: expected 1 to {IR_VERSION}; install a newer onnx, or save the model "
                f"with ir_version {IR_VERSION}"
            )
        version = self._opsets.get("")
        if version is not None and version < OLDEST_OPSET:
            for node in self._proto.graph.node:
                self._check_unchanged(node, version, newest_opset())
        for imported in (self._opsets, *(imports(f.opset_import) for f in self._proto.functions)):
            for domain in sorted(filter(is_known, imported)):
                self._check_known(domain, imported[domain])

    def _check_known(self, domain: str, version: int) -> None:
        newest = newest_version(domain)
        if version > newest:
            oldest = 1 if domain else 7
            raise ModelError(
                f"version {version} of the operator set '{domain or 'ai.onnx'}' is newer than "
                f"what is known here: expected {oldest} to {newest}; install a newer onnx or "
                f"clinfer, or export for version {newest}"
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
        if math.prod(d or 1 for d in dims if isinstance(d, int)) > MOST_ELEMENTS:
            raise ModelError(
                f"input '{name}': at most {MOST_ELEMENTS} elements expected, of {dims}"
            )
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


def _warn_of_declared(graph: Graph) -> None:
    """Says where the file states another type of a value than its node gives; the latter counts."""
    wrong = [
        f"'{value.name}' is declared as {_declared_text(graph.declared[value.name])}, but is "
        f"{value.dtype}[{', '.join(map(str, value.shape or ()))}]"
        for node in graph.nodes
        for value in node.outputs
        if value is not None and _contradicts(value, graph.declared.get(value.name))
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        _LOG.warning("%s: %s%s; the declaration is ignored", graph.name, wrong[0], more)


def _contradicts(value: Value, declared: Declared | None) -> bool:
    """Whether both say something, and not the same."""
    if declared is None or value.shape is None or declared.shape is None:
        return False
    pairs = zip(value.shape, declared.shape, strict=False)
    known = [(a, b) for a, b in pairs if isinstance(a, int) and isinstance(b, int)]
    return (
        declared.dtype not in (None, value.dtype)
        or len(declared.shape) != len(value.shape)
        or any(a != b for a, b in known)
    )


def _declared_text(declared: Declared) -> str:
    sizes = ("?" if d is None else str(d) for d in declared.shape or ())
    return f"{declared.dtype}[{', '.join(sizes)}]"


Call = tuple["NodeProto", Opsets]


def _in_order(calls: Sequence[Call]) -> list[Call]:
    """The nodes so that each comes after those it reads, else in the order of the file.

    Almost every file has them in such an order already.
    """
    makers = {name: number for number, (node, _) in enumerate(calls) for name in node.output}
    makers.pop("", None)
    readers: dict[int, list[int]] = {}
    waits = [0] * len(calls)
    for number, (node, _) in enumerate(calls):
        needed = {makers[name] for name in (*node.input, *captured_names(node)) if name in makers}
        waits[number] = len(needed)
        for maker in needed:
            readers.setdefault(maker, []).append(number)
    ready = [number for number, count in enumerate(waits) if not count]  # sorted: a heap
    ordered: list[Call] = []
    while ready:
        number = heappop(ready)
        ordered.append(calls[number])
        for reader in readers.get(number, ()):
            waits[reader] -= 1
            if not waits[reader]:
                heappush(ready, reader)
    if len(ordered) < len(calls):
        waiting = [node for (node, _), count in zip(calls, waits, strict=True) if count]
        names = ", ".join(describe(node) for node in waiting[:5])
        raise ModelError(f"the graph has a cycle: each of {names} waits for another one's result")
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
