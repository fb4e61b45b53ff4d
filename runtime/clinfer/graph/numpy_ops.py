"""Frequent operators on sizes and weights in NumPy, without loading onnx.

Used by host steps and by constant folding. A function takes the node's plain attributes and its
inputs (None where absent) and returns the outputs. Operators are in their newest form (`upgrade`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.dtypes import BY_ONNX, to_numpy
from clinfer.graph.ir import Array
from clinfer.graph.numpy_nms import non_max_suppression

Attrs = Mapping[str, Any]
Inputs = Sequence[Any]
Function = Callable[[Attrs, Inputs], "list[Any]"]


def _shape(attrs: Attrs, inputs: Inputs) -> list[Any]:
    window = slice(attrs.get("start", 0), attrs.get("end"))
    return [np.array(inputs[0].shape[window], np.int64)]


def _size(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.array(inputs[0].size, np.int64)]


def _identity(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [inputs[0]]


def _reshape(attrs: Attrs, inputs: Inputs) -> list[Any]:
    data, wanted = inputs
    sizes = [int(s) for s in wanted]
    if not attrs.get("allowzero", 0):
        sizes = [data.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    return [data.reshape(sizes)]


def _flatten(attrs: Attrs, inputs: Inputs) -> list[Any]:
    (data,) = inputs
    axis = attrs.get("axis", 1)
    axis = axis + data.ndim if axis < 0 else axis
    rows = int(np.prod(data.shape[:axis], dtype=np.int64))
    columns = int(np.prod(data.shape[axis:], dtype=np.int64))
    return [data.reshape(rows, columns)]


def _squeeze(attrs: Attrs, inputs: Inputs) -> list[Any]:
    axes = inputs[1] if len(inputs) > 1 else None
    return [np.squeeze(inputs[0], None if axes is None else tuple(int(a) for a in axes))]


def _unsqueeze(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.expand_dims(inputs[0], tuple(int(a) for a in inputs[1].ravel()))]


def _transpose(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.transpose(inputs[0], attrs.get("perm"))]


def _concat(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.concatenate(inputs, axis=attrs.get("axis", 1))]


def _gather(attrs: Attrs, inputs: Inputs) -> list[Any]:
    data, indices = inputs
    return [np.take(data, indices, axis=attrs.get("axis", 0))]


def _expand(attrs: Attrs, inputs: Inputs) -> list[Any]:
    data, wanted = inputs
    shape = np.broadcast_shapes(data.shape, tuple(int(s) for s in wanted))
    return [np.broadcast_to(data, shape)]


def _where(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.where(*inputs)]


def _non_zero(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.array(np.nonzero(inputs[0]), np.int64).reshape(inputs[0].ndim, -1)]


def _range(attrs: Attrs, inputs: Inputs) -> list[Any]:
    start, limit, delta = (v.reshape(()) for v in inputs)
    count = max(int(np.ceil((limit - start) / delta)), 0)
    steps = start + np.arange(count).astype(start.dtype) * delta
    return [steps.astype(start.dtype)]


def _constant_of_shape(attrs: Attrs, inputs: Inputs) -> list[Any]:
    fill = attrs.get("value")
    content = np.zeros(1, np.float32) if fill is None else fill
    shape = tuple(int(s) for s in inputs[0])
    return [np.full(shape, content.ravel()[0], content.dtype)]


def _scatter_nd(attrs: Attrs, inputs: Inputs) -> list[Any]:
    data, indices, updates = inputs
    result = np.array(data)
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return [result]


_PLAIN = [
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]


def _cast(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [inputs[0].astype(to_numpy(BY_ONNX[attrs["to"]].name))]


def _can_cast(attrs: Attrs, inputs: Inputs) -> bool:
    """Widening and integer casts; rounding and saturating ones are the reference's."""
    source, target = inputs[0].dtype.name, BY_ONNX[attrs["to"]].name
    return source in _PLAIN and target in _PLAIN


def _optional(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """An optional is its content, or None."""
    return [inputs[0] if inputs else None]


def _has_element(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.array(bool(inputs) and inputs[0] is not None)]


TABLE: dict[str, Function] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _identity,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Gather": _gather,
    "ScatterND": _scatter_nd,
    "Expand": _expand,
    "Where": _where,
    "NonZero": _non_zero,
    "NonMaxSuppression": non_max_suppression,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Cast": _cast,
    "Optional": _optional,
    "OptionalGetElement": _optional,
    "OptionalHasElement": _has_element,
}
_OF_OBJECTS = frozenset({"Identity", "Optional", "OptionalGetElement", "OptionalHasElement"})


def find(kind: str, attrs: Attrs, inputs: Inputs) -> Function | None:
    """The function for an operator on these inputs; None where onnx must run it."""
    function = TABLE.get(kind)
    if function is None or kind in _OF_OBJECTS:
        return function
    if not all(v is None or isinstance(v, np.ndarray) for v in inputs):
        return None
    if kind == "Cast" and not _can_cast(attrs, inputs):
        return None
    if kind == "ScatterND" and attrs.get("reduction", "none") != "none":
        return None
    return function


def contiguous(result: Any) -> Any:
    """An array that owns its layout, for results that may be views."""
    if not isinstance(result, np.ndarray):
        return result
    made: Array = np.ascontiguousarray(result).reshape(result.shape)
    return made
