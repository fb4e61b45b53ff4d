"""ONNX's protocol buffers as plain Python: tensors, attributes, types, captured names.

Part of the reader: with `reader`, `schemas` and `reference` the only modules that know onnx, which
they import inside functions. Tensors stored outside the model file are memory-mapped, not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.dtypes import BY_ONNX, to_numpy
from clinfer.errors import ModelError
from clinfer.graph.ir import MOST_ELEMENTS, Array
from clinfer.mapping import MappedFile, is_absolute, open_beside
from clinfer.sizes import dimension_name

if TYPE_CHECKING:
    from onnx import (
        AttributeProto,
        GraphProto,
        ModelProto,
        NodeProto,
        SparseTensorProto,
        TensorProto,
        TypeProto,
    )

_EXTERNAL = 1  # TensorProto.EXTERNAL
_MOST_DIGITS = 20  # of an offset or a length
_PACKED = frozenset({"uint4", "int4", "float4_e2m1fn", "uint2", "int2"})


class ExternalData:
    """Tensor contents outside the protocol buffer: in files next to the model, or cut out of it.

    `folder` is None for a model that did not come from a file, `own` the model's own file, and
    `cut` holds what `graph.cutting` has cut out. Each file is mapped once.
    """

    def __init__(
        self,
        folder: Path | None,
        own: MappedFile | None = None,
        cut: Mapping[bytes, Array] | None = None,
    ) -> None:
        self._folder = folder
        self._own = own
        self._cut = cut or {}
        self._files: dict[Path, MappedFile] = {}

    @property
    def files(self) -> list[Path]:
        """The files beside the model that were read so far, in a fixed order."""
        return sorted(self._files)

    @property
    def contents(self) -> dict[Path | None, Array]:
        """The bytes of the files read so far, as they lie in memory; of the model's own by None."""
        own: dict[Path | None, Array] = {} if self._own is None else {None: self._own.content}
        return own | {path: file.content for path, file in self._files.items()}

    @property
    def changed(self) -> list[Path]:
        """The mapped files, the model's own among them, that have changed since."""
        own = [] if self._own is None else [self._own]
        return [file.path for file in (*own, *self._files.values()) if file.has_changed]

    def inside(self, tensor: TensorProto) -> Array | None:
        """The bytes of a tensor that were cut out of the model; None where they were not."""
        if not self._cut or not tensor.HasField("raw_data"):
            return None
        return self._cut.get(tensor.raw_data)

    def read(self, tensor: TensorProto, nbytes: int) -> Array:
        """The bytes of a tensor of `nbytes` in another file.

        Raises `ModelError` naming the tensor and the file.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = self._locate(tensor.name, entries.get("location", ""))
        content = self._file(tensor.name, path).content
        offset = _count(tensor.name, "offset", entries.get("offset", "0"))
        length = _count(tensor.name, "length", entries.get("length", str(nbytes)))
        if offset + length > len(content):
            raise ModelError(
                f"tensor '{tensor.name}': bytes {offset} to {offset + length} of the external data "
                f"file '{path}' expected, found {len(content)} bytes; the file is truncated or "
                "belongs to another model"
            )
        return content[offset : offset + length]

    def _locate(self, name: str, location: str) -> Path:
        if self._folder is None:
            raise ModelError(
                f"tensor '{name}': its data is in the external file '{location}', which a model "
                "given as bytes or as a ModelProto does not come with; give the path of the model"
            )
        if not location or is_absolute(location):
            raise ModelError(
                f"tensor '{name}': its external data is at '{location}'; expected a relative path "
                "inside the model's folder"
            )
        return self._folder / PurePosixPath(location.replace("\\", "/"))

    def _file(self, name: str, path: Path) -> MappedFile:
        """The file at `path` below the model's folder, as `clinfer.mapping` says."""
        if path not in self._files:
            assert self._folder is not None
            label = f"tensor '{name}': its external data file '{path}'"
            try:
                descriptor = open_beside(self._folder, str(path.relative_to(self._folder)))
                self._files[path] = MappedFile(path, descriptor)
            except FileNotFoundError:
                raise ModelError(f"{label} does not exist; copy it next to the model") from None
            except (OSError, ValueError) as error:  # ValueError: a null character in the name
                reason = getattr(error, "strerror", None) or str(error)
                raise ModelError(
                    f"{label} cannot be read: {reason}; expected a file inside the model's folder"
                ) from None
        return self._files[path]


