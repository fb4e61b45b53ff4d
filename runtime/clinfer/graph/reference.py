"""Host steps: single operators run on the host, by NumPy or by onnx's reference implementation.

`HostOp` is plain data (a plan stores it); onnx is loaded when a step that needs it first runs.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.boundary import as_ours, first_line
from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.errors import (
    ClinferError,
    InputError,
    ModelError,
    ShapeError,
    UnsupportedError,
    listed,
)
from clinfer.graph import control, ml, numpy_ops
from clinfer.graph.ir import Node
from clinfer.graph.value_types import type_of

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from clinfer.graph.control import Control

Json = Any
_TEXT = "string"
_LONG = 256  # from so many numbers on, a list is stored as bytes and comes back as an array
# What NumPy and onnx's implementation raise where inputs do not fit, and what that is of ours.
_REFUSALS: tuple[tuple[type[Exception], type[ClinferError]], ...] = (
    (IndexError, InputError),
    (UnicodeError, InputError),
    (ArithmeticError, InputError),
    (ValueError, ShapeError),
    (TypeError, UnsupportedError),
    (NotImplementedError, UnsupportedError),
)
INPUTS_DO_NOT_FIT = (IndexError, ArithmeticError, ValueError, MemoryError)
"""What they raise only where inputs do not fit, or results are too large."""


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
        from clinfer.graph.node_protos import input_names, to_proto
        from clinfer.graph.schemas import newest_opset

        own, captured = input_names(node)
        outputs = ["" if v is None else f"o{n}" for n, v in enumerate(node.outputs)]
        is_ml = ml.has(node.kind)
        in_numpy = is_ml or node.kind in numpy_ops.TABLE
        # Forests are large, and ai.onnx.ml needs the attributes alone.
        proto = None if is_ml else to_proto(node, own, outputs)
        version = node.version or newest_opset()
        imports = {**opsets, node.domain: version}
        dtypes = (None if v is None or v.dtype not in BY_NAME else v.dtype for v in node.outputs)
        return cls(
            node.describe(),
            node.kind,
            b"" if proto is None else proto.SerializeToString(deterministic=True),
            tuple(sorted(imports.items())),
            (*own, *captured),
            tuple(dtypes),
            attributes_to_json(node.attrs) if in_numpy else None,
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

        Raises `ShapeError`, `InputError` or `UnsupportedError` naming the node and its inputs where
        they do not fit it, or onnx's reference implementation lacks the operator.
        """
        given = list(inputs) + [None] * (len(self.inputs) - len(inputs))
        try:
            return [self._typed(r, n) for n, r in enumerate(self._results(given))]
        except ClinferError:
            raise
        except Exception as error:
            raise self._refused(error, given) from error

    def _results(self, inputs: list[Any]) -> list[Any]:
        if self.kind in control.KINDS:
            return self._control().run(inputs)
        results = self._by_numpy(inputs)
        return self._by_reference(inputs) if results is None else results

    def _refused(self, error: Exception, inputs: Sequence[Any]) -> ClinferError:
        """What NumPy or onnx's implementation has raised for these inputs, as an error of ours."""
        where = f"{self.label} on the host, with {described(self.inputs, inputs)}"
        kind = next((ours for theirs, ours in _REFUSALS if isinstance(error, theirs)), None)
        if kind is None:
            return as_ours(error, where)
        if kind is ShapeError and any(_is_text(value) for value in inputs):
            kind = InputError  # it is what the text says
        return kind(f"{where}: {first_line(error)}; give it inputs that fit the operator")

    def _control(self) -> Control:
        if not self._controls:
            self._controls.append(control.Control(self, host_step))
        return self._controls[0]

    def _by_numpy(self, inputs: Sequence[Any]) -> list[Any] | None:
        if self.attrs is None:
            return None
        if ml.has(self.kind):
            return self._by_ml(inputs)
        attrs = attributes_from_json(self.attrs)
        function = numpy_ops.find(self.kind, attrs, inputs)
        try:
            if function is None:
                return None
            return [numpy_ops.contiguous(r) for r in function(attrs, inputs)]
        except (InputError, ModelError) as error:
            raise type(error)(f"{self.label}: {error}") from None

    def _by_ml(self, inputs: Sequence[Any]) -> list[Any]:
        try:
            if "ml" not in self._evaluators:
                self._evaluators["ml"] = ml.make(self.kind, attributes_from_json(self.attrs))
            results: list[Any] = self._evaluators["ml"](inputs)
        except ValueError as error:
            raise InputError(f"{self.label}: {error}") from error
        return results

    def _by_reference(self, inputs: Sequence[Any]) -> list[Any]:
        signature = tuple(_signature(value) for value in inputs)
        if signature not in self._evaluators:
            self._evaluators[signature] = self._evaluator(inputs)
        feeds = {n: v for n, v in zip(self.inputs, inputs, strict=True) if n}
        try:
            with np.errstate(all="ignore"):  # what is infinite or no number is a result
                return list(self._evaluators[signature].run(None, feeds))
        except (RecursionError, *INPUTS_DO_NOT_FIT):
            raise
        except Exception as error:  # also names its author did not define for these inputs
            raise self._unsupported(f"fails on these inputs: {first_line(error)}") from error

    def _evaluator(self, inputs: Sequence[Any]) -> Any:
        from onnx.reference import ReferenceEvaluator

        try:
            return ReferenceEvaluator(self._model(inputs))
        except Exception as error:
            raise self._unsupported(f"does not have it: {first_line(error)}") from error

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.label} has no kernel, and onnx's reference implementation {what}; export the "
            "model without this operator"
        )

    def _model(self, inputs: Sequence[Any]) -> ModelProto:
        from onnx import ModelProto

        from clinfer.graph.node_protos import encoded

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


