"""Host steps: single operators run on the host, by NumPy or by onnx's reference implementation.

`HostOp` is plain data (a plan stores it); onnx is loaded when a step that needs it first runs.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.errors import UnsupportedError
from clinfer.graph import control, numpy_ops
from clinfer.graph.ir import Node

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TypeProto

    from clinfer.graph.control import Control

Json = Any
_TEXT = "string"


@dataclass(frozen=True)
class HostOp:
    """One operator with its attributes.

    `node` is the ONNX-encoded node. `inputs` are its input names ('' where absent), then the names
    of outer values its subgraphs read; `dtypes` the element types of its results, None for those
    that are absent or no tensors. `attrs` are the attributes as plain data where NumPy may do.
    """

    label: str
    kind: str
    node: bytes
    opsets: tuple[tuple[str, int], ...]
    inputs: tuple[str, ...]
    dtypes: tuple[str | None, ...]
    attrs: Json = None
    _evaluators: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    _controls: list[Control] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def from_node(cls, node: Node, opsets: Mapping[str, int]) -> HostOp:
        """The step that runs a graph's node; `opsets` are the graph's."""
        from clinfer.graph.schemas import input_names, newest_opset, to_proto

        own, captured = input_names(node)
        outputs = ["" if v is None else f"o{n}" for n, v in enumerate(node.outputs)]
        proto = to_proto(node, own, outputs)
        version = node.version or newest_opset()
        imports = {**opsets, node.domain: version}
        dtypes = (None if v is None or v.dtype not in BY_NAME else v.dtype for v in node.outputs)
        return cls(
            node.describe(),
            node.kind,
            proto.SerializeToString(deterministic=True),
            tuple(sorted(imports.items())),
            (*own, *captured),
            tuple(dtypes),
            _to_json(node.attrs) if node.kind in numpy_ops.TABLE else None,
        )

    def to_json(self) -> Json:
        """Plain data; `from_json` reads it back."""
        return {
            "label": self.label,
            "kind": self.kind,
            "node": b64encode(self.node).decode("ascii"),
            "opsets": [list(item) for item in self.opsets],
            "inputs": list(self.inputs),
            "dtypes": list(self.dtypes),
            "attrs": self.attrs,
        }

    @classmethod
    def from_json(cls, value: Json) -> HostOp:
        """The step that `to_json` described."""
        return cls(
            str(value["label"]),
            str(value["kind"]),
            b64decode(value["node"]),
            tuple((str(d), int(v)) for d, v in value["opsets"]),
            tuple(map(str, value["inputs"])),
            tuple(None if d is None else str(d) for d in value["dtypes"]),
            value["attrs"],
        )

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The results for these inputs: arrays, lists for sequences, None for what is absent.

        Raises `UnsupportedError` naming the node where onnx's reference implementation lacks the
        operator or cannot run it.
        """
        given = list(inputs) + [None] * (len(self.inputs) - len(inputs))
        if self.kind in control.KINDS:
            results: list[Any] | None = self._control().run(given)
        else:
            results = self._by_numpy(given)
        if results is None:
            results = self._by_reference(given)
        return [self._typed(r, n) for n, r in enumerate(results)]

    def _control(self) -> Control:
        if not self._controls:
            self._controls.append(control.Control(self))
        return self._controls[0]

    def _by_numpy(self, inputs: Sequence[Any]) -> list[Any] | None:
        if self.attrs is None:
            return None
        attrs = _from_json(self.attrs)
        function = numpy_ops.find(self.kind, attrs, inputs)
        if function is None:
            return None
        return [numpy_ops.contiguous(r) for r in function(attrs, inputs)]

    def _by_reference(self, inputs: Sequence[Any]) -> list[Any]:
        signature = tuple(_signature(value) for value in inputs)
        if signature not in self._evaluators:
            self._evaluators[signature] = self._evaluator(inputs)
        feeds = {n: _readable(v) for n, v in zip(self.inputs, inputs, strict=True) if n}
        try:
            return list(self._evaluators[signature].run(None, feeds))
        except Exception as error:
            raise self._unsupported(f"fails on these inputs: {error}") from error

    def _evaluator(self, inputs: Sequence[Any]) -> Any:
        from onnx.reference import ReferenceEvaluator

        try:
            return ReferenceEvaluator(self._model(inputs))
        except Exception as error:
            raise self._unsupported(f"does not have it: {error}") from error

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.label} has no kernel, and onnx's reference implementation {what}; export the "
            "model without this operator"
        )

    def _model(self, inputs: Sequence[Any]) -> ModelProto:
        from onnx import ModelProto

        from clinfer.graph.schemas import encoded

        model = ModelProto(ir_version=10)
        for domain, version in self.opsets:
            model.opset_import.add(domain=domain, version=version)
        node = encoded(self.node)
        model.graph.node.append(node)
        for name, value in zip(self.inputs, inputs, strict=True):
            if name and value is not None:
                _declare(model.graph, name, value)
        for name in node.output:
            model.graph.output.add(name=name)
        return model

    def _typed(self, result: Any, number: int) -> Any:
        """The result with the element type that was inferred for it."""
        dtype = self.dtypes[number] if number < len(self.dtypes) else None
        if dtype is None or result is None or isinstance(result, (list, dict)):
            return result
        if dtype == _TEXT:
            return np.asarray(result).astype(object)
        return np.asarray(result).astype(to_numpy(dtype), copy=False)


def _to_json(attrs: Mapping[str, Any]) -> Json:
    """Attributes as plain data; an array is written as its dtype, shape and elements."""
    return {name: _item_to_json(value) for name, value in attrs.items()}


def _item_to_json(value: Any) -> Json:
    if not isinstance(value, np.ndarray):
        return list(value) if isinstance(value, (list, tuple)) else value
    plain = value.astype(np.float64) if value.dtype.kind not in "iufbO" else value
    return {"dtype": value.dtype.name, "shape": list(value.shape), "items": plain.ravel().tolist()}


def _from_json(attrs: Json) -> dict[str, Any]:
    return {name: _item_from_json(value) for name, value in attrs.items()}


def _item_from_json(value: Json) -> Any:
    if not isinstance(value, dict):
        return value
    dtype = object if value["dtype"] == "object" else to_numpy(value["dtype"])
    return np.array(value["items"]).astype(dtype).reshape(value["shape"])


def _signature(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.ndim
    return type(value).__name__


def _readable(value: Any) -> Any:
    """Strings in the form that NumPy's text functions take."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value.astype(np.str_) if value.size else value
    return value


def _declare(graph: GraphProto, name: str, value: Any) -> None:
    graph.input.add(name=name).type.CopyFrom(type_of(value))


def type_of(value: Any) -> TypeProto:
    """The ONNX type of an array, a list (sequence) or None (an optional without content)."""
    from onnx import TypeProto

    proto = TypeProto()
    if isinstance(value, np.ndarray):
        _set_tensor(proto, value)
    elif isinstance(value, list):
        proto.sequence_type.SetInParent()
        for item in value[:1]:
            proto.sequence_type.elem_type.CopyFrom(type_of(item))
    else:
        proto.optional_type.SetInParent()
    return proto


def _set_tensor(proto: TypeProto, value: Any) -> None:
    name = _TEXT if value.dtype.kind in "OUST" else value.dtype.name
    proto.tensor_type.elem_type = BY_NAME[name].onnx
    proto.tensor_type.shape.SetInParent()
    for _ in range(value.ndim):
        proto.tensor_type.shape.dim.add()
