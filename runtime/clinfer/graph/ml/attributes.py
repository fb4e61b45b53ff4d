"""Reading attributes: lists may come as arrays, texts as lists of `str`."""

from __future__ import annotations

from typing import Any

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs


def numbers(attrs: Attrs, name: str, dtype: Any = np.float32) -> Array:
    """A list of numbers, or the tensor `name`_as_tensor; empty where the node has neither."""
    tensor = attrs.get(f"{name}_as_tensor")
    if tensor is not None and np.size(tensor):
        return np.asarray(tensor).ravel()
    found = attrs.get(name)
    return np.zeros(0, dtype) if found is None else np.asarray(found, dtype).ravel()


def ints(attrs: Attrs, name: str) -> Array:
    """A list of integers; empty where it is absent."""
    return numbers(attrs, name, np.int64)


def texts(attrs: Attrs, name: str) -> list[str]:
    """A list of texts; empty where it is absent."""
    found = attrs.get(name)
    return [] if found is None else [str(text) for text in found]


def labels(attrs: Attrs, ints_name: str, strings_name: str) -> Array:
    """Class labels: an array of `str` objects or of int64, whichever the node has."""
    names = texts(attrs, strings_name)
    return objects(names) if names else ints(attrs, ints_name)


def objects(items: list[Any]) -> Array:
    """A vector of Python objects."""
    made = np.empty(len(items), object)
    made[:] = items
    return made


def text(value: Any) -> str:
    """An element of a string tensor as `str`."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def rows(x: Array) -> Array:
    """The input as [rows, features]; a vector is one row."""
    if x.ndim == 0:
        raise ValueError("an input of one dimension or more expected, found a scalar")
    return x.reshape(1, -1) if x.ndim == 1 else x.reshape(x.shape[0], -1)
