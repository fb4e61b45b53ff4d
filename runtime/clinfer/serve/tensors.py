"""Tensors of the Open Inference Protocol as arrays: types, raw bytes, JSON.

Sources: the protocol's specification (github.com/kserve/open-inference-protocol, Apache-2.0), and
its binary tensor data extension as Triton documents it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from clinfer import dtypes
from clinfer.errors import InputError
from clinfer.ports import Port

Array = np.ndarray[Any, Any]

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    "string": "BYTES",
}
"""clinfer's element types that the protocol has a name for."""

_MOST_NESTED = 64


def metadata(port: Port) -> dict[str, Any]:
    """A port in the protocol's words; -1 stands for a size that is free."""
    shape = [size if isinstance(size, int) else -1 for size in port.shape or ()]
    return {"name": port.name, "datatype": DATATYPES[port.dtype], "shape": shape}


def checked_shape(port: Port, datatype: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """The shape of an input. Raises `InputError` where type or rank is not the port's."""
    if datatype != DATATYPES[port.dtype]:
        raise InputError(
            f"input '{port.name}' has datatype {datatype!r}, expected {DATATYPES[port.dtype]}"
        )
    if not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise InputError(f"input '{port.name}': expected a shape of sizes, found {shape!r}")
    if port.shape is not None and len(shape) != len(port.shape):
        raise InputError(f"input '{port.name}' has shape {list(shape)}, expected {metadata(port)}")
    return tuple(shape)


def from_raw(port: Port, shape: tuple[int, ...], raw: bytes | memoryview) -> Array:
    """The array of little-endian bytes, without a copy where it lies right. Raises `InputError`."""
    count = math.prod(shape)
    if port.dtype == "string":
        return _shaped(port, _texts(port, raw, count), shape)
    dtype = dtypes.to_numpy(port.dtype)
    _require_count(port, len(raw), count * dtype.itemsize, shape, "bytes")
    array = np.frombuffer(raw, dtype)
    if dtype.kind == "b" and count and array.view(np.uint8).max() > 1:
        raise InputError(f"input '{port.name}': a BOOL is a byte 0 or 1")
    return _shaped(port, array if array.flags.aligned else array.copy(), shape)


def _texts(port: Port, raw: bytes | memoryview, count: int) -> Array:
    """Elements of BYTES: each a little-endian length of 4 bytes, and that many bytes."""
    found: list[bytes] = []
    view, at = memoryview(raw), 0
    while at + 4 <= len(view) and len(found) <= count:
        (size,) = struct.unpack_from("<I", view, at)
        if at + 4 + size > len(view):
            break
        found.append(bytes(view[at + 4 : at + 4 + size]))
        at += 4 + size
    if at != len(view) or len(found) != count:
        raise InputError(
            f"input '{port.name}': {len(view)} bytes do not hold {count} elements of BYTES, each "
            "after its length"
        )
    return _objects(found)


def from_values(port: Port, shape: tuple[int, ...], values: Any) -> Array:
    """The array of numbers, truth values or texts, nested or not, row by row; None is NaN.

    Raises `InputError` where one is of another type, or is not in the type's range.
    """
    flat = _flat(port, values)
    _require_count(port, len(flat), math.prod(shape), shape, "values")
    kinds = set(map(type, flat))
    if port.dtype == "string":
        _require_types(port, kinds, {str, bytes})
        return _shaped(port, _objects([_encoded(port, item) for item in flat]), shape)
    dtype = dtypes.to_numpy(port.dtype)
    if dtype.kind == "b":
        _require_types(port, kinds, {bool})
    elif dtype.kind in "iu":
        _require_types(port, kinds, {int})
        limits = np.iinfo(dtype)
        if flat and not limits.min <= min(flat) <= max(flat) <= limits.max:
            raise InputError(f"input '{port.name}': a value is not in the range of {port.dtype}")
    else:
        _require_types(port, kinds, {int, float, type(None)})
        return _shaped(port, _floats(port, flat, dtype), shape)
    return _shaped(port, np.array(flat, dtype), shape)


def _floats(port: Port, flat: Sequence[Any], dtype: np.dtype[Any]) -> Array:
    try:
        wide = np.array(flat, np.float64)
    except OverflowError:
        raise InputError(f"input '{port.name}': a value is too large for {port.dtype}") from None
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    if np.any(np.isinf(array.astype(np.float64)) & np.isfinite(wide)):
        raise InputError(f"input '{port.name}': a value is too large for {port.dtype}")
    return array


def _encoded(port: Port, text: str | bytes) -> bytes:
    try:
        return text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise InputError(f"input '{port.name}': a text is no Unicode") from None


def _flat(port: Port, values: Any) -> Sequence[Any]:
    for _ in range(_MOST_NESTED):
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise InputError(f"input '{port.name}': expected a list of values, found {values!r}")
        flat: list[Any] = values if isinstance(values, list) else list(values)
        kinds = set(map(type, flat))
        if list not in kinds:
            return flat
        if len(kinds) > 1:
            break
        values = list(chain.from_iterable(flat))
    raise InputError(f"input '{port.name}': its lists are not nested evenly")


def _require_types(port: Port, found: set[type], known: set[type]) -> None:
    if not found <= known:
        names = ", ".join(sorted(kind.__name__ for kind in found - known))
        raise InputError(f"input '{port.name}' takes {DATATYPES[port.dtype]}, found {names}")


def _require_count(port: Port, found: int, wanted: int, shape: Sequence[int], what: str) -> None:
    if found != wanted:
        raise InputError(
            f"input '{port.name}': {found} {what} given, its shape {list(shape)} takes {wanted}"
        )


def _objects(items: Sequence[bytes]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _shaped(port: Port, array: Array, shape: tuple[int, ...]) -> Array:
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise InputError(f"input '{port.name}': {error}") from None


def to_raw(array: Array) -> bytes:
    """An array's little-endian bytes; texts each after its length."""
    if array.dtype.kind != "O":
        return array.tobytes()
    return b"".join(struct.pack("<I", len(item)) + item for item in map(_bytes, array.flat))


def to_json(array: Array) -> str:
    """An array's values as a JSON list, row by row; NaN, of which JSON knows nothing, is null.

    Raises `InputError` for infinities, and for bytes that are no text: those have no words in JSON.
    """
    if array.dtype.kind == "O":
        try:
            return json.dumps([_bytes(item).decode() for item in array.flat])
        except UnicodeDecodeError:
            raise InputError("an output is bytes that are no text: ask for binary_data") from None
    if array.dtype.kind not in "fV":
        return json.dumps(array.reshape(-1).tolist())
    numbers = array.reshape(-1).astype(np.float64)  # exact for each of the protocol's types
    if np.isinf(numbers).any():
        raise InputError("an output has infinities, which JSON has not: ask for binary_data")
    text = json.dumps(numbers.tolist())
    return text.replace("NaN", "null") if np.isnan(numbers).any() else text


def _bytes(item: Any) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()
