"""ONNX's types of what runs on the host: arrays, sequences, optionals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.dtypes import BY_NAME

if TYPE_CHECKING:
    from onnx import TypeProto


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
    name = "string" if value.dtype.kind in "OUST" else value.dtype.name
    proto.tensor_type.elem_type = BY_NAME[name].onnx
    proto.tensor_type.shape.SetInParent()
    for _ in range(value.ndim):
        proto.tensor_type.shape.dim.add()
