"""Cast between text and numbers, as ONNX Runtime does where the specification leaves it open."""

from __future__ import annotations

import re

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.errors import InputError
from clinfer.graph.ir import Array

# What C reads of text: the number at its beginning, in ASCII.
_INTEGER = re.compile(r"[ \t-\r]*([+-]?[0-9]+)")
_FLOAT = re.compile(
    r"[ \t-\r]*([+-]?(?:(?P<hex>0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?)"
    r"|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|(?P<name>inf(?:inity)?|nan)))",
    re.IGNORECASE | re.ASCII,
)


def to_text(x: Array) -> Array:
    """Numbers as text: floats of 8 digits, INF, -INF, NaN; 0 and 1 for booleans."""
    if x.dtype.kind == "O":
        return x
    whole = x.dtype.kind in "iub"
    written = [str(int(v)) if whole else _float_as_text(float(v)) for v in x.ravel().tolist()]
    return _shaped(np.array(written, object), x)


def _float_as_text(value: float) -> str:
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "INF" if value > 0 else "-INF"
    return format(value, ".8g")


def from_text(x: Array, target: str) -> Array:
    """The number that each text begins with; integers wrap around at the width of their type.

    Raises `InputError` for text that begins with none, and numbers too large to be read.
    """
    dtype = to_numpy(target)
    if dtype.kind not in "iub":
        read = np.array([_float(str(text), target) for text in x.ravel().tolist()], np.float64)
        with np.errstate(all="ignore"):
            exact = read if target == "float64" else read.astype(np.float32)
            return _shaped(exact.astype(dtype), x)
    whole = [_integer(str(text), target) for text in x.ravel().tolist()]
    if target == "bool":
        return _shaped(np.array([value != 0 for value in whole], bool), x)
    wrapped = np.array([value % (1 << 64) for value in whole], np.uint64)
    return _shaped(wrapped.astype(dtype), x)


def _integer(text: str, target: str) -> int:
    found = _INTEGER.match(text)
    value = 0 if found is None else int(found[1])
    limit = 1 << (64 if target in ("uint32", "uint64") else 63)
    if found is None or not -limit <= value < limit:
        raise InputError(f"text that begins with an integer of 64 bits expected, found {text!r}")
    return value


def _float(text: str, target: str) -> float:
    found = _FLOAT.match(text)
    if found is None:
        raise InputError(f"text that begins with a number expected, found {text!r}")
    value = float.fromhex(found[1]) if found["hex"] else float(found[1])
    largest = np.finfo(np.float64 if target == "float64" else np.float32).max
    if found["name"] is None and abs(value) > largest:
        raise InputError(f"a number that {target} holds expected, found {text!r}")
    return value


def _shaped(made: Array, like: Array) -> Array:
    result: Array = made.reshape(like.shape)
    return result