def _count(name: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS):
        raise ModelError(
            f"tensor '{name}': a number of bytes expected as the {key} of its external data, found "
            f"{text[:40]!r}"
        )
    return int(text)


def tensor_array(tensor: TensorProto, external: ExternalData) -> Array:
    """The content of a tensor; strings become an object array of `str`."""
    from onnx import numpy_helper

    entry = BY_ONNX.get(tensor.data_type)
    if entry is None:
        raise ModelError(
            f"tensor '{tensor.name}': element type {tensor.data_type} is not one of ONNX's "
            f"{sorted(BY_ONNX)}"
        )
    shape = _sizes(tensor.name, tensor.dims)
    if tensor.data_location == _EXTERNAL and entry.name == "string":
        raise ModelError(f"tensor '{tensor.name}': texts cannot be external data")
    try:
        if tensor.data_location == _EXTERNAL:
            data = external.read(tensor, _nbytes(entry.name, shape))
            return _from_bytes(data, entry.name, shape)
        inside = external.inside(tensor)
        if inside is not None:
            return _from_bytes(inside, entry.name, shape)
        array = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"tensor '{tensor.name}': {entry.name}{list(shape)} expected, but its data has another "
            f"size ({error}); the file is damaged"
        ) from error
    if entry.name == "string":
        return np.array([_text(x) for x in array.ravel()], object).reshape(shape)
    return array


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """What a tensor takes in a file."""
    count = prod(shape)
    if dtype in _PACKED:
        return -(-count // (4 if dtype.endswith("int2") else 2))
    return count * to_numpy(dtype).itemsize


def _sizes(name: str, dims: Sequence[int]) -> tuple[int, ...]:
    """The shape that a file gives a tensor; `ModelError` where none can be like that."""
    if any(size < 0 for size in dims) or prod(size or 1 for size in dims) > MOST_ELEMENTS:
        raise ModelError(
            f"tensor '{name}': sizes of 0 or more, {MOST_ELEMENTS} elements at most, expected, "
            f"found {list(dims)[:8]}"
        )
    return tuple(dims)


def _from_bytes(data: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    if dtype in _PACKED:
        return _unpack(data, dtype, shape)
    typed: Array = data.view(to_numpy(dtype).newbyteorder("<")).reshape(shape)
    return typed


def _unpack(data: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """Elements of less than a byte, the first one in the lowest bits."""
    from onnx import TensorProto, numpy_helper

    number = next(n for n, entry in BY_ONNX.items() if entry.name == dtype)
    packed = TensorProto(data_type=number, dims=shape, raw_data=data.tobytes())
    return np.asarray(numpy_helper.to_array(packed))


def sparse_array(tensor: SparseTensorProto, external: ExternalData) -> Array:
    """A sparse tensor as a dense one. Indices are flat, or one row of coordinates per value."""
    values = tensor_array(tensor.values, external)
    indices = tensor_array(tensor.indices, external)
    name = tensor.values.name
    shape = _sizes(name, tensor.dims)
    try:
        dense = np.zeros(shape, values.dtype)
        if indices.ndim == 2:
            indices = np.ravel_multi_index(tuple(indices.T), shape)
        elif np.any(indices < 0):
            raise IndexError("an index is negative")
        dense.reshape(-1)[indices] = values
    except (IndexError, MemoryError, ValueError) as error:
        raise ModelError(f"sparse tensor '{name}' of shape {list(shape)[:8]}: {error}") from error
    return dense


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


Convert = Callable[["AttributeProto", ExternalData], Any]


@lru_cache(maxsize=1)
def _converters() -> dict[int, Convert]:
    """Attribute kind -> its plain value; kinds not listed stay encoded."""
    from onnx import AttributeProto as A

    return {
        A.FLOAT: lambda a, _: float(a.f),
        A.INT: lambda a, _: int(a.i),
        A.STRING: lambda a, _: _text(a.s),
        A.TENSOR: lambda a, x: tensor_array(a.t, x),
        A.SPARSE_TENSOR: lambda a, x: sparse_array(a.sparse_tensor, x),
        A.FLOATS: lambda a, _: [float(v) for v in a.floats],
        A.INTS: lambda a, _: list(a.ints),
        A.STRINGS: lambda a, _: [_text(v) for v in a.strings],
        A.TENSORS: lambda a, x: [tensor_array(t, x) for t in a.tensors],
    }


def attribute_kind(attribute: AttributeProto) -> int:
    """The kind of an attribute; files of the first IR version leave it to be guessed."""
    if attribute.type:
        return int(attribute.type)
    from onnx import AttributeProto as A

    guesses = (
        ("f", A.FLOAT),
        ("i", A.INT),
        ("s", A.STRING),
        ("t", A.TENSOR),
        ("g", A.GRAPH),
    )
    for name, kind in guesses:
        if attribute.HasField(name):
            return int(kind)
    return int(A.FLOATS if attribute.floats else A.STRINGS if attribute.strings else A.INTS)


def plain_attributes(node: NodeProto, external: ExternalData) -> tuple[dict[str, Any], bool]:
    """The attributes that are plain values, and whether others (subgraphs, types) are left."""
    converters = _converters()
    plain: dict[str, Any] = {}
    left = False
    for attribute in node.attribute:
        convert = converters.get(attribute_kind(attribute))
        if convert is None:
            left = True
        else:
            plain[attribute.name] = convert(attribute, external)
    return plain, left


def value_type(proto: TypeProto) -> tuple[str | None, tuple[int | str | None, ...] | None]:
    """(dtype, dimensions) of a type: a dimension is a size, a name, or None; None: no rank."""
    kinds = {"sequence_type": "sequence", "optional_type": "optional", "map_type": "map"}
    which = proto.WhichOneof("value")
    if which != "tensor_type":
        return kinds.get(which or ""), None
    entry = BY_ONNX.get(proto.tensor_type.elem_type)
    dtype = entry.name if entry else None
    if not proto.tensor_type.HasField("shape"):
        return dtype, None
    return dtype, tuple(_dimension(d) for d in proto.tensor_type.shape.dim)


def _dimension(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dimension_name(dim.dim_param)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured_names(node: NodeProto) -> list[str]:
    """Names of outer values that only the node's subgraphs read, in order of their first use."""
    found: dict[str, None] = {}
    for graph in subgraphs(node):
        found.update(dict.fromkeys(free_names(graph)))
    return [name for name in found if name not in node.input]


def free_names(graph: GraphProto) -> Iterator[str]:
    """Names that a subgraph reads from outside, in order, possibly several times."""
    known = {""}
    known.update(v.name for v in graph.input)
    known.update(t.name for t in graph.initializer)
    known.update(t.values.name for t in graph.sparse_initializer)
    for node in graph.node:
        inner = [name for g in subgraphs(node) for name in free_names(g)]
        yield from (name for name in [*node.input, *inner] if name not in known)
        known.update(node.output)
    yield from (v.name for v in graph.output if v.name not in known)


def check_texts(model: ModelProto) -> None:
    """`ModelError` where a name is no UTF-8: the protocol buffer then gives it as bytes."""
    try:
        "".join(entry.domain for entry in model.opset_import)
        "".join(text for entry in model.metadata_props for text in (entry.key, entry.value))
        _join_texts(model.graph)
        for function in model.functions:
            "".join((function.name, function.domain, *function.input, *function.output))
            "".join(entry.domain for entry in function.opset_import)
            _join_nodes(function.node)
    except (TypeError, UnicodeDecodeError) as error:
        raise ModelError("a name in it is not UTF-8 text; the model is damaged, get it anew") from (
            error
        )


def _join_texts(graph: GraphProto) -> None:
    for infos in (graph.input, graph.output, graph.value_info):
        "".join(info.name for info in infos)
        for info in infos:
            "".join(dim.dim_param for dim in info.type.tensor_type.shape.dim)
    for tensor in graph.initializer:
        "".join((tensor.name, *(t for e in tensor.external_data for t in (e.key, e.value))))
    "".join((graph.name, *(sparse.values.name for sparse in graph.sparse_initializer)))
    _join_nodes(graph.node)


def _join_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        "".join((node.op_type, node.domain, node.name, *node.input, *node.output))
        "".join([attribute.name for attribute in node.attribute])
        for graph in subgraphs(node):
            _join_texts(graph)