def attributes_to_json(attrs: Mapping[str, Any]) -> Json:
    """Attributes as plain data; an array is written as its dtype, shape and elements."""
    return {name: _item_to_json(value) for name, value in attrs.items()}


def _item_to_json(value: Any) -> Json:
    if isinstance(value, list) and len(value) >= _LONG and isinstance(value[0], (int, float)):
        numbers = np.array(value)
        data = b64encode(numbers.tobytes()).decode("ascii")
        return {"dtype": numbers.dtype.str, "base64": data}
    if not isinstance(value, np.ndarray):
        return list(value) if isinstance(value, (list, tuple)) else value
    plain = value.astype(np.float64) if value.dtype.kind not in "iufbO" else value
    return {"dtype": value.dtype.name, "shape": list(value.shape), "items": plain.ravel().tolist()}


def attributes_from_json(attrs: Json) -> dict[str, Any]:
    return {name: _item_from_json(value) for name, value in attrs.items()}


def _item_from_json(value: Json) -> Any:
    if not isinstance(value, dict):
        return value
    if "base64" in value:
        return np.frombuffer(b64decode(value["base64"]), value["dtype"])
    dtype = object if value["dtype"] == "object" else to_numpy(value["dtype"])
    return np.array(value["items"]).astype(dtype).reshape(value["shape"])


def host_step(node: Node, opsets: Mapping[str, int]) -> control.Runs:
    """What runs one node of a graph on the host."""
    if node.kind == "If" and node.proto is None:
        return control.HostBranch(node, host_step)
    return HostOp.from_node(node, opsets)


def described(names: Sequence[str], values: Sequence[Any]) -> str:
    """'x: float32[2, 3], axes: int64[1]'."""
    pairs = zip(names, values, strict=False)
    return listed(f"{name}: {_kind_of(value)}" for name, value in pairs if name) or "no inputs"


def _kind_of(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name}{list(value.shape)}"
    return "nothing" if value is None else type(value).__name__


def _signature(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.ndim
    return type(value).__name__


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


def _declare(graph: GraphProto, name: str, value: Any) -> None:
    graph.input.add(name=name).type.CopyFrom(type_of(value))
