"""Adds ONNX-encoded nodes to a graph; used for a model's nodes and for bodies written out later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.boundary import during
from clinfer.errors import ModelError
from clinfer.graph.ir import Array, Graph, Node, Value
from clinfer.graph.node_checks import check_node, check_signature, custom_signature
from clinfer.graph.opsets import Opsets, domain_of
from clinfer.graph.protos import ExternalData, captured_names, plain_attributes
from clinfer.graph.schemas import known_domains, newest_version
from clinfer.operators import table

if TYPE_CHECKING:
    from onnx import NodeProto

# Attributes of Constant that hold plain numbers or texts, and the dtype they make.
_CONSTANTS: Mapping[str, Any] = {
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_string": object,
    "value_strings": object,
}


# Attributes with a number for each axis: an empty list leaves them to their default.
_PER_AXIS = frozenset(
    {"dilations", "kernel_shape", "output_padding", "output_shape", "pads", "strides"}
)


class NodeBuilder:
    """Turns nodes into graph nodes, in order; `scope` maps names to the values they stand for.

    `results` holds values that exist already and get their producer here. New nodes go before
    `before`, at the end without one.
    """

    def __init__(
        self,
        graph: Graph,
        scope: dict[str, Value],
        *,
        external: ExternalData | None = None,
        results: Mapping[str, Value] | None = None,
        before: Node | None = None,
    ) -> None:
        self.scope = scope
        self._graph = graph
        self._external = external or ExternalData(None)
        self._results = results or {}
        self._before = before

    def add(self, proto: NodeProto, opsets: Opsets) -> Node | None:
        """Appends one node; a Constant becomes a constant value and no node."""
        label = describe(proto)
        with during("the reading of it", lambda: label):
            return self._added(proto, opsets, label)

    def _added(self, proto: NodeProto, opsets: Opsets, label: str) -> Node | None:
        domain = domain_of(proto.domain)
        kind = f"{domain}.{proto.op_type}" if domain else proto.op_type
        custom = self._graph.custom.get(kind)
        if custom is None and domain not in opsets and domain not in known_domains():
            raise ModelError(
                f"{label}: the model imports no version of the operator set '{domain}' "
                f"(it imports {dict(opsets)}); export the model again"
            )
        # As ONNX Runtime does: of a set of ONNX's that is not imported, the newest version.
        if custom is not None:
            version = opsets.get(domain, 1)
            check_signature(proto, custom_signature(custom), label)
        else:
            version = opsets[domain] if domain in opsets else newest_version(domain)
            check_node(proto, domain, version, label)
        attrs, opaque = plain_attributes(proto, self._external)
        attrs = {k: v for k, v in attrs.items() if not (k in _PER_AXIS and v == [])}
        record = table().get(kind)
        if record is not None:
            record.check_attributes(attrs, label)
        if proto.op_type == "Constant" and not domain:
            self._bind_constant(proto.output[0], constant_content(attrs, label))
            return None
        captures = captured_names(proto) if opaque else []
        inputs = [self._lookup(name, label) for name in proto.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        inputs += [self._lookup(name, label) for name in captures]
        outputs = [self._define(name, label) for name in proto.output]
        node = Node(proto.op_type, inputs, outputs, attrs, proto.name, domain, version)
        if opaque:
            node.proto = proto.SerializeToString()
            node.captures = len(captures)
        self._graph.insert(node, self._before)
        return node

    def _lookup(self, name: str, label: str) -> Value | None:
        if not name:
            return None
        if name not in self.scope:
            raise ModelError(
                f"{label} reads '{name}', which no input, constant or earlier node defines; the "
                "model is damaged"
            )
        return self.scope[name]

    def _define(self, name: str, label: str) -> Value | None:
        if not name:
            return None
        if name in self.scope:
            raise ModelError(f"{label} defines '{name}', which is defined already")
        self.scope[name] = self._results.get(name) or Value(name)
        return self.scope[name]

    def _bind_constant(self, name: str, content: Array) -> None:
        value = self._define(name, "a Constant")
        if value is None:
            return
        dtype = "string" if content.dtype == object else content.dtype.name
        value.dtype, value.shape, value.const = dtype, tuple(content.shape), content


def constant_content(attrs: Mapping[str, Any], label: str) -> Array:
    """The tensor that a Constant's attributes describe."""
    for name in ("value", "sparse_value"):
        if name in attrs:
            return np.asarray(attrs[name])
    for name, dtype in _CONSTANTS.items():
        if name in attrs:
            return np.array(attrs[name], dtype)
    raise ModelError(f"{label}: expected one of 'value', 'sparse_value', {', '.join(_CONSTANTS)}")


def describe(proto: NodeProto) -> str:
    """'Conv "layer1/conv"', for messages about a node that is still encoded."""
    label = proto.name or (proto.output[0] if proto.output else "")
    return f'{proto.domain + "." if proto.domain else ""}{proto.op_type} "{label}"'
