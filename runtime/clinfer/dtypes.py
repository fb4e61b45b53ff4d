"""Element types: their names here, in NumPy and in ONNX, and their sizes in bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class ElementType(NamedTuple):
    """`onnx` is TensorProto's number; `size` is bytes per element in a buffer."""

    name: str
    onnx: int
    size: int
    numpy: str | None
    ml_dtypes: str | None = None


_TABLE = (
    ElementType("float32", 1, 4, "float32"),
    ElementType("uint8", 2, 1, "uint8"),
    ElementType("int8", 3, 1, "int8"),
    ElementType("uint16", 4, 2, "uint16"),
    ElementType("int16", 5, 2, "int16"),
    ElementType("int32", 6, 4, "int32"),
    ElementType("int64", 7, 8, "int64"),
    ElementType("string", 8, 0, "object"),
    ElementType("bool", 9, 1, "bool"),
    ElementType("float16", 10, 2, "float16"),
    ElementType("float64", 11, 8, "float64"),
    ElementType("uint32", 12, 4, "uint32"),
    ElementType("uint64", 13, 8, "uint64"),
    ElementType("complex64", 14, 8, "complex64"),
    ElementType("complex128", 15, 16, "complex128"),
    ElementType("bfloat16", 16, 2, None, "bfloat16"),
    ElementType("float8_e4m3fn", 17, 1, None, "float8_e4m3fn"),
    ElementType("float8_e4m3fnuz", 18, 1, None, "float8_e4m3fnuz"),
    ElementType("float8_e5m2", 19, 1, None, "float8_e5m2"),
    ElementType("float8_e5m2fnuz", 20, 1, None, "float8_e5m2fnuz"),
    ElementType("uint4", 21, 1, None, "uint4"),
    ElementType("int4", 22, 1, None, "int4"),
    ElementType("float4_e2m1fn", 23, 1, None, "float4_e2m1fn"),
    ElementType("float8_e8m0fnu", 24, 1, None, "float8_e8m0fnu"),
    ElementType("uint2", 25, 1, None, "uint2"),
    ElementType("int2", 26, 1, None, "int2"),
)

# What no model has: 256 bytes that a kernel reads as one operand, a function of a byte.
_TABLE_OF_BYTES = ElementType("void2048", 0, 256, "V256")

BY_NAME = {entry.name: entry for entry in _TABLE}
BY_ONNX = {entry.onnx: entry for entry in _TABLE}

# What kernels only move and cast: their codes are bytes.
NARROW_DTYPES = frozenset(entry.name for entry in _TABLE if entry.onnx >= 17)

# What kernels compute with, and what they move; the other types live in host steps.
DEVICE_DTYPES = NARROW_DTYPES | frozenset(
    [
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
        _TABLE_OF_BYTES.name,
    ]
)


def to_numpy(name: str) -> np.dtype[Any]:
    """The NumPy dtype of an element type; narrow floats and integers come from ml_dtypes."""
    import numpy

    entry = _entry(name)
    if entry.numpy is not None:
        return numpy.dtype(entry.numpy)
    import ml_dtypes

    found: np.dtype[Any] = numpy.dtype(getattr(ml_dtypes, str(entry.ml_dtypes)))
    return found


def size_of(name: str) -> int:
    """Bytes per element in a device buffer."""
    return _entry(name).size


def _entry(name: str) -> ElementType:
    return _TABLE_OF_BYTES if name == _TABLE_OF_BYTES.name else BY_NAME[name]
