"""Operators that put one label in place of another, or mark it among its categories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clinfer.graph.ir import Array
from clinfer.graph.ml import Attrs, Maker, Run
from clinfer.graph.ml.attributes import ints, numbers, objects, text, texts

_UNUSED = "_Unused"
Lookup = Callable[[Array], Array]
"""Positions of elements among keys; -1 for those that are no key."""


def label_encoder(attrs: Attrs) -> Run:
    """Elements that are keys become the values beside them, others the default."""
    classes = texts(attrs, "classes_strings")
    if classes:
        return _both_ways(objects(classes), np.arange(len(classes)), attrs)
    keys, values = _column(attrs, "keys"), _column(attrs, "values")
    if keys is None or values is None or keys.size != values.size:
        raise ValueError("as many values as keys expected")
    return _mapped(_lookup(keys), values, _default(attrs, values))


def category_mapper(attrs: Attrs) -> Run:
    """Texts become the numbers beside them, and numbers texts."""
    return _both_ways(objects(texts(attrs, "cats_strings")), ints(attrs, "cats_int64s"), attrs)


def one_hot_encoder(attrs: Attrs) -> Run:
    """A new last axis with a 1 at the element's category."""
    names = texts(attrs, "cats_strings")
    categories = objects(names) if names else ints(attrs, "cats_int64s")
    find, accepts_unknown = _lookup(categories), bool(attrs.get("zeros", 1))

    def run(inputs: Sequence[Any]) -> list[Any]:
        x = np.asarray(inputs[0])
        elements = x if names else x.astype(np.int64)
        places = find(elements.ravel())
        if not accepts_unknown and (places < 0).any():
            unknown = elements.ravel()[places < 0][0]
            raise ValueError(f"one of the {categories.size} categories expected, found {unknown!r}")
        made = np.zeros((places.size, categories.size), np.float32)
        found = np.flatnonzero(places >= 0)
        made[found, places[found]] = 1
        return [made.reshape(*x.shape, categories.size)]

    return run


def _both_ways(names: Array, values: Array, attrs: Attrs) -> Run:
    if names.size != values.size:
        raise ValueError(f"{names.size} texts for {values.size} numbers")
    unknown = np.int64(attrs.get("default_int64", -1))
    forth = _mapped(_lookup(names), values.astype(np.int64), unknown)
    back = _mapped(_lookup(values), names, str(attrs.get("default_string", _UNUSED)))
    return lambda inputs: (forth if inputs[0].dtype.kind in "OUS" else back)(inputs)


def _mapped(find: Lookup, values: Array, default: Any) -> Run:
    table = np.empty(values.size + 1, values.dtype)
    table[:-1], table[-1] = values, default  # position -1 is the default's

    def run(inputs: Sequence[Any]) -> list[Any]:
        x = np.asarray(inputs[0])
        return [table[find(x.ravel())].reshape(x.shape)]

    return run


def _lookup(keys: Array) -> Lookup:
    if keys.dtype.kind == "O":
        known: dict[str, int] = {}
        for place, key in enumerate(keys):
            known.setdefault(text(key), place)
        return lambda x: np.array([known.get(text(v), -1) for v in x.tolist()], np.int64)
    return _sorted_lookup(keys)


def _sorted_lookup(keys: Array) -> Lookup:
    """By bisection; NaN is sorted last and equal to itself. Of equal keys the first counts."""
    ordered, first = np.unique(keys, return_index=True)

    def find(x: Array) -> Array:
        if not ordered.size:
            return np.full(x.shape, -1, np.int64)
        elements = x.astype(ordered.dtype)
        places = np.minimum(np.searchsorted(ordered, elements), ordered.size - 1)
        at = ordered[places]
        same = (at == elements) | ((at != at) & (elements != elements))
        return np.where(same, first[places], -1)

    return find


def _column(attrs: Attrs, name: str) -> Array | None:
    """Keys or values, whichever of their kinds the node has."""
    tensor = attrs.get(f"{name}_tensor")
    if tensor is not None:
        return np.asarray(tensor).ravel()
    if attrs.get(f"{name}_strings") is not None:
        return objects(texts(attrs, f"{name}_strings"))
    for kind, dtype in (("int64s", np.int64), ("floats", np.float32)):
        if attrs.get(f"{name}_{kind}") is not None:
            return numbers(attrs, f"{name}_{kind}", dtype)
    return None


def _default(attrs: Attrs, values: Array) -> Any:
    tensor = attrs.get("default_tensor")
    if tensor is not None and np.size(tensor):
        return np.asarray(tensor).ravel()[0]
    if values.dtype.kind == "O":
        return str(attrs.get("default_string", _UNUSED))
    if values.dtype.kind == "f":
        return values.dtype.type(attrs.get("default_float", -0.0))
    return values.dtype.type(attrs.get("default_int64", -1))


MAKERS: dict[str, Maker] = {
    "CategoryMapper": category_mapper,
    "LabelEncoder": label_encoder,
    "OneHotEncoder": one_hot_encoder,
}
