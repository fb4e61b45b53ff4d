"""QuantizeLinear to integers, DequantizeLinear and ConvInteger in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.dtypes import BY_ONNX, to_numpy
from clinfer.graph.ir import Array
from clinfer.graph.numpy_windows import conv
from clinfer_kernels.narrow import TABLES

_RANGES = {
    "int2": (-2, 1),
    "uint2": (0, 3),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
}
_TABLES = {name: np.array(numbers, np.float32) for name, numbers in TABLES.items()}


def quantized_dtype(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> str | None:
    """The integer type of the result: the zero point's, or as `output_dtype` says, else uint8."""
    zero = inputs[2] if len(inputs) > 2 else None
    number = int(attrs.get("output_dtype", 0))
    if zero is not None:
        name = zero.dtype.name
    else:
        name = BY_ONNX[number].name if number else "uint8"
    return name if name in _RANGES else None


def multiply_add(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """x * y + z of float32, by float64, which holds the products."""
    x, y, z = (value.astype(np.float64) for value in inputs)
    return [np.asarray(x * y + z, np.float32)]


def quantize_linear(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """round(x / scale) + zero, saturating; NaN becomes the least number, as in ONNX Runtime."""
    x, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 else None
    target = quantized_dtype(attrs, inputs)
    assert target is not None
    low, high = _RANGES[target]
    with np.errstate(all="ignore"):
        ratio = _wide(x) / _spread(attrs, _wide(scale), x.shape)
        if x.dtype == scale.dtype and x.dtype.kind != "i":
            ratio = _wide(ratio.astype(x.dtype))
        level = np.rint(ratio)
    if zero is not None:
        level = level + _spread(attrs, zero.astype(np.float64), x.shape)
    whole = np.clip(np.where(np.isnan(level), low, level), low, high)
    return [whole.astype(np.int32).astype(to_numpy(target))]


def dequantize_linear(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """(x - zero) * scale, difference and product in float32.

    What `graph.contrib` makes may have zero points in float32, and a `format` that names a table.
    """
    x, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 else None
    number = int(attrs.get("output_dtype", 0))
    target = to_numpy(BY_ONNX[number].name) if number else scale.dtype
    table = attrs.get("format")
    numbers = _TABLES[table][x] if table else x.astype(np.float32)
    if zero is not None:
        numbers = numbers - _spread(attrs, zero.astype(np.float32), x.shape)
    return [(numbers * _spread(attrs, scale.astype(np.float32), x.shape)).astype(target)]


def conv_integer(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Conv of what is left of data and weights without their zero points, in int32."""
    x, weights, zero, zeros = (*inputs, None, None)[:4]
    data, kernel = x.astype(np.int32), weights.astype(np.int32)
    if zero is not None:
        data = data - np.int32(zero.item())
    if zeros is not None:
        kernel = kernel - zeros.astype(np.int32).reshape(-1, *[1] * (kernel.ndim - 1))
    return conv(attrs, [data, kernel])


def _wide(x: Array) -> Array:
    return x if x.dtype == np.float64 else x.astype(np.float32)


def _spread(attrs: Mapping[str, Any], value: Array, shape: Sequence[int]) -> Array:
    """A scale or zero point as it belongs to each element."""
    if value.size == 1:
        return value.reshape(())
    axis = int(attrs.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    block = int(attrs.get("block_size", 0))
    if block:
        return value.repeat(block, axis).take(range(shape[axis]), axis)
    return value.reshape((-1, *([1] * (len(shape) - axis - 1))))
